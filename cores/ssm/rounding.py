#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The one place where the core rounds: an exact sum becomes a binary16."""

from migen import *

from litex.gen import *

from cores.ssm.config import ceil_multiple
from cores.ssm.fp16 import INFINITY16, NAN16, delay

# Round --------------------------------------------------------------------------------------------

class Round(LiteXModule):
    """``source = RN16((-1)**sign * magnitude * 2**(exponent - 14 - width))``: nearest, ties to even.

    ``exponent`` is thus the exponent field of the result if the magnitude's top bit is set; it is signed. ``kill``
    makes the result +0; then ``nan`` (canonical), ``inf`` with ``special_sign``; ``special_sign`` is also the sign of a
    magnitude that is 0.

    ::

        magnitude -> leading zeros, by 16, 4, 1 -> right shift of subnormals -> add half -> select -> source
                     (what is shifted out is or-ed into a sticky bit)

    | value before rounding              | result                            |
    |------------------------------------|-----------------------------------|
    | magnitude >= 65520                 | infinity of its sign              |
    | 2**-14 <= magnitude < 65520        | normal, 11 bits                   |
    | 0 < magnitude < 2**-14             | a multiple of 2**-24, may be 0, of its sign |
    | 0                                  | 0, of special_sign                |

    Latency: 5 cycles. Throughput: one a cycle.
    """
    latency = 5

    def __init__(self, width):
        self.sign         = Signal()
        self.magnitude    = magnitude = Signal(width)
        self.exponent     = Signal((9, True))
        self.special_sign = Signal()
        self.nan          = Signal()
        self.inf          = Signal()
        self.kill         = Signal()
        self.source       = Signal(16, reset_less=True)

        # # #

        # Cycle 1: leading zeros by sixteens. ------------------------------------------------------
        padded  = ceil_multiple(width, 16)
        window  = Cat(Constant(0, padded - width), magnitude) if padded > width else magnitude
        groups  = padded//16
        count16 = Signal(bits_for(groups - 1), reset_less=True)
        coarse  = Signal(28, reset_less=True)
        low_1   = Signal(reset_less=True)
        statements = []
        for n in reversed(range(groups)): # The last is built first; it needs no test.
            top    = padded - 16*n
            bottom = max(top - 28, 0)
            chosen = [count16.eq(n), coarse[28 - (top - bottom):].eq(window[bottom:top])]
            chosen += [coarse[:28 - (top - bottom)].eq(0)] if top < 28 else []
            chosen += [low_1.eq(window[:bottom] != 0 if bottom else 0)]
            statements = [If(window[top - 16:top] != 0, *chosen).Else(*statements)] if statements else chosen
        self.sync += statements

        # Cycle 2: leading zeros by fours, then by ones. -------------------------------------------
        fine     = Signal(16)
        count4   = Signal(2)
        count1   = Signal(2)
        low_fine = Signal()
        kept_2   = Signal(12, reset_less=True) # Eleven bits of the result and one below.
        low_2    = Signal(reset_less=True)
        exponent_2 = Signal((10, True), reset_less=True)
        self.comb += [
            If(coarse[24:28] != 0,
                count4.eq(0), fine.eq(coarse[12:28]), low_fine.eq(coarse[:12] != 0),
            ).Elif(coarse[20:24] != 0,
                count4.eq(1), fine.eq(coarse[8:24]),  low_fine.eq(coarse[:8] != 0),
            ).Elif(coarse[16:20] != 0,
                count4.eq(2), fine.eq(coarse[4:20]),  low_fine.eq(coarse[:4] != 0),
            ).Else(
                count4.eq(3), fine.eq(coarse[:16]),
            ),
            If(  fine[15], count1.eq(0)).
            Elif(fine[14], count1.eq(1)).
            Elif(fine[13], count1.eq(2)).
            Else(          count1.eq(3)),
        ]
        self.sync += [
            Case(count1, {n: [
                kept_2.eq(fine[4 - n:16 - n]),
                low_2.eq(low_1 | low_fine | (fine[:4 - n] != 0)),
            ] for n in range(4)}),
            exponent_2.eq(delay(self, self.exponent, 1) - Cat(count1, count4, count16)),
        ]

        # Cycle 3: a subnormal moves right, to the place of its lsb. -------------------------------
        right      = Signal(4)
        kept_3     = Signal(12, reset_less=True)
        low_3      = Signal(reset_less=True)
        exponent_3 = Signal(6, reset_less=True)
        self.comb += If(exponent_2 + 11 < 0, right.eq(13)).Elif(exponent_2 < 1, right.eq(1 - exponent_2))
        self.sync += [
            Case(right, {n: [
                kept_3.eq(kept_2[n:] if n < 12 else 0),
                low_3.eq(low_2 | (kept_2[:n] != 0) if n else low_2),
            ] for n in range(14)}),
            # One less than the field: the hidden bit is added to it below. Without one the value is 0.
            exponent_3.eq(exponent_2 - 1),
            If(exponent_2 > 31, exponent_3.eq(31)),
            If((exponent_2 < 1) | ~kept_2[11], exponent_3.eq(0)),
        ]

        # Cycle 4: round. A carry runs into the exponent. ------------------------------------------
        up      = Signal()
        rounded = Signal(17, reset_less=True)
        self.comb += up.eq(kept_3[0] & (kept_3[1] | low_3))
        self.sync += rounded.eq(Cat(Constant(0, 10), exponent_3) + kept_3[1:] + up)

        # Cycle 5: select. -------------------------------------------------------------------------
        zero = Signal(reset_less=True)
        self.sync += zero.eq((kept_3 == 0) & ~low_3)
        sign, special_sign, nan, inf, kill = (
            delay(self, signal, 4) for signal in (self.sign, self.special_sign, self.nan, self.inf, self.kill))
        self.sync += [
            If(kill,
                self.source.eq(0),
            ).Elif(nan,
                self.source.eq(NAN16),
            ).Elif(inf,
                self.source.eq(Cat(Constant(INFINITY16, 15), special_sign)),
            ).Elif(rounded >= INFINITY16,
                self.source.eq(Cat(Constant(INFINITY16, 15), sign)),
            ).Else(
                self.source.eq(Cat(rounded[:15], Mux(zero, special_sign, sign))),
            )
        ]
