#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The one place where the core rounds: an exact sum becomes a binary16."""

from migen import *

from litex.gen import *

from cores.arith.fp16 import INFINITY16, NAN16, delay, delay_together

from operations.config import ceil_multiple

# Round --------------------------------------------------------------------------------------------

# What a sum is, known without adding: a number; or a zero, an infinity or NaN.
FINITE, ZERO, INFINITE, NAN = range(4)


class Round(LiteXModule):
    """``source = RN16((sink + carry) * 2**(exponent + scale))``: nearest, ties to even; or stochastic.

    ``sink`` and ``exponent`` are signed, -2**width < sink + carry < 2**width; ``scale`` is a constant of the width.

    ::

        sink -> shift left, by 16, 4, 1 -> shift right if subnormal -> complement if negative -> add half -> source
                (what is shifted out leaves a sticky bit)

    | special  | value before rounding              | result                                             |
    |----------|------------------------------------|----------------------------------------------------|
    | FINITE   | magnitude >= 65520                 | infinity of its sign                               |
    | FINITE   | 2**-14 <= magnitude < 65520        | normal, 11 bits                                    |
    | FINITE   | 0 < magnitude < 2**-14             | a multiple of 2**-24, may be 0, of its sign        |
    | FINITE   | 0                                  | +0                                                 |
    | ZERO     |                                    | 0, negative with ``sign``                          |
    | INFINITE |                                    | infinity, negative with ``sign``                   |
    | NAN      |                                    | 0x7E00                                             |

    With FINITE, ``sign`` negates the result, except +0.

    The sum stays in two's complement until 12 bits of it are left; that saves a carry chain as wide as the sum. What is
    shifted out weighs positively and is ``exact`` if it is 0 (its bits 0 without carry, 1 with it). The magnitude of a
    negative number is the complement of its bits plus 1, less the carry. This 1, if there is one, reaches the kept bits
    only from an exact rest; from any other it leaves a rest that is not 0 either. The leading bit is looked for in the
    complement; where the 1 makes a power of two of it, the rounding carries into the place above.

    With ``random_bits`` the magnitude v is rounded stochastically instead, to ``floor(v/ulp + (random + 1/2)/2**random_bits)``
    units in the last place: ``random_bits`` + 1 bits below that place are kept and added to, so it is exact.
    ``random`` is due ``random_cycle`` cycles after the sink.

    Latency: 4 cycles. Throughput: one a cycle. Model: the end of :func:`model.bitexact.state_update`.
    """
    latency      = 4
    random_cycle = 3

    def __init__(self, width, random_bits=0):
        self.sink     = sink = Signal((width + 1, True))
        self.carry    = Signal()
        self.exponent = Signal((9, True))
        self.special  = Signal(2)
        self.sign     = Signal()
        self.random   = Signal(max(random_bits, 1))
        self.source   = Signal(16, reset_less=True)

        # # #

        def differ(bits, bit):
            """Some of the bits are not `bit`."""
            return (bits ^ Replicate(bit, len(bits))) != 0

        rest  = 1 + random_bits        # Bits kept below the last place,
        kept  = 11 + rest              # in all,
        steps = 4 if kept <= 12 else 5 # and of a shift that leaves none of them.

        # Cycle 1: shift left by sixteens. A bit at least is below the sink, so that -1 has a leading one too. ------
        groups     = ceil_multiple(width + 1, 16)//16
        self.scale = 16*groups - width - 14
        window  = Cat(Replicate(self.carry, 16*groups - width + kept), sink[:width])
        place16 = Signal(bits_for(groups - 1)) # Of the leading bit in the window: by sixteens, fours and ones.
        coarse  = Signal(16 + kept)
        exact   = Signal()
        search  = [place16.eq(0)]
        for n in range(1, groups):
            search = [If(differ(window[16*n + kept:16*(n + 1) + kept], sink[-1]), place16.eq(n)).Else(*search)]
        self.comb += [
            *search,
            Case(place16, {n if n < groups - 1 else "default": [
                coarse.eq(window[16*n:16*(n + 1) + kept]),
                exact.eq(~differ(window[:16*n], self.carry) if n else 1),
            ] for n in range(groups)}),
        ]
        coarse_1, exponent_1 = (delay(self, signal, 1) for signal in (coarse, self.exponent))
        exact_1, place16_1, sign_1, carry_1 = delay_together(self, (exact, place16, sink[-1], self.carry), 1)

        # Cycle 2: by fours, then by ones. ---------------------------------------------------------
        place4 = Signal(2)
        place1 = Signal(2)
        fine   = Signal(3 + kept)
        below4 = Signal() # What falls out is 0.
        below1 = Signal()
        kept_2     = Signal(kept, reset_less=True) # Eleven bits of the result and the rest.
        exact_2    = Signal(reset_less=True)
        exponent_2 = Signal((10, True), reset_less=True) # Of the result less one: its hidden bit is added below.
        self.comb += [
            If(  differ(coarse_1[kept + 12:kept + 16], sign_1), place4.eq(3)).
            Elif(differ(coarse_1[kept + 8: kept + 12], sign_1), place4.eq(2)).
            Elif(differ(coarse_1[kept + 4: kept + 8],  sign_1), place4.eq(1)).
            Else(                                               place4.eq(0)),
            Case(place4, {n: [
                fine.eq(coarse_1[4*n + 1:4*(n + 1) + kept]),
                below4.eq(~differ(coarse_1[:4*n + 1], carry_1)),
            ] for n in range(4)}),
            If(  fine[kept + 2] ^ sign_1, place1.eq(3)).
            Elif(fine[kept + 1] ^ sign_1, place1.eq(2)).
            Elif(fine[kept]     ^ sign_1, place1.eq(1)).
            Else(                         place1.eq(0)),
            Case(place1, {n: below1.eq(~differ(fine[:n], carry_1) if n else 1) for n in range(4)}),
        ]
        self.sync += [
            Case(place1, {n: kept_2.eq(fine[n:n + kept]) for n in range(4)}),
            exact_2.eq(exact_1 & below4 & below1),
            exponent_2.eq(exponent_1 + Cat(place1, place4, place16_1)),
        ]
        sign_2, carry_2 = delay_together(self, (sign_1, carry_1), 1)

        # Cycle 3: a subnormal moves right, to the place of its lsb; then the complement. ----------
        subnormal  = Signal()
        right      = Signal(steps)
        half_way   = Signal(kept + 1)
        shifted    = Signal(kept)
        kept_3     = Signal(kept, reset_less=True)
        exact_3    = Signal(reset_less=True)
        exponent_3 = Signal(5, reset_less=True)
        overflow   = Signal(reset_less=True)
        fallen     = Signal(2)
        self.comb += [
            subnormal.eq(exponent_2[-1]),
            # -exponent_2, without a carry chain. It is at its most from -2**steps on; then nothing is left.
            If(subnormal,
                [right[n].eq(exponent_2[n] ^ (exponent_2[:n] != 0 if n else 0)) for n in range(steps)],
                If((exponent_2[steps:] != 2**(10 - steps) - 1) | (exponent_2[:steps] == 0),
                    right[2:].eq(2**(steps - 2) - 1),
                ),
            ),
            Case(right[:2], {n: [
                half_way.eq(Cat(kept_2, Replicate(sign_2, 4))[n:n + kept + 1]),
                fallen[0].eq(differ(kept_2[:n], carry_2) if n else 0),
            ] for n in range(4)}),
            Case(right[2:], {n: [
                shifted.eq(Cat(half_way, Replicate(sign_2, 2**steps))[4*n:4*n + kept]),
                fallen[1].eq(differ(half_way[:4*n], carry_2) if n else 0),
            ] for n in range(2**(steps - 2))}),
        ]
        self.sync += [
            kept_3.eq(shifted ^ Replicate(sign_2, kept)),
            exact_3.eq(exact_2 & (fallen == 0)),
            exponent_3.eq(exponent_2),
            If(subnormal | (kept_2[-1] == sign_2), exponent_3.eq(0)),
            overflow.eq(~subnormal & (exponent_2 >= 30) & (kept_2[-1] != sign_2)),
        ]
        sign_3, one_3 = (delay(self, signal, 1) for signal in (sign_2, sign_2 ^ carry_2))

        # Cycle 4: round; a carry runs into the exponent. ------------------------------------------
        special, sign = delay_together(self, (self.special, self.sign), 3)
        zero    = Signal()
        rounded = Signal(15)
        self.comb += zero.eq((kept_3 == 0) & exact_3 & ~one_3)
        if random_bits:
            total = Signal(rest + 15)
            self.comb += [
                total.eq(Cat(kept_3, Constant(0, 4)) + Cat(Constant(1, 1), self.random, Constant(0, 10), exponent_3) +
                    (exact_3 & one_3)),
                rounded.eq(total[rest:]),
            ]
        else:
            up = Signal()
            self.comb += [
                # From an exact rest comes the 1: what looks like 0 is a half, what looks like a half is a whole.
                If(exact_3,
                    up.eq(kept_3[1] & (kept_3[0] ^ one_3) | (kept_3[0] & one_3)),
                ).Else(
                    up.eq(kept_3[0]),
                ),
                rounded.eq((Cat(Constant(0, 10), exponent_3) + kept_3[1:] + up)[:15]),
            ]
        self.sync += [
            self.source[:15].eq(rounded),
            self.source[15].eq(sign ^ ((special == FINITE) & sign_3)),
            If(overflow | (special == INFINITE), self.source[:15].eq(INFINITY16)),
            If((special == FINITE) & zero, self.source[15].eq(0)),
            If(special == ZERO,            self.source[:15].eq(0)),
            If(special == NAN,             self.source.eq(NAN16)),
        ]
