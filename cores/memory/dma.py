#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Memory masters: beats to and from a LiteDRAM native port, or a Wishbone bus where there is no LiteDRAM.

Addresses are byte addresses on the bus, of whole beats: the bits below are not looked at. Beats outside the memory region never
reach the memory: reads are made at its start instead, writes are dropped, and ``out_of_range`` pulses.
"""

from migen import *

from litex.gen import *

from litex.soc.cores.dma import WishboneDMAReader
from litex.soc.interconnect import stream

from litedram.common import LiteDRAMNativePort

from cores.memory.region import ADDRESS_BITS, BLOCK_DEPTH, beat_shift

# DMA Reader ---------------------------------------------------------------------------------------

class DMAReader(LiteXModule):
    """A beat of data for each address, in order.

    With ``flush`` no address is taken and what still arrives is thrown away; ``idle`` says that nothing is under way.

    Parameters
    ----------
    port   : LiteDRAMNativePort or wishbone.Interface, of 128, 256 or 512 bits.
    region : :class:`cores.memory.region.Region`.
    depth  : beats that may be under way; from BLOCK_DEPTH on they lie in block RAM.
    """
    def __init__(self, port, region, depth=BLOCK_DEPTH):
        shift = beat_shift(port)
        self.sink         = sink   = stream.Endpoint([("address", ADDRESS_BITS)])
        self.source       = source = stream.Endpoint([("data", port.data_width)])
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
            local = region.offset(sink.address)[shift:] # LiteDRAM's addresses start at 0, and count beats.
            self.comb += [
                room.eq(pending < depth),
                port.cmd.valid.eq(sink.valid & ~self.flush & room),
                port.cmd.addr.eq(Mux(inside, local, region.base - region.origin >> shift)),
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
                reader.sink.address.eq(Mux(inside, sink.address[shift:], region.base >> shift)),
                sink.ready.eq(reader.sink.ready & ~self.flush),
                self.beat.eq(reader.sink.valid & reader.sink.ready),
            ]
            data = reader.source
        self.comb += [
            source.valid.eq(data.valid & ~self.flush),
            source.data.eq(data.data),
            data.ready.eq(source.ready | self.flush),
        ]
        self.sync += leave.eq(data.valid & data.ready) # A cycle late: the sum is not in the paths of who takes the data.

# DMA Writer ---------------------------------------------------------------------------------------

class DMAWriter(LiteXModule):
    """Writes a beat of data to each address, in order; ``done`` pulses when a beat marked ``last`` is in the memory.

    ``idle`` says that nothing is under way. Parameters as for :class:`DMAReader`.

    With `masked` only those elements of 16 bits are written that ``sink.mask`` has a bit for.
    """
    def __init__(self, port, region, depth=BLOCK_DEPTH, masked=False):
        shift = beat_shift(port)
        width = port.data_width
        data  = [("data", width)] + ([("mask", width//16)] if masked else [])
        self.sink         = stream.Endpoint([("address", ADDRESS_BITS), *data])
        self.done         = Signal()
        self.idle         = Signal()
        self.beat         = Signal() # Pulse: a beat was written.
        self.retired      = Signal() # Pulse: a beat was written, or dropped.
        self.out_of_range = Signal()

        # # #

        # A beat, and whether it lies inside, from registers.
        self.buffer = buffer = stream.Buffer([("address", ADDRESS_BITS), *data, ("inside", 1)])
        sink   = buffer.source
        inside = sink.inside
        def bytes_of(beat):
            """Enables of a beat's bytes."""
            return Cat(*[Replicate(beat.mask[n], 2) for n in range(width//16)]) if masked else 2**(width//8) - 1
        self.comb += [
            self.sink.connect(buffer.sink),
            buffer.sink.inside.eq(region.contains(self.sink.address)),
            self.out_of_range.eq(sink.valid & ~inside),
        ]

        if isinstance(port, LiteDRAMNativePort):
            # The data waits here until the memory asks for it, three cycles after the command at the earliest. A beat outside
            # goes the same way, to be dropped in order. Whether there is room comes from a register, a cycle late.
            self.fifo = fifo = stream.SyncFIFO([*data, ("drop", 1)], depth, buffered=depth >= BLOCK_DEPTH)
            room = Signal()
            self.sync += room.eq(fifo.level < depth - 1)
            self.comb += [
                port.cmd.we.eq(1),
                port.cmd.addr.eq(region.offset(sink.address)[shift:]),
                port.cmd.valid.eq(sink.valid & inside & room),
                sink.ready.eq((port.cmd.ready | ~inside) & room),
                fifo.sink.valid.eq(sink.valid & sink.ready),
                fifo.sink.last.eq(sink.last),
                fifo.sink.data.eq(sink.data),
                fifo.sink.mask.eq(sink.mask) if masked else [],
                fifo.sink.drop.eq(~inside),

                port.wdata.valid.eq(fifo.source.valid & ~fifo.source.drop),
                port.wdata.data.eq(fifo.source.data),
                port.wdata.we.eq(bytes_of(fifo.source)),
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
                port.sel.eq(bytes_of(sink)),
                port.adr.eq(sink.address[shift:]),
                port.dat_w.eq(sink.data),
                sink.ready.eq(port.ack | ~inside),
                self.beat.eq(port.cyc & port.ack),
                self.retired.eq(sink.valid & sink.ready),
                self.done.eq(self.retired & sink.last),
                self.idle.eq(~sink.valid),
            ]
