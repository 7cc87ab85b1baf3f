#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Reduction: exact products in fixed point, and their sum over the lanes."""

from migen import *

from litex.gen import *

from cores.arith.fp16 import Fields, delay, delay_together, shift_left, shifted_by
from cores.arith.multiplier import Multiplier, shifted_product

# Constants ----------------------------------------------------------------------------------------

# A product of two binary16 values is a multiple of 2**-48 below 2**32: it fits 80 bits and a sign.
FRACTION_BITS = 48
PRODUCT_BITS  = 81

CHAIN = 4 # Lanes in whose chain the sum of their products grows.

SPECIAL_LAYOUT = [("nan", 1), ("positive", 1), ("negative", 1)]

# Aligned Product ----------------------------------------------------------------------------------

class AlignedProduct(LiteXModule):
    """``source = addend + a*b``: exact product of binary16 values in fixed point, signed, in multiples of 2**-48.

    An infinity or NaN leaves ``source`` undefined and says so in ``special``: nan, or positive or negative infinity.
    With ``mask`` the product is 0 and not special. An addend is due a cycle before the source; its ``addend_special``
    joins ``special``.

    ::

        a (16) -> +/- -> shift by 0, 4, 8, 12 -+
        b (16) -------> shift by 0 .. 3 -------+-> 24 x 14 -> shift by 0, 16, 32, 48 -> + -> source (81, signed)
                             ^ sum of exponents                   ^                     |
                                                                                      addend

    Latency: 5 cycles, and those to wait. Throughput: one product a cycle. Multiplier: 24 x 14 bits, one DSP48E1, or
    without it a :class:`cores.arith.multiplier.Multiplier`, which takes LUTs and 6 cycles more.

    Parameters
    ----------
    addend_bits : width of the addend, 0 for none.
    width       : width of the source, enough for the sum.
    wait        : cycles by which product and source are later.
    dsp         : whether there is a DSP block for it.
    dsp_shift   : whether there are two more, to shift the factors.
    dsp_bits    : bits of the signed numbers that a DSP block multiplies; with less than 24 the product is shifted.
    """
    latency = 5

    def __init__(self, addend_bits=0, width=PRODUCT_BITS, wait=0, dsp=True, dsp_shift=False, dsp_bits=25):
        self.a       = Signal(16)
        self.b       = Signal(16)
        self.mask    = Signal()
        self.source  = Signal((width, True), reset_less=True)
        self.special = Record(SPECIAL_LAYOUT, reset_less=True)
        if addend_bits:
            self.addend         = Signal((addend_bits, True))
            self.addend_special = Record(SPECIAL_LAYOUT)

        # # #

        # Cycle 1: unpack.
        a, b      = Fields(self, self.a), Fields(self, self.b)
        sign      = Signal()
        negate    = Signal()
        nan       = Signal()
        inf       = Signal()
        a_1       = Signal((12, True), reset_less=True)
        b_1       = Signal(11, reset_less=True)
        shift_1   = Signal(6, reset_less=True)
        special_1 = Record(SPECIAL_LAYOUT, reset_less=True)
        self.comb += [
            sign.eq(a.sign ^ b.sign),
            # yosys makes one LUT6 a bit of the last shift and a subtraction, but two of the shift and an addition.
            negate.eq(sign if dsp and not addend_bits else ~sign),
            nan.eq(a.nan | b.nan | (a.inf & b.zero) | (a.zero & b.inf)),
            inf.eq((a.inf | b.inf) & ~nan),
        ]
        self.sync += [
            a_1.eq((Cat(negate, a.significand ^ Replicate(negate, 11), negate) + negate)[1:]), # Complement and 1.
            b_1.eq(b.significand),
            If(self.mask, b_1.eq(0)),
            shift_1.eq(a.biased + b.biased), # By 2 too far, which costs less than to subtract them.
            special_1.nan.eq(nan & ~self.mask),
            special_1.positive.eq(inf & ~sign & ~self.mask),
            special_1.negative.eq(inf &  sign & ~self.mask),
        ]

        # Cycles 2 to 4: shift the factors and multiply.
        if dsp and dsp_bits < 24:
            near = delay(self, shifted_product(self, a_1, b_1, shift_1[:4], 38), wait)
        else:
            a_2 = shifted_by(self, a_1, shift_1[2:4], 4, 24, dsp_shift)
            b_2 = shifted_by(self, b_1, shift_1[0:2], 1, 14, dsp_shift)
            if dsp:
                product = Signal((38, True), reset_less=True)
                self.sync += product.eq(a_2*b_2)
                near = delay(self, product, 1 + wait)
            else:
                self.multiplier = multiplier = Multiplier(24, 14) # Its product is negative, too.
                self.comb += multiplier.a.eq(a_2), multiplier.b.eq(b_2)
                near  = multiplier.source
                wait += multiplier.latency - 2
                self.latency += multiplier.latency - 2
        far, special_4 = delay_together(self, (shift_1[4:6], special_1.raw_bits()), 3 + wait)

        # Cycle 5: shift the rest of the way, and add.
        wide    = Signal(PRODUCT_BITS + 2)
        aligned = Signal((PRODUCT_BITS, True))
        self.comb += [
            Case(far, {n: wide.eq(shift_left(near, 16*n, len(wide))) for n in range(4)}),
            aligned.eq(wide[2:]),
        ]
        if addend_bits:
            self.sync += [
                self.source.eq(self.addend - aligned),
                self.special.raw_bits().eq(self.addend_special.raw_bits() | special_4),
            ]
        else:
            self.sync += [
                self.source.eq(aligned),
                self.special.raw_bits().eq(special_4),
            ]

# Dot Product --------------------------------------------------------------------------------------

class DotProduct(LiteXModule):
    """``source = sum over the lanes of a[lane]*b[lane]``, exact, in fixed point: a signed multiple of 2**-48.

    ``special`` says whether any product was NaN, or an infinity of either sign.

    ::

        a[0], b[0] -------------> AlignedProduct
                                        | addend
        a[1], b[1] -> 1 cycle --> AlignedProduct
                                        | addend
        a[2], b[2] -> 2 cycles -> AlignedProduct
                                        | addend
        a[3], b[3] -> 3 cycles -> AlignedProduct -+
                                                  + -> ... -> source (81 + log2(lanes), signed)
                   ...                           -+

    ``dsp_shift`` and ``dsp_bits`` are :class:`AlignedProduct`'s. In a chain of four lanes a product is shifted to its place
    and added in one go, a LUT6 a bit; then a tree adds the chains.

    Latency: 6 + log2(lanes) cycles. Throughput: one sum a cycle. Any order of the sum gives the same bits.
    Model: the sum in :func:`model.bitexact.dot_skip`.
    """
    @staticmethod
    def cycles(lanes):
        """The latency."""
        return AlignedProduct.latency + 1 + log2_int(lanes)

    def __init__(self, lanes, dsp_shift=False, dsp_bits=25):
        self.latency = self.cycles(lanes)
        self.a       = [Signal(16) for _ in range(lanes)]
        self.b       = [Signal(16) for _ in range(lanes)]
        self.mask    = Signal(lanes)
        self.source  = Signal((PRODUCT_BITS + log2_int(lanes), True), reset_less=True)
        self.special = Record(SPECIAL_LAYOUT, reset_less=True)

        # # #

        # Chains of four lanes.
        sums     = []
        specials = []
        for lane in range(lanes):
            place   = lane % CHAIN
            early   = min(place, 2) # A longer delay line would take LUTs.
            product = AlignedProduct(
                addend_bits = len(before.source) if place else 0,
                width       = PRODUCT_BITS + (0, 1, 2, 2)[place],
                wait        = place - early,
                dsp_shift   = dsp_shift,
                dsp_bits    = dsp_bits,
            )
            self.add_module(name=f"product{lane}", module=product)
            self.comb += [
                Cat(product.a, product.b, product.mask).eq(
                    Cat(*delay_together(self, (self.a[lane], self.b[lane], self.mask[lane]), early))),
            ]
            if place:
                self.comb += [
                    product.addend.eq(before.source),
                    product.addend_special.eq(before.special),
                ]
            if place == CHAIN - 1:
                sums.append(product.source)
                specials.append(product.special.raw_bits())
            before = product # noqa: F841 (it is the next one's)

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
