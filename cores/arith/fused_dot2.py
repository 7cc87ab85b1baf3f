#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""State update: a two-product sum with one rounding."""

from migen import *

from litex.gen import *

from cores.arith.exact_product import SCALED_LAYOUT
from cores.arith.fp16 import *
from cores.arith.multiplier import shifted_product, split_product
from cores.arith.round import FINITE, INFINITE, NAN, ZERO, Round

from operations.config import RANDOM_BITS

# Constants ----------------------------------------------------------------------------------------

FRAME = 59 # Bits of the sum, its sign included.
LOW   = 46 # Of these, what a DSP48E1 adds.

# Two-Product Sum ----------------------------------------------------------------------------------

class FusedDot2(LiteXModule):
    """``source = RN16(a*b + u*d)``: exact products, exact sum, one rounding to nearest even.

    ``a`` is a binary16 (subnormals welcome), ``b`` and ``d`` are normalised operands, ``u`` is a product of two
    binary16 values from :class:`cores.arith.exact_product.ExactProduct`. With ``mask`` the result is +0, whatever the operands.

    ::

        a (16) -> shift by 0, 4, 8, 12 -+            frame: bit 0 is the lsb of u*d
                     ^                  +-> 23 x 14 -> shift by 0, 16, 32, 48 -+
        b (17) -> shift by 0 .. 3 ------+                  ^                   +-> add -> round -> source
                     ^                                     |                   |
                  distance of a*b and u*d -----------------+                   |
        u (22) -+                                                              |
                +-> 22 x 11 -----------------------------------------> u*d ----+
        d (17) -+

    The sum is exact in a frame: u*d (33 bits) lies at its bottom; a*b (22 bits) is shifted to its place, mostly by the
    multipliers. What of a*b falls below the frame only matters as a sticky bit, because u*d is normalised. Where a*b
    lies more than 35 bits above, the frame follows it instead and u*d is small enough to act as a sticky bit itself.

    With ``stochastic`` the sum is rounded stochastically by ``random``, due ``random_cycle`` cycles after the operands; the
    rest that decides is longer then, and a is normalised so that all of it lies in the frame.

    u is signed. d counts as positive and a*b is added or subtracted; d's sign then negates the result.

    Latency: 10 cycles. Throughput: one sum a cycle. Multipliers: 23 x 14 and 22 x 11 bits, one DSP48E1 each; the latter
    also adds the lower 46 bits of the sum. With ``dsp_shift`` two more shift the former's factors. With blocks of less than
    25 bits (``dsp_bits``) the former is 11 x 11 bits and shifted afterwards, the latter takes two.
    Model: :func:`model.bitexact.state_update`.
    """
    latency      = 10
    random_cycle = latency - Round.latency + Round.random_cycle

    def __init__(self, stochastic=False, dsp_shift=False, dsp_bits=25):
        self.a      = Signal(16)
        self.b      = Signal(NORMALISED_BITS)
        self.u      = u = Record(SCALED_LAYOUT)
        self.d      = Signal(NORMALISED_BITS)
        self.mask   = Signal()
        self.random = Signal(RANDOM_BITS)
        self.source = Signal(16)

        # # #

        self.round = round = Round(FRAME, RANDOM_BITS if stochastic else 0)

        # Cycle 1: unpack. What depends on b and u alone, synthesis makes once for all lanes. ------
        biased = Signal((6, True)) # Exponent of a, as Fields has it.
        if stochastic:
            self.normaliser = normaliser = Normaliser()
            a = NormalisedFields(self, normaliser.source)
            self.comb += normaliser.sink.eq(self.a), biased.eq(a.exponent - 9)
        else:
            a = Fields(self, self.a)
            self.comb += biased.eq(a.biased)
        b = NormalisedFields(self, self.b)
        d = NormalisedFields(self, self.d)

        ab_zero_0, ud_zero_0 = Signal(), Signal()
        ab_sign,   ud_sign   = Signal(), Signal()
        ab_nan,    ud_nan    = Signal(), Signal()
        ab_inf,    ud_inf    = Signal(), Signal()
        self.comb += [
            ab_zero_0.eq(a.zero | b.zero),
            ud_zero_0.eq(u.zero | d.zero),
            ab_sign.eq(a.sign ^ b.sign),
            ud_sign.eq(u.sign ^ d.sign),
            ab_nan.eq(a.nan | b.nan | (a.inf & b.zero) | (a.zero & b.inf)),
            ud_nan.eq(u.nan | d.nan | (u.inf & d.zero) | (u.zero & d.inf)),
            ab_inf.eq(a.inf | b.inf),
            ud_inf.eq(u.inf | d.inf),
        ]

        # The lsb of a*b is 2**(a.biased + b.exponent - 59), that of u*d is 2**(u.exponent + d.exponent - 102).
        a_1, b_1, ab_zero, ud_zero, subtract = delay_together(self,
            (a.significand, b.significand, ab_zero_0, ud_zero_0, ab_sign ^ d.sign), 1)
        distance_ad = Signal((7, True), reset_less=True) # Of the exponents; together, of the products.
        distance_bu = Signal((8, True), reset_less=True)
        a_exponent  = Signal((6, True), reset_less=True)
        d_exponent  = Signal(6, reset_less=True)
        b_exponent  = Signal((8, True), reset_less=True) # With what makes the sum with a's the exponent for Round.
        u_exponent  = Signal((8, True), reset_less=True) # Likewise, with d's.
        self.sync += [
            distance_ad.eq(biased - d.exponent),
            distance_bu.eq(b.exponent - u.exponent + 7),
            a_exponent.eq(biased),
            d_exponent.eq(d.exponent),
            b_exponent.eq(b.exponent - (95 + round.scale)),
            u_exponent.eq(u.exponent - (103 + round.scale)),
        ]

        # What overrules the sum, known at once and needed at the end.
        special = Signal(2, reset_less=True)
        sign    = Signal(reset_less=True)
        self.sync += [
            special.eq(FINITE),
            sign.eq(d.sign),
            If(ab_zero_0 & ud_zero_0, # Two -0 make -0.
                special.eq(ZERO),
                sign.eq(ab_sign & ud_sign),
            ),
            If(ab_inf | ud_inf,
                special.eq(INFINITE),
                sign.eq(Mux(ab_inf, ab_sign, ud_sign)),
            ),
            If(ab_nan | ud_nan | (ab_inf & ud_inf & (ab_sign != ud_sign)), special.eq(NAN)),
            If(self.mask,
                special.eq(ZERO),
                sign.eq(0),
            ),
        ]

        # Cycle 2: find a*b's place, 28 bits below that of u*d being 0; shift its factors. ---------
        place    = Signal((9, True)) # Less 64.
        above    = Signal()          # a*b lies above u*d and no bit of them overlaps: the frame follows a*b.
        shift    = Signal(6)
        self.comb += [
            place.eq(distance_ad + distance_bu),
            above.eq(~ab_zero & (ud_zero | (place >= 0))),
            shift.eq(place),
            If(place + 64 < 0, shift.eq(0)), # All of it below the frame.
            If(above,       shift.eq(63)),
        ]
        above_2 = delay(self, above, 1)

        # Cycles 3, 4: multiply. -------------------------------------------------------------------
        exponent_3 = Signal((8, True), reset_less=True)
        self.sync += [
            exponent_3.eq(
                Mux(above_2, delay(self, a_exponent, 1), delay(self, d_exponent, 1)) +
                Mux(above_2, delay(self, b_exponent, 1), delay(self, u_exponent, 1))),
        ]
        ud_4 = Signal((34, True), reset_less=True)
        if dsp_bits < 25:
            near = shifted_product(self, a_1, b_1, shift[:4], 37)
            self.comb += ud_4.eq(
                split_product(self, delay(self, u.significand, 2), delay(self, d.significand, 2), dsp_bits))
        else:
            a_2  = shifted_by(self, a_1, shift[2:4], 4, 23, dsp_shift)
            b_2  = shifted_by(self, b_1, shift[0:2], 1, 14, dsp_shift)
            ab_3 = Signal(37, reset_less=True)
            near = Signal(37, reset_less=True)
            self.sync += [
                ab_3.eq(a_2*b_2),
                near.eq(ab_3),
                ud_4.eq(delay(self, u.significand, 3)*delay(self, d.significand, 3)),
            ]
        far, subtract_4 = delay_together(self, (shift[4:6], subtract), 3)

        # Cycle 5: shift the rest of the way, and add. To subtract: complement and carry. ----------
        wide       = Signal(28 + FRAME)
        sticky     = Signal()
        low        = Signal((LOW + 2, True), reset_less=True)
        high       = Signal((FRAME - LOW, True), reset_less=True)
        lsb        = Signal(reset_less=True)
        carry      = Signal(reset_less=True)
        frame      = Signal(FRAME)
        self.comb += [
            Case(far, {n: wide.eq(shift_left(near, 16*n, len(wide))) for n in range(4)}),
            sticky.eq(wide[:28] != 0),
            frame.eq(wide[28:] ^ Replicate(subtract_4, FRAME)),
        ]
        self.sync += [
            low.eq(ud_4 + frame[:LOW]),
            high.eq(frame[LOW:]),
            lsb.eq(subtract_4 | sticky),
            carry.eq(subtract_4 & ~sticky),
        ]

        # Cycle 6: the upper part of the sum. ------------------------------------------------------
        over  = Signal((2, True)) # -1, 0 or 1.
        total = Signal(FRAME + 1, reset_less=True)
        self.comb += over.eq(low[LOW:])
        self.sync += total.eq(Cat(lsb, low[:LOW], high + over))

        # Cycles 7 to 10: round. The lsb of the total, the sticky bit, is 2**(exponent - 73). ------
        self.comb += [
            round.sink.eq(total),
            round.carry.eq(delay(self, carry, 1)),
            round.exponent.eq(delay(self, exponent_3, 3)),
            Cat(round.special, round.sign).eq(Cat(*delay_together(self, (special, sign), 5))),
            round.random.eq(self.random),
            self.source.eq(round.source),
        ]
