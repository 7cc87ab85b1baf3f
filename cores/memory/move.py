#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The move engine: descriptors LOAD, STORE and SCATTER, rows between DRAM and scratchpad."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.addresses import Addresses
from cores.memory.region import ADDRESS_BITS

from operations.config import DATA_WIDTHS, check_choice
from operations.program import BY_CODE, OPERAND_BITS, Code, fields

# Constants ----------------------------------------------------------------------------------------

PIECE       = 8  # Elements: what rows begin at, in DRAM, and are a multiple of.
PIECE_SHIFT = 4  # log2 of its bytes.
PIECE_BITS  = 17 # Of the number of a row's pieces.
ROWS        = 4  # That one side may be ahead of the other.

ROW = [("memory", ADDRESS_BITS), ("scratch", 20)] # A row's places: bytes, elements.

# Rows ---------------------------------------------------------------------------------------------

class Rows(LiteXModule):
    """The places of a descriptor's rows: ``source``, ``last`` with the very last one.

    From ``start`` on, with the numbers of rows and tokens less one and all strides as they then are, until ``last``.

    Throughput: one a cycle.
    """
    def __init__(self):
        self.start   = Signal()
        self.memory  = Signal(ADDRESS_BITS)
        self.scratch = Signal(20)
        self.rows    = Signal(12)
        self.tokens  = Signal(3)
        self.strides = Record([(f"{place}_{kind}", 20) for place in ("memory", "scratch") for kind in ("row", "token")])
        self.source  = source = stream.Endpoint(ROW)

        # # #

        row, token = Signal(12), Signal(3)
        ends       = Signal() # Of the token.
        self.comb += [
            ends.eq(row == self.rows),
            source.last.eq(ends & (token == self.tokens)),
        ]
        for name in ("memory", "scratch"):
            first = Signal.like(getattr(self, name), reset_less=True) # Of the token.
            place = getattr(source, name)
            follows = Signal.like(first)
            self.comb += follows.eq(first + getattr(self.strides, f"{name}_token"))
            self.sync += [
                If(source.valid & source.ready,
                    place.eq(place + getattr(self.strides, f"{name}_row")),
                    If(ends,
                        first.eq(follows),
                        place.eq(follows),
                    )
                ),
                If(self.start,
                    first.eq(getattr(self, name)),
                    place.eq(getattr(self, name)),
                ),
            ]
        self.sync += [
            If(source.valid & source.ready,
                row.eq(Mux(ends, 0, row + 1)),
                If(ends, token.eq(token + 1)),
                If(source.last, source.valid.eq(0)),
            ),
            If(self.start,
                row.eq(0),
                token.eq(0),
                source.valid.eq(1),
            ),
        ]

# Move Engine --------------------------------------------------------------------------------------

class MoveEngine(LiteXModule):
    """Runs descriptors, row by row.

    ::

        LOAD:           rows -> beats' addresses -> read_address
                         +-> FIFO -> read_beat -> pieces of 16 bytes -> words -> write
        STORE, SCATTER: rows -> words' addresses -> read_word_address
                         +-> FIFO -> read_word -> pieces -> beats -> write_beat

    The ``sink`` takes a descriptor's ``code``, ``flags`` and ``operands`` when the one before has been carried out: ``idle`` then. Of the
    operands, ``memory`` is an address. Of the DRAM, ``read_address`` and ``write_beat`` have addresses in bytes, of whole beats;
    ``write_beat`` has a mask of elements. ``settled`` says that all beats given to it are in the memory. Of the scratchpad, addresses are
    in words of V elements.

    A beat that two rows share is read for each, and written by each with the elements that are its own.

    Throughput: 8 elements a cycle, or a word or beat where these are narrower; a few cycles a row. Model: :class:`model.machine.Machine`.

    Parameters
    ----------
    width : of a beat, 128, 256 or 512 bits.
    lanes : V, 1, 2, 4 or 8.
    words : of V elements, that the scratchpad has.
    """
    def __init__(self, width=128, lanes=4, words=4096):
        check_choice("width", width, DATA_WIDTHS)
        check_choice("lanes", lanes, (1, 2, 4, 8))
        address_bits = bits_for(words - 1)
        below        = log2_int(lanes)
        pieces       = width//(16*PIECE) # Of a beat.
        sub_bits     = log2_int(pieces)
        shift        = PIECE_SHIFT + sub_bits
        self.sink              = sink = stream.Endpoint([("code", 8), ("flags", 8), ("operands", OPERAND_BITS)])
        self.idle              = Signal()
        self.settled           = Signal()
        self.read_address      = stream.Endpoint([("address", ADDRESS_BITS)])
        self.read_beat         = read_beat = stream.Endpoint([("data", width)])
        self.write_beat        = write_beat = stream.Endpoint([("address", ADDRESS_BITS), ("data", width), ("mask", width//16)])
        self.read_word_address = stream.Endpoint([("address", address_bits)])
        self.read_word         = stream.Endpoint([("data", 16*lanes)])
        self.write             = write = stream.Endpoint([("address", address_bits), ("data", 16*lanes), ("mask", lanes)])

        # # #

        # The descriptor. ----------------------------------------------------------------------------
        self.rows = rows = Rows()
        views   = {code: Record(fields(BY_CODE[code]), name=code.name.lower()) for code in (Code.LOAD, Code.SCATTER)} # STORE is as LOAD.
        loads   = Signal()
        scalars = Signal()
        last    = Signal(PIECE_BITS, reset_less=True) # Pieces of a row, less one.
        view, scatter = views[Code.LOAD], views[Code.SCATTER]
        def take(view):
            return [
                rows.memory.eq(view.memory),
                rows.scratch.eq(view.scratch),
                rows.rows.eq(view.rows),
                rows.tokens.eq(view.tokens),
                *(getattr(rows.strides, f"{place}_{kind}").eq(getattr(view, f"{place}_{kind}_stride"))
                    for place in ("memory", "scratch") for kind in ("row", "token")),
            ]
        self.comb += [each.raw_bits().eq(sink.operands) for each in views.values()]
        self.sync += If(self.idle & sink.valid,
            loads.eq(sink.code == Code.LOAD),
            scalars.eq(sink.code == Code.SCATTER),
            If(sink.code == Code.SCATTER,
                *take(scatter),
                last.eq(0),
            ).Else(
                *take(view),
                last.eq(view.elements >> log2_int(PIECE)),
            )
        )

        # A row goes to one side, which asks for what it has, and by a FIFO, as that begins, to the other. -------------
        self.behind = behind = stream.SyncFIFO(ROW, ROWS)
        # Of a LOAD there is a third one, which the row's words leave by.
        self.targets = targets = stream.SyncFIFO([("scratch", 20)], ROWS)
        row    = rows.source
        begins = Signal()
        room   = Signal()
        self.comb += [
            room.eq(behind.sink.ready & (~loads | targets.sink.ready)),
            behind.sink.valid.eq(begins),
            targets.sink.valid.eq(begins & loads),
            targets.sink.scratch.eq(row.scratch),
            targets.sink.last.eq(row.last),
            behind.sink.memory.eq(row.memory),
            behind.sink.scratch.eq(row.scratch),
            behind.sink.last.eq(row.last),
        ]

        # LOAD: addresses of the row's beats, once for as many pieces as it has in them.
        beat  = Signal(PIECE_BITS + 1)
        final = Signal(PIECE_BITS + 1)
        sub   = row.memory[PIECE_SHIFT:shift] if sub_bits else Constant(0, 1)
        self.comb += [
            final.eq((last + sub) >> sub_bits),
            self.read_address.valid.eq(row.valid & loads & ((beat != 0) | room)),
            self.read_address.address.eq(Cat(Constant(0, shift), row.memory[shift:] + beat)),
        ]
        self.sync += If(self.read_address.valid & self.read_address.ready, beat.eq(Mux(row.ready, 0, beat + 1)))

        # STORE: addresses of its words; of a SCATTER the one of the element.
        self.addresses = addresses = Addresses(address_bits, PIECE_BITS + 3 - below)
        waits = Signal() # Its addresses are under way.
        self.comb += [
            addresses.base.eq(row.scratch >> below),
            addresses.beats.eq(Mux(scalars, 0, Cat(Constant(2**(3 - below) - 1, 3 - below), last) if below < 3 else last)),
            addresses.start.eq(row.valid & ~loads & room & ~waits),
            addresses.source.connect(self.read_word_address),
            If(loads,
                begins.eq(self.read_address.valid & self.read_address.ready & (beat == 0)),
                row.ready.eq(self.read_address.valid & self.read_address.ready & (beat == final)),
            ).Else(
                begins.eq(addresses.start),
                row.ready.eq(waits & ~addresses.busy),
            ),
        ]
        self.sync += waits.eq((waits | addresses.start) & ~row.ready)

        # The other side: pieces of a row, one after the other, with their place in the beat. ---------
        other = behind.source
        piece = Signal(PIECE_BITS)
        place = Signal(ADDRESS_BITS - PIECE_SHIFT) # Of the piece.
        ends  = Signal() # With the row's last piece.
        edge  = Signal() # With a beat's last one.
        moves = Signal()
        self.comb += [
            place.eq(other.memory[PIECE_SHIFT:] + piece),
            ends.eq(piece == last),
            edge.eq(ends | (place[:sub_bits] == pieces - 1 if sub_bits else 1)),
            other.ready.eq(moves & ends),
        ]
        self.sync += If(moves, piece.eq(Mux(ends, 0, piece + 1)))

        # LOAD: pieces out of beats, and words out of pieces.
        self.narrow = narrow = stream.Converter(16*PIECE, 16*lanes)
        word     = Signal(PIECE_BITS + 3)
        first    = Signal(20, reset_less=True) # Where the row's words go.
        loaded   = Signal()
        self.comb += [
            narrow.sink.valid.eq(loads & other.valid & read_beat.valid),
            Case(place[:sub_bits] if sub_bits else 0, {n: narrow.sink.data.eq(read_beat.data[128*n:128*(n + 1)]) for n in range(pieces)}),
            read_beat.ready.eq(narrow.sink.valid & narrow.sink.ready & edge),
            first.eq(targets.source.scratch),
            write.valid.eq(narrow.source.valid & targets.source.valid),
            write.address.eq((first >> below) + word),
            write.data.eq(narrow.source.data),
            write.mask.eq(2**lanes - 1),
            narrow.source.ready.eq(targets.source.valid & write.ready),
            targets.source.ready.eq(write.valid & write.ready & (word == addresses.beats)),
            loaded.eq(targets.source.valid & targets.source.ready & targets.source.last),
        ]
        self.sync += If(write.valid & write.ready, word.eq(Mux(targets.source.ready, 0, word + 1)))

        # STORE: pieces out of words, and beats out of pieces. SCATTER: an element, everywhere, and a mask.
        self.widen = widen = stream.Converter(16*lanes, 16*PIECE)
        held    = Signal(width, reset_less=True)
        marked  = Signal(pieces)
        here    = Signal(pieces)
        data    = Signal(width)
        element = Signal(16)
        stored  = Signal()
        self.comb += [
            widen.sink.valid.eq(self.read_word.valid & ~scalars),
            widen.sink.data.eq(self.read_word.data),
            here.eq(1 << place[:sub_bits] if sub_bits else 1),
            data.eq(held),
            [If(here[n], data[128*n:128*(n + 1)].eq(widen.source.data)) for n in range(pieces)],
            Case(other.scratch[:below] if below else 0, {n: element.eq(self.read_word.data[16*n:16*(n + 1)]) for n in range(lanes)}),
            write_beat.address.eq(Cat(Constant(0, shift), place[sub_bits:])),
            If(scalars,
                write_beat.valid.eq(other.valid & self.read_word.valid),
                write_beat.data.eq(Replicate(element, width//16)),
                write_beat.mask.eq(1 << other.memory[1:shift]),
                self.read_word.ready.eq(other.valid & write_beat.ready),
            ).Else(
                write_beat.valid.eq(~loads & other.valid & widen.source.valid & edge),
                write_beat.data.eq(data),
                write_beat.mask.eq(Cat(*(Replicate(marked[n] | here[n], PIECE) for n in range(pieces)))),
                self.read_word.ready.eq(widen.sink.ready),
            ),
            widen.source.ready.eq(~loads & ~scalars & other.valid & (~edge | write_beat.ready)),
            If(loads,
                moves.eq(narrow.sink.valid & narrow.sink.ready),
            ).Elif(scalars,
                moves.eq(write_beat.valid & write_beat.ready),
            ).Else(
                moves.eq(widen.source.valid & widen.source.ready),
            ),
            stored.eq(~loads & other.valid & other.ready & other.last),
        ]
        self.sync += If(widen.source.valid & widen.source.ready,
            held.eq(data),
            marked.eq(Mux(edge, 0, marked | here)),
        )

        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE",
            self.idle.eq(1),
            sink.ready.eq(1),
            If(sink.valid, NextState("START")),
        )
        fsm.act("START",
            rows.start.eq(1),
            NextState("ROWS"),
        )
        fsm.act("ROWS",
            If(loaded, NextState("IDLE")),
            If(stored, NextState("SETTLE")),
        )
        fsm.act("SETTLE",
            If(self.settled, NextState("IDLE")),
        )
