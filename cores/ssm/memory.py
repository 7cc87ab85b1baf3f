#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Memory masters: beats to and from a LiteDRAM native port, or a Wishbone bus where there is no LiteDRAM.

Addresses are those of the bus, in beats (bytes/16). Beats outside the memory region never reach the memory: reads are
made at its start instead, writes are dropped, and ``out_of_range`` pulses.
"""

from migen import *

from litex.gen import *

from litex.soc.cores.dma import WishboneDMAReader
from litex.soc.interconnect import stream

from litedram.common import LiteDRAMNativePort
from litedram.frontend.dma import LiteDRAMDMAReader

from cores.ssm.config import BEAT_BYTES

# Constants ----------------------------------------------------------------------------------------

ADDRESS_BITS = 32 - log2_int(BEAT_BYTES)

# Region -------------------------------------------------------------------------------------------

class Region:
    """Where the memory is: `origin` and `size` in bytes. Raises ValueError unless both are powers of two that align."""
    def __init__(self, origin, size):
        if size < BEAT_BYTES or size & (size - 1) or origin % size:
            raise ValueError(f"memory region at 0x{origin:x} of 0x{size:x} bytes is not allowed: "
                "a size that is a power of two and an origin that is a multiple of it are.")
        self.origin = origin//BEAT_BYTES
        self.bits   = log2_int(size//BEAT_BYTES)

    def contains(self, address):
        return address[self.bits:] == (self.origin >> self.bits)


def check_width(port):
    """Raise ValueError unless the port moves a whole beat."""
    width = port.data_width
    if width != 8*BEAT_BYTES:
        raise ValueError(f"port data_width = {width} is not allowed: {8*BEAT_BYTES} is.")

class CommandSkid(LiteXModule):
    """A LiteDRAM native port, ``port``, in front of another, ``target``: whether a command is taken comes from a register, so that
    the controller's arbitration is not in the paths of those who wait for it. No cycle is added."""
    def __init__(self, target):
        self.port = port = LiteDRAMNativePort(target.mode, target.address_width, target.data_width)

        # # #

        self.skid = skid = stream.Buffer(port.cmd.description, pipe_valid=False, pipe_ready=True)
        self.comb += [
            port.cmd.connect(skid.sink),
            skid.source.connect(target.cmd),
            port.wdata.connect(target.wdata),
            target.rdata.connect(port.rdata),
        ]

# Memory Reader ------------------------------------------------------------------------------------

class MemoryReader(LiteXModule):
    """A beat of data for each address, in order.

    With ``flush`` no address is taken and what still arrives is thrown away; ``idle`` says that nothing is under way.

    Parameters
    ----------
    port   : LiteDRAMNativePort or wishbone.Interface of 128 bits.
    region : :class:`Region`.
    depth  : beats that may be under way.
    """
    def __init__(self, port, region, depth=32):
        check_width(port)
        self.sink         = sink   = stream.Endpoint([("address", ADDRESS_BITS)])
        self.source       = source = stream.Endpoint([("data", 8*BEAT_BYTES)])
        self.flush        = Signal()
        self.idle         = Signal()
        self.beat         = Signal() # Pulse: a beat was asked for.
        self.out_of_range = Signal()

        # # #

        native = isinstance(port, LiteDRAMNativePort)
        if native:
            self.skid   = CommandSkid(port)
            port        = self.skid.port
            self.reader = reader = LiteDRAMDMAReader(port, fifo_depth=depth)
        else:
            self.reader = reader = WishboneDMAReader(port, endianness="big", fifo_depth=depth) # Bytes stay in place.
        inside  = Signal()
        pending = Signal(max=2*depth + 2)
        local   = sink.address[:region.bits] # LiteDRAM's addresses start at 0.
        self.comb += [
            inside.eq(region.contains(sink.address)),
            reader.sink.valid.eq(sink.valid & ~self.flush),
            reader.sink.address.eq(Mux(inside, local, 0) + (0 if native else region.origin)),
            sink.ready.eq(reader.sink.ready & ~self.flush),
            self.beat.eq(reader.sink.valid & reader.sink.ready),
            self.out_of_range.eq(self.beat & ~inside),
            source.valid.eq(reader.source.valid & ~self.flush),
            source.data.eq(reader.source.data),
            reader.source.ready.eq(source.ready | self.flush),
            self.idle.eq(pending == 0),
        ]
        self.sync += pending.eq(pending + self.beat - (reader.source.valid & reader.source.ready))

# Memory Writer ------------------------------------------------------------------------------------

class MemoryWriter(LiteXModule):
    """Writes a beat of data to each address, in order; ``done`` pulses when a beat marked ``last`` is in the memory.

    ``idle`` says that nothing is under way. Parameters as for :class:`MemoryReader`.
    """
    def __init__(self, port, region, depth=16):
        check_width(port)
        self.sink         = sink = stream.Endpoint([("address", ADDRESS_BITS), ("data", 8*BEAT_BYTES)])
        self.done         = Signal()
        self.idle         = Signal()
        self.beat         = Signal() # Pulse: a beat was written.
        self.retired      = Signal() # Pulse: a beat was written, or dropped.
        self.out_of_range = Signal()

        # # #

        inside = Signal()
        self.comb += [
            inside.eq(region.contains(sink.address)),
            self.out_of_range.eq(sink.valid & ~inside),
        ]

        if isinstance(port, LiteDRAMNativePort):
            self.skid = CommandSkid(port)
            port      = self.skid.port
            # The data waits here until the memory asks for it. A beat outside goes the same way, to be dropped in order.
            self.fifo = fifo = stream.SyncFIFO([("data", 8*BEAT_BYTES), ("drop", 1)], depth)
            self.comb += [
                port.cmd.we.eq(1),
                port.cmd.addr.eq(sink.address[:region.bits]),
                port.cmd.valid.eq(sink.valid & inside & fifo.sink.ready),
                sink.ready.eq((port.cmd.ready | ~inside) & fifo.sink.ready),
                fifo.sink.valid.eq(sink.valid & (port.cmd.ready | ~inside)),
                fifo.sink.last.eq(sink.last),
                fifo.sink.data.eq(sink.data),
                fifo.sink.drop.eq(~inside),

                port.wdata.valid.eq(fifo.source.valid & ~fifo.source.drop),
                port.wdata.data.eq(fifo.source.data),
                port.wdata.we.eq(2**BEAT_BYTES - 1),
                fifo.source.ready.eq(port.wdata.ready | fifo.source.drop),
                self.beat.eq(port.wdata.valid & port.wdata.ready),
                self.retired.eq(fifo.source.valid & fifo.source.ready),
                self.done.eq(self.retired & fifo.source.last),
                self.idle.eq(~fifo.source.valid),
            ]
        else:
            self.comb += [
                port.cyc.eq(sink.valid & inside),
                port.stb.eq(sink.valid & inside),
                port.we.eq(1),
                port.sel.eq(2**BEAT_BYTES - 1),
                port.adr.eq(sink.address),
                port.dat_w.eq(sink.data),
                sink.ready.eq(port.ack | ~inside),
                self.beat.eq(port.cyc & port.ack),
                self.retired.eq(sink.valid & sink.ready),
                self.done.eq(self.retired & sink.last),
                self.idle.eq(~sink.valid),
            ]
