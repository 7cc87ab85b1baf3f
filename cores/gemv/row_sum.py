#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The sum of a row, group by group: integers, times the weights' scale and the activations' power of two."""

from migen import *

from litex.gen import *

from cores.arith.fp16 import delay

from cores.gemv.activations import NOT_FINITE

from operations.numerics import MANTISSA_BITS

# Constants ----------------------------------------------------------------------------------------

SCALE_LSB = -25 # A scale is its significand times 2**(biased - 25), biased 1 to 30.

# Helpers ------------------------------------------------------------------------------------------

def sum_lsb(bits):
    """The exponent of a sum's unit: the smallest scale's, times the smallest activation's."""
    return SCALE_LSB + 1 + 1 - 13 - bits


def sum_bits(bits, groups):
    """Width of a signed sum of so many groups: integers of bits + 11, significands of 11, shifted by up to 58."""
    return bits + 11 + 11 + 58 + bits_for(groups - 1) + 1

# Row Sum ------------------------------------------------------------------------------------------

class RowSum(LiteXModule):
    """The rows' exact sums for one token, of what a chain of products gives: rows two at a time in Q4_0, one in Q8_0.

    ::

        sums -> of the group -> * significand of the scale -> * 2**(exponents) -> + -> total
                (two beats of Q4_0, one after the other;                     ^ |
                 a beat of Q8_0: 16*upper + lower)                      rows so far

    ``valid`` and what comes with it mean a beat of sixteen columns: Q4_0 with ``narrow``; ``second``, the other half of a group.
    From a cycle after the beat on the sums of a group are scaled, one a cycle: a beat of Q8_0 has one, the second beat of Q4_0 has
    two. ``scale``, signed, ``biased`` its exponent, ``first``, of a row, and ``other``, the second row, belong to the scaled
    sum and come a cycle after the beat, or two with ``other``.

    ``total`` is there 7 cycles after ``scale``, in multiples of 2**sum_lsb(bits), and ``nan`` with it.

    Parameters
    ----------
    bits   : of an activation.
    groups : of a row, at most.
    """
    latency = 7

    def __init__(self, bits=MANTISSA_BITS, groups=256):
        spacing       = bits + 7
        self.valid    = Signal()
        self.narrow   = Signal()
        self.second   = Signal()
        self.sums     = Signal((2*spacing, True))
        self.balance  = Signal(bits + 4)
        self.exponent = Signal(5)

        self.take     = Signal() # A cycle or two later: the scaled sum.
        self.first    = Signal()
        self.other    = Signal()
        self.scale    = Signal((12, True))
        self.biased   = Signal(5)

        self.total    = Signal((sum_bits(bits, groups), True), reset_less=True)
        self.nan      = Signal(reset_less=True)

        # # #

        # The beat: 16*upper + lower, of which 8*balance is taken below; or the sums of the half before and this one.
        upper   = Signal((spacing, True))
        lower   = Signal(spacing)
        before  = Signal(2*spacing, reset_less=True)
        upper_b = Signal((spacing, True))
        a       = Signal((spacing + 4, True))
        b       = Signal((spacing + 1, True))
        both    = Signal((spacing + 5, True), reset_less=True)
        lowers  = Signal(spacing + 1, reset_less=True)
        balance = Signal(bits + 4, reset_less=True)
        power   = Signal(5, reset_less=True)
        self.comb += [
            Cat(lower, upper).eq(self.sums),
            upper_b.eq(before[spacing:]),
            If(self.narrow,
                a.eq(upper),
                b.eq(upper_b),
            ).Else(
                a.eq(upper << 4),
                b.eq(Cat(lower, Constant(0, 1))),
            ),
        ]
        narrow  = Signal(reset_less=True)
        self.sync += If(self.valid,
            before.eq(self.sums),
            both.eq(a + b),
            balance.eq(self.balance),
            narrow.eq(self.narrow),
            If(self.narrow, balance.eq(0)),
            If(self.second | ~self.narrow, # They last for both rows.
                lowers.eq(lower + before[:spacing]),
                power.eq(self.exponent),
            )
        )

        # The sum of a group, a cycle later or, of the other row, two. The lower halves have 2**(spacing - 1) each too much.
        integer = Signal((bits + 11, True), reset_less=True)
        shift   = Signal(6, reset_less=True)
        factor  = Signal((12, True), reset_less=True)
        unit    = Signal((spacing + 5, True))
        less    = Signal(bits + 7)
        bad     = Signal(reset_less=True)
        self.comb += [
            unit.eq(Mux(self.other, Cat(lowers[:spacing], ~lowers[spacing], Replicate(~lowers[spacing], 4)), both)),
            less.eq(Mux(self.other, 0, balance << 3)),
        ]
        self.sync += [
            integer.eq(unit - less),
            shift.eq(self.biased + power - 2),
            factor.eq(self.scale),
            bad.eq(power == NOT_FINITE),
        ]

        # Multiply, by a scale that is shifted by 0 to 3 already.
        integer_1 = delay(self, integer, 1)
        factor_1  = Signal((15, True), reset_less=True)
        product   = Signal((bits + 26, True), reset_less=True)
        self.sync += [
            Case(shift[:2], {n: factor_1.eq(factor << n) for n in range(4)}),
            product.eq(integer_1*factor_1),
        ]
        product_1 = delay(self, product, 1)
        by4, by16 = delay(self, shift[2:4], 3), delay(self, shift[4:6], 4)

        # Shift by fours, then by sixteens, and add.
        fine   = Signal((bits + 38, True), reset_less=True)
        placed = Signal((bits + 86, True), reset_less=True)
        self.sync += [
            Case(by4,  {n: fine.eq(product_1 << 4*n) for n in range(4)}),
            Case(by16, {n: placed.eq(fine << 16*n) for n in range(4)}),
        ]
        take, first, narrow = (delay(self, signal, 6) for signal in (self.take, self.first, narrow))
        bad   = delay(self, bad, 5)
        row   = Signal((len(self.total), True), reset_less=True) # The sum before the last one: in Q4_0, of the same row.
        self.sync += If(take,
            row.eq(self.total),
            self.total.eq(Mux(first, 0, Mux(narrow, row, self.total)) + placed),
            self.nan.eq((self.nan & ~first) | bad),
        )
