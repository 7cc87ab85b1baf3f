#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The vector engine: descriptors SUM, NORM, EMBED, ADD and ROUND on vectors in the scratchpad."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import INFINITY16

from cores.memory.addresses import Addresses

from cores.vector.embedding import EmbeddingReader
from cores.vector.residual_add import ResidualAdd
from cores.vector.rsqrt import COUNT_BITS
from cores.vector.vector_unit import VectorOperation, VectorUnit

from operations.config import check_choice
from operations.numerics import GROUP, VECTOR_TERMS, Function
from operations.program import BY_CODE, OPERAND_BITS, SCRATCH_MULTIPLE, Code, fields

# Constants ----------------------------------------------------------------------------------------

CODES = (Code.SUM, Code.NORM, Code.EMBED, Code.ADD, Code.ROUND)

NEGATIVE_ZERO16 = 0x8000
NEGATIVE_ZERO32 = 0x80000000

# Vector Engine ------------------------------------------------------------------------------------

class VectorEngine(LiteXModule):
    """Runs descriptors, vector by vector: of each token, of a NORM each group, first its SQUARES and then its SCALE.

    ::

                                read[0]       +-> VectorUnit --+
        descriptor -> vectors -> addresses ---+                +-> write
                                read[1]       +-> ResidualAdd -+
                                                    ^
        EMBED -> EmbeddingReader (read_address, read_beat) -+

    The ``sink`` takes a descriptor's ``code``, one of CODES, ``flags`` and ``operands``, when the one before has been carried out, with its
    last word written: ``idle`` then, for a cycle at least. A read port is a stream of addresses, ``read_addresses``, and one of words,
    ``read_words``; ``write`` has a mask of elements. Addresses are in words of V elements. EMBED takes the rows ``rows``, the tokens'
    numbers, from DRAM: ``read_address`` has addresses in bytes, of whole beats.

    Throughput: as the :class:`cores.vector.vector_unit.VectorUnit`; the residual stream has an element a cycle. Model:
    :class:`model.machine.Machine`.

    Parameters
    ----------
    lanes  : V, 1, 2, 4 or 8.
    words  : of V elements, that the scratchpad has.
    width  : of a beat, 128, 256 or 512 bits.
    tokens : R.
    """
    def __init__(self, lanes=4, words=4096, width=128, tokens=1):
        check_choice("lanes", lanes, (1, 2, 4, 8))
        address_bits = bits_for(words - 1)
        below        = log2_int(lanes) # Bits of an element's address below that of its word.
        word_bits    = 16*lanes
        self.sink    = sink = stream.Endpoint([("code", 8), ("flags", 8), ("operands", OPERAND_BITS)])
        self.idle    = Signal()
        self.read_addresses = [stream.Endpoint([("address", address_bits)]) for _ in range(2)]
        self.read_words     = [stream.Endpoint([("data", word_bits)])           for _ in range(2)]
        self.write          = write = stream.Endpoint([("address", address_bits), ("data", word_bits), ("mask", lanes)])

        # # #

        self.unit     = unit     = VectorUnit(lanes)
        self.residual = residual = ResidualAdd()
        self.embedding = embedding = EmbeddingReader(width, tokens)
        self.rows         = embedding.rows
        self.read_address = embedding.read_address
        self.read_beat    = embedding.read_beat

        # The descriptor: vectors of its first token, and how to go on. ------------------------------
        views = {code: Record(fields(BY_CODE[code]), name=code.name.lower()) for code in CODES}
        self.comb += [view.raw_bits().eq(sink.operands) for view in views.values()]
        kinds    = {code: Signal(name=f"is_{code.name.lower()}") for code in CODES}
        tokens   = Signal(3)
        groups   = Signal(8)
        a, b, target             = (Signal(20, reset_less=True) for _ in range(3)) # Of the token: elements.
        a_next, b_next, t_next   = (Signal(20, reset_less=True) for _ in range(3)) # Strides, from token to token.
        a_term, b_term           = (Signal(20, reset_less=True) for _ in range(2))
        offset   = Signal(20, reset_less=True) # Of the group.
        elements = Signal(16, reset_less=True) # Less one.
        terms    = Signal(max=VECTOR_TERMS, reset_less=True)
        ones, bias       = (Signal(reset_less=True) for _ in range(2))
        function         = Signal(2,  reset_less=True)
        low, high        = (Signal(16, reset_less=True) for _ in range(2))
        eps              = Signal(64, reset_less=True)
        scale            = Signal() # Of a NORM, the second half.

        sum_, norm = views[Code.SUM], views[Code.NORM]
        length     = SCRATCH_MULTIPLE - 1 # What a word of `elements` lacks to the number less one.
        def streamed(view, second, target_of):
            """Of ADD and ROUND."""
            return [
                a.eq(view.residual),
                a_next.eq(view.residual_stride),
                b.eq(second[0]),
                b_next.eq(second[1]),
                target.eq(target_of[0]),
                t_next.eq(target_of[1]),
                elements.eq(view.elements + length),
                tokens.eq(view.tokens),
            ]
        add, round_, embed = views[Code.ADD], views[Code.ROUND], views[Code.EMBED]
        load = [
            groups.eq(0),
            offset.eq(0),
            terms.eq(0),
            a_term.eq(0),
            b_term.eq(0),
            scale.eq(0),
            ones.eq(0),
            bias.eq(0),
            function.eq(Function.NONE),
            low.eq(0),
            high.eq(INFINITY16),
            [kinds[code].eq(sink.code == code) for code in CODES],
            Case(sink.code, {
                int(Code.SUM): [
                    a.eq(sum_.a), a_next.eq(sum_.a_stride), a_term.eq(sum_.a_term_stride),
                    b.eq(sum_.b), b_next.eq(sum_.b_stride), b_term.eq(sum_.b_term_stride),
                    target.eq(sum_.target), t_next.eq(sum_.target_stride),
                    elements.eq(sum_.elements),
                    terms.eq(sum_.terms),
                    tokens.eq(sum_.tokens),
                    ones.eq(sink.flags[0]),
                    bias.eq(sink.flags[1]),
                    function.eq(sum_.function),
                    low.eq(sum_.low),
                    high.eq(sum_.high),
                ],
                int(Code.NORM): [
                    a.eq(norm.source), a_next.eq(norm.source_stride),
                    b.eq(norm.weight), b_next.eq(0),
                    target.eq(norm.target), t_next.eq(norm.target_stride),
                    elements.eq(norm.elements + length),
                    groups.eq(norm.groups),
                    tokens.eq(norm.tokens),
                    eps.eq(Cat(norm.eps_low, norm.eps_high)),
                ],
                int(Code.EMBED): [
                    target.eq(embed.residual), t_next.eq(embed.residual_stride),
                    elements.eq(Cat(Constant(GROUP - 1, log2_int(GROUP)), embed.groups)),
                    tokens.eq(embed.tokens),
                    embedding.table.eq(embed.table),
                    embedding.groups.eq(embed.groups),
                    embedding.tokens.eq(embed.tokens),
                    embedding.narrow.eq(sink.flags[0]),
                ],
                int(Code.ADD)   : streamed(add,    (add.source, add.source_stride), (add.residual, add.residual_stride)),
                int(Code.ROUND) : streamed(round_, (0, 0), (round_.target, round_.target_stride)),
            }),
        ]

        # A vector at a time. ------------------------------------------------------------------------
        squares  = Signal()
        streams  = Signal() # The residual stream,
        widens   = Signal() # which comes anew.
        start    = Signal()
        group    = Signal(8)
        beats    = Signal(16) # Of binary16 vectors, less one,
        doubled  = Signal(17) # and of the residual stream.
        self.comb += [
            squares.eq(kinds[Code.NORM] & ~scale),
            streams.eq(kinds[Code.ADD] | kinds[Code.ROUND] | kinds[Code.EMBED]),
            widens.eq(kinds[Code.ADD] | kinds[Code.EMBED]),
            beats.eq(elements >> below),
            doubled.eq(Cat(Constant(1, 1), elements) >> below),
        ]
        addresses = [Addresses(address_bits, 17, len(terms)) for _ in range(2)]
        targets   = Addresses(address_bits, 17)
        self.submodules += addresses
        self.targets = targets
        reads_b  = Signal()
        self.comb += [
            reads_b.eq((kinds[Code.SUM] & ~ones) | (kinds[Code.NORM] & scale) | kinds[Code.ADD]),
            addresses[0].start.eq(start & ~kinds[Code.EMBED]),
            addresses[0].base.eq((a + offset) >> below),
            addresses[0].stride.eq(a_term >> below),
            addresses[0].beats.eq(Mux(streams, doubled, beats)),
            addresses[0].terms.eq(terms),
            addresses[1].start.eq(start & reads_b),
            addresses[1].base.eq((b + offset) >> below),
            addresses[1].stride.eq(b_term >> below),
            addresses[1].beats.eq(beats),
            addresses[1].terms.eq(terms),
            targets.start.eq(start & ~squares),
            targets.base.eq((target + offset) >> below),
            targets.beats.eq(Mux(widens, doubled, beats)),
        ]
        self.comb += [source.source.connect(port) for source, port in zip(addresses, self.read_addresses)]

        self.fsm = fsm = FSM(reset_state="IDLE")
        advance  = Signal()
        ended    = Signal()
        commanded = Signal()
        fsm.act("IDLE",
            self.idle.eq(1),
            sink.ready.eq(1),
            If(sink.valid, NextState("START")),
        )
        self.sync += [
            embedding.start.eq(self.idle & sink.valid & (sink.code == Code.EMBED)),
            If(self.idle & sink.valid,
                *load,
                group.eq(0),
            ),
        ]
        fsm.act("START",
            start.eq(1),
            NextState("VECTOR"),
        )
        # The unit's command ends with its result, the residual stream with the last word written; addresses before.
        written = Signal() # The vector's last word is.
        self.sync += [
            If(start, written.eq(squares)),
            If(write.valid & write.ready & targets.source.last, written.eq(1)),
            If(start, commanded.eq(streams)),
            If(unit.command.valid & unit.command.ready, commanded.eq(1)),
        ]
        self.comb += ended.eq(written & commanded)
        fsm.act("VECTOR",
            If(ended, NextState("NEXT")),
        )
        fsm.act("NEXT",
            advance.eq(1),
            NextState("START"),
            If(~squares & (group == groups) & (tokens == 0), NextState("IDLE")),
        )
        self.sync += If(advance,
            If(squares,
                scale.eq(1),
            ).Else(
                scale.eq(0),
                group.eq(group + 1),
                offset.eq(offset + elements + 1),
                If(group == groups,
                    group.eq(0),
                    offset.eq(0),
                    tokens.eq(tokens - 1),
                    a.eq(a + a_next),
                    b.eq(b + b_next),
                    target.eq(target + t_next),
                )
            )
        )

        # Through the vector unit, ---------------------------------------------------------------------
        asked = Signal()
        self.sync += If(start, asked.eq(~streams)).Elif(unit.command.ready, asked.eq(0))
        words_a, words_b = self.read_words
        self.comb += [
            unit.command.valid.eq(asked),
            unit.command.operation.eq(Mux(kinds[Code.SUM], VectorOperation.SUM, Mux(scale, VectorOperation.SCALE, VectorOperation.SQUARES))),
            unit.command.beats.eq(beats),
            unit.command.terms.eq(terms),
            unit.command.ones.eq(ones),
            unit.command.bias.eq(bias),
            unit.command.function.eq(function),
            unit.command.clip.eq(1), # Between 0 and infinity it changes nothing.
            unit.command.low.eq(low),
            unit.command.high.eq(high),
            unit.command.size.eq((elements + 1)[:COUNT_BITS]),
            unit.command.eps.eq(eps),
            unit.sink.a.eq(words_a.data),
            unit.sink.b.eq(words_b.data),
            unit.sink.valid.eq(~streams & words_a.valid & (words_b.valid | ~reads_b)),
        ]

        # or through the residual stream's adder. A narrow stream takes words apart and puts them together. ---------
        self.wide_in    = wide_in    = stream.Converter(word_bits, 32)
        self.narrow_in  = narrow_in  = stream.Converter(word_bits, 16)
        self.wide_out   = wide_out   = stream.Converter(32, word_bits)
        self.narrow_out = narrow_out = stream.Converter(16, word_bits)
        both = Signal()
        self.comb += [
            wide_in.sink.data.eq(words_a.data),
            wide_in.sink.valid.eq(streams & words_a.valid),
            narrow_in.sink.data.eq(words_b.data),
            narrow_in.sink.valid.eq(streams & reads_b & words_b.valid),
            both.eq(wide_in.source.valid & (narrow_in.source.valid | ~reads_b)),
            If(kinds[Code.EMBED],
                residual.sink.valid.eq(embedding.source.valid),
                residual.sink.residual.eq(NEGATIVE_ZERO32),
                residual.sink.integer.eq(embedding.source.integer),
                residual.sink.scale.eq(embedding.source.scale),
                embedding.source.ready.eq(residual.sink.ready),
            ).Else(
                residual.sink.valid.eq(both),
                residual.sink.residual.eq(wide_in.source.data),
                residual.sink.integer.eq(1),
                residual.sink.scale.eq(Mux(reads_b, narrow_in.source.data, NEGATIVE_ZERO16)),
            ),
            residual.sink.wide.eq(widens),
            wide_in.source.ready.eq(both & residual.sink.ready),
            narrow_in.source.ready.eq(both & reads_b & residual.sink.ready),
            wide_out.sink.valid.eq(residual.source.valid & widens),
            wide_out.sink.data.eq(residual.source.data),
            narrow_out.sink.valid.eq(residual.source.valid & ~widens),
            narrow_out.sink.data.eq(residual.source.data[:16]),
            residual.source.ready.eq(Mux(widens, wide_out.sink.ready, narrow_out.sink.ready)),
            If(streams,
                words_a.ready.eq(wide_in.sink.ready),
                words_b.ready.eq(reads_b & narrow_in.sink.ready),
            ).Else(
                words_a.ready.eq(unit.sink.valid & unit.sink.ready),
                words_b.ready.eq(reads_b & unit.sink.valid & unit.sink.ready),
            ),
        ]

        # Results. The last word of a SUM may have fewer elements. -------------------------------------
        result = stream.Endpoint([("data", word_bits)])
        last   = Signal(lanes)
        self.comb += [
            If(~streams,
                unit.source.connect(result, omit={"last"}),
            ).Elif(widens,
                wide_out.source.connect(result, omit={"last"}),
            ).Else(
                narrow_out.source.connect(result, omit={"last"}),
            ),
            last.eq(2**lanes - 1),
            If(kinds[Code.SUM], Case(elements[:below] if below else Constant(0, 1), {n: last.eq(2**(n + 1) - 1) for n in range(lanes)})),
            write.valid.eq(result.valid & targets.busy),
            write.address.eq(targets.source.address),
            write.data.eq(result.data),
            write.mask.eq(Mux(targets.source.last, last, 2**lanes - 1)),
            targets.source.ready.eq(result.valid & write.ready),
            result.ready.eq(targets.busy & write.ready),
        ]
