#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Two sums of sixteen products by sixteen DSP blocks."""

from migen import *

from litex.gen import *

from cores.arith.fp16 import delay

from operations.numerics import COLUMNS, MANTISSA_BITS

# Product Chain ------------------------------------------------------------------------------------

class ProductChain(LiteXModule):
    """``source = sum over the columns of (high*2**spacing + low)*activation, + 8*balance``: two sums side by side.

    ::

        column 0 ------------> x -> + <- 8*balance
        column 1, a cycle later x -> +
            ...                      |
        column 15 ------------> x -> + -> source: upper, lower

    A nibble ``high`` is signed, ``low`` is not. With ``balance = 2**(bits + 3) - sum of the activations`` the lower part of the source is
    ``lower = sum of (low - 8)*activation, + 2**(spacing - 1)``, which is never negative and fits ``spacing`` bits; so the upper part is
    the sum of high*activation as it is. Both sums are exact.

    Latency: 18 cycles from column 0, whose balance comes with it. Throughput: one a cycle.

    Parameters
    ----------
    bits   : of an activation, sign included.
    packed : whether a DSP block multiplies 25 x 18 bits, and so both nibbles at once; else LUTs multiply the low one.
    """
    latency = COLUMNS + 2

    def __init__(self, bits=MANTISSA_BITS, packed=True):
        self.spacing     = spacing = bits + 7
        self.activations = [Signal((bits, True)) for _ in range(COLUMNS)]
        self.high        = [Signal((4, True)) for _ in range(COLUMNS)]
        self.low         = [Signal(4) for _ in range(COLUMNS)]
        self.balance     = Signal(bits + 4)
        self.source      = Signal((2*spacing, True))

        # # #

        total = Signal((2*spacing, True))
        self.comb += total.eq(delay(self, self.balance, 2) << 3)
        for activation, high, low in zip(self.activations, self.high, self.low):
            factor   = Signal((spacing + 4, True))
            product  = Signal((spacing + 4 + bits, True), reset_less=True)
            previous = total
            total    = Signal((2*spacing, True), reset_less=True)
            self.comb += factor.eq(Cat(low, Constant(0, spacing - 4), high))
            a = delay(self, activation, 1)
            w = delay(self, factor, 1)
            if packed:
                self.sync += product.eq(w*a)
            else:
                upper        = Signal((4, True))
                parts        = [Signal((bits + n + 1, True)) for n in range(4)] # Of the low nibble's product, by its bits.
                high_product = Signal((4 + bits, True), reset_less=True)
                low_product  = Signal((5 + bits, True), reset_less=True)
                self.comb += [
                    upper.eq(w[spacing:]),
                    [If(w[n], part.eq(a << n)) for n, part in enumerate(parts)],
                    product.eq((high_product << spacing) + low_product),
                ]
                self.sync += [
                    high_product.eq(upper*a),
                    low_product.eq((parts[0] + parts[1]) + (parts[2] + parts[3])),
                ]
            self.sync += total.eq(product + previous)
        self.comb += self.source.eq(total)
