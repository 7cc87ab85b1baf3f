#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sums of the rows of a head tile, carried from one group of state columns to the next."""

from migen import *

from litex.gen import *

from cores.arith.dot import PRODUCT_BITS, SPECIAL_LAYOUT

# Row Accumulator ----------------------------------------------------------------------------------

class RowAccumulator(LiteXModule):
    """One wide fixed-point accumulator a row, exact: multiples of 2**-48, as wide as the longest sum needs.

    A value of the sink is added to the sum of its ``row``. With ``first`` the row starts anew, from ``skip`` (D*x of
    the row); with ``last`` its total appears at the source.

    ::

        skip --------+
                     +-> first? -+
        rows[row] ---+           +-> + -> rows[row]
        sum ---------------------+     -> source, if last

    Latency: 1 cycle. Throughput: one value a cycle, rows in any order, the same row twice in a row too.

    Parameters
    ----------
    rows       : number of accumulators.
    terms      : products a sum may have, the skip included.
    sum_bits   : width of the sink.
    """
    latency = 1

    def __init__(self, rows, terms, sum_bits):
        self.width        = width = PRODUCT_BITS + bits_for(terms)
        self.valid        = Signal()
        self.row          = Signal(max=max(rows, 2))
        self.first        = Signal()
        self.last         = Signal()
        self.sum          = Signal((sum_bits, True))
        self.sum_special  = Record(SPECIAL_LAYOUT)
        self.skip         = Signal((PRODUCT_BITS, True))
        self.skip_special = Record(SPECIAL_LAYOUT)

        self.source_valid = Signal()
        self.source       = Signal((width, True), reset_less=True)
        self.special      = Record(SPECIAL_LAYOUT, reset_less=True)

        # # #

        memory = Memory(width + 3, max(rows, 2))
        read   = memory.get_port(async_read=True)
        write  = memory.get_port(write_capable=True)
        self.specials += memory, read, write

        base         = Signal((width, True))
        base_special = Signal(3)
        total        = Signal((width, True))
        special      = Signal(3)
        self.comb += [
            read.adr.eq(self.row),
            If(self.first,
                base.eq(self.skip),
                base_special.eq(self.skip_special.raw_bits()),
            ).Else(
                base.eq(read.dat_r[:width]),
                base_special.eq(read.dat_r[width:]),
            ),
            total.eq(base + self.sum),
            special.eq(base_special | self.sum_special.raw_bits()),
            write.adr.eq(self.row),
            write.dat_w.eq(Cat(total, special)),
            write.we.eq(self.valid),
        ]
        self.sync += [
            self.source_valid.eq(self.valid & self.last),
            self.source.eq(total),
            self.special.raw_bits().eq(special),
        ]
