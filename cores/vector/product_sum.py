#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""One lane of the vector unit: an exact sum of products of two binary16, a term a cycle."""

from migen import *

from litex.gen import *

from cores.arith.fp16 import Fields, delay, delay_together
from cores.arith.round import FINITE, INFINITE, NAN, ZERO

from operations.numerics import RSQRT_BITS

# Constants ----------------------------------------------------------------------------------------

SUM_BITS = 97 # A product fits 81; so 2**16 of them do.
SUM_LSB  = -48

# Product Sum --------------------------------------------------------------------------------------

class ProductSum(LiteXModule):
    """``source = sum of a*b``, exact, in multiples of 2**-48; or, with ``scaled``, of a term alone ``a*b*significand * 2**exponent``.

    ::

        a, b -> fields -> x -+-> shift by 0..3 -> by 0..12 -> by 0..48 -+-> + -> source
                             +-> x <- significand ----------------------+   ^ |
                                                                         so far

    A term comes with ``valid``, the first one of a sum with ``first``. ``source_exponent`` is 0, or with ``scaled`` that of the product.
    ``special`` is one of :mod:`cores.arith.round`'s, ``sign`` with it: NaN of a NaN, of 0*infinity and of infinities of both signs; an
    infinity; or a negative zero, where all products are negative zeros.

    Latency: 7 cycles. Throughput: a term a cycle. All moves on each cycle. Multipliers: two DSP blocks.
    """
    latency = 7

    def __init__(self):
        self.valid  = Signal()
        self.first  = Signal()
        self.a      = Signal(16)
        self.b      = Signal(16)

        self.scaled      = Signal() # These three do not change while there are terms under way.
        self.significand = Signal(RSQRT_BITS)
        self.exponent    = Signal((8, True))

        self.source          = Signal((SUM_BITS, True), reset_less=True)
        self.source_exponent = Signal((9, True), reset_less=True)
        self.special         = Signal(2)
        self.sign            = Signal()

        # # #

        # Cycle 1: unpack.
        a, b     = Fields(self, self.a), Fields(self, self.b)
        negative = Signal()
        nan      = Signal()
        infinite = Signal()
        flags    = Signal(4, reset_less=True) # NaN, infinities, -0.
        factor_a = Signal((12, True), reset_less=True)
        factor_b = Signal(11, reset_less=True)
        exponent = Signal(6, reset_less=True)
        self.comb += [
            negative.eq(a.sign ^ b.sign),
            nan.eq(a.nan | b.nan | (a.inf & b.zero) | (a.zero & b.inf)),
            infinite.eq((a.inf | b.inf) & ~nan),
        ]
        self.sync += [
            factor_a.eq(Mux(negative, -a.significand, a.significand)),
            factor_b.eq(b.significand),
            exponent.eq(a.biased + b.biased),
            flags.eq(Cat(nan, infinite & ~negative, infinite & negative, (a.zero | b.zero) & ~nan & negative)),
        ]

        # Cycles 2 and 3: the product. 4 and 5: scaled. 4 to 6: or shifted to its place.
        product = Signal((23, True), reset_less=True)
        scaled  = Signal((23 + RSQRT_BITS, True), reset_less=True)
        shift   = Signal(6, reset_less=True)
        fine    = Signal((26, True), reset_less=True)
        coarse  = Signal((38, True), reset_less=True)
        placed  = Signal((82, True), reset_less=True)
        self.sync += [
            product.eq(factor_a*factor_b),
            shift.eq(exponent - 2),
        ]
        product = delay(self, product, 1)
        shift   = delay(self, shift, 1)
        self.sync += [
            scaled.eq(product*self.significand),
            Case(shift[:2],               {n: fine.eq(product << n)   for n in range(4)}),
            Case(delay(self, shift[2:4], 1), {n: coarse.eq(fine << 4*n) for n in range(4)}),
        ]
        scaled = delay(self, scaled, 1)
        far    = delay(self, shift[4:6], 2)
        self.sync += [
            Case(far, {n: placed.eq(coarse << 16*n) for n in range(4)}),
            If(self.scaled, placed.eq(scaled)),
        ]

        # Cycle 7: the sum.
        valid  = delay(self, self.valid, 6, reset_less=False)
        first, = delay_together(self, (self.first,), 6)
        power  = delay(self, shift, 3)
        flags  = delay(self, flags, 5)
        sums   = Signal(4, reset_less=True)
        before = Signal(4)
        full   = Signal((9, True)) # A signal of its own: in Verilog one unsigned number makes all of a sum unsigned.
        self.comb += [
            before.eq(Mux(first, 0b1000, sums)),
            full.eq(power),
        ]
        self.sync += If(valid,
            self.source.eq(Mux(first, 0, self.source) + placed),
            self.source_exponent.eq(Mux(self.scaled, full + self.exponent, 0)),
            sums.eq(Cat(before[:3] | flags[:3], before[3] & flags[3])),
        )
        self.comb += [
            If(sums[0] | (sums[1] & sums[2]),
                self.special.eq(NAN),
            ).Elif(sums[1] | sums[2],
                self.special.eq(INFINITE),
            ).Elif(sums[3],
                self.special.eq(ZERO),
            ).Else(
                self.special.eq(FINITE),
            ),
            self.sign.eq(sums[2] | ~sums[1]),
        ]
