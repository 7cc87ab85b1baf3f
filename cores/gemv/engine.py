#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The GEMV engine: descriptors QUANTISE and MATRIX, on vectors in the scratchpad and weights from the tape."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.gemv.block_float import BlockQuantiser
from cores.gemv.lanes import GEMVLanes

from cores.memory.addresses import Addresses

from operations.config import DATA_WIDTHS, check_choice
from operations.numerics import COLUMNS, GROUP, LANE_BITS, MANTISSA_BITS
from operations.program import BY_CODE, OPERAND_BITS, Code, fields

# GEMV Engine --------------------------------------------------------------------------------------

class GEMVEngine(LiteXModule):
    """Runs descriptors on R tokens at a time.

    ::

        read -> BlockQuantiser -> Activations
                                       |
                               tape -> GEMVLanes -+-> write
                                                  +-> logits

    The ``sink`` takes a descriptor's ``code``, QUANTISE or MATRIX, ``flags`` and ``operands``, when the one before has been carried out:
    ``idle`` then. A read port is a stream of addresses, ``read_address``, and one of words, ``read_word``; ``write`` has a mask of
    elements. Addresses are in words of V elements. Of a MATRIX with HEAD the results are ``logits``, as they come from
    :class:`cores.gemv.lanes.GEMVLanes`; ``tokens`` says of how many vectors, less one, and ``vocabulary`` how many rows of them.

    Throughput: V elements a cycle to quantise; a beat of the tape a cycle. Model: :class:`model.machine.Machine`.

    Parameters
    ----------
    width       : of the tape's beats, bits.
    tokens      : R, 1, 2, 4 or 8.
    lanes       : V, 1, 2, 4 or 8, no less than width/128.
    words       : of V elements, that the scratchpad has.
    activations : words of sixteen columns, that there is memory for.
    bits        : of an activation's mantissa.
    packed      : as :class:`cores.gemv.products.ProductChain` has it.
    """
    def __init__(self, width=128, tokens=1, lanes=4, words=4096, activations=512, bits=MANTISSA_BITS, packed=True):
        check_choice("width", width, DATA_WIDTHS)
        rows  = width//LANE_BITS
        check_choice("lanes", lanes, [known for known in (1, 2, 4, 8) if known >= rows])
        address_bits = bits_for(words - 1)
        below        = log2_int(lanes)
        self.sink         = sink  = stream.Endpoint([("code", 8), ("flags", 8), ("operands", OPERAND_BITS)])
        self.idle         = Signal()
        self.tape         = stream.Endpoint([("data", width)])
        self.read_address = stream.Endpoint([("address", address_bits)])
        self.read_word    = stream.Endpoint([("data", 16*lanes)])
        self.write        = write  = stream.Endpoint([("address", address_bits), ("data", 16*lanes), ("mask", lanes)])
        self.logits       = logits = stream.Endpoint([("data", 32*rows)])

        # # #

        self.quantiser = quantiser = BlockQuantiser(lanes, bits)
        self.gemv      = gemv      = GEMVLanes(width, tokens, lanes, activations, bits, packed)
        self.addresses = addresses = Addresses(address_bits, 9 + log2_int(GROUP) - below)
        self.tokens     = Signal(len(gemv.command.tokens))
        self.vocabulary = Signal(20, reset_less=True)
        self.comb += [
            self.tape.connect(gemv.tape),
            addresses.source.connect(self.read_address),
            self.read_word.connect(quantiser.sink),
        ]

        # The descriptor. ----------------------------------------------------------------------------
        quantise, matrix = (Record(fields(BY_CODE[code]), name=code.name.lower()) for code in (Code.QUANTISE, Code.MATRIX))
        self.comb += [view.raw_bits().eq(sink.operands) for view in (quantise, matrix)]
        vector = Signal(20, reset_less=True) # The token's, elements.
        stride = Signal(20, reset_less=True)
        target = Signal(20, reset_less=True) # Token 0's.
        groups = Signal(9,  reset_less=True)
        base   = Signal(len(gemv.command.base), reset_less=True)
        blocks = Signal(len(gemv.command.blocks), reset_less=True)
        narrow = Signal(reset_less=True)
        head   = Signal(reset_less=True)
        token  = Signal.like(self.tokens)
        final  = Signal()
        self.comb += final.eq(token == self.tokens)
        self.sync += If(self.idle & sink.valid,
            narrow.eq(sink.flags[0]),
            head.eq(sink.flags[1]),
            token.eq(0),
            If(sink.code == Code.QUANTISE,
                vector.eq(quantise.source),
                stride.eq(quantise.source_stride),
                groups.eq(quantise.groups),
                base.eq(quantise.base),
                self.tokens.eq(quantise.tokens),
            ).Else(
                vector.eq(matrix.target),
                target.eq(matrix.target),
                stride.eq(matrix.target_stride),
                groups.eq(matrix.groups),
                base.eq(matrix.base),
                self.tokens.eq(matrix.tokens),
                self.vocabulary.eq(matrix.vocabulary + 1),
                blocks.eq(Mux(sink.flags[0], matrix.rows >> (log2_int(rows) + 1), matrix.rows >> log2_int(rows))),
            )
        )

        # Vectors to the activations. ------------------------------------------------------------------
        place = Signal(len(gemv.load.place))
        last  = Signal() # Of the vector.
        left  = Signal(len(addresses.beats))
        self.comb += [
            addresses.base.eq(vector >> below),
            addresses.beats.eq(Cat(Constant(GROUP//lanes - 1, log2_int(GROUP//lanes)), groups)),
            gemv.load.valid.eq(quantiser.source.valid),
            gemv.load.data.eq(quantiser.source.data),
            gemv.load.exponent.eq(quantiser.source.exponent),
            gemv.load.token.eq(token),
            gemv.load.place.eq(place),
            quantiser.source.ready.eq(1),
            last.eq(quantiser.source.valid & (left == 0)),
        ]
        self.sync += [
            If(addresses.start,
                place.eq(Cat(Constant(0, log2_int(COLUMNS//lanes)), base)),
                left.eq(addresses.beats),
            ).Elif(quantiser.source.valid,
                place.eq(place + 1),
                left.eq(left - 1),
            )
        ]

        # Results, for each few rows of all tokens in turn. --------------------------------------------
        row   = Signal(20)
        at    = Signal(20)
        moves = Signal()
        self.comb += [
            gemv.command.narrow.eq(narrow),
            gemv.command.wide.eq(head),
            gemv.command.groups.eq(groups),
            gemv.command.blocks.eq(blocks),
            gemv.command.base.eq(base),
            gemv.command.tokens.eq(self.tokens),
            at.eq(vector + row),
            write.address.eq(at >> below),
            write.data.eq(Replicate(Cat(*(gemv.source.data[32*n:32*n + 16] for n in range(rows))), lanes//rows)),
            write.mask.eq((2**rows - 1) << (at[:below] if below else Constant(0, 1))),
            write.valid.eq(gemv.source.valid & ~head),
            logits.valid.eq(gemv.source.valid & head),
            logits.data.eq(gemv.source.data),
            logits.last.eq(gemv.source.last),
            gemv.source.ready.eq(Mux(head, logits.ready, write.ready)),
            moves.eq(gemv.source.valid & gemv.source.ready),
        ]

        self.fsm = fsm = FSM(reset_state="IDLE")
        asked    = Signal()
        self.comb += gemv.command.valid.eq(asked)
        self.sync += [
            If(moves,
                token.eq(Mux(final, 0, token + 1)),
                vector.eq(Mux(final, target, vector + stride)),
                If(final, row.eq(row + rows)),
                If(gemv.source.last, row.eq(0)),
            ),
            If(gemv.command.valid & gemv.command.ready, asked.eq(0)),
            If(self.idle & sink.valid & (sink.code == Code.MATRIX), asked.eq(1)),
            If(last & ~final,
                token.eq(token + 1),
                vector.eq(vector + stride),
            ),
        ]
        fsm.act("IDLE",
            self.idle.eq(1),
            sink.ready.eq(1),
            If(sink.valid, NextState("MATRIX"), If(sink.code == Code.QUANTISE, NextState("START"))),
        )
        fsm.act("START",
            addresses.start.eq(1),
            NextState("VECTOR"),
        )
        fsm.act("VECTOR",
            If(last, NextState("START"), If(final, NextState("SETTLE"))),
        )
        fsm.act("SETTLE", # What is written to the activations can be read two cycles later.
            NextState("IDLE"),
        )
        fsm.act("MATRIX",
            If(moves & gemv.source.last, NextState("IDLE")),
        )
