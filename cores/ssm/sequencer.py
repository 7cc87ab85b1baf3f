#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Decides what the lanes do in each cycle."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.ssm.datapath import Datapath

# Sequencer ----------------------------------------------------------------------------------------

class Sequencer(LiteXModule):
    """Walks tiles, tokens, columns and rows: ``for tile: for token: for column: for row: one vector``.

    A tile starts when its bank is loaded, a token when its inputs are there, there is room for its y and the state of
    the token before has left the pipeline; within a token nothing stalls. The next token follows without a gap, the
    next tile after one cycle. With an `interval` above 1 that many cycles pass from each vector to the next.

    ``command`` takes one command a tile: its ``tokens`` (>= 1), ``first_token``, the first whose y is wanted, and with
    stochastic rounding a ``seed``; token t has the key seed + t.
    The ``wait_*`` signals say, in a cycle without a vector, why: no command, state, inputs or room for y.
    """
    def __init__(self, config, interval=1):
        lanes   = config.lanes
        columns = max(config.max_d_state//lanes, 2)

        # Geometry.
        self.headdim     = Signal(max=config.max_headdim + 1)
        self.d_state     = Signal(max=config.max_d_state + 1)
        self.columns     = Signal(max=columns + 1)

        seed = [("seed", 32)] if config.stochastic_rounding else []
        self.command     = command = stream.Endpoint([("tokens", 16), ("first_token", 16), *seed])
        self.loaded      = Signal(2)
        self.finish      = Signal()
        self.finish_bank = Signal()
        self.full        = Signal(2)
        self.room        = Signal()

        # A vector: valid in the cycle it is issued.
        self.valid       = Signal()
        self.bank        = Signal()
        self.slot        = Signal()
        self.row         = Signal(max=max(config.max_headdim, 2))
        self.column      = Signal(max=columns)
        self.address     = Signal(max=max(config.max_tile_words, 2))
        self.mask        = Signal(lanes)
        self.first       = Signal() # First column.
        self.last        = Signal() # Last column.
        self.row_last    = Signal() # Last row.
        self.token_start = Signal()
        self.token_last  = Signal() # Last vector of a token.
        self.tile_last   = Signal() # Last vector of a tile.
        self.emit        = Signal() # y of this token is wanted.
        self.key         = Signal(32, reset_less=True)

        self.wait_descriptor = Signal()
        self.wait_state      = Signal()
        self.wait_input      = Signal()
        self.wait_output     = Signal()

        # # #

        # A state element is read state_cycle cycles after its vector is issued, and its new value can be read
        # one cycle after it is written.
        hazard = Datapath.new_state_cycle - Datapath.state_cycle + 2

        # Tile. ------------------------------------------------------------------------------------
        running  = Signal()
        in_lanes = Signal(2)  # Banks between the first vector and finish.
        token    = Signal(16)
        gap      = Signal(max=hazard + 1)
        ready    = Signal()
        usable   = Signal()
        pause    = Signal(max=max(interval, 2)) # Cycles until the next vector may be issued.
        self.comb += usable.eq(((self.loaded & ~in_lanes) >> self.bank)[0])
        self.sync += [
            If(self.finish, in_lanes.eq(in_lanes & ~(1 << self.finish_bank))),
            If(~running & command.valid & usable,
                running.eq(1),
                token.eq(0),
                self.emit.eq(command.first_token == 0),
            ),
            If(self.valid & self.tile_last,
                running.eq(0),
                self.bank.eq(~self.bank),
            ),
        ]
        for bank in range(2):
            self.sync += If(~running & command.valid & usable & (self.bank == bank), in_lanes[bank].eq(1))

        # Token. -----------------------------------------------------------------------------------
        self.comb += [
            self.token_start.eq(self.first & (self.row == 0)),
            ready.eq((self.full >> self.slot)[0] & (self.room | ~self.emit) & (gap == 0)),
            self.valid.eq(running & (~self.token_start | ready) & (pause == 0)),
            self.token_last.eq(self.last & self.row_last),
            self.tile_last.eq(self.token_last & (token == (command.tokens - 1)[:16])),
            command.ready.eq(self.valid & self.tile_last),
        ]
        self.sync += [
            If(self.valid & self.token_start,
                gap.eq(hazard - 1),
            ).Elif(gap != 0,
                gap.eq(gap - 1),
            ),
            If(self.valid & self.token_last,
                self.slot.eq(~self.slot),
                token.eq(token + 1),
                self.emit.eq(token + 1 >= command.first_token),
            )
        ]

        if config.stochastic_rounding:
            self.sync += [
                If(self.valid & self.token_last,
                    self.key.eq(self.key + 1),
                ),
                If(~running,
                    self.key.eq(command.seed),
                ),
            ]

        if interval > 1:
            self.sync += If(self.valid, pause.eq(interval - 1)).Elif(pause != 0, pause.eq(pause - 1))

        # Columns and rows. ------------------------------------------------------------------------
        remaining   = Signal(max=config.max_d_state + 1) # State columns from this column on.
        last_row    = Signal.like(self.row)
        last_column = Signal.like(self.column)
        self.sync += [
            last_row.eq(self.headdim - 1),
            last_column.eq(self.columns - 1),
        ]
        self.comb += [
            self.first.eq(self.column == 0),
            self.last.eq(self.column == last_column),
            self.row_last.eq(self.row == last_row),
            [self.mask[lane].eq(remaining <= lane) for lane in range(lanes)],
        ]
        self.sync += [
            If(self.valid,
                self.address.eq(self.address + 1),
                self.row.eq(self.row + 1),
                If(self.row_last,
                    self.row.eq(0),
                    self.column.eq(self.column + 1),
                    remaining.eq(Mux(remaining > lanes, remaining - lanes, 0)),
                ),
                If(self.token_last,
                    self.address.eq(0),
                    self.column.eq(0),
                )
            ),
            If(~running | (self.valid & self.token_last),
                remaining.eq(self.d_state),
            )
        ]

        # Why nothing happens. ---------------------------------------------------------------------
        self.comb += [
            self.wait_descriptor.eq(~running & ~command.valid),
            self.wait_state.eq(~running & command.valid & ~usable),
            self.wait_input.eq(running & ~self.valid & ~(self.full >> self.slot)[0]),
            self.wait_output.eq(running & ~self.valid & (self.full >> self.slot)[0] & self.emit & ~self.room),
        ]
