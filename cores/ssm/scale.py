#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""u = dt*x, exact: the operand that a whole row of state shares."""

from migen import *

from litex.gen import *

from cores.ssm.fp16 import Normaliser, NormalisedFields

# Scaled Operand -----------------------------------------------------------------------------------

SCALED_LAYOUT = [("significand", (23, True)), ("exponent", 7), ("sign", 1), ("zero", 1), ("inf", 1), ("nan", 1)]


class Scale(LiteXModule):
    """Exact product of two binary16 values.

    ``source = dt*x``, as ``significand * 2**(exponent - 68)``: significand signed, magnitude in [2**20, 2**22) or 0;
    exponent 0 .. 78. zero, inf and nan say what the product is (inf*0 is NaN); sign is meant for zero and inf too.

    ::

        dt (16) -> normalise -+
                              +-> multiply (11 x 11) -> source
        x  (16) -> normalise -+

    Latency: 3 cycles. Throughput: one product a cycle.
    """
    latency = 3

    def __init__(self):
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

        # Cycle 2: multiply. Cycle 3: sign.
        magnitude = Signal(22, reset_less=True)
        exponent  = Signal(7,  reset_less=True)
        sign      = Signal(reset_less=True)
        zero      = Signal(reset_less=True)
        inf       = Signal(reset_less=True)
        nan       = Signal(reset_less=True)
        self.sync += [
            magnitude.eq(dt.significand*x.significand),
            exponent.eq(dt.exponent + x.exponent),
            sign.eq(dt.sign ^ x.sign),
            nan.eq(dt.nan | x.nan | (dt.inf & x.zero) | (dt.zero & x.inf)),
            inf.eq(dt.inf | x.inf),
            zero.eq(dt.zero | x.zero),
            source.significand.eq(Mux(sign, -magnitude, magnitude)),
            source.exponent.eq(exponent),
            source.sign.eq(sign),
            source.nan.eq(nan),
            source.inf.eq(inf & ~nan),
            source.zero.eq(zero & ~nan),
        ]
