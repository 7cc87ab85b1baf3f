#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Between memory and the core's streams: what a tile descriptor names, fetched and stored."""

from functools import reduce
from operator import and_

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.bursts import RECORD_BITS, BurstGenerator, StridedBursts, tagged
from cores.memory.convert import BeatsToWords, WordsToBeats
from cores.ssm.inputs import SCALARS_LAYOUT, WORD_BITS
from cores.ssm.layouts import reads_state, tile_layout

from operations.ssm import ROW_ELEMENTS

# Input Unpacker -----------------------------------------------------------------------------------

class InputUnpacker(LiteXModule):
    """x and BC records in beats to the core's three input streams.

    They come in the order in which the core takes them: a token's scalars and x, in one record, then, unless the tile has those of
    the tile before, its B and C. So a word goes to the first of the streams that the core waits for.

    Throughput: a word of 4 elements a cycle.
    """
    def __init__(self, core):
        self.sink = stream.Endpoint([("data", core.data_width)])

        # # #

        scalars, x, bc = core.scalars_sink, core.x_sink, core.bc_sink
        self.words = words = BeatsToWords(core.data_width, WORD_BITS)
        word       = words.source
        padding    = Signal() # The word after the scalars.
        to_scalars = Signal()
        to_x       = Signal()
        to_bc      = Signal()
        self.comb += [
            self.sink.connect(words.sink),
            to_scalars.eq(~padding & scalars.ready),
            to_x.eq(~padding & ~scalars.ready & x.ready),
            to_bc.eq(~padding & ~scalars.ready & ~x.ready & bc.ready),
            scalars.valid.eq(word.valid & to_scalars),
            x.valid.eq(word.valid & to_x),
            bc.valid.eq(word.valid & to_bc),
            Cat(*[getattr(scalars, name) for name, _ in SCALARS_LAYOUT]).eq(word.data),
            x.data.eq(word.data),
            bc.data.eq(word.data),
            word.ready.eq(padding | to_scalars | to_x | to_bc),
        ]
        if core.data_width > 16*ROW_ELEMENTS: # Else records are of whole beats.
            self.comb += words.end.eq((to_x & core.inputs.x_end) | (to_bc & core.inputs.bc_end))
        self.sync += If(word.valid & word.ready, padding.eq(to_scalars))

# Tile DMA -----------------------------------------------------------------------------------------

class TileDMA(LiteXModule):
    """Moves a tile's records between memory and an :class:`cores.ssm.core.SSMCore`, whose streams it connects.

    ::

        descriptor -+-> StridedBursts (x, BC) -> input_reader -> InputUnpacker -> scalars_sink, x_sink, bc_sink of the core
                    +-> BurstGenerator        -> state_reader ------------------> state_sink
                    +-> BurstGenerator        -> state_writer <------------------ state_source
                    +-> StridedBursts (y)     -> y_writer     <- WordsToBeats <-- y_source

    Each of the four works through the descriptors at its own pace: the next tile is loaded while the last one is
    stored. The four masters are given by the caller, who keeps them out of the reset of this module.

    A descriptor may bear a tag of `tag_bits`, which goes with each address to the masters.

    ``x_stride``, ``bc_stride`` and ``y_stride`` lead from a token's record to the next one's, over ALIGNMENT. ``done`` pulses for
    each tile whose y and state are in memory.

    Parameters
    ----------
    masters : {"state_reader", "input_reader", "state_writer", "y_writer": memory masters as in :mod:`cores.memory`}.
    depth   : descriptors that wait.
    """
    def __init__(self, core, masters, depth, tag_bits=0):
        self.core       = core
        self.tag_bits   = tag_bits
        self.x_stride   = Signal(RECORD_BITS)
        self.bc_stride  = Signal(RECORD_BITS)
        self.y_stride   = Signal(RECORD_BITS)

        self.descriptor     = descriptor = stream.Endpoint(tagged(tile_layout(core.config), tag_bits))
        self.done           = Signal()
        self.done_interrupt = Signal() # With done: the tile asked for an interrupt.

        # # #

        # Addresses, each behind a queue of its own. -----------------------------------------------
        sizes = core.sizes
        shift = log2_int(core.data_width//8)
        self.inputs  = inputs  = StridedBursts({"x": False, "bc": True}, shift, max(len(sizes.x_beats), len(sizes.bc_beats)), tag_bits)
        self.outputs = outputs = StridedBursts({"y": False}, shift, len(sizes.y_beats), tag_bits)
        self.comb += [
            inputs.length_x.eq(sizes.x_beats),
            inputs.length_bc.eq(sizes.bc_beats),
            inputs.stride_x.eq(self.x_stride),
            inputs.stride_bc.eq(self.bc_stride),
            outputs.length_y.eq(sizes.y_beats),
            outputs.stride_y.eq(self.y_stride),
        ]
        wanted = Signal(16) # Tokens whose y is wanted.
        self.comb += wanted.eq(descriptor.tokens - descriptor.first_token)
        self.queues = []
        self.queue({"x": descriptor.x, "bc": descriptor.bc, "count": descriptor.tokens, "omit_bc": descriptor.same_bc},
            inputs.sink, depth)
        self.queue({"y": descriptor.y, "count": wanted}, outputs.sink, depth)
        state_in  = self.state_addresses(descriptor.state_in,  reads_state(descriptor), shift, depth)
        state_out = self.state_addresses(descriptor.state_out, ~descriptor.no_store,    shift, depth)

        # Data. Sums of addresses end in registers. ------------------------------------------------
        self.unpacker = unpacker = InputUnpacker(core)
        self.y_beats  = y_beats  = WordsToBeats(16*ROW_ELEMENTS, core.data_width)
        self.comb += core.y_source.connect(y_beats.sink)
        self.read(state_in,        masters["state_reader"], core.state_sink)
        self.read(inputs.source,   masters["input_reader"], unpacker.sink)
        self.write(state_out,      masters["state_writer"], core.state_source)
        self.write(outputs.source, masters["y_writer"],     y_beats.source)

        self.retire_tiles(masters, depth)
        self.comb += [
            descriptor.ready.eq(reduce(and_, (queue.sink.ready for queue in self.queues))),
            [queue.sink.valid.eq(descriptor.valid & descriptor.ready) for queue in self.queues],
        ]

    def queue(self, fields, sink, depth):
        """Queue these fields of each descriptor, {name in the sink: Signal}, and the tag, for a sink."""
        if self.tag_bits:
            fields = fields | {"tag": self.descriptor.tag}
        queue = stream.SyncFIFO([(name, len(signal)) for name, signal in fields.items()], depth)
        self.submodules += queue
        self.queues.append(queue)
        self.comb += [getattr(queue.sink, name).eq(signal) for name, signal in fields.items()]
        if sink is not None:
            self.comb += queue.source.connect(sink)
        return queue.source

    def state_addresses(self, record, wanted, shift, depth):
        """Stream of a head tile's addresses, from its record on, for each descriptor whose tile is wanted."""
        tile  = self.queue({"record": record, "wanted": wanted}, None, depth)
        burst = BurstGenerator(shift, len(self.core.sizes.tile_beats))
        self.submodules += burst
        self.comb += [
            burst.sink.valid.eq(tile.valid & tile.wanted),
            burst.sink.record.eq(tile.record),
            burst.sink.length.eq(self.core.sizes.tile_beats),
            tile.ready.eq(burst.sink.ready | ~tile.wanted),
        ]
        if not self.tag_bits:
            return burst.source
        source = stream.Endpoint(tagged(burst.source.description.payload_layout, self.tag_bits))
        self.comb += burst.source.connect(source), source.tag.eq(tile.tag)
        return source

    def buffered(self, addresses):
        buffer = stream.Buffer(addresses.description)
        self.submodules += buffer
        self.comb += addresses.connect(buffer.sink)
        return buffer.source

    def read(self, addresses, reader, sink):
        self.comb += [
            self.buffered(addresses).connect(reader.sink),
            reader.source.connect(sink),
        ]

    def write(self, addresses, writer, source):
        address = self.buffered(addresses)
        self.comb += [
            writer.sink.valid.eq(address.valid & source.valid),
            writer.sink.last.eq(address.last),
            writer.sink.address.eq(address.address),
            writer.sink.data.eq(source.data),
            writer.sink.tag.eq(address.tag) if self.tag_bits else [],
            address.ready.eq(writer.sink.ready & source.valid),
            source.ready.eq(writer.sink.ready & address.valid),
        ]

    def retire_tiles(self, masters, depth):
        """A tile retires when its y and its state are in memory."""
        descriptor = self.descriptor
        retire = stream.SyncFIFO([("no_store", 1), ("interrupt", 1)], depth)
        self.submodules += retire
        self.queues.append(retire)
        states = Signal(max=4*depth) # Tiles whose state is in memory, or was not stored, and that did not retire yet.
        outs   = Signal(max=4*depth)
        cores  = Signal(max=4*depth)
        self.comb += [
            retire.sink.no_store.eq(descriptor.no_store),
            retire.sink.interrupt.eq(descriptor.interrupt),
            self.done.eq(retire.source.valid & (outs != 0) & (cores != 0) & (retire.source.no_store | (states != 0))),
            self.done_interrupt.eq(retire.source.interrupt),
            retire.source.ready.eq(self.done),
        ]
        self.sync += [
            outs.eq(outs + masters["y_writer"].done + self.outputs.empty - self.done),
            cores.eq(cores + self.core.stored - self.done),
            states.eq(states + masters["state_writer"].done - (self.done & ~retire.source.no_store)),
        ]
