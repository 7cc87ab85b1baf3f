#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Rows of the embedding, out of a matrix as it lies on the tape."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.region import ADDRESS_BITS

from operations.config import DATA_WIDTHS, check_choice
from operations.numerics import COLUMNS, LANE_BITS

# Constants ----------------------------------------------------------------------------------------

ROW_BITS  = 20 # Of a token's number.
BEAT_BITS = 28 # Of a beat's number.
UNDER_WAY = 16 # Beats.

NARROW_RUN, WIDE_RUN = 3, 4 # log2 of the beats that a beat of scales stands in front of.

# Embedding Reader ---------------------------------------------------------------------------------

class EmbeddingReader(LiteXModule):
    """The rows ``rows[0 .. tokens]`` of a matrix, element by element: an ``integer`` and its ``scale`` (binary16).

    ::

        row -> block*beats -> beats of weights and of scales -> read_address
                                +-> FIFO: what comes -> read_beat -> a lane's scales
                                                                     a lane's bytes -> source

    ``start`` comes with ``table``, an address, ``groups`` and ``tokens``, both less one, and ``narrow``; they hold until the last element
    has come. ``read_address`` has those of whole beats, in bytes.

    Throughput: an element a cycle. Model: :func:`model.exact.tape.unpack_row`.

    Parameters
    ----------
    width  : of a beat, 128, 256 or 512 bits.
    tokens : R, rows that there are registers for.
    """
    def __init__(self, width=128, tokens=1):
        check_choice("width", width, DATA_WIDTHS)
        lanes             = width//LANE_BITS
        lane_bits         = log2_int(lanes)
        shift             = log2_int(width//8)
        self.start        = Signal()
        self.table        = Signal(ADDRESS_BITS)
        self.groups       = Signal(9)
        self.tokens       = Signal(3)
        self.narrow       = Signal()
        self.rows         = [Signal(ROW_BITS, name=f"row{n}") for n in range(tokens)]
        self.read_address = stream.Endpoint([("address", ADDRESS_BITS)])
        self.read_beat    = read_beat = stream.Endpoint([("data", width)])
        self.source       = source    = stream.Endpoint([("integer", (8, True)), ("scale", 16)])

        # # #

        # What comes. ------------------------------------------------------------------------------
        self.kinds = kinds = stream.SyncFIFO([("scales", 1), ("number", 3), ("lane", max(lane_bits, 1)), ("second", 1)], UNDER_WAY)

        # Beats of a row. --------------------------------------------------------------------------
        token  = Signal(3)
        row    = Signal(ROW_BITS)
        block  = Signal(ROW_BITS, reset_less=True)
        lane   = Signal(max(lane_bits, 1), reset_less=True)
        second = Signal(reset_less=True)             # Of the two rows that share a byte.
        beat   = Signal(BEAT_BITS, reset_less=True)  # Of weights, without those of scales.
        run    = Signal(BEAT_BITS, reset_less=True)  # Its run of them,
        first  = Signal(BEAT_BITS, reset_less=True)  # and the first beat of this one.
        left   = Signal(10, reset_less=True)         # Beats after this one.
        place  = Signal(BEAT_BITS, reset_less=True)  # On the tape.
        scales = Signal()                            # It is a beat of scales.
        fresh  = Signal()                            # The row's first.
        address = Signal(ADDRESS_BITS, reset_less=True)
        self.comb += [
            Case(token, {n if n < tokens - 1 else "default": row.eq(signal) for n, signal in enumerate(self.rows)}),
            run.eq(Mux(self.narrow, beat >> NARROW_RUN, beat >> WIDE_RUN)),
            first.eq(Mux(self.narrow, Cat(Constant(0, NARROW_RUN), beat[NARROW_RUN:]), Cat(Constant(0, WIDE_RUN), beat[WIDE_RUN:]))),
        ]
        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE",
            NextValue(token, 0),
            If(self.start, NextState("ROW")),
        )
        fsm.act("ROW",
            NextValue(block, Mux(self.narrow, row >> lane_bits + 1, row >> lane_bits)),
            NextValue(second, self.narrow & row[lane_bits]),
            NextValue(lane, row[:lane_bits] if lane_bits else 0),
            NextState("PRODUCT"),
        )
        count = Signal(11)
        self.comb += count.eq(Cat(Constant(0, 1), self.groups) + 2)
        fsm.act("PRODUCT",
            NextValue(beat, block*count),
            NextValue(left, Cat(Constant(1, 1), self.groups)),
            NextValue(fresh, 1),
            NextState("BEAT"),
        )
        fsm.act("BEAT",
            NextValue(scales, fresh | (first == beat)),
            NextState("PLACE"),
        )
        fsm.act("PLACE",
            NextValue(place, Mux(scales, first + run, beat + run + 1)),
            NextState("ADDRESS"),
        )
        fsm.act("ADDRESS",
            NextValue(address, self.table + Cat(Constant(0, shift), place)),
            NextState("READ"),
        )
        self.comb += [
            self.read_address.address.eq(address),
            kinds.sink.scales.eq(scales),
            kinds.sink.number.eq(Mux(self.narrow, Cat(second, beat[1:3]), beat[1:4])),
            kinds.sink.lane.eq(lane),
            kinds.sink.second.eq(second),
        ]
        fsm.act("READ",
            self.read_address.valid.eq(kinds.sink.ready),
            kinds.sink.valid.eq(self.read_address.ready),
            If(kinds.sink.ready & self.read_address.ready,
                NextValue(fresh, 0),
                NextValue(scales, 0),
                If(scales,
                    NextState("PLACE"),
                ).Elif(left != 0,
                    NextValue(beat, beat + 1),
                    NextValue(left, left - 1),
                    NextState("BEAT"),
                ).Elif(token == self.tokens,
                    NextState("IDLE"),
                ).Else(
                    NextValue(token, token + 1),
                    NextState("ROW"),
                )
            )
        )

        # Elements. --------------------------------------------------------------------------------
        kind   = kinds.source
        mine   = Signal(LANE_BITS)
        held   = Signal(LANE_BITS, reset_less=True) # Scales.
        column = Signal(max=COLUMNS)
        byte   = Signal(8)
        high   = Signal((4, True))
        low    = Signal((5, True))
        plain  = Signal((8, True))
        final  = Signal()
        self.comb += [
            Case(kind.lane, {n if n < lanes - 1 else "default": mine.eq(read_beat.data[LANE_BITS*n:LANE_BITS*(n + 1)]) for n in range(lanes)}),
            Case(column, {n: byte.eq(mine[8*n:8*(n + 1)]) for n in range(COLUMNS)}),
            Case(kind.number, {n: source.scale.eq(held[16*n:16*(n + 1)]) for n in range(LANE_BITS//16)}),
            high.eq(byte[4:]),
            low.eq(Cat(byte[:4], Constant(0, 1)) - 8),
            plain.eq(byte),
            If(~self.narrow,
                source.integer.eq(plain),
            ).Elif(kind.second,
                source.integer.eq(low),
            ).Else(
                source.integer.eq(high),
            ),
            source.valid.eq(kind.valid & read_beat.valid & ~kind.scales),
            final.eq(source.valid & source.ready & (column == COLUMNS - 1)),
            kind.ready.eq(read_beat.valid & (kind.scales | final)),
            read_beat.ready.eq(kind.valid & (kind.scales | final)),
        ]
        self.sync += [
            If(kind.valid & read_beat.valid & kind.scales, held.eq(mine)),
            If(source.valid & source.ready, column.eq(column + 1)),
        ]
