#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From a block to head tiles: the descriptor of the first head, repeated for all."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.bursts import RECORD_BITS
from cores.ssm.layouts import ADDRESSES, tile_layout

from operations.config import BC_SLOTS, SEED_STRIDE

# Head Expander ------------------------------------------------------------------------------------

class HeadExpander(LiteXModule):
    """The tiles of all heads of a block, one a cycle as the queue has ``room``, so that no CPU has to.

    ::

        first, heads, group_heads --push--> head 0, 1, ... -> source (valid only)
        steps --------------------------------^

    From head to head x, y and the state's addresses go on by their step, the BC record's with each group; the place on
    chip by one, and round; the seed by SEED_STRIDE. Where the core can hold the B and C of all tokens, the heads of a group
    after its first use them from there (``same_bc``). ``interrupt`` comes with the last head. ``push`` takes what is at the
    inputs, in this cycle and the next, unless tiles wait (``posting``), or ``refuse`` is set with it. ``stop``, with a tile,
    ends the block there.
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
        self.x_step      = Signal(RECORD_BITS)
        self.bc_step     = Signal(RECORD_BITS)
        self.y_step      = Signal(RECORD_BITS)
        self.state_step  = Signal(RECORD_BITS)
        self.source      = source = stream.Endpoint(tile_layout(config))

        # # #

        tile      = Record(tile_layout(config), reset_less=True)
        remaining = Signal(16, reset_less=True)
        in_group  = Signal(16, reset_less=True)
        last      = Signal()
        loading   = Signal() # The cycle after push. Sums are 0 then: a choice of what is added takes less than one of sums.
        push      = Signal()
        self.comb += [
            last.eq(remaining == 1),
            push.eq(self.push & ~self.posting),
            source.valid.eq(self.posting & ~loading & self.room),
            [getattr(source, name).eq(getattr(tile, name)) for name, _ in tile_layout(config)],
            source.interrupt.eq(tile.interrupt & last),
        ]
        sums  = [(getattr(tile, name), getattr(first, name), getattr(self, f"{name.split('_')[0]}_step"), 1)
            for name in ADDRESSES if name != "bc"]
        sums += [
            (tile.bc,   first.bc,   self.bc_step,              in_group == 1),
            (remaining, self.heads, Constant(2**16 - 1, 16),   1),
        ]
        steps = [
            tile.same_bc.eq((in_group != 1) & (tile.tokens <= BC_SLOTS)),
            in_group.eq(Mux(in_group == 1, self.group_heads, in_group - 1)),
        ]
        if config.resident_tiles:
            steps += [If(tile.tile == config.resident_tiles - 1, tile.tile.eq(0)).Else(tile.tile.eq(tile.tile + 1))]
        if config.stochastic_rounding:
            steps += [tile.seed.eq(tile.seed + SEED_STRIDE)]
        self.sync += [
            loading.eq(push),
            If(self.reset,
                self.posting.eq(0),
            ).Elif(push,
                tile.raw_bits().eq(first.raw_bits()),
                in_group.eq(self.group_heads),
                self.posting.eq(~self.refuse),
            ).Elif(source.valid,
                *steps,
                If(last | self.stop, self.posting.eq(0)),
            ),
            [
                If(push,
                    total.eq(0)
                ).Elif(loading | (source.valid & moves),
                    total.eq(total + Mux(loading, start, step))
                )
            for total, start, step, moves in sums],
        ]
