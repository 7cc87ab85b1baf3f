#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Reduction: exact products in fixed point, and their sum over the lanes."""

from migen import *

from litex.gen import *

from cores.ssm.fp16 import Fields, delay

# Constants ----------------------------------------------------------------------------------------

# A product of two binary16 values is a multiple of 2**-48 below 2**32: it fits 80 bits and a sign.
FRACTION_BITS = 48
PRODUCT_BITS  = 81

SPECIAL_LAYOUT = [("nan", 1), ("positive", 1), ("negative", 1)]

# Aligned Product ----------------------------------------------------------------------------------

class AlignedProduct(LiteXModule):
    """``source = a*b`` of two binary16 values, exact, in fixed point: a signed multiple of 2**-48.

    An infinity or NaN leaves ``source`` undefined and says so in ``special``: nan, or positive or negative infinity.
    With ``kill`` the product is 0 and not special.

    ::

        a (16) -+-> 11 x 11 -> shift by 0 .. 15 -> shift by 0, 16, 32, 48 -> source (81, signed)
        b (16) -+-> sum of exponents ---^---------------^

    Latency: 5 cycles. Throughput: one product a cycle. Multiplier: 11 x 11 bits, one DSP48E1.
    """
    latency = 5

    def __init__(self):
        self.a       = Signal(16)
        self.b       = Signal(16)
        self.kill    = Signal()
        self.source  = Signal((PRODUCT_BITS, True), reset_less=True)
        self.special = Record(SPECIAL_LAYOUT, reset_less=True)

        # # #

        # Cycle 1: unpack.
        a, b          = Fields(self, self.a), Fields(self, self.b)
        sign          = Signal()
        nan           = Signal()
        inf           = Signal()
        a_significand = Signal((12, True), reset_less=True)
        b_significand = Signal((12, True), reset_less=True)
        shift_1       = Signal(6, reset_less=True)
        special_1     = Record(SPECIAL_LAYOUT, reset_less=True)
        self.comb += [
            sign.eq(a.sign ^ b.sign),
            nan.eq(a.nan | b.nan | (a.inf & b.zero) | (a.zero & b.inf)),
            inf.eq((a.inf | b.inf) & ~nan),
        ]
        self.sync += [
            a_significand.eq(Mux(sign, -a.significand, a.significand)),
            If(self.kill, a_significand.eq(0)),
            b_significand.eq(b.significand),
            shift_1.eq(a.exponent + b.exponent),
            special_1.nan.eq(nan & ~self.kill),
            special_1.positive.eq(inf & ~sign & ~self.kill),
            special_1.negative.eq(inf &  sign & ~self.kill),
        ]

        # Cycles 2, 3: multiply.
        product_2 = Signal((24, True), reset_less=True)
        product_3 = Signal((24, True), reset_less=True)
        self.sync += [
            product_2.eq(a_significand*b_significand),
            product_3.eq(product_2),
        ]
        shift_3 = delay(self, shift_1, 2)

        # Cycles 4, 5: shift.
        near = Signal((38, True), reset_less=True)
        far  = Signal(2, reset_less=True)
        self.sync += [
            Case(shift_3[:4], {n: near.eq(product_3 << n) for n in range(16)}),
            far.eq(shift_3[4:]),
            Case(far, {n: self.source.eq(near << 16*n) for n in range(4)}),
            self.special.raw_bits().eq(delay(self, special_1.raw_bits(), 3)),
        ]

# Dot Product --------------------------------------------------------------------------------------

class DotProduct(LiteXModule):
    """``source = sum over the lanes of a[lane]*b[lane]``, exact, in fixed point: a signed multiple of 2**-48.

    ``special`` says whether any product was NaN, or an infinity of either sign.

    ::

        a[0], b[0] -> AlignedProduct -+
                                      + -+
        a[1], b[1] -> AlignedProduct -+  |
                                         +-> ... -> source (81 + log2(lanes), signed)
                   ...                   |
                                        -+

    Latency: 5 + log2(lanes) cycles. Throughput: one sum a cycle. Any order of the sum gives the same bits.
    Model: the sum in :func:`model.bitexact.dot_skip`.
    """
    def __init__(self, lanes):
        self.latency = AlignedProduct.latency + log2_int(lanes)
        self.a       = [Signal(16) for _ in range(lanes)]
        self.b       = [Signal(16) for _ in range(lanes)]
        self.kill    = Signal(lanes)
        self.source  = Signal((PRODUCT_BITS + log2_int(lanes), True), reset_less=True)
        self.special = Record(SPECIAL_LAYOUT, reset_less=True)

        # # #

        sums     = []
        specials = []
        for lane in range(lanes):
            product = AlignedProduct()
            self.add_module(name=f"product{lane}", module=product)
            self.comb += [
                product.a.eq(self.a[lane]),
                product.b.eq(self.b[lane]),
                product.kill.eq(self.kill[lane]),
            ]
            sums.append(product.source)
            specials.append(product.special.raw_bits())

        # Adder tree, registered at each level.
        while len(sums) > 1:
            next_sums     = [Signal((len(sums[0]) + 1, True), reset_less=True) for _ in sums[::2]]
            next_specials = [Signal(3, reset_less=True) for _ in specials[::2]]
            for n in range(len(next_sums)):
                self.sync += [
                    next_sums[n].eq(sums[2*n] + sums[2*n + 1]),
                    next_specials[n].eq(specials[2*n] | specials[2*n + 1]),
                ]
            sums, specials = next_sums, next_specials
        self.comb += [
            self.source.eq(sums[0]),
            self.special.raw_bits().eq(specials[0]),
        ]
