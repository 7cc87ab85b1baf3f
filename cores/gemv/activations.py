#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The vectors that the weights meet: mantissas by column, and what belongs to sixteen of them."""

from functools import reduce
from operator import add

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from operations.config import check_choice, check_range
from operations.numerics import COLUMNS, MANTISSA_BITS

# Constants ----------------------------------------------------------------------------------------

NOT_FINITE = 31 # Exponent of a group with an infinity or a NaN in it.

# Activations --------------------------------------------------------------------------------------

class Activations(LiteXModule):
    """Memory for vectors of R tokens in block floating point, sixteen columns a word.

    ::

        sink: V mantissas of a token -+-> eight memories of two columns, each R tokens wide -> columns
                                      +-> sum of sixteen ---------------> memory -> beside

    The word ``address`` is read each cycle. Column n of it is there n + 1 cycles later, as a chain of DSP blocks wants it, and
    ``beside`` a cycle later: of each token, the sum of the word's mantissas as ``balance = 2**(bits + 3) - sum``, which is above 0,
    and the exponent of their group.

    A beat of the sink has V columns of one token, in order from ``place`` V times columns on; ``exponent`` is the group's, 1 to 30, or
    31 if it is not finite. What has been written can be read two cycles later.

    Parameters
    ----------
    tokens : R, 1 to 8.
    lanes  : V, 1, 2, 4 or 8.
    words  : of sixteen columns, that fit; a power of two. Vectors lie where the writer puts them.
    bits   : of a mantissa, sign included.
    """
    def __init__(self, tokens, lanes=1, words=512, bits=MANTISSA_BITS):
        check_range("tokens", tokens, 1, 8)
        check_choice("lanes", lanes, (1, 2, 4, 8))
        check_choice("words", words, [2**n for n in range(1, 14)])
        check_range("bits", bits, 8, 14)
        address_bits = log2_int(words)
        self.sink    = sink = stream.Endpoint([("data", bits*lanes), ("exponent", 5), ("token", max(bits_for(tokens - 1), 1)),
            ("place", address_bits + log2_int(COLUMNS//lanes))])
        self.address = Signal(address_bits)
        self.columns = [[Signal((bits, True)) for _ in range(COLUMNS)] for _ in range(tokens)]
        self.beside  = [Record([("balance", bits + 4), ("exponent", 5)]) for _ in range(tokens)]

        # # #

        # In: pairs of columns. A first one alone waits for the second.
        beat  = Signal(log2_int(COLUMNS//lanes))
        pairs = [sink.data[2*bits*n:2*bits*(n + 1)] for n in range(lanes//2)]
        self.comb += [
            sink.ready.eq(1),
            beat.eq(sink.place),
        ]
        if lanes == 1:
            first = Signal(bits, reset_less=True)
            self.sync += If(sink.valid, first.eq(sink.data))
            pairs = [Cat(first, sink.data)]
        write     = Signal()
        write_at  = Signal(address_bits,       reset_less=True)
        write_to  = Signal.like(sink.token,    reset_less=True)
        exponent  = Signal(5,                  reset_less=True)
        which     = Signal.like(beat,          reset_less=True)
        written   = Signal(2*bits*len(pairs),  reset_less=True)
        self.sync += [
            write.eq(sink.valid),
            write_at.eq(sink.place >> len(beat)),
            write_to.eq(sink.token),
            exponent.eq(sink.exponent),
            which.eq(beat),
            written.eq(Cat(*pairs)),
        ]

        # The sum of a word: V of it at a time.
        part    = Signal((bits + log2_int(lanes), True), reset_less=True)
        running = Signal((bits + 4, True), reset_less=True)
        total   = Signal((bits + 4, True))
        mantissas = [Signal((bits, True)) for _ in range(lanes)]
        self.comb += Cat(*mantissas).eq(sink.data)
        self.sync += [
            part.eq(reduce(add, mantissas)),
            If(write, running.eq(total)),
        ]
        self.comb += total.eq(Mux(which == 0, 0, running) + part)

        # Out.
        addresses = [self.address]
        for _ in range(COLUMNS//2 - 1):
            previous = addresses[-1]
            for _ in range(2):
                following = Signal(address_bits, reset_less=True)
                self.sync += following.eq(previous)
                previous = following
            addresses.append(previous)
        for token in range(tokens):
            mine = Signal()
            self.comb += mine.eq(write & (write_to == token))
            for pair in range(COLUMNS//2):
                beats = COLUMNS//lanes
                here  = which == (2*pair + 1)*beats//COLUMNS # The beat that completes the pair.
                odd   = Signal((bits, True), reset_less=True)
                read  = self.memory(2*bits, words, write_at, written[2*bits*(pair % len(pairs)):][:2*bits], mine & here,
                    addresses[pair])
                self.comb += Cat(self.columns[token][2*pair], odd).eq(read)
                self.sync += self.columns[token][2*pair + 1].eq(odd)
            balance = Signal(bits + 4)
            self.comb += balance.eq(2**(bits + 3) - total)
            self.comb += self.beside[token].raw_bits().eq(self.memory(bits + 9, words, write_at, Cat(balance, exponent),
                mine & (which == COLUMNS//lanes - 1), self.address))

    def memory(self, width, depth, write_at, data, write, address):
        """What a new memory has at `address`, a cycle later."""
        memory     = Memory(width, depth)
        write_port = memory.get_port(write_capable=True)
        read_port  = memory.get_port(mode=READ_FIRST)
        self.specials += memory, write_port, read_port
        self.comb += [
            write_port.adr.eq(write_at),
            write_port.dat_w.eq(data),
            write_port.we.eq(write),
            read_port.adr.eq(address),
        ]
        return read_port.dat_r
