#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""u = dt*x, exact: the operand that a whole row of state shares."""

from migen import *

from litex.gen import *

from cores.arith.fp16 import NormalisedFields, Normaliser, delay
from cores.arith.multiplier import Multiplier

# Scaled Operand -----------------------------------------------------------------------------------

SCALED_LAYOUT = [("significand", (23, True)), ("exponent", 7), ("sign", 1), ("zero", 1), ("inf", 1), ("nan", 1)]


class ExactProduct(LiteXModule):
    """Exact product of two binary16 values.

    ``source = dt*x``, as ``significand * 2**(exponent - 68)``: significand signed, magnitude in [2**20, 2**22) or 0;
    exponent 0 .. 78. zero, inf and nan say what the product is (inf*0 is NaN); sign is meant for zero and inf too.

    ::

        dt (16) -> normalise -+
                              +-> Multiplier (11 x 11) -> source
        x  (16) -> normalise -+

    Latency: 9 cycles. Throughput: one product a cycle. Multiplier: of LUTs, or with ``dsp`` a DSP block.
    """
    latency = 9

    def __init__(self, dsp=False):
        self.dt     = Signal(16)
        self.x      = Signal(16)
        self.source = source = Record(SCALED_LAYOUT, reset_less=True)

        # # #

        # Cycle 1: normalise.
        words = []
        for operand in (self.dt, self.x):
            normaliser = Normaliser()
            word       = Signal(17, reset_less=True)
            self.submodules += normaliser
            self.comb += normaliser.sink.eq(operand)
            self.sync += word.eq(normaliser.source)
            words.append(word)
        dt, x = (NormalisedFields(self, word) for word in words)

        # Multiply, then the sign.
        self.multiplier = multiplier = Multiplier(12, 11, dsp)
        cycles   = multiplier.latency
        sign     = dt.sign ^ x.sign
        nan      = dt.nan | x.nan | (dt.inf & x.zero) | (dt.zero & x.inf)
        sign_n   = delay(self, sign, cycles)
        flip     = Signal() # The product has the wrong sign.
        self.comb += [
            multiplier.a.eq(dt.significand),
            multiplier.b.eq(x.significand),
            flip.eq(~sign_n if multiplier.negated else sign_n),
        ]
        exponent = Signal(7, reset_less=True)
        self.sync += [
            exponent.eq(dt.exponent + x.exponent),
            source.significand.eq((Cat(flip, multiplier.source ^ Replicate(flip, 23)) + flip)[1:]), # Complement and 1.
            source.exponent.eq(delay(self, exponent, cycles - 1)),
            source.sign.eq(sign_n),
            source.nan.eq(delay(self, nan, cycles)),
            source.inf.eq(delay(self, (dt.inf | x.inf) & ~nan, cycles)),
            source.zero.eq(delay(self, (dt.zero | x.zero) & ~nan, cycles)),
        ]
