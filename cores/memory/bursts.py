#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From records to the addresses of their beats."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.region import ADDRESS_BITS

from operations.config import ALIGNMENT

# Layouts ------------------------------------------------------------------------------------------

RECORD_BITS = ADDRESS_BITS - log2_int(ALIGNMENT) # Of a record's address: its lower bits are 0 and not carried along.


def tagged(layout, tag_bits):
    """A layout with a tag of so many bits; without any, as it is."""
    return layout + ([("tag", tag_bits)] if tag_bits else [])

# Burst --------------------------------------------------------------------------------------------

class BurstGenerator(LiteXModule):
    """The addresses of a record's beats, one a cycle; ``last`` with the last one.

    ``sink.record`` is the record's address over ALIGNMENT, ``sink.length`` its beats, 1 or more. ``source.address`` is in bytes.

    Parameters
    ----------
    shift       : log2 of a beat's bytes.
    length_bits : bits of a length.
    """
    def __init__(self, shift, length_bits):
        self.sink   = sink   = stream.Endpoint([("record", RECORD_BITS), ("length", length_bits)])
        self.source = source = stream.Endpoint([("address", ADDRESS_BITS)])

        # # #

        fine   = log2_int(ALIGNMENT) - shift # Lower bits of the offset that the record's address does not have.
        offset = Signal(max(length_bits, fine + 1))
        next   = Signal(max(length_bits, fine + 1))
        self.comb += [
            next.eq(offset + 1),
            source.valid.eq(sink.valid),
            source.address.eq(Cat(Constant(0, shift), *([offset[:fine]] if fine else []), sink.record + offset[fine:])),
            source.last.eq(next == sink.length),
            sink.ready.eq(source.ready & source.last),
        ]
        self.sync += If(source.valid & source.ready, offset.eq(Mux(source.last, 0, next)))

# Strided Bursts -----------------------------------------------------------------------------------

class StridedBursts(LiteXModule):
    """For each descriptor, `count` times a burst from each of its records in turn, which then go on by their strides.

    ::

        descriptor: count, record of each way --> way 0, way 1, way 0, way 1, ... --> BurstGenerator --> addresses

    ``last`` comes with the last address of a descriptor. Of one with a count of 0 nothing comes; ``empty`` pulses. With
    ``omit_NAME`` in a descriptor that way is left out. ``length_NAME`` (beats) and ``stride_NAME`` (bytes over ALIGNMENT) may change
    between descriptors only.

    Throughput: an address a cycle; two cycles more a descriptor.

    Parameters
    ----------
    ways        : {name: whether it can be omitted}; the first one cannot.
    shift       : log2 of a beat's bytes.
    length_bits : bits of a length.
    tag_bits    : bits of a tag that goes from a descriptor to its addresses.
    """
    def __init__(self, ways, shift, length_bits, tag_bits=0):
        layout  = [(name, RECORD_BITS) for name in ways] + [("count", 16)]
        layout += [(f"omit_{name}", 1) for name, can in ways.items() if can]
        self.sink   = sink   = stream.Endpoint(tagged(layout, tag_bits))
        self.source = source = stream.Endpoint(tagged([("address", ADDRESS_BITS)], tag_bits))
        self.empty  = Signal()
        for name in ways:
            setattr(self, f"length_{name}", Signal(length_bits))
            setattr(self, f"stride_{name}", Signal(RECORD_BITS))

        # # #

        self.burst = burst = BurstGenerator(shift, length_bits)
        count      = Signal(16)
        final      = Signal() # The last one of each way.
        next_count = Signal()
        self.comb += [
            final.eq(count == 1),
            burst.source.connect(source, omit={"last"}),
        ]
        # Sums from 0: a choice of what is added takes less than one of sums.
        self.sync += If(next_count, count.eq(count + Mux(sink.ready, sink.count, 2**16 - 1)))
        if tag_bits:
            self.sync += If(sink.ready, source.tag.eq(sink.tag))

        records, steps, omitted = {}, {}, {}
        for name, can in ways.items():
            records[name] = record = Signal(RECORD_BITS)
            steps[name]   = step   = Signal()
            self.sync += If(step, record.eq(record + Mux(sink.ready, getattr(sink, name), getattr(self, f"stride_{name}"))))
            if can:
                omitted[name] = omit = Signal()
                self.sync += If(sink.ready, omit.eq(getattr(sink, f"omit_{name}")))

        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE",
            NextValue(count, 0),
            [NextValue(record, 0) for record in records.values()],
            If(sink.valid, NextState("LOAD"))
        )
        names = list(ways)
        fsm.act("LOAD",
            sink.ready.eq(1),
            next_count.eq(1),
            [step.eq(1) for step in steps.values()],
            If(sink.count == 0,
                self.empty.eq(1),
                NextState("IDLE")
            ).Else(
                NextState(f"BURST_{names[0]}")
            )
        )
        for name, follower in zip(names, names[1:] + [None]):
            end  = [next_count.eq(1), If(final, NextState("IDLE")).Else(NextState(f"BURST_{names[0]}"))]
            then = end if follower is None else [NextState(f"BURST_{follower}")]
            done = final if follower is None else 0
            if follower in omitted:
                then = [If(omitted[follower], *end).Else(*then)]
                done = final & omitted[follower]
            fsm.act(f"BURST_{name}",
                burst.sink.valid.eq(1),
                burst.sink.record.eq(records[name]),
                burst.sink.length.eq(getattr(self, f"length_{name}")),
                source.last.eq(burst.source.last & done),
                If(burst.sink.ready,
                    steps[name].eq(1),
                    *then
                )
            )
