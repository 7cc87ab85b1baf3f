#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Matrices of quantised weights, streamed past the vectors of R tokens."""


from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import Fields, delay, delay_together
from cores.arith.round import FINITE, NAN
from cores.arith.round_float import RoundFloat

from cores.gemv.activations import Activations
from cores.gemv.products import ProductChain
from cores.gemv.row_sum import RowSum, sum_bits, sum_lsb

from operations.config import DATA_WIDTHS, check_choice
from operations.numerics import COLUMNS, LANE_BITS, MANTISSA_BITS

# Constants ----------------------------------------------------------------------------------------

BLOCK_BITS = 20 # Of the number of blocks.
TOTALS     = 16 # Rows' sums under way to be rounded.

# GEMV Lanes ---------------------------------------------------------------------------------------

class GEMVLanes(LiteXModule):
    """``y[row, token] = RN( sum over groups of (sum over the group of w*q) * d * 2**e )``, exact up to the one rounding.

    ::

        tape -+-> scales --------------------------+
              +-> weights -> R ProductChains -> R RowSums -> FIFO -> RoundFloat -> source      (a lane: each 128 bits of the tape)
                                ^                 ^
        load -> Activations ----+-----------------+

    Vectors come by ``load``, see :class:`cores.gemv.activations.Activations`. A ``command`` is a matrix: ``narrow``, Q4_0, or else Q8_0;
    ``groups`` of 32 columns and ``blocks`` of rows, both less one; ``base``, where the vectors lie, in words of sixteen columns;
    ``tokens``, less one, whose results are wanted; ``wide``: they are binary32, else binary16.

    The tape has, of each matrix, block by block of rows, group by group and half by half of it, a beat, with a beat of scales in front of
    each 8 beats of Q4_0 or 16 of Q8_0, in which as many are left out at the end as there are none for. With n lanes a block has n
    rows of Q8_0: lane l's 128 bits are row l's sixteen integers, whose low nibble is as it is. Of Q4_0 it has 2*n rows, and a
    byte the integers of column and rows l and n + l: in the high nibble that of row l, signed; in the low one the other, plus 8. A
    lane's scales are in the order of their use: of Q4_0, of row l, then of n + l.

    The source gives, for each n rows in turn, a beat for each token, ``last`` with the matrix's last one. A vector with an infinity or
    a NaN in it gives NaN.

    Throughput: a beat of the tape a cycle, without a pause between rows or matrices, from 128 columns and from 32 columns a token on,
    as long as commands and the source do not pause. Latency: 33 cycles from a row's last beat. Model: :class:`model.exact.linear.Linear`.

    Parameters
    ----------
    width      : of a beat of the tape: 128, 256 or 512 bits.
    tokens     : R: 1, 2, 4 or 8.
    load_lanes : elements of a beat of ``load``.
    words      : of sixteen columns, that the memory of vectors has.
    bits       : of an activation's mantissa, sign included.
    packed     : as :class:`cores.gemv.products.ProductChain` has it.
    """
    latency = 1 + ProductChain.latency + 1 + RowSum.latency + 1 + RoundFloat.latency

    def __init__(self, width=128, tokens=1, load_lanes=1, words=512, bits=MANTISSA_BITS, packed=True):
        check_choice("width",  width,  DATA_WIDTHS)
        check_choice("tokens", tokens, (1, 2, 4, 8))
        lanes        = width//LANE_BITS
        token_bits   = max(log2_int(tokens), 1)
        self.max_groups = max_groups = min(words//2, 256)
        self.command = command = stream.Endpoint([("narrow", 1), ("wide", 1), ("groups", bits_for(max_groups - 1)), ("blocks", BLOCK_BITS),
            ("base", log2_int(words)), ("tokens", token_bits)])
        self.tape    = tape = stream.Endpoint([("data", width)])
        self.source  = source = stream.Endpoint([("data", 32*lanes)])

        self.activations = activations = Activations(tokens, load_lanes, words, bits)
        self.load        = activations.sink

        # # #

        # Order: where in the matrix the tape's next beat is. --------------------------------------
        start    = Signal(reset=1) # At the beginning of a matrix,
        first    = Signal()        # in the first group of a row,
        final    = Signal()        # in the last one,
        second   = Signal()        # in its second half,
        bottom   = Signal()        # in the last block of rows;
        is_scale = Signal(reset=1) # it is one of scales.
        groups   = Signal.like(command.groups, reset_less=True) # Left after this one, as
        blocks   = Signal.like(command.blocks, reset_less=True)
        scaled   = Signal(5, reset_less=True) # and beats that there are scales for.
        room     = Signal(max=TOTALS + 1, reset=TOTALS)
        address  = Signal(log2_int(words), reset_less=True)
        accept   = Signal()
        ends     = Signal()
        released = Signal()
        spent    = Signal(2) # Of the room, a cycle later: blocks have two beats at least.
        self.comb += [
            ends.eq(final & second & ~is_scale),
            tape.ready.eq(command.valid & (~ends | (room >= 2))),
            accept.eq(tape.valid & tape.ready),
            command.ready.eq(accept & ends & bottom),
            activations.address.eq(address),
        ]
        begin = [
            first.eq(1),
            final.eq(command.groups == 0),
            groups.eq(command.groups),
            address.eq(command.base),
        ]
        self.sync += [
            spent.eq(Mux(accept & ends, Mux(command.narrow, 2, 1), 0)),
            room.eq(room + released - spent),
            If(accept & is_scale,
                is_scale.eq(0),
                scaled.eq(Mux(command.narrow, 7, 15)),
                start.eq(0),
                If(start,
                    *begin,
                    blocks.eq(command.blocks),
                    bottom.eq(command.blocks == 0),
                )
            ),
            If(accept & ~is_scale,
                second.eq(~second),
                scaled.eq(scaled - 1),
                is_scale.eq(scaled == 0),
                address.eq(address + 1),
                If(second,
                    first.eq(0),
                    final.eq(groups == 1),
                    groups.eq(groups - 1),
                    If(final,
                        *begin,
                        blocks.eq(blocks - 1),
                        bottom.eq(blocks == 1),
                        If(bottom,
                            start.eq(1),
                            is_scale.eq(1),
                        )
                    )
                )
            )
        ]

        # What goes with a beat on its way: to the chains, and past them. ---------------------------
        valid = Signal()
        flags = Signal(6, reset_less=True)
        self.sync += [
            valid.eq(accept & ~is_scale),
            flags.eq(Cat(command.narrow, second, first, ends, bottom, command.wide)),
        ]
        count   = Signal(token_bits, reset_less=True)
        weights = Signal(width, reset_less=True)
        self.sync += [
            count.eq(command.tokens),
            weights.eq(tape.data),
        ]
        latency = ProductChain.latency
        valid_p = delay(self, valid, latency, reset_less=False)
        flags_p, count_p = delay_together(self, (flags, count), latency)
        narrow, half, first, end, last, wide = (flags_p[n] for n in range(6))

        # A group's sums, a cycle later or two.
        take       = Signal()
        take_other = Signal()
        first_1, end_1, last_1, wide_1, narrow_1 = (Signal(reset_less=True) for _ in range(5))
        count_1    = Signal.like(count)
        other      = Signal()
        self.sync += [
            take.eq(valid_p & (half | ~narrow)),
            take_other.eq(take & narrow_1),
            If(valid_p,
                narrow_1.eq(narrow),
                If(half | ~narrow,
                    first_1.eq(first & (narrow | ~half)),
                    end_1.eq(end),
                    last_1.eq(last),
                    wide_1.eq(wide),
                    count_1.eq(count_p),
                )
            )
        ]
        self.comb += other.eq(take_other)

        # Lanes. -----------------------------------------------------------------------------------
        total_bits = sum_bits(bits, max_groups)
        totals     = stream.SyncFIFO([("data", lanes*tokens*(total_bits + 1)), ("wide", 1), ("tokens", token_bits), ("end", 1)], TOTALS)
        self.totals = totals
        ready      = delay(self, (take | take_other) & end_1, RowSum.latency, reset_less=False)
        beside     = delay_together(self, (wide_1, count_1, last_1 & (~narrow_1 | other)), RowSum.latency)
        self.comb += [
            totals.sink.valid.eq(ready),
            Cat(totals.sink.wide, totals.sink.tokens, totals.sink.end).eq(Cat(*beside)),
        ]
        columns = activations.columns
        besides = [delay(self, beside.raw_bits(), latency) for beside in activations.beside]
        sums    = []
        for lane in range(lanes):
            # Scales, from the lowest on.
            scales  = Signal(LANE_BITS, reset_less=True)
            scale_1 = Signal(16, reset_less=True)
            self.sync += [
                If(accept,
                    If(is_scale,
                        scales.eq(tape.data[LANE_BITS*lane:]),
                    ).Elif(command.narrow | second,
                        scales.eq(scales >> 16),
                    )
                ),
                scale_1.eq(scales[:16]),
            ]
            scale_p = delay(self, scale_1, latency)
            held    = Signal(16, reset_less=True) # Of the row that is scaled first.
            current = Signal(16, reset_less=True)
            self.sync += If(valid_p,
                If(narrow & ~half,
                    held.eq(scale_p),
                ),
                If(half | ~narrow,
                    current.eq(Mux(narrow, held, scale_p)),
                )
            )
            later   = Signal(16, reset_less=True) # Of the other.
            self.sync += If(valid_p & half, later.eq(scale_p))
            scale   = Signal(16)
            self.comb += scale.eq(Mux(other, later, current))
            fields  = Fields(self, scale)
            signed  = Signal((12, True))
            self.comb += signed.eq(Mux(fields.sign, -fields.significand, fields.significand))

            # Weights, a column a cycle later than the one before.
            bytes_ = [delay(self, weights[LANE_BITS*lane + 8*n:LANE_BITS*lane + 8*(n + 1)], n) for n in range(COLUMNS)]
            for token in range(tokens):
                chain = ProductChain(bits, packed)
                total = RowSum(bits, max_groups)
                self.add_module(name=f"chain{lane}_{token}", module=chain)
                self.add_module(name=f"row_sum{lane}_{token}", module=total)
                for n in range(COLUMNS):
                    self.comb += [
                        chain.activations[n].eq(columns[token][n]),
                        chain.low[n].eq(bytes_[n][:4]),
                        chain.high[n].eq(bytes_[n][4:]),
                    ]
                self.comb += [
                    chain.balance.eq(activations.beside[token].balance),
                    total.valid.eq(valid_p),
                    total.narrow.eq(narrow),
                    total.second.eq(half),
                    total.sums.eq(chain.source),
                    Cat(total.balance, total.exponent).eq(besides[token]),
                    total.take.eq(take | take_other),
                    total.first.eq(first_1),
                    total.other.eq(other),
                    total.scale.eq(signed),
                    total.biased.eq(fields.biased),
                ]
                sums += [total.total, total.nan]
        self.comb += totals.sink.data.eq(Cat(*sums))

        # Rounding: the tokens' sums one after the other. --------------------------------------------
        token  = Signal(token_bits)
        final  = Signal()
        rounds = [RoundFloat(total_bits, sum_lsb(bits)) for _ in range(lanes)]
        self.submodules += rounds
        moves  = Signal()
        self.comb += [
            final.eq(token == totals.source.tokens),
            moves.eq(totals.source.valid & rounds[0].sink.ready),
            totals.source.ready.eq(rounds[0].sink.ready & final),
            source.valid.eq(rounds[0].source.valid),
        ]
        self.sync += [
            released.eq(moves & final),
            If(moves, token.eq(Mux(final, 0, token + 1))),
        ]
        for lane, unit in enumerate(rounds):
            words_ = [totals.source.data[(lane*tokens + n)*(total_bits + 1):][:total_bits + 1] for n in range(tokens)]
            self.comb += [
                Case(token, {n: [
                    unit.sink.data.eq(word),
                    unit.sink.special.eq(Mux(word[-1], NAN, FINITE)),
                ] for n, word in enumerate(words_)}),
                unit.sink.valid.eq(totals.source.valid),
                unit.sink.wide.eq(totals.source.wide),
                unit.source.ready.eq(source.ready),
                source.data[32*lane:32*(lane + 1)].eq(unit.source.data),
            ]
        last = totals.source.end & final
        for _ in range(RoundFloat.latency):
            following = Signal(reset_less=True)
            self.sync += If(rounds[0].ce, following.eq(last))
            last = following
        self.comb += source.last.eq(last)
