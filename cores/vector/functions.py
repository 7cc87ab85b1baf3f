#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""exp, softplus and SiLU of a binary16, correctly rounded: quadratics from tables."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import NAN16, delay, delay_together
from cores.vector.function_tables import (C0_BITS, C1_BITS, C2_BITS, POSITION_BITS, SEGMENTS, SHIFT_BITS, SQUARE_SHIFT,
    VALUE_POINT, tables)

from operations.numerics import Function

# Helpers ------------------------------------------------------------------------------------------

def lookup(module, address, fields):
    """[signal] of the fields of a table's entry, a cycle after its address. fields: [(values, bits, signed)].

    It is written as a choice of constants into a register, of which synthesis makes a block RAM: no file goes with the Verilog.
    """
    word  = Signal(sum(bits for _, bits, _ in fields), reset_less=True)
    words = [0]*len(fields[0][0])
    found = []
    at    = 0
    for values, bits, signed in fields:
        words = [other | (int(value) & 2**bits - 1) << at for other, value in zip(words, values)]
        field = Signal((bits, signed))
        module.comb += field.eq(word[at:at + bits])
        found.append(field)
        at += bits
    module.sync += Case(address, {n: word.eq(value) for n, value in enumerate(words)})
    return found

# Quadratics ---------------------------------------------------------------------------------------

class Quadratics(LiteXModule):
    """The arithmetic of a :class:`FunctionUnit`, which describes it: all of it moves on each cycle."""
    latency = 10
    def __init__(self):
        self.function = Signal(2)
        self.data     = Signal(16)
        self.source   = Signal(16, reset_less=True)

        # # #

        t = tables()

        # Cycle 1: where the segments of this quarter of a binade begin, and how many there are. ---
        base, shift = lookup(self, Cat(self.data[8:], self.function),
            [(t.base, bits_for(SEGMENTS - 1), False), (t.shift, SHIFT_BITS, False)])
        fraction = delay(self, self.data, 1)[:10]
        nan      = Signal()
        negative = Signal()
        self.comb += [
            nan.eq((self.function > Function.SILU) | ((self.data[10:15] == 31) & (self.data[:10] != 0))),
            negative.eq((self.function == Function.SILU) & self.data[15]),
        ]
        nan, negative = delay_together(self, (nan, negative), self.latency - 1)

        # Cycle 2: the segment, and the place in it. -----------------------------------------------
        most    = int(t.shift.max())
        shifted = Signal(POSITION_BITS + most)
        segment = Signal(max=SEGMENTS, reset_less=True)
        u       = Signal((POSITION_BITS, True), reset_less=True)
        self.comb += Case(shift, {n if n < most else "default": shifted.eq(fraction << n) for n in range(most + 1)})
        self.sync += [
            segment.eq(base + shifted[POSITION_BITS:]),
            u.eq(Cat(shifted[:POSITION_BITS - 1], ~shifted[POSITION_BITS - 1])),
        ]

        def multiply_add(factor, u, addend, shift):
            """``factor*u + (addend << shift)``, three cycles later, with registers as a DSP block has them. The addend is due a
            cycle after the factors."""
            aligned = Signal((len(addend) + shift + (not addend.signed), True))
            product = Signal((len(factor) + len(u), True), reset_less=True)
            result  = Signal((max(len(product), len(aligned)) + 1, True), reset_less=True)
            self.comb += aligned.eq(delay(self, addend, 1) << shift)
            self.sync += [
                product.eq(delay(self, factor, 1)*delay(self, u, 1)),
                result.eq(product + aligned),
            ]
            return result

        # Cycles 3 to 6: c1 + c2*u. ----------------------------------------------------------------
        c1, c2 = lookup(self, segment, [(t.c1, C1_BITS, True), (t.c2, C2_BITS, True)])
        sloped = multiply_add(c2, delay(self, u, 1), delay(self, c1, 1), SQUARE_SHIFT)
        slope  = Signal((len(sloped) - SQUARE_SHIFT, True))
        self.comb += slope.eq(sloped[SQUARE_SHIFT:])

        # Cycles 7 to 9: c0 + slope*u. The segment's number waits, which is shorter than c0. ------
        c0, exponent = lookup(self, delay(self, segment, 4), [(t.c0, C0_BITS, False), (t.exponent, 5, False)])
        value    = multiply_add(slope, delay(self, u, 4), c0, POSITION_BITS)
        exponent = delay(self, exponent, 2)

        # Cycle 10: rounded; a carry runs into the exponent. ---------------------------------------
        halves   = value[VALUE_POINT - 1:]
        double   = Signal() # 2048 or more.
        overflow = Signal()
        kept     = Signal(10)
        up       = Signal()
        rounded  = Signal(15)
        self.comb += [
            double.eq(halves[12]),
            overflow.eq(double & (exponent == 29)),
            If(double,
                kept.eq(Mux(overflow, 0, halves[2:])),
                up.eq(~overflow & halves[1]),
            ).Else(
                kept.eq(halves[1:]),
                up.eq(halves[0]),
            ),
            rounded.eq(Cat(kept, halves[11] & ~double, double) + Cat(Constant(0, 10), exponent) + up),
        ]
        self.sync += [
            self.source.eq(Cat(rounded, negative)),
            If(nan, self.source.eq(NAN16)),
        ]

# Function Unit ------------------------------------------------------------------------------------

class FunctionUnit(LiteXModule):
    """exp(x), softplus(x) = log(1 + e**x) or silu(x) = x/(1 + e**-x), as ``sink.function`` says: EXP, SOFTPLUS or SILU.

    ::

        sink -> place -> segment, u -> c1, c2 -> c1 + c2*u -> c0 + (..)*u -> round -> source
                                  |                            ^
                                  +--------> c0, exponent -----+

    A binade of x, or a half or a quarter of it, is cut into segments of equal length. In each the function's magnitude is a
    quadratic

        v = c0 + (c1 + floor(c2*u))*u        in units of 2**(exponent - 24)

    of the place u in the segment, -1/2 <= u < 1/2; floor is to the last bit that c1 has. It is rounded once:

    | v                                    | bits of the result                           |
    |--------------------------------------|----------------------------------------------|
    | 0 <= v < 2048                        | 1024*exponent + floor(v + 1/2)               |
    | 2048 <= v < 4096                     | 1024*(exponent + 1) + floor(v/2 + 1/2)       |
    | 2048 <= v < 4096, exponent = 29      | infinity                                     |

    That covers subnormals, zeros and infinities. Only SiLU has a sign, that of x. The coefficients
    (:mod:`cores.vector.function_tables`) are such that each result is the correctly rounded one. Of a NaN, or with 3 for the
    function, it is NaN, 0x7E00. ``last`` goes along.

    Throughput: one a cycle. Latency: 10 cycles, in which the source takes what it is offered. Model:
    :func:`model.exact.functions.table`.
    """
    latency = Quadratics.latency
    def __init__(self):
        self.sink   = sink   = stream.Endpoint([("function", 2), ("data", 16)])
        self.source = source = stream.Endpoint([("data", 16)])

        # # #

        self.quadratics = quadratics = CEInserter()(Quadratics())
        stages = [Cat(sink.valid, sink.last)] + [Signal(2) for _ in range(self.latency)]
        self.comb += [
            quadratics.ce.eq(source.ready | ~source.valid),
            quadratics.function.eq(sink.function),
            quadratics.data.eq(sink.data),
            sink.ready.eq(quadratics.ce),
            source.data.eq(quadratics.source),
            Cat(source.valid, source.last).eq(stages[-1]),
        ]
        self.sync += If(quadratics.ce, [after.eq(before) for before, after in zip(stages, stages[1:])])
