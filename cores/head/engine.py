#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The head engine: the best of the logits, and the descriptors BEST and LOGITS that write them, or all, to DRAM."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.head.selector import BestSelector
from cores.memory.convert import WordsToBeats
from cores.memory.region import ADDRESS_BITS

from operations.config import DATA_WIDTHS, check_choice
from operations.numerics import CANDIDATES, LANE_BITS
from operations.program import BY_CODE, OPERAND_BITS, Code, fields

# Constants ----------------------------------------------------------------------------------------

CANDIDATE_BITS = 64 # A token's number and its logit.

# Head Engine --------------------------------------------------------------------------------------

class HeadEngine(LiteXModule):
    """Takes logits as they come, and runs descriptors.

    ::

        logits -+-> one at a time -> BestSelector -> candidates, filled up with zeros -> beats -+-> write_beat
                +-> LOGITS: beats, the last one filled up with zeros ---------------------------+

    ``logits`` are those of :class:`cores.gemv.engine.GEMVEngine`, with its ``tokens``, less one, and ``vocabulary``. The ``sink`` takes a
    descriptor's ``code``, ``flags`` and ``operands`` when the one before has been carried out: ``idle`` then. ``target`` is an address;
    ``write_beat`` has those of whole beats, in bytes. ``settled`` says that all beats given to it are in the memory.

    Throughput: that of the :class:`cores.head.selector.BestSelector`. Model: :class:`model.machine.Machine`.

    Parameters
    ----------
    width  : of a beat, and of the tape's: 128, 256 or 512 bits.
    tokens : R, 1, 2, 4 or 8.
    """
    def __init__(self, width=128, tokens=1):
        check_choice("width", width, DATA_WIDTHS)
        rows = width//LANE_BITS
        self.sink       = sink = stream.Endpoint([("code", 8), ("flags", 8), ("operands", OPERAND_BITS)])
        self.idle       = Signal()
        self.settled    = Signal()
        self.logits     = logits = stream.Endpoint([("data", 32*rows)])
        self.write_beat = write_beat = stream.Endpoint([("address", ADDRESS_BITS), ("data", width)])

        # # #

        self.selector   = selector = BestSelector(tokens, CANDIDATES, rows)
        self.tokens     = selector.tokens
        self.vocabulary = selector.vocabulary
        self.apart      = apart    = stream.Converter(32*rows, 32)
        self.together   = together = stream.Converter(CANDIDATE_BITS, width)
        self.every      = every    = WordsToBeats(32*rows, width)
        all_logits = Signal()
        self.comb += [
            If(all_logits,
                logits.connect(every.sink),
            ).Else(
                logits.connect(apart.sink),
            ),
            apart.source.connect(selector.sink, omit={"first"}),
        ]

        best    = Record(fields(BY_CODE[Code.BEST]),   name="best")
        whole   = Record(fields(BY_CODE[Code.LOGITS]), name="whole")
        address = Signal(ADDRESS_BITS, reset_less=True)
        final   = Signal.like(best.tokens)
        vector  = Signal.like(best.tokens)
        place   = Signal(max=CANDIDATES)
        ended   = Signal() # There are no more candidates.
        mine    = Signal()
        writes  = Signal()
        last    = Signal()
        source  = selector.source
        beat    = log2_int(width//8)
        self.comb += [
            best.raw_bits().eq(sink.operands),
            whole.raw_bits().eq(sink.operands),
            mine.eq(source.valid & (source.vector == vector)),
            If(mine & ~ended, together.sink.data.eq(Cat(source.token_number, Constant(0, 32 - len(source.token_number)), source.logit))),
            together.sink.valid.eq(writes & (ended | source.valid)),
            source.ready.eq(writes & ~ended & mine & together.sink.ready),
            last.eq((place == CANDIDATES - 1) & (vector == final)),
            write_beat.address.eq(address),
            If(all_logits,
                write_beat.valid.eq(every.source.valid),
                write_beat.data.eq(every.source.data),
                every.source.ready.eq(write_beat.ready),
            ).Else(
                write_beat.valid.eq(together.source.valid),
                write_beat.data.eq(together.source.data),
                together.source.ready.eq(write_beat.ready),
            ),
        ]
        self.sync += [
            If(write_beat.valid & write_beat.ready, address.eq(address + 2**beat)),
            If(source.valid & source.ready & source.last, ended.eq(1)),
            If(together.sink.valid & together.sink.ready,
                place.eq(place + 1),
                If(place == CANDIDATES - 1, vector.eq(vector + 1)),
            ),
        ]
        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE",
            self.idle.eq(1),
            sink.ready.eq(1),
            NextValue(ended, 0),
            NextValue(vector, 0),
            NextValue(address, Mux(sink.code == Code.BEST, best.target, whole.target)),
            NextValue(final, best.tokens),
            If(sink.valid, NextState("LOGITS"), If(sink.code == Code.BEST, NextState("WRITE"))),
        )
        fsm.act("LOGITS",
            all_logits.eq(1),
            If(every.source.valid & every.source.ready & every.source.last, NextState("SETTLE")),
        )
        fsm.act("WRITE",
            writes.eq(1),
            If(together.sink.valid & together.sink.ready & last, NextState("SETTLE")),
        )
        fsm.act("SETTLE",
            If(self.settled & ~write_beat.valid, NextState("IDLE")),
        )
