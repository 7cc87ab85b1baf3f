#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""On-chip memory for vectors of binary16, in banks, for several readers and writers at once."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from operations.config import check_choice, check_range

# Constants ----------------------------------------------------------------------------------------

ELEMENT_BITS = 16
UNDER_WAY    = 8 # Words of a reader, at least 7 for one a cycle.

# Helpers ------------------------------------------------------------------------------------------

def round_robin(module, requests):
    """Signal: number of the request that goes in this cycle, if there is one; each waits for at most one of each of the others."""
    count  = len(requests)
    choice = Signal(max=max(count, 2))
    if count == 1:
        return choice
    latest = Signal(max=count)

    def after(present):
        statement = choice.eq(present)
        for step in reversed(range(1, count)):
            candidate = (present + step) % count
            statement = If(requests[candidate], choice.eq(candidate)).Else(statement)
        return statement
    module.comb += Case(latest, {n if n < count - 1 else "default": after(n) for n in range(count)})
    module.sync += If(Cat(*requests) != 0, latest.eq(choice))
    return choice

# Scratchpad ---------------------------------------------------------------------------------------

class Scratchpad(LiteXModule):
    """Words of V elements of binary16, which several ports read and write, each a word a cycle while they are in different banks.

    ::

        reads[0]: address --------------+     +-> bank 0 -+     +-> FIFO -> sources[0]: data
        reads[1]: address --------------+-----+-> bank 1 -+-----+-> FIFO -> sources[1]: data
                                        |     |   ...     |
        writes[0]: address, data, mask -+     +-> bank B -+

    Word a is in bank ``a mod banks``. A bank is a block RAM that reads a word and writes one in a cycle; ports that want the same
    take turns. ``reads[n]`` takes addresses and ``sources[n]`` gives their words in that order; ``writes[n]`` writes those elements
    of a word that ``mask`` has a bit for. Addresses are below ``words``.

    | what                                      | cycles                                                             |
    |-------------------------------------------|--------------------------------------------------------------------|
    | from an address to its word               | 2                                                                  |
    | that a port waits for a bank              | at most ``reads - 1``, or ``writes - 1``                           |
    | from a write to reads that see it         | 1; a read in the same cycle gives what was there before            |
    | that linear streams lose to one another   | at most ``reads - 1``, or ``writes - 1``, at their beginning       |

    The last holds where there are no more such ports than banks: a stream that has waited follows right behind the other, and from
    then on each passes a word a cycle.

    A word that its source doesn't take is in nobody's way: a port has 8 under way at most, for which the FIFO has places.

    Parameters
    ----------
    lanes  : V, elements of a word: 1, 2, 4, 8, 16 or 32.
    words  : a multiple of ``banks``, twice as many at least.
    reads  : ports that read, 1 to 8.
    writes : ports that write, 1 to 8.
    banks  : 1, 2, 4 or 8.
    """
    latency = 2
    def __init__(self, lanes=8, words=4096, reads=3, writes=2, banks=4):
        check_choice("lanes",  lanes,  (1, 2, 4, 8, 16, 32))
        check_choice("banks",  banks,  (1, 2, 4, 8))
        check_range( "words",  words,  2*banks, 2**20)
        check_range( "reads",  reads,  1, 8)
        check_range( "writes", writes, 1, 8)
        if words % banks:
            raise ValueError(f"words must be a multiple of {banks}, is {words}.")
        width        = ELEMENT_BITS*lanes
        address_bits = bits_for(words - 1)
        bank_bits    = log2_int(banks)
        self.reads   = [stream.Endpoint([("address", address_bits)]) for _ in range(reads)]
        self.sources = [stream.Endpoint([("data", width)])           for _ in range(reads)]
        self.writes  = [stream.Endpoint([("address", address_bits), ("data", width), ("mask", lanes)]) for _ in range(writes)]

        # # #

        def bank_of(port):
            return port.address[:bank_bits] if banks > 1 else Constant(0, 1)

        # Reads that have a place for their word. --------------------------------------------------
        wants   = [] # Of a port, whether it wants to read,
        arrives = [] # and from which bank its word arrives.
        arrived = [] # That.
        for port, source in zip(self.reads, self.sources):
            fifo   = stream.SyncFIFO([("data", width)], UNDER_WAY)
            places = Signal(max=UNDER_WAY + 1, reset=UNDER_WAY) # In the FIFO, two cycles late: what it gives is in no path of the grants.
            room   = Signal(reset=1)                            # Another cycle late.
            given  = Signal()
            want   = Signal()
            bank   = Signal(max(bank_bits, 1), reset_less=True)
            self.submodules += fifo
            self.comb += [
                want.eq(port.valid & room),
                fifo.source.connect(source),
            ]
            self.sync += [
                fifo.sink.valid.eq(port.valid & port.ready),
                given.eq(source.valid & source.ready),
                places.eq(places - fifo.sink.valid + given),
                room.eq(places > 2),
                bank.eq(bank_of(port)),
            ]
            wants.append(want)
            arrives.append(bank)
            arrived.append(fifo.sink.data)

        # Banks. -----------------------------------------------------------------------------------
        words_read = []
        for n in range(banks):
            memory = Memory(width, words//banks, name="scratchpad_bank")
            self.specials += memory
            write_port = memory.get_port(write_capable=True, we_granularity=ELEMENT_BITS, mode=READ_FIRST)
            read_port  = memory.get_port(mode=READ_FIRST)
            self.specials += write_port, read_port
            words_read.append(read_port.dat_r)

            reading = [want & (bank_of(port) == n) for want, port in zip(wants, self.reads)]
            writing = [port.valid & (bank_of(port) == n) for port in self.writes]
            reader  = round_robin(self, reading)
            writer  = round_robin(self, writing)
            self.comb += [
                Case(reader, {k if k < reads - 1 else "default": read_port.adr.eq(port.address[bank_bits:])
                    for k, port in enumerate(self.reads)}),
                Case(writer, {k if k < writes - 1 else "default": [
                    write_port.adr.eq(port.address[bank_bits:]),
                    write_port.dat_w.eq(port.data),
                    If(writing[k], write_port.we.eq(port.mask)),
                ] for k, port in enumerate(self.writes)}),
                *(If(reading[k] & (reader == k), port.ready.eq(1)) for k, port in enumerate(self.reads)),
                *(If(writing[k] & (writer == k), port.ready.eq(1)) for k, port in enumerate(self.writes)),
            ]
        for bank, data in zip(arrives, arrived):
            self.comb += Case(bank, {n if n < banks - 1 else "default": data.eq(word) for n, word in enumerate(words_read)})
