#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The residual stream, which is binary32: added to, rounded to binary16, and begun by a row of the embedding."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import Fields
from cores.arith.round import FINITE, INFINITE, NAN, ZERO
from cores.arith.round_float import RoundFloat

# Constants ----------------------------------------------------------------------------------------

RESIDUAL_LSB  = -24 # Of all that there is in the sum.
RESIDUAL_BITS = 52  # So it may reach 2**27.

# Residual Add -------------------------------------------------------------------------------------

class ResidualAdd(LiteXModule):
    """``source.data = RN(residual + integer*scale)``: binary32 with ``wide``, else binary16 in the low half.

    ::

        integer (8, signed), scale (binary16) -> x -> shift by its exponent -+
                                                                             +-> RoundFloat -> source
        residual (binary32) ----------------------> shift by its exponent ---+

    | operator             | residual | integer    | scale      | wide |
    |----------------------|----------|------------|------------|------|
    | RN32(residual + x)   |          | 1          | x          | 1    |
    | RN16(residual)       |          | 1          | -0         | 0    |
    | embedding, q*d       | -0       | q          | d          | 1    |

    A negative zero adds nothing, not even its sign: of a sum of 0 the sign is negative only where both are negative zeros. The residual is
    a multiple of 2**-24 below 2**26, or an infinity or NaN. All that is made here from such ones, 128 layers deep, is.

    Throughput: one a cycle. Latency: 8 cycles. Models: :func:`model.exact.elementwise.add_residual`,
    :meth:`model.exact.network.ExactNetwork.embed`.
    """
    latency = 3 + RoundFloat.latency

    def __init__(self):
        self.sink   = sink   = stream.Endpoint([("residual", 32), ("integer", (8, True)), ("scale", 16), ("wide", 1)])
        self.source = source = stream.Endpoint([("data", 32)])

        # # #

        self.rounding = rounding = RoundFloat(RESIDUAL_BITS, RESIDUAL_LSB)
        ce     = Signal()
        stages = [sink.valid] + [Signal() for _ in range(3)]
        self.comb += [
            ce.eq(rounding.sink.ready | ~stages[-1]),
            sink.ready.eq(ce),
            rounding.sink.valid.eq(stages[-1]),
        ]
        self.sync += If(ce, [after.eq(before) for before, after in zip(stages, stages[1:])])

        def later(signals):
            result = [Signal.like(signal, reset_less=True) for signal in signals]
            self.sync += If(ce, [after.eq(before) for before, after in zip(signals, result)])
            return result

        # Cycle 1: the product; what is special. ---------------------------------------------------
        scale    = Fields(self, sink.scale)
        field    = sink.residual[23:31]
        fraction = sink.residual[:23]
        negative = [sink.residual[31], sink.scale[15] ^ sink.integer[-1]]
        infinite = [(field == 255) & (fraction == 0), scale.inf & (sink.integer != 0)]
        nan      = Signal()
        flags    = Signal(3)
        product  = Signal((19, True), reset_less=True)
        signed   = Signal((12, True))
        self.comb += [
            signed.eq(Mux(scale.sign, -scale.significand, scale.significand)),
            nan.eq(((field == 255) & (fraction != 0)) | scale.nan | (scale.inf & (sink.integer == 0))),
            flags[0].eq(nan | (infinite[0] & infinite[1] & (negative[0] ^ negative[1]))),
            flags[1].eq(infinite[0] | infinite[1]),
            flags[2].eq((sink.residual[:31] == 0) & ((sink.integer == 0) | scale.zero) & negative[0] & negative[1]),
        ]
        self.sync += If(ce, product.eq(signed*sink.integer))
        flags, minus, biased, magnitude, field = later([flags, Mux(infinite[0], negative[0], negative[1]), scale.biased,
            Cat(fraction, field != 0), field])

        # Cycle 2: to their places. Of a residual that is a multiple of 2**-24, what a shift to the right drops is 0. -------
        added  = Signal((RESIDUAL_BITS - 2, True), reset_less=True)
        before = Signal(RESIDUAL_BITS - 2, reset_less=True)
        place  = Signal(6) # Of the lowest bit of the magnitude, 23 more.
        self.comb += place.eq(field - (127 + RESIDUAL_LSB))
        self.sync += If(ce,
            Case(biased, {n: added.eq(product << n - 1) for n in range(1, 31)}),
            before.eq((magnitude << place)[23:]),
            If(field < 127 + RESIDUAL_LSB, before.eq(0)),
        )
        flags, minus, sign = later([flags, minus, later([sink.residual[31]])[0]])

        # Cycle 3: the sum. ------------------------------------------------------------------------
        total = Signal((RESIDUAL_BITS, True), reset_less=True)
        value = Signal((RESIDUAL_BITS - 1, True))
        self.comb += value.eq(before)
        self.sync += If(ce, total.eq(Mux(sign, added - value, added + value)))
        flags, minus = later([flags, minus])
        wide = sink.wide
        for _ in range(3):
            wide, = later([wide])
        self.comb += [
            rounding.sink.data.eq(total),
            rounding.sink.wide.eq(wide),
            rounding.sink.sign.eq(minus | flags[2]),
            If(flags[0],
                rounding.sink.special.eq(NAN),
            ).Elif(flags[1],
                rounding.sink.special.eq(INFINITE),
            ).Elif(flags[2],
                rounding.sink.special.eq(ZERO),
            ).Else(
                rounding.sink.special.eq(FINITE),
            ),
            rounding.source.connect(source),
        ]
