#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Random bits for stochastic rounding: a hash of where the state element stands."""

from migen import *

from litex.gen import *

from operations.config import HASH_CONSTANT, HASH_LANES, HASH_ROUNDS, HASH_WORD_BITS, RANDOM_BITS

# Counter Hash -------------------------------------------------------------------------------------

class CounterRNG(LiteXModule):
    """``source[lane] = hash(key, row, column*lanes + lane)``, RANDOM_BITS for each lane.

    ::

        key (32), row (8) -> 4 rounds -+-> ^ constant of n//4 -> 4 rounds -> 4 lanes
                                       +-> ...                            -> 4 lanes

        round: x = (x >>> 8) + y ^ constant;  y = (y <<< 3) ^ x      x, y: 24 bits, <<< and >>> rotate

    A counter-based generator: it has no state, so the bits depend neither on the number of lanes nor on what ran before,
    and a token that is run again gets the same ones. The round is that of the cipher SPECK48 (R. Beaulieu et al., "The
    SIMON and SPECK families of lightweight block ciphers", 2013) with constants for keys; 8 rounds mix well enough for
    rounding and for nothing else.

    Latency: 8 cycles. Throughput: bits for all lanes each cycle. Model: :func:`model.bitexact.random_bits`.
    """
    latency = 2*HASH_ROUNDS

    def __init__(self, lanes, rows, columns):
        self.key    = Signal(32)
        self.row    = Signal(max=max(rows, 2))
        self.column = Signal(max=max(columns, 2))
        self.source = Signal(RANDOM_BITS*lanes)

        # # #

        def rounds(x, y, first):
            for n in range(first, first + HASH_ROUNDS):
                next_x = Signal(HASH_WORD_BITS, reset_less=True)
                next_y = Signal(HASH_WORD_BITS, reset_less=True)
                mixed  = Signal(HASH_WORD_BITS)
                self.comb += mixed.eq((Cat(x[8:], x[:8]) + y)[:HASH_WORD_BITS] ^ constant(n + 1))
                self.sync += [
                    next_x.eq(mixed),
                    next_y.eq(Cat(y[-3:], y[:-3]) ^ mixed),
                ]
                x, y = next_x, next_y
            return x, y

        def constant(n):
            return n*HASH_CONSTANT % 2**HASH_WORD_BITS

        # All lanes share the row. -----------------------------------------------------------------
        x = Signal(HASH_WORD_BITS)
        y = Signal(HASH_WORD_BITS)
        self.comb += Cat(x, y).eq(Cat(self.key, self.row))
        x, y = rounds(x, y, 0)
        column = self.column
        for _ in range(HASH_ROUNDS):
            last, column = column, Signal.like(column, reset_less=True)
            self.sync += column.eq(last)

        # Each four of them go their own way from there. -------------------------------------------
        for group in range(lanes//HASH_LANES):
            own = Signal(HASH_WORD_BITS)
            self.comb += Case(column, {n: own.eq(constant(n*lanes//HASH_LANES + group)) for n in range(2**len(column))})
            group_x, group_y = Signal(HASH_WORD_BITS), Signal(HASH_WORD_BITS)
            self.comb += group_x.eq(x ^ own), group_y.eq(y)
            half = HASH_WORD_BITS//2
            words = Cat(*rounds(group_x, group_y, HASH_ROUNDS))
            for n in range(HASH_LANES):
                lane = HASH_LANES*group + n
                self.comb += self.source[RANDOM_BITS*lane:RANDOM_BITS*(lane + 1)].eq(
                    words[half*n:half*(n + 1)][half - RANDOM_BITS:])
