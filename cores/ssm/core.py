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
from cores.ssm.layouts import command_layout
from cores.ssm.resident import ResidentTiles
from cores.ssm.sequencer import Sequencer
from cores.ssm.sizes import RecordSizes
from cores.ssm.tile import TileBanks

from operations.ssm import ROW_ELEMENTS

# Commands -----------------------------------------------------------------------------------------

class CommandQueues(LiteXModule):
    """A tile's command to all who work on it, each of which takes it when it comes to that tile."""
    def __init__(self, config, run_layout, load_layout):
        self.sink   = sink = stream.Endpoint(command_layout(config))
        self.run    = stream.Endpoint(run_layout)                            # To the sequencer,
        self.load   = stream.Endpoint(load_layout)                           # to the tiles,
        self.store  = stream.Endpoint([("skip", 1)])
        self.inputs = stream.Endpoint([("tokens", 16), ("same_bc", 1)])      # and to the inputs.

        # # #

        names  = {"zero": "zero_state", "skip": "no_store"} # In the command, where they differ.
        queues = []
        for source, buffered in ((self.run, True), (self.load, True), (self.store, False), (self.inputs, False)):
            layout = source.description.payload_layout
            queue  = stream.SyncFIFO(layout, 4)
            self.submodules += queue
            self.comb += [getattr(queue.sink, name).eq(getattr(sink, names.get(name, name))) for name, _ in layout]
            queues.append(queue)
            end = queue.source
            if buffered:
                buffer = stream.Buffer(layout)
                self.submodules += buffer
                self.comb += end.connect(buffer.sink)
                end = buffer.source
            self.comb += end.connect(source)
        self.comb += [
            sink.ready.eq(reduce(and_, (queue.sink.ready for queue in queues))),
            [queue.sink.valid.eq(sink.valid & sink.ready) for queue in queues],
        ]

# Packer -------------------------------------------------------------------------------------------

class Packer(LiteXModule):
    """y elements to rows of ROW_ELEMENTS, the last one of a token padded with zeros. Never stalls; one element a cycle."""
    def __init__(self):
        self.valid  = Signal()
        self.last   = Signal()
        self.data   = Signal(16)
        self.source_valid = Signal()
        self.source_last  = Signal()
        self.source_data  = Signal(16*ROW_ELEMENTS, reset_less=True)

        # # #

        count = Signal(max=ROW_ELEMENTS)
        self.sync += [
            self.source_valid.eq(self.valid & (self.last | (count == ROW_ELEMENTS - 1))),
            self.source_last.eq(self.last),
            If(self.valid,
                count.eq(Mux(self.last, 0, count + 1)),
                If(count == 0, self.source_data.eq(0)),
                Case(count, {n: self.source_data[16*n:16*(n + 1)].eq(self.data) for n in range(ROW_ELEMENTS)}),
            )
        ]

# Output -------------------------------------------------------------------------------------------

class OutputBuffer(LiteXModule):
    """y elements to a stream of rows. Elements cannot wait, so room for a whole token is reserved before it starts (``room``)."""
    def __init__(self, config):
        self.rows   = Signal(max=-(-config.max_headdim//ROW_ELEMENTS) + 1) # Of a token.
        self.valid  = Signal()
        self.last   = Signal() # Of a token.
        self.data   = Signal(16)
        self.start  = Signal() # Pulse: a token starts whose y comes.
        self.room   = Signal()
        self.source = source = stream.Endpoint([("data", 16*ROW_ELEMENTS)])

        # # #

        rows  = -(-config.max_headdim//ROW_ELEMENTS)
        depth = max(4*rows, BLOCK_DEPTH)
        self.packer = packer = Packer()
        self.fifo   = fifo   = stream.SyncFIFO([("data", 16*ROW_ELEMENTS)], depth, buffered=True)
        reserved    = Signal(max=depth + 1)
        start       = Signal() # A cycle late, which is early enough for the next token.
        leave       = Signal()
        self.comb += [
            packer.valid.eq(self.valid),
            packer.last.eq(self.last),
            packer.data.eq(self.data),
            fifo.sink.valid.eq(packer.source_valid),
            fifo.sink.last.eq(packer.source_last),
            fifo.sink.data.eq(packer.source_data),
            fifo.source.connect(source),
            self.room.eq(reserved <= depth - rows),
        ]
        self.sync += [
            start.eq(self.start),
            leave.eq(source.valid & source.ready),
            reserved.eq(reserved + Mux(start, self.rows, 0) - leave),
        ]

# SSM Core -----------------------------------------------------------------------------------------

class SSMCore(LiteXModule):
    """The SSM block on head tiles: for each tile T tokens of ``h = dA*h + dt*x*B``, ``y = sum(h*C) + D*x``.

    ::

        command -> CommandQueues -> Sequencer ---------------------------+
                                       | vectors                         |
        state_sink ------------> TileBanks -- state -> Datapath - new_state -> TileBanks ---> state_source
        scalars_sink, x_sink, -> InputBuffer -- x, dt, dA, D, B, C -^ |
        bc_sink                                                       +-- y -> OutputBuffer -> y_source

    ============ ====== ================================================================
    command      sink   one a tile, see operations.ssm.command_fields
    state_sink   sink   head tiles in beats, except those that start from zeros
    scalars_sink sink   for each tile, for each token: dt, dA, D
    x_sink       sink   likewise: x in words of 4 elements, padded to 8
    bc_sink      sink   likewise, but for tiles with same_bc: B in words of 4 elements, padded; then C
    state_source source head tiles in beats, except those not stored; last ends a tile
    y_source     source y in rows of 8 elements, for tokens from first_token on; last ends a token
    ============ ====== ================================================================

    The three inputs may come from different places, and in any order within a token. A head tile is as in
    :class:`operations.ssm.Geometry`.

    ``headdim`` and ``d_state`` are the geometry; they may change only while the core is idle, and the first command may
    follow four cycles later. ``stored`` pulses when a tile is done with: its state left for state_source, or was
    skipped; its y left for y_source or waits there. ``reset`` brings the core to idle; what is under way is lost.

    Throughput: a vector of L state elements a cycle; a token takes P*ceil(N/L) cycles (at least 12). Latency: see
    Datapath. Model: :func:`model.bitexact.ssm_block`.

    Parameters
    ----------
    config     : :class:`operations.config.SSMConfig`.
    data_width : bits of a beat of head tiles.
    """
    def __init__(self, config, data_width=128):
        self.config     = config
        self.data_width = data_width
        self.reset      = Signal()

        x_cycle         = 2 # Of a vector: x is there; the datapath's cycle 0.
        self.datapath   = datapath  = Datapath(config)
        self.y_cycle    = y_cycle   = x_cycle + datapath.y_cycle
        self.sizes      = sizes     = RecordSizes(config, data_width)
        self.sequencer  = sequencer = Sequencer(config, interval=1 if config.pipelined else y_cycle)
        self.tiles      = tiles     = (ResidentTiles if config.resident_tiles else TileBanks)(config, data_width)
        self.inputs     = inputs    = InputBuffer(config)
        self.outputs    = outputs   = OutputBuffer(config)
        self.queues     = queues    = CommandQueues(config, sequencer.command.description.payload_layout,
            tiles.load.description.payload_layout)

        self.headdim      = sizes.headdim
        self.d_state      = sizes.d_state
        self.command      = queues.sink
        self.state_sink   = tiles.sink
        self.scalars_sink = inputs.scalars_sink
        self.x_sink       = inputs.x_sink
        self.bc_sink      = inputs.bc_sink
        self.state_source = tiles.source
        self.y_source     = outputs.source
        self.stored       = tiles.stored

        # # #

        self.comb += [
            queues.run.connect(sequencer.command),
            queues.load.connect(tiles.load),
            queues.store.connect(tiles.store),
            queues.inputs.connect(inputs.tile),

            tiles.words.eq(sizes.tile_words),
            inputs.x_words.eq(sizes.x_words),
            inputs.bc_words.eq(sizes.bc_words),
            outputs.rows.eq(sizes.rows),
            sequencer.headdim.eq(sizes.headdim),
            sequencer.d_state.eq(sizes.d_state),
            sequencer.columns.eq(sizes.columns),
            sequencer.loaded.eq(tiles.loaded),
            sequencer.finish.eq(tiles.finish),
            sequencer.finish_bank.eq(tiles.finish_bank),
            sequencer.full.eq(inputs.full),
            sequencer.room.eq(outputs.room),
        ]
        self.connect_vectors(x_cycle)

        # All of it resets itself.
        ResetInserter(("sys",))(self)
        self.comb += self.reset_sys.eq(self.reset)

    def connect_vectors(self, x_cycle):
        """A vector's way: x is read when it is issued, everything else follows from it."""
        config, datapath, tiles, inputs, outputs = self.config, self.datapath, self.tiles, self.inputs, self.outputs
        vector      = self.sequencer
        state_read  = x_cycle + datapath.state_cycle - 1     # Address of state and B.
        state_write = x_cycle + datapath.new_state_cycle
        C_read      = state_write - 1
        valid       = [vector.valid]
        for _ in range(self.y_cycle):
            valid.append(delay(self, valid[-1], 1, reset_less=False))
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

            outputs.valid.eq(datapath.y_valid & delay(self, vector.emit, self.y_cycle)),
            outputs.last.eq(delay(self, vector.row_last, self.y_cycle)),
            outputs.data.eq(datapath.y),
            outputs.start.eq(vector.valid & vector.token_start & vector.emit),
        ]
        if config.stochastic_rounding:
            self.comb += [
                datapath.key.eq(delay(self, vector.key, x_cycle)),
                datapath.column.eq(delay(self, vector.column, x_cycle)),
            ]
