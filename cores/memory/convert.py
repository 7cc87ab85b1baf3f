#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Between the beats of a memory port and the words of an engine, record by record: a record begins with a beat."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

# Beats to Words -----------------------------------------------------------------------------------

class BeatsToWords(LiteXModule):
    """Records in beats to words, the lower bits first.

    Where a beat is of several words, ``end`` says that the word offered is its record's last one: what the beat still holds is
    thrown away. Where a word is of several beats, a record is of whole words.

    Throughput: a beat, or a word, a cycle, whichever is less. Latency: none, or a cycle where words are wider.
    """
    def __init__(self, beat_bits, word_bits):
        self.sink   = sink   = stream.Endpoint([("data", beat_bits)])
        self.source = source = stream.Endpoint([("data", word_bits)])
        self.end    = Signal()

        # # #

        if beat_bits <= word_bits:
            self.converter = converter = stream.Converter(beat_bits, word_bits)
            self.comb += sink.connect(converter.sink), converter.source.connect(source)
            return
        words = beat_bits//word_bits
        index = Signal(max=words)
        done  = Signal()
        self.comb += [
            done.eq(self.end | (index == words - 1)),
            source.valid.eq(sink.valid),
            Case(index, {n: source.data.eq(sink.data[word_bits*n:word_bits*(n + 1)]) for n in range(words)}),
            sink.ready.eq(source.ready & done),
        ]
        self.sync += If(source.valid & source.ready, index.eq(Mux(done, 0, index + 1)))

# Words to Beats -----------------------------------------------------------------------------------

class WordsToBeats(LiteXModule):
    """Records in words, ``last`` with a record's last one, to beats; what that leaves of a beat is zeros.

    Throughput: a beat, or a word, a cycle, whichever is less. Latency: none, or a cycle where beats are wider.
    """
    def __init__(self, word_bits, beat_bits):
        self.sink   = sink   = stream.Endpoint([("data", word_bits)])
        self.source = source = stream.Endpoint([("data", beat_bits)])

        # # #

        if beat_bits <= word_bits:
            self.converter = converter = stream.Converter(word_bits, beat_bits)
            self.comb += sink.connect(converter.sink), converter.source.connect(source)
            return
        words = beat_bits//word_bits
        index = Signal(max=words)
        self.comb += sink.ready.eq(~source.valid | source.ready)
        self.sync += [
            If(source.ready, source.valid.eq(0)),
            If(sink.valid & sink.ready,
                source.valid.eq(sink.last | (index == words - 1)),
                source.last.eq(sink.last),
                index.eq(Mux(sink.last, 0, index + 1)),
                Case(index, {n: source.data[word_bits*n:].eq(sink.data) for n in range(words)}), # Zeros above it.
            )
        ]
