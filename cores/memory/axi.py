#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""AXI4 memory masters: beats to and from memory in bursts, for those without LiteDRAM.

They take the place of the masters in :mod:`cores.memory.dma`. Addresses are in bytes, of whole beats; nothing checks them. Each bears a
tag, by which the one that asked learns what went wrong; one burst has one tag.
"""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream
from litex.soc.interconnect.axi import AXIInterface, BURST_INCR

from cores.memory.region import ADDRESS_BITS, beat_shift

# Constants ----------------------------------------------------------------------------------------

BURST_BEATS = 16   # The most of any AXI version.
PAGE_BYTES  = 4096 # No burst may cross a page.

# Burst Gatherer -----------------------------------------------------------------------------------

class BurstGatherer(LiteXModule):
    """Addresses of beats to bursts: a burst ends with ``last``, at 16 beats, at a page, and where addresses jump.

    ``beats`` of the source is the number of beats less one. Its tag is that of the first address: ``last`` must come with the last
    one of a tag. Throughput: an address a cycle, a cycle lost at each burst.
    """
    def __init__(self, shift, tag_bits):
        self.sink   = sink   = stream.Endpoint([("address", ADDRESS_BITS), ("tag", tag_bits)])
        self.source = source = stream.Endpoint([("address", ADDRESS_BITS), ("tag", tag_bits),
            ("beats", bits_for(BURST_BEATS - 1))])

        # # #

        holds   = Signal() # A burst, which may still grow until it is closed.
        closed  = Signal()
        follows = Signal(ADDRESS_BITS)
        grows   = Signal()
        self.comb += [
            grows.eq(~closed & (sink.address == follows) & (source.beats != BURST_BEATS - 1) &
                (sink.address[shift:log2_int(PAGE_BYTES)] != 0)),
            sink.ready.eq(~holds | grows),
            source.valid.eq(holds & (closed | (sink.valid & ~grows))),
            source.last.eq(closed),
        ]
        self.sync += [
            If(source.valid & source.ready, holds.eq(0)),
            If(sink.valid & sink.ready,
                holds.eq(1),
                closed.eq(sink.last),
                follows.eq(sink.address + 2**shift),
                If(holds,
                    source.beats.eq(source.beats + 1),
                ).Else(
                    source.beats.eq(0),
                    source.address.eq(sink.address),
                    source.tag.eq(sink.tag),
                )
            )
        ]

# Helpers ------------------------------------------------------------------------------------------

def memory_interface(data_width=128):
    """An AXI4 interface that the masters here fit."""
    return AXIInterface(data_width=data_width, address_width=32, id_width=1, bursting=True)


def connect_request(channel, burst, shift):
    """Statements: an address channel (ar or aw) carries the burst. Its handshake is the caller's."""
    return [
        channel.addr.eq(burst.address),
        channel.len.eq(burst.beats),
        channel.size.eq(shift),
        channel.burst.eq(BURST_INCR),
        channel.cache.eq(0b0011), # Normal, not cacheable, bufferable.
    ]

# AXI Reader ---------------------------------------------------------------------------------------

class AXIReader(LiteXModule):
    """A beat of data for each address, in order.

    A burst is requested only when there is room for all of it, so that this master never blocks a memory that others
    wait for. ``beat`` pulses with each beat that arrives, and says its ``tag`` and, with ``error``, whether the memory answered
    with an error.

    Parameters
    ----------
    axi      : AXI4 interface of 128, 256 or 512 bits, of which the read channels are used.
    tag_bits : bits of a tag.
    depth    : beats that may be under way, a power of two.
    """
    def __init__(self, axi, tag_bits, depth=64):
        shift, width = beat_shift(axi), axi.data_width
        self.sink   = sink   = stream.Endpoint([("address", ADDRESS_BITS), ("tag", tag_bits)])
        self.source = source = stream.Endpoint([("data", width)])
        self.beat   = Signal()
        self.error  = Signal()
        self.tag    = Signal(tag_bits)

        # # #

        self.gatherer = gatherer = BurstGatherer(shift, tag_bits)
        self.fifo     = fifo     = stream.SyncFIFO([("data", width)], depth)
        self.tags     = tags     = stream.SyncFIFO([("tag", tag_bits)], depth) # Of bursts under way.
        burst = gatherer.source
        free  = Signal(max=depth + 1, reset=depth)
        room  = Signal()
        self.comb += [
            sink.connect(gatherer.sink),
            room.eq(free >= BURST_BEATS),
            connect_request(axi.ar, burst, shift),
            axi.ar.valid.eq(burst.valid & room),
            burst.ready.eq(axi.ar.ready & room),
            tags.sink.valid.eq(burst.valid & burst.ready),
            tags.sink.tag.eq(burst.tag),
            fifo.sink.valid.eq(axi.r.valid),
            fifo.sink.data.eq(axi.r.data),
            axi.r.ready.eq(fifo.sink.ready),
            fifo.source.connect(source),
            self.beat.eq(axi.r.valid & axi.r.ready),
            self.error.eq(self.beat & axi.r.resp[1]),
            self.tag.eq(tags.source.tag),
            tags.source.ready.eq(self.beat & axi.r.last),
        ]
        self.sync += free.eq(free - Mux(burst.valid & burst.ready, burst.beats + 1, 0) + (source.valid & source.ready))

# AXI Writer ---------------------------------------------------------------------------------------

class AXIWriter(LiteXModule):
    """Writes a beat of data to each address, in order; ``done`` pulses when a beat marked ``last`` is in the memory.

    A burst is requested only when all its data is here. What bears a tag whose bit is set in ``hold_back`` goes the same way, with
    no byte enabled: the memory stays as it is. ``error`` pulses, with the ``tag``, for a burst that the memory answered with
    an error. Parameters as for :class:`AXIReader`; the write channels are used.
    """
    def __init__(self, axi, tag_bits, depth=64):
        shift, width = beat_shift(axi), axi.data_width
        self.sink  = sink = stream.Endpoint([("address", ADDRESS_BITS), ("tag", tag_bits), ("data", width)])
        self.done  = Signal()
        self.error = Signal()
        self.tag   = Signal(tag_bits)
        self.hold_back = Signal(2**tag_bits)

        # # #

        self.gatherer = gatherer = BurstGatherer(shift, tag_bits)
        self.fifo     = fifo     = stream.SyncFIFO([("data", width)], depth)
        self.answers  = answers  = stream.SyncFIFO([("final", 1), ("tag", tag_bits)], 16) # Of bursts that wait for theirs.
        self.data     = data     = stream.Buffer([("data", width), ("strb", width//8)]) # Once offered, it may not change.
        burst = gatherer.source
        self.comb += [
            gatherer.sink.valid.eq(sink.valid & fifo.sink.ready),
            gatherer.sink.address.eq(sink.address),
            gatherer.sink.tag.eq(sink.tag),
            gatherer.sink.last.eq(sink.last),
            fifo.sink.valid.eq(sink.valid & gatherer.sink.ready),
            fifo.sink.data.eq(sink.data),
            sink.ready.eq(fifo.sink.ready & gatherer.sink.ready),
        ]

        # Request, then data. ----------------------------------------------------------------------
        sending = Signal()
        beats   = Signal.like(burst.beats)
        tag     = Signal(tag_bits)
        self.comb += [
            connect_request(axi.aw, burst, shift),
            axi.aw.valid.eq(burst.valid & ~sending & answers.sink.ready),
            burst.ready.eq(axi.aw.ready & ~sending & answers.sink.ready),
            answers.sink.valid.eq(burst.valid & burst.ready),
            answers.sink.final.eq(burst.last),
            answers.sink.tag.eq(burst.tag),
            data.sink.valid.eq(sending),
            data.sink.data.eq(fifo.source.data),
            data.sink.strb.eq(Replicate(~(self.hold_back >> tag)[0], width//8)),
            data.sink.last.eq(beats == 0),
            fifo.source.ready.eq(sending & data.sink.ready),
            data.source.connect(axi.w, keep={"valid", "ready", "last", "data", "strb"}),
        ]
        self.sync += [
            If(burst.valid & burst.ready,
                sending.eq(1),
                beats.eq(burst.beats),
                tag.eq(burst.tag),
            ).Elif(data.sink.valid & data.sink.ready,
                sending.eq(~data.sink.last),
                beats.eq(beats - 1),
            )
        ]

        # Answers. ---------------------------------------------------------------------------------
        self.comb += [
            axi.b.ready.eq(1),
            answers.source.ready.eq(axi.b.valid),
            self.done.eq(axi.b.valid & answers.source.final),
            self.error.eq(axi.b.valid & axi.b.resp[1]),
            self.tag.eq(answers.source.tag),
        ]
