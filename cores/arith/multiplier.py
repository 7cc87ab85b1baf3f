#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Multiplication without a DSP block, for what the lanes share: three blocks a lane are theirs; and with two, where one is
too narrow."""

from migen import *
from migen.fhdl.bitcontainer import value_bits_sign

from litex.gen import *

from cores.arith.fp16 import delay, shifted_by

# Shifted Product ----------------------------------------------------------------------------------

def shifted_product(module, a, b, shift, width):
    """``a*b`` shifted left by `shift` (4 bits), to `width` bits, three cycles later, for DSP blocks that are too narrow for
    factors already shifted: registers that may lie at the block, product, shift."""
    signed  = value_bits_sign(a)[1]
    product = Signal((len(a) + len(b), signed), reset_less=True)
    fine    = Signal((len(product) + 3, signed))
    select  = delay(module, shift, 2)
    module.sync += product.eq(delay(module, a, 1)*delay(module, b, 1))
    module.comb += Case(select[:2], {n: fine.eq(product << n) for n in range(4)})
    return shifted_by(module, fine, select[2:], 4, width, dsp=False)

# Split Product ------------------------------------------------------------------------------------

def split_product(module, a, b, dsp_bits):
    """``a*b`` of a signed a and an unsigned b two cycles later, by two DSP blocks that multiply signed numbers of `dsp_bits`
    bits, fewer than a has. The first cycle ends after the blocks, not after the sum of their products."""
    at      = dsp_bits - 1
    upper   = Signal((len(a) - at, True))
    low     = Signal(at + len(b), reset_less=True)
    high    = Signal((len(upper) + len(b) + 1, True), reset_less=True)
    product = Signal((len(a) + len(b), True), reset_less=True)
    module.comb += upper.eq(a[at:])
    module.sync += [
        low.eq(a[:at]*b),
        high.eq(upper*b),
        product.eq(Cat(low[:at], high + low[at:])),
    ]
    return product

# Multiplier ---------------------------------------------------------------------------------------

class Multiplier(LiteXModule):
    """``source = -a*b``, two bits of b a cycle; a is signed, b is not.

    ::

        a -> 3*a -> 0 - (0, a, 2*a or 3*a) -> - (0, a, 2*a or 3*a)*4 -> ... -> source
                                ^ b[0:2]              ^ b[2:4]

    It subtracts, because yosys makes one LUT6 a bit of a choice and a subtraction, but two of a choice and an addition.

    With ``dsp`` it is a DSP block of the same latency, whose ``source = a*b`` is not ``negated``.

    Latency: 1 + b_bits/2 cycles, rounded up. Throughput: one product a cycle.
    """
    def __init__(self, a_bits, b_bits, dsp=False):
        rows         = -(-b_bits//2)
        self.latency = 1 + rows
        self.a       = Signal((a_bits, True))
        self.b       = Signal(b_bits)
        self.source  = Signal((a_bits + b_bits, True))
        self.negated = not dsp

        # # #

        if dsp:
            product = Signal((a_bits + b_bits, True), reset_less=True)
            self.sync += product.eq(delay(self, self.a, 1)*delay(self, self.b, 1))
            self.comb += self.source.eq(delay(self, product, self.latency - 2))
            return
        a      = Signal((a_bits, True),     reset_less=True)
        triple = Signal((a_bits + 2, True), reset_less=True)
        self.sync += [
            a.eq(self.a),
            triple.eq(self.a + (self.a << 1)),
        ]
        b    = delay(self, self.b, 1)
        lows = [] # Bits below those that the next row changes.
        for row in range(rows):
            term  = Signal((a_bits + 2, True))
            total = Signal((a_bits + 3, True), reset_less=True)
            self.comb += Case(b[:2], {0: term.eq(0), 1: term.eq(a), 2: term.eq(a << 1), 3: term.eq(triple)})
            self.sync += total.eq(high - term if row else -term)
            if row < rows - 1:
                high = Signal((a_bits + 1, True))
                self.comb += high.eq(total[2:])
                lows.append(delay(self, total[:2], rows - 1 - row))
                a, triple = delay(self, a, 1), delay(self, triple, 1)
                b         = delay(self, b[2:], 1)
        self.comb += self.source.eq(Cat(*lows, total))
