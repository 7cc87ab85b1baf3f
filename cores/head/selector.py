#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The head's candidates: of each of R vectors of logits the best ones, in order."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from operations.config import check_choice, check_range

# Constants ----------------------------------------------------------------------------------------

NUMBER_BITS = 20 # Of a token's number.
WAITING     = 16 # Logits that are to be inserted.

# Layouts ------------------------------------------------------------------------------------------

# A logit: its bits, whether it is NaN, and the number of its token.
KEPT = [("logit", 32), ("nan", 1), ("number", NUMBER_BITS)]

# Helpers ------------------------------------------------------------------------------------------

def better(data, nan, low, kept, kept_nan):
    """Whether a logit, `data`, is above one that was kept before it. low: it is negative, or 0 of either sign.

    One comparison of magnitudes serves all signs, with a bit below them: 0 and ``low``. It is then a "<" between two that are
    positive, and a "<=" whose negation is right of two that are negative, and of a zero with what is negative.
    """
    less = Cat(Constant(0, 1), kept[:31]) < Cat(low, data[:31])
    return ~nan & (kept_nan | Mux(low, kept[31] & ~less, kept[31] | less))

# Best Selector ------------------------------------------------------------------------------------

class BestSelector(LiteXModule):
    """Of each of R vectors of logits, binary32, the ``count`` best: the likeliest first, of equal ones the lower number first.

    ::

        sink -> number -> above the worst that is kept? -> FIFO -> insertion <-> lists, sorted -> source
                                       ^                               |
                                       +-------------------------------+

    -0 equals +0, and NaN is below everything, -infinity too. A logit comes out with the bits that it came in with.

    Logits come by rows of the vocabulary, one for each token of it: of each ``rows`` in turn those of the first vector, then those of the
    next one, and so on; ``last`` with the very last one.
    ``tokens`` is the number of vectors less one, ``vocabulary`` that of rows, 1 or more; both stand from the first beat to the
    last. Rows beyond the vocabulary are left out. Then the source gives the first vector's candidates, the next one's and so on,
    ``count`` of each or as many as there are, ``last`` with the very last one. After it the sink takes the next vocabulary.

    A vector has a sorted list. As tokens come in order, a logit goes below all that equal it: numbers are never compared. What is
    not above the last of a full list is dropped, a logit a cycle, also while another is inserted. Insertion goes up from the end of
    the list and moves each worse one down by a place, of which the last one falls out:

        | logit                                       | cycles of insertion |
        |---------------------------------------------|---------------------|
        | at place p of n, from 0                     | n - p + 4           |
        | that a better one has made superfluous      | 4                   |

    16 wait for it, then the sink does. The places moved are about half of those kept, and in random order there are about
    ``count*(1 + ln(V/count))`` insertions a vector: for 64 of V = 50,288 that is 491 and 17,000 cycles, most of them in the first
    few thousand rows. Such a vocabulary takes 58,000 cycles for one vector and 232,000 for four, at a logit a cycle, and the few
    thousand that the first rows cost when logits come more slowly. At worst each logit is better than all before: 68 cycles each.

    Throughput: a logit a cycle; a candidate each three cycles. Latency: 6 cycles from the last beat to the first candidate, where
    nothing is inserted. Model: :func:`model.exact.head.best`.

    Parameters
    ----------
    tokens : R, the most vectors: 1, 2, 4 or 8.
    count  : of candidates, 1 to 256.
    rows   : of a vector that come one after the other: 1, 2 or 4.
    """
    def __init__(self, tokens=1, count=64, rows=1):
        check_choice("tokens", tokens, (1, 2, 4, 8))
        check_range("count", count, 1, 256)
        check_choice("rows", rows, (1, 2, 4))
        vector_bits = max(log2_int(tokens), 1)
        place_bits  = bits_for(count - 1)
        self.tokens     = Signal(vector_bits)
        self.vocabulary = Signal(NUMBER_BITS)
        self.sink       = sink   = stream.Endpoint([("data", 32)])
        self.source     = source = stream.Endpoint([("token_number", NUMBER_BITS), ("logit", 32), ("vector", vector_bits)])

        # # #

        # Numbers. ---------------------------------------------------------------------------------
        accept  = Signal()
        ending  = Signal() # All are in.
        done    = Signal() # All are out.
        moves   = Signal()
        vector  = Signal(vector_bits)
        row     = Signal(max=max(rows, 2))
        first   = Signal(NUMBER_BITS) # Of the rows that come together.
        number  = Signal(NUMBER_BITS)
        beyond  = Signal() # The vocabulary's end.
        highest = Signal(vector_bits, reset_less=True) # Vector,
        lowest  = Signal(place_bits,  reset_less=True) # and place that candidates have.
        self.comb += [
            sink.ready.eq(moves & ~ending),
            accept.eq(sink.valid & sink.ready),
            number.eq(first | row), # They begin at a multiple of their number.
            beyond.eq(number >= self.vocabulary),
        ]
        self.sync += [
            If(done, ending.eq(0)),
            If(accept,
                row.eq(row + 1),
                If(row == rows - 1,
                    row.eq(0),
                    vector.eq(vector + 1),
                    If(vector == self.tokens,
                        vector.eq(0),
                        first.eq(first + rows),
                    )
                ),
                If(~beyond & (number < count), lowest.eq(number)),
                If(sink.last,
                    row.eq(0),
                    vector.eq(0),
                    first.eq(0),
                    ending.eq(1),
                    highest.eq(vector),
                )
            )
        ]

        # Those above the worst of their list. -----------------------------------------------------
        self.passed  = passed  = stream.Buffer(KEPT + [("low", 1), ("vector", vector_bits)])
        self.waiting = waiting = stream.SyncFIFO(passed.source.description, WAITING)
        new      = waiting.source
        valid    = Signal()
        arrived  = Record(passed.sink.description.payload_layout, reset_less=True)
        full     = Signal(tokens) # Lists.
        worst    = Memory(33, 2**vector_bits)
        self.specials += worst
        worst_write = worst.get_port(write_capable=True)
        worst_read  = worst.get_port(async_read=True)
        self.specials += worst_write, worst_read
        self.comb += [
            moves.eq(passed.sink.ready),
            passed.source.connect(waiting.sink),
            worst_read.adr.eq(arrived.vector),
            passed.sink.payload.eq(arrived),
            passed.sink.valid.eq(valid & (~(full >> arrived.vector)[0] |
                better(arrived.logit, arrived.nan, arrived.low, worst_read.dat_r[:32], worst_read.dat_r[32]))),
        ]
        self.sync += If(moves,
            valid.eq(accept & ~beyond),
            arrived.logit.eq(sink.data),
            arrived.nan.eq((sink.data[23:31] == 0xff) & (sink.data[:23] != 0)),
            arrived.low.eq(sink.data[31] | (sink.data[:31] == 0)),
            arrived.number.eq(number),
            arrived.vector.eq(vector),
        )

        # Lists. -----------------------------------------------------------------------------------
        width = sum(bits for _, bits in KEPT)
        lists = Memory(width, tokens << place_bits)
        self.specials += lists
        write_port = lists.get_port(write_capable=True, mode=READ_FIRST)
        read_port  = lists.get_port(mode=READ_FIRST)
        self.specials += write_port, read_port

        read    = Signal(place_bits)                           # Place that is read,
        place   = Signal(max=count + 1)                        # that is written,
        given   = Signal(vector_bits)                          # and list that is given.
        out     = Record(KEPT)
        kept    = Record(KEPT, reset_less=True)                # What was read.
        written = Record(KEPT)
        above   = Signal(reset_less=True)                      # It goes further up.
        stages  = Signal(2)                                    # As far as this, the first place has been read.
        hold    = Signal()
        final   = Signal()
        fits    = Signal()
        insert  = Signal()
        self.comb += [
            out.raw_bits().eq(read_port.dat_r),
            If(above & (place != 0),
                written.eq(kept),
            ).Else(
                Cat(written.logit, written.nan, written.number).eq(Cat(new.logit, new.nan, new.number)),
                final.eq(1),
            ),
            fits.eq(insert & stages[1] & (place != count)),
            write_port.adr.eq(Cat(place[:place_bits], new.vector)),
            write_port.dat_w.eq(written.raw_bits()),
            write_port.we.eq(fits),
            worst_write.adr.eq(new.vector),
            worst_write.dat_w.eq(Cat(written.logit, written.nan)),
            worst_write.we.eq(fits & (place == count - 1)),
            waiting.source.ready.eq(insert & stages[1] & final),
        ]
        self.sync += [
            If(worst_write.we, full.eq(full | (1 << new.vector)[:tokens])),
            If(done, full.eq(0)),
            If(~hold,
                kept.eq(out),
                above.eq(better(new.logit, new.nan, new.low, out.logit, out.nan)),
            )
        ]

        # Insertion, and the end. ------------------------------------------------------------------
        start = Signal(max=count + 1)
        self.comb += [
            start.eq(Mux(new.number < count, new.number, count)),
            Cat(source.token_number, source.logit).eq(Cat(kept.number, kept.logit)),
            source.vector.eq(given),
            source.last.eq((read == lowest) & (given == highest)),
            done.eq(source.valid & source.ready & source.last),
        ]
        self.fsm = fsm = FSM(reset_state="WAIT")
        fsm.act("WAIT",
            NextValue(place, start),
            NextValue(read, start - 1),
            NextValue(stages, 0),
            NextValue(given, 0),
            If(new.valid,
                NextState("INSERT"),
            ).Elif(ending & ~valid & ~passed.source.valid,
                NextValue(read, 0),
                NextState("READ"),
            )
        )
        fsm.act("INSERT",
            insert.eq(1),
            read_port.adr.eq(Cat(read, new.vector)),
            NextValue(stages, Cat(1, stages[0])),
            NextValue(read, read - 1),
            If(stages[1],
                NextValue(place, place - 1),
                If(final, NextState("WAIT")),
            )
        )
        fsm.act("READ",
            read_port.adr.eq(Cat(read, given)),
            NextState("GET"),
        )
        fsm.act("GET",
            NextState("GIVE"),
        )
        fsm.act("GIVE",
            hold.eq(1),
            source.valid.eq(1),
            If(source.ready,
                NextState("READ"),
                NextValue(read, read + 1),
                If(read == lowest,
                    NextValue(read, 0),
                    NextValue(given, given + 1),
                ),
                If(source.last, NextState("WAIT")),
            )
        )
