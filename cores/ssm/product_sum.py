#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""State update: a two-product sum with one rounding."""

from migen import *

from litex.gen import *

from cores.ssm.fp16 import *
from cores.ssm.rounding import Round
from cores.ssm.scale import SCALED_LAYOUT

# Two-Product Sum ----------------------------------------------------------------------------------

class TwoProductSum(LiteXModule):
    """``source = RN16(a*b + u*d)``: exact products, exact sum, one rounding to nearest even.

    ``a`` is a binary16 (subnormals welcome), ``b`` and ``d`` are normalised operands, ``u`` is a product of two binary16
    values from :class:`cores.ssm.scale.Scale`. With ``kill`` the result is +0, whatever the operands.

    ::

        a (16) -+                                  frame: bit 0 is the lsb of u*d
                +-> 11 x 11 -> a*b -> align ---+
        b (17) -+                ^             +-> add -> magnitude -> round -> source
        u (22) -+                | distance    |
                +-> 22 x 11 -> u*d ------------+
        d (17) -+

    The sum is exact in a 60-bit frame: u*d (33 bits) lies at its bottom; a*b (22 bits) is shifted to its place. What of
    a*b falls below the frame only matters as a sticky bit, because u*d is normalised. Where a*b lies more than 35 bits
    above, the frame follows it instead and u*d is small enough to act as a sticky bit itself.

    Latency: 12 cycles. Throughput: one sum a cycle. Multipliers: 11 x 11 and 22 x 11 bits, one DSP48E1 each.
    Model: :func:`model.bitexact.state_update`.
    """
    latency = 12

    def __init__(self):
        self.a      = Signal(16)
        self.b      = Signal(NORMALISED_BITS)
        self.u      = Record(SCALED_LAYOUT)
        self.d      = Signal(NORMALISED_BITS)
        self.kill   = Signal()
        self.source = Signal(16)

        # # #

        # Cycle 1: unpack. -------------------------------------------------------------------------
        a = Fields(self, self.a)
        b = NormalisedFields(self, self.b)
        d = NormalisedFields(self, self.d)
        u = self.u

        a_significand = Signal((12, True), reset_less=True)
        b_significand = Signal((12, True), reset_less=True)
        d_significand = Signal((12, True), reset_less=True)
        u_significand = Signal((23, True), reset_less=True)
        ab_exponent   = Signal(7, reset_less=True) # lsb of a*b is 2**(ab_exponent -  58): 0 ..  68.
        ud_exponent   = Signal(7, reset_less=True) # lsb of u*d is 2**(ud_exponent - 102): 0 .. 117.
        ab_zero       = Signal(reset_less=True)
        ud_zero       = Signal(reset_less=True)
        ab_zero_0     = Signal()
        ud_zero_0     = Signal()
        ab_sign       = Signal()
        ud_sign       = Signal()
        ab_nan        = Signal()
        ud_nan        = Signal()
        ab_inf        = Signal()
        ud_inf        = Signal()
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
        self.sync += [
            a_significand.eq(Mux(ab_sign, -a.significand, a.significand)),
            b_significand.eq(b.significand),
            d_significand.eq(Mux(d.sign, -d.significand, d.significand)),
            u_significand.eq(u.significand),
            ab_exponent.eq(a.exponent + b.exponent),
            ud_exponent.eq(u.exponent + d.exponent),
            ab_zero.eq(ab_zero_0),
            ud_zero.eq(ud_zero_0),
        ]

        # What overrules the sum, known at once and needed at the end.
        nan          = Signal(reset_less=True)
        inf          = Signal(reset_less=True)
        special_sign = Signal(reset_less=True) # Of an infinity, and of a zero: a sum of two -0 is -0.
        self.sync += [
            nan.eq(ab_nan | ud_nan | (ab_inf & ud_inf & (ab_sign != ud_sign))),
            inf.eq(ab_inf | ud_inf),
            special_sign.eq(Mux(ab_inf, ab_sign, Mux(ud_inf, ud_sign, ab_zero_0 & ud_zero_0 & ab_sign & ud_sign))),
        ]

        # Cycles 2, 3: multiply; find a*b's place. -------------------------------------------------
        ab_2 = Signal((24, True), reset_less=True)
        ud_2 = Signal((35, True), reset_less=True)
        ab_3 = Signal((24, True), reset_less=True)
        ud_3 = Signal((35, True), reset_less=True)
        position   = Signal((9, True), reset_less=True) # Of the lsb of a*b, 24 bits below that of u*d being 0.
        above      = Signal() # a*b lies above u*d and no bit of them overlaps: the frame follows a*b.
        exponent_2 = Signal(7, reset_less=True)
        alternate  = Signal(7, reset_less=True)
        shift      = Signal(6, reset_less=True)
        exponent_3 = Signal(7, reset_less=True) # lsb of the frame is 2**(exponent - 102).
        self.comb += above.eq(~delay(self, ab_zero, 1) & (delay(self, ud_zero, 1) | (position > 59)))
        self.sync += [
            ab_2.eq(a_significand*b_significand),
            ud_2.eq(u_significand*d_significand),
            position.eq(ab_exponent - ud_exponent + 44 + 24),
            exponent_2.eq(ud_exponent),
            alternate.eq(ab_exponent + 9),
            ab_3.eq(ab_2),
            ud_3.eq(ud_2),
            If(above,
                shift.eq(59),
                exponent_3.eq(alternate),
            ).Else(
                shift.eq(position),
                If((position < 0) | (position > 59), shift.eq(0)), # All of it below the frame; or it is zero.
                exponent_3.eq(exponent_2),
            ),
        ]

        # Cycles 4, 5: shift a*b to its place, 24 bits of it below the frame. ----------------------
        near   = Signal((38, True), reset_less=True)
        far    = Signal(2, reset_less=True)
        ab_5   = Signal(60, reset_less=True)
        sticky = Signal(reset_less=True)
        wide   = Signal((84, True))
        self.sync += [
            Case(shift[:4], {n: near.eq(ab_3 << n) for n in range(16)}),
            far.eq(shift[4:]),
            ab_5.eq(wide[24:]),
            sticky.eq(wide[:24] != 0),
        ]
        self.comb += Case(far, {n: wide.eq(near << 16*n) for n in range(4)})
        ud_5       = delay(self, ud_3, 2)
        exponent_5 = delay(self, exponent_3, 2)

        # Cycle 6: add. The sticky bit becomes the lsb. --------------------------------------------
        total = Signal((61, True), reset_less=True)
        self.sync += total.eq(Cat(sticky, (ud_5 + Cat(ab_5, ab_5[-1]))[:60]))
        # Cycle 7: magnitude. ----------------------------------------------------------------------
        magnitude = Signal(60, reset_less=True)
        sign_7    = Signal(reset_less=True)
        self.sync += [
            sign_7.eq(total[-1]),
            magnitude.eq(Mux(total[-1], -total, total)),
        ]
        # Cycles 8 to 12: round. The lsb of the magnitude, the sticky bit, is 2**(exponent - 103). ---
        self.round = round = Round(60)
        self.comb += [
            round.sign.eq(sign_7),
            round.magnitude.eq(magnitude),
            round.exponent.eq(delay(self, exponent_5, 2) - 29),
            round.special_sign.eq(delay(self, special_sign, 6)),
            round.nan.eq(delay(self, nan, 6)),
            round.inf.eq(delay(self, inf, 6)),
            round.kill.eq(delay(self, self.kill, 7)),
            self.source.eq(round.source),
        ]
