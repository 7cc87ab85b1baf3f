#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Addresses of a vector's words in the scratchpad, and of the terms of sums."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

# Addresses ----------------------------------------------------------------------------------------

class Addresses(LiteXModule):
    """``base + beat + term*stride``, terms inside beats, from ``start`` on: ``beats`` and ``terms`` are less one.

    The parameters come with ``start`` and hold while it is ``busy``. ``source.last`` is that of the last address.

    Throughput: one a cycle.
    """
    def __init__(self, address_bits, beat_bits, term_bits=1):
        self.start  = Signal()
        self.base   = Signal(address_bits)
        self.stride = Signal(address_bits)
        self.beats  = Signal(beat_bits)
        self.terms  = Signal(term_bits)
        self.busy   = Signal()
        self.source = source = stream.Endpoint([("address", address_bits)])

        # # #

        point   = Signal(address_bits, reset_less=True) # The first term's, in the next beat.
        address = Signal(address_bits, reset_less=True)
        beat    = Signal(beat_bits)
        term    = Signal(term_bits)
        final   = Signal()
        self.comb += [
            final.eq(term == self.terms),
            source.valid.eq(self.busy),
            source.address.eq(address),
            source.last.eq(final & (beat == self.beats)),
        ]
        self.sync += [
            If(source.valid & source.ready,
                address.eq(address + self.stride),
                term.eq(term + 1),
                If(final,
                    address.eq(point),
                    point.eq(point + 1),
                    term.eq(0),
                    beat.eq(beat + 1),
                ),
                If(source.last, self.busy.eq(0)),
            ),
            If(self.start,
                address.eq(self.base),
                point.eq(self.base + 1),
                beat.eq(0),
                term.eq(0),
                self.busy.eq(1),
            ),
        ]
