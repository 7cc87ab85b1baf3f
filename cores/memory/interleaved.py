#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Memory masters that open the next DRAM page while the present one is still in use.

A LiteDRAM port has commands in one bank at a time, so a lone port that streams through memory waits at each page for
the next bank to open its row. Here the pages go to two ports in turn: the second port's commands reach their bank while
those of the first still queue in theirs.
"""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.dma import DMAReader, DMAWriter
from cores.memory.region import ADDRESS_BITS, beat_shift

# Constants ----------------------------------------------------------------------------------------

UNDER_WAY = 64 # Beats.

# Interleaved Reader -------------------------------------------------------------------------------------

class InterleavedReader(LiteXModule):
    """A :class:`cores.memory.dma.DMAReader` on several ports, page by page in turn.

    ::

                      +-> DMAReader 0 -+
        addresses ----+                   +-> data, in the order of the addresses
              |       +-> DMAReader 1 -+     ^
              +-> FIFO: which reader -----------+

    Parameters
    ----------
    ports      : LiteDRAM native ports, a power of two of them.
    region     : :class:`cores.memory.region.Region`.
    page_beats : beats of a page (the row of a bank), a power of two.
    """
    def __init__(self, ports, region, page_beats):
        self.sink   = sink   = stream.Endpoint([("address", ADDRESS_BITS)])
        self.source = source = stream.Endpoint([("data", ports[0].data_width)])
        self.flush  = Signal()
        self.idle   = Signal()
        self.beat   = Signal(bits_for(len(ports)))
        self.out_of_range = Signal()

        # # #

        readers = [DMAReader(port, region) for port in ports]
        self.submodules += readers
        bits   = log2_int(len(ports))
        page   = beat_shift(ports[0]) + log2_int(page_beats)
        choice = sink.address[page:page + bits]
        self.order = order = ResetInserter()(stream.SyncFIFO([("choice", bits)], UNDER_WAY))
        self.next  = next  = ResetInserter()(stream.Buffer([("choice", bits)]))
        self.data  = data  = ResetInserter()(stream.Buffer(source.description))
        self.comb += [
            order.reset.eq(self.flush),
            order.sink.choice.eq(choice),
            order.source.connect(next.sink),
            next.reset.eq(self.flush),
            next.source.ready.eq(data.sink.valid & data.sink.ready),
            data.reset.eq(self.flush),
            data.source.connect(source),
            self.beat.eq(sum((reader.beat for reader in readers), Constant(0))),
        ]
        room = Signal() # A cycle late.
        self.sync += room.eq(order.level < UNDER_WAY - 1)
        idle, stray = 1, 0
        for n, reader in enumerate(readers):
            self.comb += [
                reader.flush.eq(self.flush),
                reader.sink.address.eq(sink.address),
                If(choice == n,
                    reader.sink.valid.eq(sink.valid & room),
                    sink.ready.eq(reader.sink.ready & room),
                    order.sink.valid.eq(sink.valid & reader.sink.ready & room),
                ),
                If(next.source.valid & (next.source.choice == n),
                    data.sink.valid.eq(reader.source.valid),
                    data.sink.data.eq(reader.source.data),
                    reader.source.ready.eq(data.sink.ready),
                ),
            ]
            idle, stray = idle & reader.idle, stray | reader.out_of_range
        self.comb += [
            self.idle.eq(idle),
            self.out_of_range.eq(stray),
        ]

# Interleaved Writer -------------------------------------------------------------------------------------

class InterleavedWriter(LiteXModule):
    """A :class:`cores.memory.dma.DMAWriter` on several ports, page by page in turn. Parameters as for InterleavedReader.

    ``done`` pulses when the beat marked ``last`` and all before it are in the memory.
    """
    def __init__(self, ports, region, page_beats):
        self.sink = sink = stream.Endpoint([("address", ADDRESS_BITS), ("data", ports[0].data_width)])
        self.done = Signal()
        self.idle = Signal()
        self.beat = Signal(bits_for(len(ports)))
        self.out_of_range = Signal()

        # # #

        writers = [DMAWriter(port, region) for port in ports]
        self.submodules += writers
        bits   = log2_int(len(ports))
        page   = beat_shift(ports[0]) + log2_int(page_beats)
        choice = sink.address[page:page + bits]
        self.order = order = stream.SyncFIFO([("choice", bits)], UNDER_WAY)
        room = Signal() # A cycle late.
        self.sync += room.eq(order.level < UNDER_WAY - 1)
        self.comb += [
            order.sink.choice.eq(choice),
            order.sink.last.eq(sink.last),
            order.sink.valid.eq(sink.valid & sink.ready),
            self.idle.eq(~sink.valid & ~order.source.valid),
            self.beat.eq(sum((writer.beat for writer in writers), Constant(0))),
            self.done.eq(order.source.valid & order.source.ready & order.source.last),
        ]
        stray = 0
        for n, writer in enumerate(writers):
            retired = Signal(max=UNDER_WAY + 1) # Beats of this port that are done and not yet accounted for.
            retire  = Signal()
            self.comb += [
                writer.sink.address.eq(sink.address),
                writer.sink.data.eq(sink.data),
                If(choice == n,
                    writer.sink.valid.eq(sink.valid & room),
                    sink.ready.eq(writer.sink.ready & room),
                ),
                retire.eq(order.source.valid & (order.source.choice == n) & (retired != 0)),
                If(retire, order.source.ready.eq(1)),
            ]
            self.sync += retired.eq(retired + writer.retired - retire)
            stray = stray | writer.out_of_range
        self.comb += self.out_of_range.eq(stray)
