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

from cores.ssm.config import BEAT_BYTES

# Constants ----------------------------------------------------------------------------------------

ADDRESS_BITS = 32 - log2_int(BEAT_BYTES)

BLOCK_DEPTH = 128 # Beats from which on block RAM takes less than LUT RAM, as synthesis reckons.

# Region -------------------------------------------------------------------------------------------

class Region:
    """Where the memory is: `origin` and `size` in bytes. Raises ValueError unless both are powers of two that align."""
    def __init__(self, origin, size):
        if size < BEAT_BYTES or size & (size - 1) or origin % size:
            raise ValueError(f"memory region must have a size that is a power of two and an origin that is a multiple of it, is "
                f"0x{size:x} bytes at 0x{origin:x}.")
        self.origin = origin//BEAT_BYTES
        self.bits   = log2_int(size//BEAT_BYTES)

    def contains(self, address):
        return address[self.bits:] == (self.origin >> self.bits)


def check_width(port):
    """Raise ValueError unless the port moves a whole beat."""
    width = port.data_width
    if width != 8*BEAT_BYTES:
        raise ValueError(f"data_width of a port must be {8*BEAT_BYTES}, is {width}.")

# Shared Port --------------------------------------------------------------------------------------

class SharedPort(LiteXModule):
    """Several LiteDRAM native ports, one for each user, on one port of the crossbar: all of them read, or all write.

    A user keeps the port until it has no command and all its beats have moved, so each is to pause now and then. A port more
    at the crossbar would cost LUTs at each of the DRAM's banks; to change over costs the memory's latency.

    Commands, and whether one is taken, come from registers: the controller's arbitration is not in the paths of the users.

    Parameters
    ----------
    target : LiteDRAMNativePort.
    most   : beats that may be under way, a power of two.
    """
    def __init__(self, target, most=128):
        self.target = target
        self.most   = most
        self.users  = []

    def get_port(self):
        """A port more."""
        if self.finalized:
            raise RuntimeError("a port of a SharedPort must be asked for before it is finalized.")
        port = LiteDRAMNativePort(self.target.mode, self.target.address_width, self.target.data_width)
        self.users.append(port)
        return port

    def do_finalize(self):
        target = self.target
        if not self.users:
            return

        # # #

        self.buffer = buffer = stream.Buffer(target.cmd.description, pipe_valid=True, pipe_ready=True)
        self.comb += buffer.source.connect(target.cmd)
        if len(self.users) == 1:
            user, = self.users
            self.comb += [
                user.cmd.connect(buffer.sink),
                user.wdata.connect(target.wdata),
                target.rdata.connect(user.rdata),
            ]
            return
        user  = Signal(max=len(self.users))
        beats = Signal(max=self.most + 1) # Of the user, under way.
        asked = Signal()
        moved = Signal()
        full  = beats[-1]
        for n, port in enumerate(self.users):
            self.comb += [
                port.rdata.data.eq(target.rdata.data),
                If(user == n,
                    port.cmd.connect(buffer.sink, omit={"valid", "ready"}),
                    buffer.sink.valid.eq(port.cmd.valid & ~full),
                    port.cmd.ready.eq(buffer.sink.ready & ~full),
                    port.wdata.connect(target.wdata),
                    port.rdata.valid.eq(target.rdata.valid),
                )
            ]
        self.comb += [
            asked.eq(buffer.sink.valid & buffer.sink.ready),
            moved.eq(target.rdata.valid | (target.wdata.valid & target.wdata.ready)),
            target.rdata.ready.eq(1),
        ]
        self.sync += [
            beats.eq(beats + asked - moved),
            If((beats == 0) & ~buffer.sink.valid,
                [If(port.cmd.valid, user.eq(n)) for n, port in enumerate(self.users)]
            )
        ]

# Memory Reader ------------------------------------------------------------------------------------

class MemoryReader(LiteXModule):
    """A beat of data for each address, in order.

    With ``flush`` no address is taken and what still arrives is thrown away; ``idle`` says that nothing is under way.

    Parameters
    ----------
    port   : LiteDRAMNativePort or wishbone.Interface of 128 bits.
    region : :class:`Region`.
    depth  : beats that may be under way; from BLOCK_DEPTH on they lie in block RAM.
    """
    def __init__(self, port, region, depth=BLOCK_DEPTH):
        check_width(port)
        self.sink         = sink   = stream.Endpoint([("address", ADDRESS_BITS)])
        self.source       = source = stream.Endpoint([("data", 8*BEAT_BYTES)])
        self.flush        = Signal()
        self.idle         = Signal()
        self.beat         = Signal() # Pulse: a beat was asked for.
        self.out_of_range = Signal()

        # # #

        inside  = Signal()
        pending = Signal(max=2*depth + 2) # Beats asked for that did not leave yet.
        leave   = Signal()
        self.comb += [
            inside.eq(region.contains(sink.address)),
            self.out_of_range.eq(self.beat & ~inside),
            self.idle.eq(pending == 0),
        ]
        self.sync += pending.eq(pending + self.beat - leave)

        if isinstance(port, LiteDRAMNativePort):
            self.fifo = fifo = stream.SyncFIFO(source.description, depth, buffered=depth >= BLOCK_DEPTH)
            room  = Signal()
            local = sink.address[:region.bits] # LiteDRAM's addresses start at 0.
            self.comb += [
                room.eq(pending < depth),
                port.cmd.valid.eq(sink.valid & ~self.flush & room),
                port.cmd.addr.eq(Mux(inside, local, 0)),
                sink.ready.eq(port.cmd.ready & ~self.flush & room),
                self.beat.eq(port.cmd.valid & port.cmd.ready),
                fifo.sink.valid.eq(port.rdata.valid),
                fifo.sink.data.eq(port.rdata.data),
                port.rdata.ready.eq(1),
            ]
            data = fifo.source
        else:
            self.reader = reader = WishboneDMAReader(port, endianness="big", fifo_depth=depth) # Bytes stay in place.
            self.comb += [
                reader.sink.valid.eq(sink.valid & ~self.flush),
                reader.sink.address.eq(Mux(inside, sink.address, region.origin)),
                sink.ready.eq(reader.sink.ready & ~self.flush),
                self.beat.eq(reader.sink.valid & reader.sink.ready),
            ]
            data = reader.source
        self.comb += [
            source.valid.eq(data.valid & ~self.flush),
            source.data.eq(data.data),
            data.ready.eq(source.ready | self.flush),
            leave.eq(data.valid & data.ready),
        ]

# Memory Writer ------------------------------------------------------------------------------------

class MemoryWriter(LiteXModule):
    """Writes a beat of data to each address, in order; ``done`` pulses when a beat marked ``last`` is in the memory.

    ``idle`` says that nothing is under way. Parameters as for :class:`MemoryReader`.
    """
    def __init__(self, port, region, depth=BLOCK_DEPTH):
        check_width(port)
        self.sink         = stream.Endpoint([("address", ADDRESS_BITS), ("data", 8*BEAT_BYTES)])
        self.done         = Signal()
        self.idle         = Signal()
        self.beat         = Signal() # Pulse: a beat was written.
        self.retired      = Signal() # Pulse: a beat was written, or dropped.
        self.out_of_range = Signal()

        # # #

        # A beat, and whether it lies inside, from registers.
        self.buffer = buffer = stream.Buffer([("address", ADDRESS_BITS), ("data", 8*BEAT_BYTES), ("inside", 1)])
        sink   = buffer.source
        inside = sink.inside
        self.comb += [
            self.sink.connect(buffer.sink),
            buffer.sink.inside.eq(region.contains(self.sink.address)),
            self.out_of_range.eq(sink.valid & ~inside),
        ]

        if isinstance(port, LiteDRAMNativePort):
            # The data waits here until the memory asks for it, three cycles after the command at the earliest. A beat outside
            # goes the same way, to be dropped in order. Whether there is room comes from a register, a cycle late.
            self.fifo = fifo = stream.SyncFIFO([("data", 8*BEAT_BYTES), ("drop", 1)], depth, buffered=depth >= BLOCK_DEPTH)
            room = Signal()
            self.sync += room.eq(fifo.level < depth - 1)
            self.comb += [
                port.cmd.we.eq(1),
                port.cmd.addr.eq(sink.address[:region.bits]),
                port.cmd.valid.eq(sink.valid & inside & room),
                sink.ready.eq((port.cmd.ready | ~inside) & room),
                fifo.sink.valid.eq(sink.valid & sink.ready),
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
                self.idle.eq(~sink.valid & (fifo.level == 0)),
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
