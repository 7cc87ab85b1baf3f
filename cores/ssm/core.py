#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM core: streams in, streams out, no bus."""

from functools import reduce
from operator import and_

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import delay
from cores.memory.region import BLOCK_DEPTH
from cores.ssm.datapath import Datapath
from cores.ssm.inputs import InputBuffer
from cores.ssm.resident import ResidentTiles
from cores.ssm.sequencer import Sequencer
from cores.ssm.tile import TileBanks

from operations.config import BEAT_ELEMENTS

# Layouts ------------------------------------------------------------------------------------------

def command_layout(config):
    """Of a head tile's command."""
    layout = [
        ("tokens",      16), # T >= 1.
        ("first_token", 16), # y is emitted from this token on.
        ("zero_state",   1), # Start from zeros; nothing is taken from state_sink.
        ("no_store",     1), # Nothing is given to state_source.
        ("same_bc",      1), # B and C are those of the tile before, of as many tokens (4 at most); only x records come.
    ]
    if config.resident_tiles:
        layout += [
            ("resident", 1),                                 # Take the state as it is on chip; nothing from state_sink.
            ("tile", bits_for(config.resident_tiles - 1)),   # Where on chip it lies, or comes to lie.
        ]
    if config.stochastic_rounding:
        layout += [("seed", 32)] # Of the tile's random bits: token t has those of seed + t.
    return layout

# Row Gatherer -------------------------------------------------------------------------------------

class Packer(LiteXModule):
    """y elements to beats of 8, the last one of a token padded with zeros. Never stalls; one element a cycle."""
    def __init__(self):
        self.valid  = Signal()
        self.last   = Signal()
        self.data   = Signal(16)
        self.source_valid = Signal()
        self.source_last  = Signal()
        self.source_data  = Signal(16*BEAT_ELEMENTS, reset_less=True)

        # # #

        count = Signal(max=BEAT_ELEMENTS)
        self.sync += [
            self.source_valid.eq(self.valid & (self.last | (count == BEAT_ELEMENTS - 1))),
            self.source_last.eq(self.last),
            If(self.valid,
                count.eq(Mux(self.last, 0, count + 1)),
                If(count == 0, self.source_data.eq(0)),
                Case(count, {n: self.source_data[16*n:16*(n + 1)].eq(self.data) for n in range(BEAT_ELEMENTS)}),
            )
        ]

# SSM Core -----------------------------------------------------------------------------------------

class SSMCore(LiteXModule):
    """The SSM block on head tiles: for each tile T tokens of ``h = dA*h + dt*x*B``, ``y = sum(h*C) + D*x``.

    ::

        command ----------+-> Sequencer ---------------------------------+
                          |       | vectors                              |
        state_sink ---> TileBanks -- state -> Datapath - new_state -> TileBanks ---> state_source
        input_sink -> InputBuffer -- x, dt, dA, D, B, C -^    |
                                                              +-- y -> Packer -> FIFO -> y_source

    Streams of 128-bit beats; contents as in :class:`operations.ssm.Geometry`:

    ============ ====== ================================================================
    command      sink   one a tile, see command_layout
    state_sink   sink   head tiles, except those that start from zeros
    input_sink   sink   for each tile, for each token: its x record, then (without same_bc) its BC record
    state_source source head tiles, except those not stored; last ends a tile
    y_source     source y records, for tokens from first_token on; last ends a record
    ============ ====== ================================================================

    ``headdim`` and ``d_state`` are the geometry; they may change only while the core is idle, and the first command may
    follow four cycles later. ``stored`` pulses when a tile is done with: its state left for state_source, or was
    skipped; its y left for y_source or waits there.

    Throughput: a vector of L state elements a cycle; a token takes P*ceil(N/L) cycles (at least 12). Latency: see
    Datapath. Model: :func:`model.bitexact.ssm_block`.
    """
    def __init__(self, config):
        lanes = config.lanes
        self.config = config

        self.headdim      = Signal(max=config.max_headdim + 1)
        self.d_state      = Signal(max=config.max_d_state + 1)
        self.command      = stream.Endpoint(command_layout(config))
        self.state_sink   = stream.Endpoint([("data", 128)])
        self.input_sink   = stream.Endpoint([("data", 128)])
        self.state_source = stream.Endpoint([("data", 128)])
        self.y_source     = stream.Endpoint([("data", 128)])
        self.stored       = Signal()

        # Sizes of the records for this geometry, in beats, for whoever moves them.
        self.tile_beats   = Signal(max=config.max_headdim*config.max_d_state//BEAT_ELEMENTS + 1)
        self.row_beats    = Signal(max=config.max_headdim//BEAT_ELEMENTS + 2) # Of x without its first beat, and of y.
        self.bc_beats     = Signal(max=config.max_d_state//BEAT_ELEMENTS + 1) # Of B, and of C.

        # # #

        # Geometry: sizes derived from it, in registers. -------------------------------------------
        multiple   = config.d_state_multiple
        padded     = Signal(max=config.max_d_state + multiple)
        columns    = Signal(max=max(config.max_d_state//lanes, 2) + 1)
        tile_words = Signal(max=config.max_tile_words + 1)
        self.comb += padded.eq((self.d_state + multiple - 1)[log2_int(multiple):] << log2_int(multiple))
        self.sync += [
            columns.eq(padded >> log2_int(lanes)),
            self.bc_beats.eq(padded >> log2_int(BEAT_ELEMENTS)),
            self.row_beats.eq((self.headdim + BEAT_ELEMENTS - 1)[log2_int(BEAT_ELEMENTS):]),
            # headdim*columns, spelt out so that it takes no DSP.
            tile_words.eq(sum((Mux(columns[n], self.headdim << n, 0) for n in range(len(columns))), Constant(0))),
        ]

        if lanes >= BEAT_ELEMENTS:
            self.comb += self.tile_beats.eq(tile_words << log2_int(lanes//BEAT_ELEMENTS))
        else:
            self.comb += self.tile_beats.eq(tile_words >> log2_int(BEAT_ELEMENTS//lanes))

        # Commands go to the sequencer, the loader and the storer. ---------------------------------
        self.datapath  = datapath  = Datapath(config)
        x_cycle        = 2                                   # x is there; the datapath's cycle 0.
        y_cycle        = x_cycle + datapath.y_cycle
        self.sequencer = sequencer = Sequencer(config, interval=1 if config.pipelined else y_cycle)
        self.tiles     = tiles     = ResidentTiles(config) if config.resident_tiles else TileBanks(config)
        self.run_fifo    = run_fifo    = stream.SyncFIFO(sequencer.command.description.payload_layout, 4)
        self.run_buffer  = run_buffer  = stream.Buffer(sequencer.command.description.payload_layout)
        self.load_fifo   = load_fifo   = stream.SyncFIFO(tiles.load.description.payload_layout, 4)
        self.load_buffer = load_buffer = stream.Buffer(tiles.load.description.payload_layout)
        self.store_fifo  = store_fifo  = stream.SyncFIFO([("skip", 1)], 4)
        self.input_fifo  = input_fifo  = stream.SyncFIFO([("tokens", 16), ("same_bc", 1)], 4)
        fifos = (run_fifo, load_fifo, store_fifo, input_fifo)
        room  = reduce(and_, (fifo.sink.ready for fifo in fifos))
        self.comb += [
            self.command.ready.eq(room),
            [fifo.sink.valid.eq(self.command.valid & room) for fifo in fifos],
            run_fifo.sink.tokens.eq(self.command.tokens),
            run_fifo.sink.first_token.eq(self.command.first_token),
            run_fifo.sink.seed.eq(self.command.seed) if config.stochastic_rounding else [],
            input_fifo.sink.tokens.eq(self.command.tokens),
            input_fifo.sink.same_bc.eq(self.command.same_bc),
            load_fifo.sink.zero.eq(self.command.zero_state),
            store_fifo.sink.skip.eq(self.command.no_store),
            [
                load_fifo.sink.resident.eq(self.command.resident),
                load_fifo.sink.tile.eq(self.command.tile),
                load_fifo.sink.skip.eq(self.command.no_store),
            ] if config.resident_tiles else [],
            run_fifo.source.connect(run_buffer.sink),
            run_buffer.source.connect(sequencer.command),
            load_fifo.source.connect(load_buffer.sink),
            load_buffer.source.connect(tiles.load),
            store_fifo.source.connect(tiles.store),
        ]

        # Tiles and inputs. ------------------------------------------------------------------------
        self.inputs = inputs = InputBuffer(config)
        self.comb += [
            self.state_sink.connect(tiles.sink),
            tiles.source.connect(self.state_source),
            tiles.words.eq(tile_words),
            self.stored.eq(tiles.stored),
            self.input_sink.connect(inputs.sink),
            input_fifo.source.connect(inputs.tile),
            inputs.x_beats.eq(self.row_beats),
            inputs.bc_beats.eq(self.bc_beats),
            sequencer.headdim.eq(self.headdim),
            sequencer.d_state.eq(self.d_state),
            sequencer.columns.eq(columns),
            sequencer.loaded.eq(tiles.loaded),
            sequencer.finish.eq(tiles.finish),
            sequencer.finish_bank.eq(tiles.finish_bank),
            sequencer.full.eq(inputs.full),
        ]

        # Vectors: x is read when a vector is issued, everything else follows from it. -------------
        state_read  = x_cycle + datapath.state_cycle - 1     # Address of state and B.
        state_write = x_cycle + datapath.new_state_cycle
        C_read      = state_write - 1
        vector      = sequencer
        valid       = [vector.valid]
        for _ in range(y_cycle):
            valid.append(delay(self, valid[-1], 1, reset_less=False))

        # Without a vector the datapath can stand still, and costs a simulation no time. After a reset it moves, to be reset too.
        if config.gated_clock:
            active = Signal(max=y_cycle + 2, reset=y_cycle + 1)
            moving = Signal(reset=1)
            self.sync += [
                If(vector.valid,
                    active.eq(y_cycle + 1),
                ).Elif(active != 0,
                    active.eq(active - 1),
                ),
                moving.eq(active != 0),
            ]
            ClockDomainsRenamer("datapath")(datapath)
            self.cd_datapath = ClockDomain()
            self.cd_falling  = ClockDomain(reset_less=True)
            run = Signal() # Changes while the clock is low.
            self.comb += [
                self.cd_falling.clk.eq(~ClockSignal()),
                self.cd_datapath.clk.eq(ClockSignal() & run),
                self.cd_datapath.rst.eq(ResetSignal()),
            ]
            self.sync.falling += run.eq(moving)

        slot_C = delay(self, vector.slot, C_read)
        bank_w = delay(self, vector.bank, state_write)
        self.comb += [
            inputs.x_slot.eq(vector.slot),
            inputs.x_row.eq(vector.row),
            datapath.valid.eq(valid[x_cycle]),
            datapath.row.eq(delay(self, vector.row, x_cycle)),
            datapath.first.eq(delay(self, vector.first, x_cycle)),
            datapath.last.eq(delay(self, vector.last, x_cycle)),
            datapath.mask.eq(delay(self, vector.mask, x_cycle)),
            datapath.x.eq(inputs.x),
            datapath.dt.eq(inputs.dt),
            datapath.dA.eq(inputs.dA),
            datapath.D.eq(inputs.D),

            tiles.read_valid.eq(valid[state_read]),
            tiles.read_bank.eq(delay(self, vector.bank, state_read)),
            tiles.read_address.eq(delay(self, vector.address, state_read)),
            datapath.state.eq(tiles.state),
            inputs.B_slot.eq(delay(self, vector.slot, state_read)),
            inputs.B_column.eq(delay(self, vector.column, state_read)),
            datapath.B.eq(inputs.B),

            inputs.C_slot.eq(slot_C),
            inputs.C_column.eq(delay(self, vector.column, C_read)),
            datapath.C.eq(inputs.C),
            inputs.take.eq(vector.valid & vector.token_last),
            inputs.release.eq(valid[C_read] & delay(self, vector.token_last, C_read)),

            tiles.write_valid.eq(valid[state_write]),
            tiles.write_bank.eq(bank_w),
            tiles.write_address.eq(delay(self, vector.address, state_write)),
            tiles.new_state.eq(datapath.new_state),
            tiles.finish.eq(valid[state_write] & delay(self, vector.tile_last, state_write)),
            tiles.finish_bank.eq(bank_w),
        ]

        if config.stochastic_rounding:
            self.comb += [
                datapath.key.eq(delay(self, vector.key, x_cycle)),
                datapath.column.eq(delay(self, vector.column, x_cycle)),
            ]

        # y: room for a whole token is reserved before it starts. ----------------------------------
        beats = -(-config.max_headdim//BEAT_ELEMENTS)
        depth = max(4*beats, BLOCK_DEPTH)
        self.gatherer = gatherer = Packer()
        self.y_fifo   = y_fifo   = stream.SyncFIFO([("data", 128)], depth, buffered=True)
        reserved      = Signal(max=depth + 1)
        start         = Signal()
        leave         = Signal()
        self.comb += [
            gatherer.valid.eq(datapath.y_valid & delay(self, vector.emit, y_cycle)),
            gatherer.last.eq(delay(self, vector.row_last, y_cycle)),
            gatherer.data.eq(datapath.y),
            y_fifo.sink.valid.eq(gatherer.source_valid),
            y_fifo.sink.last.eq(gatherer.source_last),
            y_fifo.sink.data.eq(gatherer.source_data),
            y_fifo.source.connect(self.y_source),
            sequencer.room.eq(reserved <= depth - beats),
        ]
        self.sync += [ # A cycle late, which is early enough for the next token.
            start.eq(vector.valid & vector.token_start & vector.emit),
            leave.eq(self.y_source.valid & self.y_source.ready),
            reserved.eq(reserved + Mux(start, self.row_beats, 0) - leave),
        ]
