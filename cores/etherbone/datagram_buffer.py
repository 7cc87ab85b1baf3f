#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Keeps datagrams from Etherbone that it cannot take: they are lost whole, or not at all."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream
from litex.soc.interconnect.csr import *

from liteeth.common import eth_udp_user_description, etherbone_magic, etherbone_version

# Constants ----------------------------------------------------------------------------------------

RECORD_DEPTH = 256  # Words of LiteEth's record FIFOs, the most they allow: the longest list and its base address.
BUFFER_DEPTH = 1024
HEADER_WORDS = 3    # Packet header, record header.
PROBE_WORDS  = 3    # A packet header, and what LiteEth's probe FIFO holds.
LONGEST      = HEADER_WORDS + RECORD_DEPTH

# Datagram Buffer ----------------------------------------------------------------------------------

class DatagramBuffer(LiteXModule):
    """Datagram Buffer

    Stores Etherbone datagrams, and passes on those that came whole and make sense. It stands between LiteEth's UDP port
    and its Etherbone, which (LiteEth 2024.12)

    - executes frames whose check sequence was wrong: the MAC's ``error`` reaches the UDP port, where nothing looks at it;
    - stops for good, or writes to wrong addresses, when a record's lists are not as long as its header says, when a
      record holds both writes and reads, or is longer than its FIFOs;
    - lets bytes get lost in the middle of a frame when its FIFOs are full, as a PHY cannot wait, and was seen to stop
      for good in the simulation, where it can;
    - answers to whoever sent last.

    So here a datagram is dropped as a whole, and counted, where a byte of it is in error, it does not fit, or it is
    neither a probe of 12 bytes nor a record with either writes or reads, as long as its header says. And a datagram of
    another host waits until all of the last one's were answered.

    In memory a datagram is two words, its length (bit 9: it will be answered) and the sender's address, and its content.

    Parameters
    ----------
    depth : Words, a power of 2, at least 512.

    Attributes
    ----------
    answered : Input, 1 for each answer that has left.
    filling  : Output, there is room for less than two of the longest datagrams: a link that can wait better does.
    """
    def __init__(self, depth=BUFFER_DEPTH):
        if depth < 512 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of 2, at least 512, is {depth}.")
        self.sink     = stream.Endpoint(eth_udp_user_description(32))
        self.source   = stream.Endpoint(eth_udp_user_description(32))
        self.answered = Signal()
        self.filling  = Signal()
        self.dropped  = CSRStatus(32, description="Datagrams dropped since reset: damaged, malformed, or without room.")

        # # #

        # Pointers have one bit more than an address. From start to write is the datagram that is coming in.
        self.start = Signal(max=2*depth)
        self.write = write = Signal(max=2*depth, reset=2)
        self.read  = read  = Signal(max=2*depth)
        self.full  = full  = Signal()
        used = Signal(max=2*depth)
        self.comb += [
            used.eq(write - read),
            full.eq(used >= depth),
            self.filling.eq(used > depth - 2*(LONGEST + 2)),
        ]

        memory = Memory(32, depth, name="datagrams")
        self.write_port = memory.get_port(write_capable=True)
        self.read_port  = memory.get_port(mode=READ_FIRST)
        self.specials += memory, self.write_port, self.read_port

        self.add_checks()
        self.add_receiver()
        self.add_sender()

    # In -------------------------------------------------------------------------------------------

    def add_checks(self):
        """What is known of the datagram that is coming in, and from it whether it is sound."""
        self.count  = count  = Signal(9)  # Words so far.
        self.bad    = bad    = Signal()   # A byte was in error, or a word did not fit.
        self.length = length = Signal(16) # Bytes, as the UDP header says.
        self.probe  = probe  = Signal()
        self.writes = writes = Signal(8)
        self.reads  = reads  = Signal(8)
        self.sound  = sound  = Signal()
        self.comb += If(~bad & (length == Cat(C(0, 2), count)),
            If(probe,
                sound.eq(count == PROBE_WORDS)
            ).Else(
                sound.eq(((writes == 0) ^ (reads == 0)) & (count == HEADER_WORDS + 1 + writes + reads))
            )
        )

    def check_headers(self, word):
        """Statements of the receiver: take what the headers say, from a word of the datagram."""
        magic = C(etherbone_magic >> 8 | (etherbone_magic & 0xff) << 8, 16) # The first byte is the lowest.
        return Case(self.count, {
            0 : [
                NextValue(self.probe, word[16]),
                If((word[:16] != magic) | word[17] | (word[20:] != (0x44 << 4 | etherbone_version)),
                    NextValue(self.bad, 1)
                )
            ],
            2 : [
                If(~self.probe & ((word[:8] & 0b1110_1111) != 0), # All flags but `cyc`.
                    NextValue(self.bad, 1)
                ),
                NextValue(self.writes, word[16:24]),
                NextValue(self.reads,  word[24:])
            ],
        })

    def add_receiver(self):
        """Stores datagrams behind room for their two words, which are written last; one that is not sound is written over."""
        sink, port   = self.sink, self.write_port
        start, write = self.start, self.write
        ip_address   = Signal(32)
        self.receive = receive = FSM(reset_state="WORDS")
        receive.act("WORDS",
            sink.ready.eq(1),
            port.adr.eq(write),
            port.dat_w.eq(sink.data),
            port.we.eq(sink.valid & ~self.full),
            If(sink.valid & sink.ready,
                NextValue(ip_address,  sink.ip_address),
                NextValue(self.length, sink.length),
                If(self.full | (self.count == LONGEST),
                    NextValue(self.bad, 1)
                ).Else(
                    NextValue(write, write + 1),
                    NextValue(self.count, self.count + 1)
                ),
                If(sink.error != 0,
                    NextValue(self.bad, 1)
                ),
                self.check_headers(sink.data),
                If(sink.last,
                    NextState("CHECK")
                )
            )
        )
        receive.act("CHECK",
            port.adr.eq(start + 1),
            port.dat_w.eq(ip_address),
            port.we.eq(self.sound),
            NextState("COMMIT"),
            If(~self.sound,
                NextValue(self.dropped.status, self.dropped.status + 1),
                NextValue(write, start + 2),
                NextState("NEXT")
            )
        )
        receive.act("COMMIT",
            port.adr.eq(start),
            port.dat_w.eq(Cat(self.count, self.probe | (self.reads != 0))),
            port.we.eq(1),
            NextValue(start, write),
            NextValue(write, write + 2),
            NextState("NEXT")
        )
        receive.act("NEXT",
            NextValue(self.bad,   0),
            NextValue(self.count, 0),
            NextState("WORDS")
        )

    # Out ------------------------------------------------------------------------------------------

    def add_sender(self):
        """Passes datagrams on, each when all answers to another host have left."""
        source, port = self.source, self.read_port
        start, read  = self.start, self.read
        next_read = Signal.like(read)
        last_word = Signal(9)
        position  = Signal(9)
        answer    = Signal()
        host      = Signal(32)
        pending   = Signal(10) # Answers still to come; a datagram takes 6 words or more.
        begun     = Signal()
        self.comb += [
            next_read.eq(read),
            port.adr.eq(next_read),
        ]
        self.sync += [
            read.eq(next_read),
            pending.eq(pending + begun - (self.answered & (pending != 0))),
        ]
        self.send = send = FSM(reset_state="IDLE")
        send.act("IDLE",
            NextValue(position, 0),
            If(read != start,
                NextState("LENGTH")
            )
        )
        send.act("LENGTH",
            NextValue(last_word, port.dat_r[:9] - 1),
            NextValue(answer,    port.dat_r[9]),
            next_read.eq(read + 1),
            NextState("ADDRESS")
        )
        send.act("ADDRESS",
            If((port.dat_r == host) | (pending == 0),
                NextValue(host, port.dat_r),
                begun.eq(answer),
                next_read.eq(read + 1),
                NextState("WORDS")
            )
        )
        send.act("WORDS",
            source.valid.eq(1),
            source.data.eq(port.dat_r),
            source.last.eq(position == last_word),
            source.last_be.eq(Cat(C(0, 3), source.last)),
            If(source.ready,
                next_read.eq(read + 1),
                NextValue(position, position + 1),
                If(source.last,
                    NextState("IDLE")
                )
            )
        )
        self.comb += [
            source.ip_address.eq(host),
            source.length.eq(Cat(C(0, 2), last_word + 1)),
        ]
