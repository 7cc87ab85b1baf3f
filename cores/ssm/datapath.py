#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The lanes: everything between the tile memory, the inputs and y."""

from migen import *

from litex.gen import *

from cores.arith.accumulator import RowAccumulator
from cores.arith.dot import FRACTION_BITS, AlignedProduct, DotProduct
from cores.arith.exact_product import ExactProduct
from cores.arith.fp16 import NORMALISED_BITS, Normaliser, delay
from cores.arith.fused_dot2 import FusedDot2
from cores.arith.rng import CounterRNG
from cores.arith.round import INFINITE, NAN, Round

from operations.config import RANDOM_BITS

# Datapath -----------------------------------------------------------------------------------------

class Datapath(LiteXModule):
    """L lanes of the SSM recurrence: each cycle one vector of L state elements of one row.

    ::

        cycle            0        9                19               25 + log2(L)
        x, dt ---------> ExactProduct -> u -+
        dA -> Normaliser ----------> FusedDot2 -+-> new_state   (x L, hC stage)
        state, B (cycle 9) --------> |              |
        C (cycle 19) ------------------------------> DotProduct ---> RowAccumulator -> Round -> y
        x, D ---------> delay ---------------------> AlignedProduct ----^ (skip)

    A row's vectors come with growing columns; ``first`` marks the row's first, ``last`` its last: then y of the row
    appears. With stochastic rounding ``key`` is of the token, ``column`` of the vector. ``mask`` (a bit a lane) takes lanes
    beyond the state size out: their new state is +0, they add nothing to y.

    Timing: with valid, row, first, last, mask, x, dt, dA and D of a vector in cycle 0, its state and B are due in cycle
    ``state_cycle``, its new state is there and its C is due in cycle ``new_state_cycle``, its y in cycle ``y_cycle``.
    Throughput: a vector a cycle; nothing stalls.
    """
    state_cycle     = ExactProduct.latency
    new_state_cycle = ExactProduct.latency + FusedDot2.latency

    def __init__(self, config):
        lanes      = config.lanes
        dot_cycles = DotProduct.cycles(lanes)
        self.y_cycle = (self.new_state_cycle + dot_cycles + RowAccumulator.latency + Round.latency)

        # Cycle 0.
        self.valid = Signal()
        self.row   = Signal(max=max(config.max_headdim, 2))
        self.first = Signal()
        self.last  = Signal()
        self.mask  = Signal(lanes)
        self.key    = Signal(32)
        self.column = Signal(max=max(config.max_d_state//lanes, 2))
        self.x     = Signal(16)
        self.dt    = Signal(16)
        self.dA    = Signal(16)
        self.D     = Signal(16)
        # Cycle state_cycle.
        self.state = Signal(16*lanes)
        self.B     = Signal(NORMALISED_BITS*lanes)
        # Cycle new_state_cycle.
        self.C         = Signal(16*lanes)
        self.new_state = Signal(16*lanes)
        # Cycle y_cycle.
        self.y_valid = Signal()
        self.y       = Signal(16)

        # # #

        # Operands that all lanes share. -----------------------------------------------------------
        self.scale      = scale      = ExactProduct(config.dsp_shift)
        self.normaliser = normaliser = Normaliser()
        self.comb += [
            scale.dt.eq(self.dt),
            scale.x.eq(self.x),
            normaliser.sink.eq(self.dA),
        ]
        dA   = delay(self, normaliser.source, self.state_cycle)
        mask = delay(self, self.mask, self.state_cycle)

        # State update. ----------------------------------------------------------------------------
        if config.stochastic_rounding:
            self.hash = hash = CounterRNG(lanes, config.max_headdim, config.max_d_state//lanes)
            wait = self.state_cycle + FusedDot2.random_cycle - hash.latency
            self.comb += [
                hash.key.eq(delay(self, self.key, wait)),
                hash.row.eq(delay(self, self.row, wait)),
                hash.column.eq(delay(self, self.column, wait)),
            ]
        for lane in range(lanes):
            update = FusedDot2(config.stochastic_rounding, dsp_shift=config.dsp_shift, dsp_bits=config.dsp_bits)
            if config.stochastic_rounding:
                self.comb += update.random.eq(hash.source[RANDOM_BITS*lane:RANDOM_BITS*(lane + 1)])
            self.add_module(name=f"update{lane}", module=update)
            self.comb += [
                update.a.eq(self.state[16*lane:16*(lane + 1)]),
                update.b.eq(dA),
                update.u.eq(scale.source),
                update.d.eq(self.B[NORMALISED_BITS*lane:NORMALISED_BITS*(lane + 1)]),
                update.mask.eq(mask[lane]),
                self.new_state[16*lane:16*(lane + 1)].eq(update.source),
            ]

        # Reduction. -------------------------------------------------------------------------------
        self.dot = dot = DotProduct(lanes, dsp_shift=config.dsp_shift, dsp_bits=config.dsp_bits)
        self.comb += dot.mask.eq(delay(self, mask, FusedDot2.latency))
        for lane in range(lanes):
            self.comb += [
                dot.a[lane].eq(self.new_state[16*lane:16*(lane + 1)]),
                dot.b[lane].eq(self.C[16*lane:16*(lane + 1)]),
            ]

        # Skip: D*x joins the row's first sum. -----------------------------------------------------
        self.skip = skip = AlignedProduct(dsp=config.dsp_shift, dsp_shift=config.dsp_shift, dsp_bits=config.dsp_bits)
        wait = self.new_state_cycle + dot_cycles - skip.latency
        self.comb += [
            skip.a.eq(delay(self, self.x, wait)),
            skip.b.eq(delay(self, self.D, wait)),
        ]

        # Output. ----------------------------------------------------------------------------------
        wait = self.new_state_cycle + dot_cycles
        self.accumulator = accumulator = RowAccumulator(
            rows     = config.max_headdim,
            terms    = config.max_d_state + 1,
            sum_bits = len(dot.source),
        )
        self.comb += [
            accumulator.valid.eq(delay(self, self.valid, wait, reset_less=False)),
            accumulator.row.eq(delay(self, self.row, wait)),
            accumulator.first.eq(delay(self, self.first, wait)),
            accumulator.last.eq(delay(self, self.last, wait)),
            accumulator.sum.eq(dot.source),
            accumulator.sum_special.eq(dot.special),
            accumulator.skip.eq(skip.source),
            accumulator.skip_special.eq(skip.special),
        ]
        self.round = round = Round(accumulator.width - 1)
        special    = accumulator.special
        self.comb += [
            round.sink.eq(accumulator.source),
            round.exponent.eq(-FRACTION_BITS - round.scale),
            If(special.positive | special.negative, round.special.eq(INFINITE)),
            If(special.nan | (special.positive & special.negative), round.special.eq(NAN)),
            round.sign.eq(special.negative),
            self.y.eq(round.source),
            self.y_valid.eq(delay(self, accumulator.source_valid, Round.latency, reset_less=False)),
        ]
