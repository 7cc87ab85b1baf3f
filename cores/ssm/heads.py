#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From a block to head tiles: the descriptor of the first head, repeated for all."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.ssm.config import BC_SLOTS, SEED_STRIDE
from cores.ssm.core import command_layout
from cores.ssm.memory import ADDRESS_BITS

# Layouts ------------------------------------------------------------------------------------------

ADDRESSES = ("x", "bc", "y", "state_in", "state_out")


def tile_layout(config):
    """Of a head tile's descriptor: where its records are, in beats, and its command."""
    return [(name, ADDRESS_BITS) for name in ADDRESSES] + command_layout(config) + [("interrupt", 1)]

# Head Repeater ------------------------------------------------------------------------------------

class HeadRepeater(LiteXModule):
    """The tiles of all heads of a block, one a cycle as the queue has ``room``, so that no CPU has to.

    ::

        first, heads, group_heads --push--> head 0, 1, ... -> source (valid only)
        steps --------------------------------^

    From head to head x, y and the state's addresses go on by their step, the BC record's with each group; the place on
    chip by one, and round; the seed by SEED_STRIDE. Where the core can hold the B and C of all tokens, the heads of a group
    after its first use them from there (``same_bc``). ``interrupt`` comes with the last head. ``push`` takes what is at the
    inputs, unless tiles wait (``posting``), or ``refuse`` is set with it. ``stop``, with a tile, ends the block there.
    """
    def __init__(self, config):
        self.push        = Signal()
        self.refuse      = Signal()
        self.stop        = Signal()
        self.reset       = Signal()
        self.room        = Signal()
        self.posting     = Signal()
        self.first       = first  = Record(tile_layout(config))
        self.heads       = Signal(16)
        self.group_heads = Signal(16)
        self.x_step      = Signal(ADDRESS_BITS)
        self.bc_step     = Signal(ADDRESS_BITS)
        self.y_step      = Signal(ADDRESS_BITS)
        self.state_step  = Signal(ADDRESS_BITS)
        self.source      = source = stream.Endpoint(tile_layout(config))

        # # #

        tile      = Record(tile_layout(config), reset_less=True)
        remaining = Signal(16, reset_less=True)
        in_group  = Signal(16, reset_less=True)
        last      = Signal()
        self.comb += [
            last.eq(remaining == 1),
            source.valid.eq(self.posting & self.room),
            [getattr(source, name).eq(getattr(tile, name)) for name, _ in tile_layout(config)],
            source.interrupt.eq(tile.interrupt & last),
        ]
        steps = [
            tile.x.eq(tile.x + self.x_step),
            tile.y.eq(tile.y + self.y_step),
            tile.state_in.eq(tile.state_in   + self.state_step),
            tile.state_out.eq(tile.state_out + self.state_step),
            tile.same_bc.eq((in_group != 1) & (tile.tokens <= BC_SLOTS)),
            in_group.eq(in_group - 1),
            If(in_group == 1,
                in_group.eq(self.group_heads),
                tile.bc.eq(tile.bc + self.bc_step),
            ),
        ]
        if config.resident_tiles:
            steps += [If(tile.tile == config.resident_tiles - 1, tile.tile.eq(0)).Else(tile.tile.eq(tile.tile + 1))]
        if config.stochastic_rounding:
            steps += [tile.seed.eq(tile.seed + SEED_STRIDE)]
        self.sync += [
            If(self.reset,
                self.posting.eq(0),
            ).Elif(self.push & ~self.posting,
                tile.raw_bits().eq(first.raw_bits()),
                remaining.eq(self.heads),
                in_group.eq(self.group_heads),
                self.posting.eq(~self.refuse),
            ).Elif(source.valid,
                remaining.eq(remaining - 1),
                *steps,
                If(last | self.stop, self.posting.eq(0)),
            )
        ]
