#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""An exact sum becomes a binary16 or a binary32, whichever is asked for."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import INFINITY16, NAN16
from cores.arith.round import FINITE, INFINITE, NAN, ZERO

from operations.config import ceil_multiple, check_range

# Constants ----------------------------------------------------------------------------------------

NAN32      = 0x7fc00000
INFINITY32 = 0x7f800000
KEPT       = 25 # Bits kept of a magnitude: 24 of a binary32, and the one below that rounds.
LOW        = 32 # As many, in sixteens.

# Round to Float -----------------------------------------------------------------------------------

class RoundFloat(LiteXModule):
    """``source.data = RN(sink.data * 2**(lsb + exponent))``: to nearest, ties to even; binary32 with ``sink.wide``, else binary16 in the
    low half.

    ::

        sink -> magnitude -> leading one, by sixteens -> by fours and ones -> to its place in the format -> round -> source

    ``special`` is one of :mod:`cores.arith.round`'s: FINITE, a sum; ZERO or INFINITE, negative with ``sign``; NAN. A sum of 0 gives +0,
    and one that rounds to 0 a zero of its sign. A binary16 may be subnormal or overflow to an infinity; a binary32 can neither, which
    the width and ``lsb`` make sure of, and its ``exponent`` is 0.

    Latency: 5 cycles. Throughput: one a cycle. Model: :func:`model.exact.rounding.round_sum`.

    Parameters
    ----------
    width         : of the sum, signed, whose magnitude is below ``2**(width - 1)``.
    lsb           : exponent of its unit.
    exponent_bits : of the signed ``exponent``; 0: there is none.
    """
    latency = 5

    def __init__(self, width, lsb, exponent_bits=0):
        check_range("lsb", lsb, -126, min(-14, 127 - width))
        self.sink   = sink   = stream.Endpoint([("data", (width, True)), ("exponent", (max(exponent_bits, 1), True)), ("special", 2),
            ("sign", 1), ("wide", 1)])
        self.source = source = stream.Endpoint([("data", 32)])

        # # #

        self.ce = ce = Signal()
        stages  = [sink.valid] + [Signal() for _ in range(self.latency)]
        self.comb += [
            ce.eq(source.ready | ~source.valid),
            sink.ready.eq(ce),
            source.valid.eq(stages[-1]),
        ]
        self.sync += If(ce, [after.eq(before) for before, after in zip(stages, stages[1:])])
        flags = [sink.special, sink.sign, sink.wide, *([sink.exponent] if exponent_bits else [])]

        def later(signals):
            result = [Signal.like(signal, reset_less=True) for signal in signals]
            self.sync += If(ce, [after.eq(before) for before, after in zip(signals, result)])
            return result

        # Cycle 1: magnitude. ----------------------------------------------------------------------
        sign      = Signal(reset_less=True)
        magnitude = Signal(width - 1, reset_less=True)
        self.sync += If(ce,
            sign.eq(sink.data[-1]),
            magnitude.eq((sink.data ^ Replicate(sink.data[-1], width)) + sink.data[-1]),
        )
        flags = later(flags)

        # Cycle 2: the sixteen bits of it that the leading one is among, and LOW below. -------------
        groups   = ceil_multiple(width - 1, 16)//16
        window   = Signal(16*groups + LOW)
        some     = Signal(groups)
        place16  = Signal(max=max(groups, 2))
        coarse   = Signal(16 + LOW)
        inexact  = Signal()
        coarse_2 = Signal(16 + LOW, reset_less=True)
        search   = [place16.eq(0)]
        for n in range(1, groups):
            search = [If(some[n], place16.eq(n)).Else(*search)]
        self.comb += [
            window.eq(Cat(Constant(0, LOW), magnitude)),
            [some[n].eq(magnitude[16*n:16*(n + 1)] != 0) for n in range(groups)],
            *search,
            Case(place16, {n if n < groups - 1 else "default": [
                coarse.eq(window[16*n:16*(n + 1) + LOW]),
                inexact.eq(some[:max(n - LOW//16, 0)] != 0 if n > LOW//16 else 0),
            ] for n in range(groups)}),
        ]
        self.sync += If(ce, coarse_2.eq(coarse))
        *flags, sign, place16, inexact = later([*flags, sign, place16, inexact])

        # Cycle 3: the leading one at the top. -----------------------------------------------------
        below  = LOW - KEPT # Bits that are not kept in any case.
        place4 = Signal(2)
        place1 = Signal(2)
        fine   = Signal(3 + KEPT + 1)
        fallen = Signal(2)
        kept   = Signal(KEPT, reset_less=True)
        sticky = Signal(reset_less=True)
        self.comb += [
            If(  coarse_2[LOW + 12:] != 0,        place4.eq(3)).
            Elif(coarse_2[LOW + 8:LOW + 12] != 0, place4.eq(2)).
            Elif(coarse_2[LOW + 4:LOW + 8]  != 0, place4.eq(1)).
            Else(                                 place4.eq(0)),
            Case(place4, {n: [
                fine.eq(coarse_2[4*n + below:4*(n + 1) + LOW]),
                fallen[0].eq(coarse_2[:4*n + below] != 0),
            ] for n in range(4)}),
            If(  fine[KEPT + 3], place1.eq(3)).
            Elif(fine[KEPT + 2], place1.eq(2)).
            Elif(fine[KEPT + 1], place1.eq(1)).
            Else(                place1.eq(0)),
            Case(place1, {n: fallen[1].eq(fine[:n + 1] != 0) for n in range(4)}),
        ]
        self.sync += If(ce,
            Case(place1, {n: kept.eq(fine[n + 1:n + 1 + KEPT]) for n in range(4)}),
            sticky.eq(inexact | (fallen != 0)),
        )
        *flags, sign, place = later([*flags, sign, Cat(place1, place4, place16)])

        # Cycle 4: to its place; a binary16 that is subnormal moves right. --------------------------
        normal   = Signal((len(place) + 2, True))
        exponent = Signal((max(len(place), exponent_bits) + 2, True)) # Field of a binary16, less 1: below 0 for subnormals.
        right    = Signal(4)
        narrow   = Signal(12)
        lost     = Signal()
        word     = Signal(31, reset_less=True)    # Exponent field and fraction.
        half     = Signal(reset_less=True)
        rest     = Signal(reset_less=True)
        infinite = Signal(reset_less=True)
        self.comb += [
            # Signals of their own: in Verilog one unsigned number makes all of a sum unsigned.
            normal.eq(place - (-14 - lsb)),
            exponent.eq(normal + flags.pop() if exponent_bits else normal),
            If(exponent < 0,
                right.eq(Mux(exponent + 12 < 0, 12, -exponent)),
            ),
            Case(right, {n: [
                narrow.eq(kept[13 + n:]),
                lost.eq(kept[:13 + n] != 0),
            ] for n in range(12)} | {"default": [narrow.eq(0), lost.eq(1)]}),
        ]
        special, special_sign, wide = flags
        self.sync += If(ce,
            infinite.eq(0),
            If(wide,
                word.eq(Cat(kept[1:KEPT - 1], (place + (lsb + 127))[:8])),
                half.eq(kept[0]),
                rest.eq(sticky),
                If(~kept[-1], word.eq(0)),
            ).Else(
                # The hidden bit adds the 1 that the exponent lacks.
                word.eq(Cat(Constant(0, 10), Mux(exponent < 0, 0, exponent)[:5]) + narrow[1:]),
                half.eq(narrow[0]),
                rest.eq(sticky | lost),
                infinite.eq((exponent >= 30) & kept[-1]),
                If(~kept[-1],
                    word.eq(0),
                    half.eq(0),
                ),
            ),
        )
        special, wide, sign = later([special, wide, Mux(special == FINITE, sign & kept[-1], special_sign)])

        # Cycle 5: round; a carry runs into the exponent. ------------------------------------------
        rounded = Signal(31)
        result  = Signal(32, reset_less=True)
        self.comb += [
            rounded.eq(word + (half & (rest | word[0]))),
            source.data.eq(result),
        ]
        self.sync += If(ce,
            If(wide,
                result.eq(Cat(rounded, sign)),
                If(special == INFINITE, result[:31].eq(INFINITY32)),
                If(special == NAN,      result.eq(NAN32)),
            ).Else(
                result.eq(Cat(rounded[:15], sign)),
                If(infinite | (special == INFINITE), result[:15].eq(INFINITY16)),
                If(special == NAN,                   result.eq(NAN16)),
            ),
            If(special == ZERO, result.eq(Mux(wide, sign << 31, sign << 15))),
        )
