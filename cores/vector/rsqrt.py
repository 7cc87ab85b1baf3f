#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The reciprocal square root that a norm scales by, bit by bit: once a norm, so it may take its time and little room."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from operations.numerics import RSQRT_BITS, UNIT_BITS

# Constants ----------------------------------------------------------------------------------------

COUNT_BITS = 16 # Of the number of elements.
VALUE_BITS = 97 # Of their sum: COUNT_BITS and 80, and one for what is added to it.

# Rsqrt --------------------------------------------------------------------------------------------

class Rsqrt(LiteXModule):
    """sqrt(count*2**48/value), to 17 significant bits, to nearest, half way up: ``significand*2**exponent``.

    ::

        sink: count, value -> normalise -> quotient, a bit a cycle -> its root, a bit a cycle -> round -> source

    ``count`` and ``value`` are 1 or more. The quotient is rounded down and has 37 bits or more, so its root, rounded down, is that
    of the exact quotient, rounded down, and has 19 or 20: those below the 17th then round.

    Latency: 70 to 185 cycles, the more the smaller count and value are. One at a time.
    Model: :func:`model.exact.functions.rsqrt`, of (count << 48, value).
    """
    def __init__(self):
        self.sink   = sink   = stream.Endpoint([("count", COUNT_BITS), ("value", VALUE_BITS)])
        self.source = source = stream.Endpoint([("significand", RSQRT_BITS), ("exponent", (8, True))])

        # # #

        fraction  = 2*(RSQRT_BITS + 1) + 1 # Bits of the quotient below the point, or one more.
        bits      = fraction + 3                 # All of them, and what makes them pairs.
        value     = Signal(VALUE_BITS)
        remainder = Signal(VALUE_BITS + 1) # At first the count, at the top.
        length    = Signal((8, True))      # d: how much longer the dividend is than the divisor.
        quotient  = Signal(bits)
        steps     = Signal(max=bits + 1)
        top       = Signal()
        less      = Signal(VALUE_BITS + 2)
        # The root: two bits of the quotient a step.
        root      = Signal(bits//2 + 1)
        rest      = Signal(bits//2 + 3)
        trial     = Signal(bits//2 + 3)
        larger    = Signal(bits//2 + 4)
        self.comb += [
            top.eq(remainder[VALUE_BITS - 1]),
            less.eq(remainder - value),
            trial.eq(Cat(quotient[-2:], rest)),
            larger.eq(trial - Cat(Constant(1, 2), root)),
        ]

        # shift = fraction - d, one more where that is odd. The exponent is that of the root's unit, -shift/2, and what rounding drops.
        half    = Signal((8, True))
        long    = Signal() # The root has a bit more.
        rounded = Signal(RSQRT_BITS + 2)
        carry   = Signal()
        self.comb += [
            half.eq((fraction + 1 - length) >> 1),
            long.eq(root[RSQRT_BITS + 2]),
            rounded.eq((Mux(long, root[2:], root[1:]) + 1) >> 1),
            carry.eq(rounded[RSQRT_BITS]),
            source.significand.eq(Mux(carry, rounded[1:], rounded)),
            source.exponent.eq(2 - half + long + carry),
        ]

        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE",
            sink.ready.eq(1),
            If(sink.valid,
                NextValue(value, sink.value),
                NextValue(remainder, sink.count << VALUE_BITS - COUNT_BITS),
                NextValue(length, COUNT_BITS + UNIT_BITS - VALUE_BITS),
                NextState("NORMALISE"),
            )
        )
        fsm.act("NORMALISE",
            If(~value[-1],
                NextValue(value, value << 1),
            ),
            If(~top,
                NextValue(remainder, remainder << 1),
            ),
            NextValue(length, length + ~value[-1] - ~top),
            If(value[-1] & top,
                NextValue(length, length),
                NextValue(quotient, 0),
                NextValue(steps, Mux(length[0], fraction, fraction + 1)),
                NextState("DIVIDE"),
            )
        )
        fsm.act("DIVIDE",
            NextValue(quotient, Cat(~less[-1], quotient)),
            NextValue(remainder, Mux(less[-1], remainder, less) << 1),
            NextValue(steps, steps - 1),
            If(steps == 0,
                NextValue(root, 0),
                NextValue(rest, 0),
                NextValue(steps, bits//2 - 1),
                NextState("ROOT"),
            )
        )
        fsm.act("ROOT",
            NextValue(quotient, quotient << 2),
            NextValue(root, Cat(~larger[-1], root)),
            NextValue(rest, Mux(larger[-1], trial, larger)),
            NextValue(steps, steps - 1),
            If(steps == 0, NextState("DONE")),
        )
        fsm.act("DONE",
            source.valid.eq(1),
            If(source.ready, NextState("IDLE")),
        )
