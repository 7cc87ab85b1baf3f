#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From tile descriptors to beats: the address side of the core's four data streams."""

from functools import reduce
from operator import and_

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.bursts import BurstGenerator
from cores.memory.region import ADDRESS_BITS

# Layouts ------------------------------------------------------------------------------------------

# A descriptor: one head tile. Addresses in beats.
DESCRIPTOR_LAYOUT = [
    ("x",           ADDRESS_BITS), # x record of token 0.
    ("bc",          ADDRESS_BITS), # BC record of token 0.
    ("y",           ADDRESS_BITS), # y record of token 0.
    ("state_in",    ADDRESS_BITS),
    ("state_out",   ADDRESS_BITS),
    ("tokens",      16),
    ("first_token", 16),
    ("zero_state",   1),
    ("no_store",     1),
    ("same_bc",      1),
    ("interrupt",    1),
]


def fields(*names, tag_bits=0):
    """The part of DESCRIPTOR_LAYOUT that a consumer needs, and the tag."""
    return tagged([field for field in DESCRIPTOR_LAYOUT if field[0] in names], tag_bits)


def tagged(layout, tag_bits):
    """A layout with a tag of so many bits; without any, as it is."""
    return layout + ([("tag", tag_bits)] if tag_bits else [])

# State Addresses ----------------------------------------------------------------------------------

class StateAddresses(LiteXModule):
    """Addresses of a head tile's beats, for each descriptor; none where ``omit`` is set. With its tag, if there is one."""
    def __init__(self, address_field, omit_field, length_bits, tag_bits=0):
        self.beats  = Signal(length_bits)
        self.sink   = sink = stream.Endpoint(fields(address_field, omit_field, tag_bits=tag_bits))
        self.source = stream.Endpoint(tagged([("address", ADDRESS_BITS)], tag_bits))

        # # #

        self.burst = burst = BurstGenerator(length_bits)
        omit      = getattr(sink, omit_field)
        last_beat = Signal(length_bits)
        self.comb += [
            burst.sink.valid.eq(sink.valid & ~omit),
            burst.sink.address.eq(getattr(sink, address_field)),
            burst.sink.last_beat.eq(last_beat),
            burst.source.connect(self.source),
            sink.ready.eq(burst.sink.ready | omit),
            self.source.tag.eq(sink.tag) if tag_bits else [],
        ]
        self.sync += last_beat.eq(self.beats - 1)

# Input Addresses ----------------------------------------------------------------------------------

class InputAddresses(LiteXModule):
    """Addresses of a tile's inputs: for each token its x record, then, but for ``same_bc``, its BC record. With the tag."""
    def __init__(self, length_bits, tag_bits=0):
        self.x_beats   = Signal(length_bits)
        self.bc_beats  = Signal(length_bits)
        self.x_stride  = Signal(ADDRESS_BITS)
        self.bc_stride = Signal(ADDRESS_BITS)
        self.sink      = sink = stream.Endpoint(fields("x", "bc", "tokens", "same_bc", tag_bits=tag_bits))
        self.source    = stream.Endpoint(tagged([("address", ADDRESS_BITS)], tag_bits))

        # # #

        self.burst = burst = BurstGenerator(length_bits)
        x       = Signal(ADDRESS_BITS)
        bc      = Signal(ADDRESS_BITS)
        tokens  = Signal(16)
        same    = Signal()
        x_last  = Signal(length_bits)
        bc_last = Signal(length_bits)
        next_x, next_bc, next_token = Signal(), Signal(), Signal()
        self.comb += burst.source.connect(self.source)
        if tag_bits:
            self.sync += If(sink.ready, self.source.tag.eq(sink.tag))
        self.sync += [
            x_last.eq(self.x_beats - 1),
            bc_last.eq(self.bc_beats - 1),
            If(next_x,     x.eq(x           + Mux(sink.ready, sink.x,      self.x_stride))),
            If(next_bc,    bc.eq(bc         + Mux(sink.ready, sink.bc,     self.bc_stride))),
            If(next_token, tokens.eq(tokens + Mux(sink.ready, sink.tokens, 2**16 - 1))),
        ]
        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE", # Sums from 0: a choice of what is added takes less than one of sums.
            NextValue(x,      0),
            NextValue(bc,     0),
            NextValue(tokens, 0),
            If(sink.valid, NextState("LOAD"))
        )
        fsm.act("LOAD",
            sink.ready.eq(1),
            next_x.eq(1),
            next_bc.eq(1),
            next_token.eq(1),
            NextValue(same, sink.same_bc),
            NextState("X")
        )
        fsm.act("X",
            burst.sink.valid.eq(1),
            burst.sink.address.eq(x),
            burst.sink.last_beat.eq(x_last),
            If(burst.sink.ready,
                next_x.eq(1),
                If(same,
                    next_token.eq(1),
                    If(tokens == 1, NextState("IDLE"))
                ).Else(
                    NextState("BC")
                )
            )
        )
        fsm.act("BC",
            burst.sink.valid.eq(1),
            burst.sink.address.eq(bc),
            burst.sink.last_beat.eq(bc_last),
            If(burst.sink.ready,
                next_bc.eq(1),
                next_token.eq(1),
                If(tokens == 1, NextState("IDLE")).Else(NextState("X"))
            )
        )

# Output Addresses ---------------------------------------------------------------------------------

class OutputAddresses(LiteXModule):
    """Addresses of a tile's y records, from first_token on; ``last`` with the tile's last beat.

    ``empty`` pulses for a tile of which no y is wanted. With the tag.
    """
    def __init__(self, length_bits, tag_bits=0):
        self.beats  = Signal(length_bits)
        self.stride = Signal(ADDRESS_BITS)
        self.sink   = sink   = stream.Endpoint(fields("y", "tokens", "first_token", tag_bits=tag_bits))
        self.source = source = stream.Endpoint(tagged([("address", ADDRESS_BITS)], tag_bits))
        self.empty  = Signal()

        # # #

        self.burst = burst = BurstGenerator(length_bits)
        y         = Signal(ADDRESS_BITS)
        skip      = Signal(16)
        tokens    = Signal(16)
        last_beat = Signal(length_bits)
        next_token, next_skip = Signal(), Signal()
        self.sync += [
            last_beat.eq(self.beats - 1),
            If(next_token,
                y.eq(y           + Mux(sink.ready, sink.y,      self.stride)),
                tokens.eq(tokens + Mux(sink.ready, sink.tokens, 2**16 - 1)),
            ),
            If(next_skip, skip.eq(skip + Mux(sink.ready, sink.first_token, 2**16 - 1))),
        ]
        if tag_bits:
            self.sync += If(sink.ready, source.tag.eq(sink.tag))
        self.comb += [
            burst.sink.address.eq(y),
            burst.sink.last_beat.eq(last_beat),
            burst.source.connect(source, omit={"last"}),
            source.last.eq(burst.source.last & (tokens == 1)),
        ]
        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE", # As above.
            NextValue(y,      0),
            NextValue(tokens, 0),
            NextValue(skip,   0),
            If(sink.valid, NextState("LOAD"))
        )
        fsm.act("LOAD",
            sink.ready.eq(1),
            next_token.eq(1),
            next_skip.eq(1),
            NextState("SKIP")
        )
        fsm.act("SKIP",
            If(tokens == 0,
                self.empty.eq(1),
                NextState("IDLE")
            ).Elif(skip == 0,
                NextState("RUN")
            ).Else(
                next_token.eq(1),
                next_skip.eq(1)
            )
        )
        fsm.act("RUN",
            burst.sink.valid.eq(1),
            If(burst.sink.ready,
                next_token.eq(1),
                If(tokens == 1, NextState("IDLE"))
            )
        )

# Tile DMA -----------------------------------------------------------------------------------------

class TileDMA(LiteXModule):
    """Moves a tile's records between memory and core.

    ::

        descriptor -+-> InputAddresses  -> DMAReader -> input_source (to the core)
                    +-> StateAddresses  -> DMAReader -> state_source (to the core)
                    +-> StateAddresses  -> DMAWriter <- state_sink   (from the core)
                    +-> OutputAddresses -> DMAWriter <- y_sink       (from the core)

    Each of the four works through the descriptors at its own pace: the next tile is loaded while the last one is
    stored. The four masters are given by the caller, who keeps them out of the reset of this module.

    A descriptor may bear a tag of `tag_bits`, which goes with each address to the masters.

    ``tile_beats``, ``x_beats``, ``bc_beats`` and ``y_beats`` are the sizes of the records; ``x_stride``, ``bc_stride``
    and ``y_stride`` lead from a token's record to the next one's. All in beats. ``done`` pulses for each tile whose y
    and state are in memory.
    """
    def __init__(self, config, state_reader, input_reader, state_writer, y_writer, depth, tag_bits=0):
        tile_bits   = bits_for(config.max_headdim*config.max_d_state//8)
        record_bits = bits_for(max(config.max_headdim//8 + 2, 2*config.max_d_state//8))
        self.tile_beats = Signal(tile_bits)
        self.x_beats    = Signal(record_bits)
        self.bc_beats   = Signal(record_bits)
        self.y_beats    = Signal(record_bits)
        self.x_stride   = Signal(ADDRESS_BITS)
        self.bc_stride  = Signal(ADDRESS_BITS)
        self.y_stride   = Signal(ADDRESS_BITS)

        self.descriptor   = descriptor = stream.Endpoint(tagged(DESCRIPTOR_LAYOUT, tag_bits))
        self.state_source = stream.Endpoint([("data", 128)])
        self.input_source = stream.Endpoint([("data", 128)])
        self.state_sink   = state_sink = stream.Endpoint([("data", 128)])
        self.y_sink       = y_sink     = stream.Endpoint([("data", 128)])
        self.stored       = Signal() # From the core: it has done with a tile.
        self.done         = Signal()
        self.done_interrupt = Signal() # With done: the tile asked for an interrupt.

        # # #

        # Addresses, each behind a queue of its own. -----------------------------------------------
        self.state_in  = state_in  = StateAddresses("state_in",  "zero_state", tile_bits, tag_bits)
        self.state_out = state_out = StateAddresses("state_out", "no_store",   tile_bits, tag_bits)
        self.inputs    = inputs    = InputAddresses(record_bits, tag_bits)
        self.outputs   = outputs   = OutputAddresses(record_bits, tag_bits)
        self.comb += [
            state_in.beats.eq(self.tile_beats),
            state_out.beats.eq(self.tile_beats),
            inputs.x_beats.eq(self.x_beats),
            inputs.bc_beats.eq(self.bc_beats),
            inputs.x_stride.eq(self.x_stride),
            inputs.bc_stride.eq(self.bc_stride),
            outputs.beats.eq(self.y_beats),
            outputs.stride.eq(self.y_stride),
        ]
        fifos = []
        for consumer in (state_in, state_out, inputs, outputs):
            layout = consumer.sink.description.payload_layout
            fifo   = stream.SyncFIFO(layout, depth)
            self.submodules += fifo
            self.comb += [
                [getattr(fifo.sink, name).eq(getattr(descriptor, name)) for name, _ in layout],
                fifo.source.connect(consumer.sink),
            ]
            fifos.append(fifo)
        self.retire = retire = stream.SyncFIFO(fields("no_store", "interrupt"), depth)
        self.comb += [
            retire.sink.no_store.eq(descriptor.no_store),
            retire.sink.interrupt.eq(descriptor.interrupt),
        ]
        fifos.append(retire)
        self.comb += [
            descriptor.ready.eq(reduce(and_, (fifo.sink.ready for fifo in fifos))),
            [fifo.sink.valid.eq(descriptor.valid & descriptor.ready) for fifo in fifos],
        ]

        # Data. Sums of addresses end in registers. ------------------------------------------------
        def buffered(addresses):
            buffer = stream.Buffer(addresses.source.description)
            self.submodules += buffer
            self.comb += addresses.source.connect(buffer.sink)
            return buffer.source

        for addresses, reader, source in (
            (state_in, state_reader, self.state_source),
            (inputs,   input_reader, self.input_source)):
            self.comb += [
                buffered(addresses).connect(reader.sink),
                reader.source.connect(source),
            ]
        for addresses, writer, sink in (
            (state_out, state_writer, state_sink),
            (outputs,   y_writer,     y_sink)):
            address = buffered(addresses)
            self.comb += [
                writer.sink.valid.eq(address.valid & sink.valid),
                writer.sink.last.eq(address.last),
                writer.sink.address.eq(address.address),
                writer.sink.data.eq(sink.data),
                writer.sink.tag.eq(address.tag) if tag_bits else [],
                address.ready.eq(writer.sink.ready & sink.valid),
                sink.ready.eq(writer.sink.ready & address.valid),
            ]

        # A tile retires when its y and its state are in memory. -----------------------------------
        states  = Signal(max=4*depth) # Tiles whose state is in memory, or was not stored, and that did not retire yet.
        outs    = Signal(max=4*depth)
        cores   = Signal(max=4*depth)
        y_done  = y_writer.done
        self.comb += [
            self.done.eq(retire.source.valid & (outs != 0) & (cores != 0) & (retire.source.no_store | (states != 0))),
            self.done_interrupt.eq(retire.source.interrupt),
            retire.source.ready.eq(self.done),
        ]
        self.sync += [
            outs.eq(outs + y_done + outputs.empty - self.done),
            cores.eq(cores + self.stored - self.done),
            states.eq(states + state_writer.done - (self.done & ~retire.source.no_store)),
        ]
