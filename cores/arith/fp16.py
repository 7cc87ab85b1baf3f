#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""binary16 on wires: how the units see an operand.

A finite binary16 is ``(-1)**sign * significand * 2**(exponent - 24)`` with an 11-bit significand (hidden bit included)
and an exponent from 0 to 29; subnormals have exponent 0 and no hidden bit.

A *normalised* operand always has its hidden bit set, at the price of a wider exponent: it is
``(-1)**sign * significand * 2**(exponent - 34)`` with an exponent from 0 to 39. It travels in 17 bits (sign, 6 bits of
exponent, 10 bits of fraction); exponents above 39 mark zero, infinity and NaN.
"""

from migen import *
from migen.fhdl.bitcontainer import value_bits_sign

from litex.gen import *

# Constants ----------------------------------------------------------------------------------------

NAN16      = 0x7e00
INFINITY16 = 0x7c00

NORMALISED_BITS = 17
EXPONENT_ZERO   = 61
EXPONENT_INF    = 62
EXPONENT_NAN    = 63

# Helpers ------------------------------------------------------------------------------------------

def delay(module, signal, cycles, reset_less=True):
    """`signal`, `cycles` clock cycles later. Data needs no reset (and then maps to shift register LUTs)."""
    for _ in range(cycles):
        delayed = Signal.like(signal, reset_less=reset_less)
        module.sync += delayed.eq(signal)
        signal = delayed
    return signal


def delay_together(module, signals, cycles):
    """Unsigned signals, `cycles` clock cycles later; they travel in one register, at which simulators are faster."""
    together = Signal(sum(len(signal) for signal in signals))
    module.comb += together.eq(Cat(*signals))
    together = delay(module, together, cycles)
    ends     = [sum(len(signal) for signal in signals[:n]) for n in range(len(signals) + 1)]
    return [together[first:end] for first, end in zip(ends, ends[1:])]


def shift_left(value, amount, width):
    """The Signal `value` shifted left by a constant, to `width` bits: a concatenation, at which simulators are faster."""
    sign = value[-1] if value.signed else Constant(0, 1)
    bits = ([Constant(0, amount)] if amount else []) + [value[:width - amount]]
    fill = width - amount - len(value)
    return Cat(*bits, *([Replicate(sign, fill)] if fill > 0 else []))


def shifted_by(module, value, select, step, width, dsp):
    """`value` shifted left by `step` times `select` (2 bits), to `width` bits, a cycle later: by multiplexers, or with `dsp`
    by a DSP block that multiplies by a power of two."""
    result = Signal((width, value_bits_sign(value)[1]), reset_less=True)
    if dsp:
        power = Signal(3*step + 1)
        module.comb += [power[step*n].eq(select == n) for n in range(4)]
        module.sync += result.eq(value*power)
    else:
        module.sync += Case(select, {n: result.eq(value << step*n) for n in range(4)})
    return result


class Fields:
    """A binary16 taken apart: ``sign``, ``biased`` (its exponent plus 1: 1 .. 30), ``significand`` (11 bits), ``zero``,
    ``inf``, ``nan``.

    Combinational; for an infinity or a NaN exponent and significand mean nothing.
    """
    def __init__(self, module, word):
        self.sign        = word[15]
        self.biased      = Signal(5)
        self.significand = Signal(11)
        self.zero        = Signal()
        self.inf         = Signal()
        self.nan         = Signal()

        # # #

        field    = word[10:15]
        fraction = word[:10]
        module.comb += [
            self.biased.eq(Cat(field[0] | (field == 0), field[1:])),
            self.significand.eq(Cat(fraction, field != 0)),
            self.zero.eq(word[:15] == 0),
            self.inf.eq((field == 31) & (fraction == 0)),
            self.nan.eq((field == 31) & (fraction != 0)),
        ]


class NormalisedFields:
    """A 17-bit normalised operand taken apart, as :class:`Fields`; ``exponent`` is 0 .. 39, a zero's significand 0."""
    def __init__(self, module, word):
        self.sign        = word[16]
        self.exponent    = word[10:16]
        self.significand = Signal(11)
        self.zero        = Signal()
        self.inf         = Signal()
        self.nan         = Signal()

        # # #

        module.comb += [
            self.zero.eq(self.exponent == EXPONENT_ZERO),
            self.inf.eq(self.exponent == EXPONENT_INF),
            self.nan.eq(self.exponent == EXPONENT_NAN),
            self.significand.eq(Cat(word[:10], ~self.zero)),
        ]

# Normaliser ---------------------------------------------------------------------------------------

class Normaliser(LiteXModule):
    """binary16 to normalised operand.

    sink (16 bits) -> leading zeros -> shift -> source (17 bits)

    Latency: 0 cycles, combinational. Exact.
    """
    latency = 0

    def __init__(self):
        self.sink   = sink   = Signal(16)
        self.source = source = Signal(NORMALISED_BITS)

        # # #

        fields   = Fields(self, sink)
        exponent = Signal(6)
        fraction = Signal(10)
        # A subnormal's leading one, from the top: the first match wins.
        statements = [exponent.eq(EXPONENT_ZERO), fraction.eq(0)]
        for position in range(10):
            shifted    = sink[:10] << (10 - position)
            statements = [If(sink[position], exponent.eq(position), fraction.eq(shifted)).Else(*statements)]
        self.comb += [
            If(fields.significand[10],
                exponent.eq(fields.biased + 9),
                fraction.eq(sink[:10]),
            ).Else(*statements),
            If(fields.inf, exponent.eq(EXPONENT_INF), fraction.eq(0)),
            If(fields.nan, exponent.eq(EXPONENT_NAN), fraction.eq(0)),
            source.eq(Cat(fraction, exponent, sink[15])),
        ]
