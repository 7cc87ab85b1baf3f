#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Vectors of binary16 to block floating point, on their way to the weights."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from operations.config import check_choice, check_range
from operations.numerics import GROUP, MANTISSA_BITS

# Helpers ------------------------------------------------------------------------------------------

def greatest(values):
    """The greatest of some signals, by a tree."""
    if len(values) == 1:
        return values[0]
    a, b = greatest(values[:len(values)//2]), greatest(values[len(values)//2:])
    return Mux(a > b, a, b)

# Mantissa -----------------------------------------------------------------------------------------

class Mantissa(LiteXModule):
    """An element's mantissa: its significand, shifted down by how far its exponent lies below the group's, rounded to even.

    ``x`` is a binary16, ``exponent`` the group's exponent field, 1 to 30, no less than that of x. A ``source`` two cycles later, as
    far as ``ce`` lets it.

    Parameters
    ----------
    bits : of the mantissa, sign included.
    """
    latency = 2
    def __init__(self, bits=MANTISSA_BITS):
        self.x        = Signal(16)
        self.exponent = Signal(5)
        self.ce       = Signal()
        self.source   = Signal((bits, True))

        # # #

        # Cycle 1: shifted. Below the width's last bit there is the one that decides, then all others as they are.
        width  = 11 + max(bits - 12, 0)
        most   = width + 1 # A shift that leaves nothing.
        down   = Signal(6)
        shift  = Signal(max=most + 1)
        field  = self.x[10:15]
        sign   = Signal(reset_less=True)
        value  = Signal(width + most, reset_less=True)
        self.comb += [
            down.eq(self.exponent - Mux(field == 0, 1, field) + max(12 - bits, 0)),
            shift.eq(Mux(down > most, most, down)),
        ]
        self.sync += If(self.ce,
            sign.eq(self.x[15]),
            value.eq(Cat(Constant(0, most + max(bits - 12, 0)), self.x[:10], field != 0) >> shift),
        )

        # Cycle 2: rounded, and signed.
        kept    = Signal(width + 1)
        rounded = Signal(width + 1)
        self.comb += [
            kept.eq(value[most:]),
            rounded.eq(kept + (value[most - 1] & (kept[0] | (value[:most - 1] != 0)))),
        ]
        largest = 2**(bits - 1) - 1
        limited = Mux(rounded > largest, largest, rounded) if bits < 12 else rounded
        magnitude = Signal(bits - 1)
        self.comb += magnitude.eq(limited)
        self.sync += If(self.ce, self.source.eq(Mux(sign, -magnitude, magnitude)))

# Block Quantiser ----------------------------------------------------------------------------------

class BlockQuantiser(LiteXModule):
    """A vector to block floating point, group by group.

    ::

        sink: V elements -+-> two groups, in turn ---> Mantissa (V of them) -> source: V mantissas, exponent, finite
                          +-> largest exponent ------------^

    ``source.exponent`` is the group's exponent field E, 1 to 30: an element is its mantissa times 2**(E - 13 - bits). Of a group with
    an infinity or a NaN in it ``finite`` is 0, and nothing else of it has a meaning. Beats of a group come one after the other, ``last``
    with each group's last one.

    Throughput: a beat a cycle. Latency: a group and 4 cycles. Model: :func:`model.exact.blockfloat.to_block_float`.

    Parameters
    ----------
    lanes : V, elements a beat: 1, 2, 4 or 8.
    bits  : of a mantissa, sign included: 8 to 14.
    """
    def __init__(self, lanes=1, bits=MANTISSA_BITS):
        check_choice("lanes", lanes, (1, 2, 4, 8))
        check_range("bits", bits, 8, 14)
        self.sink   = sink   = stream.Endpoint([("data", 16*lanes)])
        self.source = source = stream.Endpoint([("data", bits*lanes), ("exponent", 5), ("finite", 1)])

        # # #

        beats  = GROUP//lanes
        memory = Memory(16*lanes, 2*beats)
        self.specials += memory
        write_port = memory.get_port(write_capable=True)
        read_port  = memory.get_port(async_read=True)
        self.specials += write_port, read_port

        # Groups come in: each has a half of the memory, and its exponent beside it.
        place     = Signal(max=beats)
        half      = Signal()
        full      = Array([Signal() for _ in range(2)])
        exponents = Array([Signal(5, reset_less=True) for _ in range(2)])
        finites   = Array([Signal(reset_less=True) for _ in range(2)])
        largest   = Signal(5, reset=1)
        fields    = [sink.data[16*n + 10:16*n + 15] for n in range(lanes)]
        highest   = Signal(5) # Of those so far and of the last beat.
        came      = Signal()
        ended     = Signal(reset_less=True) # A group, with it; its half. The exponent is known a cycle after the group is full.
        where     = Signal(reset_less=True)
        beat      = Signal(5, reset_less=True)
        self.comb += [
            sink.ready.eq(~full[half]),
            highest.eq(greatest([largest, beat])),
            write_port.adr.eq(Cat(place, half)),
            write_port.dat_w.eq(sink.data),
            write_port.we.eq(sink.valid & sink.ready),
        ]
        self.sync += [
            came.eq(sink.valid & sink.ready),
            ended.eq(place == beats - 1),
            where.eq(half),
            beat.eq(greatest(fields)),
            If(sink.valid & sink.ready,
                place.eq(place + 1),
                If(place == beats - 1,
                    place.eq(0),
                    half.eq(~half),
                    full[half].eq(1),
                )
            ),
            If(came,
                largest.eq(highest),
                If(ended,
                    largest.eq(1),
                    exponents[where].eq(highest),
                    finites[where].eq(highest != 31),
                )
            )
        ]

        # And go, through the mantissas, which move on when the source does.
        index  = Signal(max=beats)
        turn   = Signal()
        take   = Signal()
        done   = Signal() # With a group's last beat.
        ce     = Signal()
        stages = [Signal() for _ in range(2 + Mantissa.latency)]
        read   = Signal(16*lanes, reset_less=True)
        of     = Signal(reset_less=True)
        begins = Signal(reset_less=True)
        ends   = Signal(reset_less=True)
        kept   = Signal(6, reset_less=True) # Exponent and finite, while the half may have another group already.
        beside = Signal(6)
        self.comb += [
            ce.eq(source.ready | ~source.valid),
            take.eq(full[turn] & ce),
            done.eq(take & (index == beats - 1)),
            read_port.adr.eq(Cat(index, turn)),
            stages[0].eq(full[turn]),
            beside.eq(Mux(begins, Cat(exponents[of], finites[of]), kept)),
            source.valid.eq(stages[-1]),
        ]
        self.sync += [
            If(take, index.eq(Mux(done, 0, index + 1))),
            If(done,
                turn.eq(~turn),
                full[turn].eq(0),
            ),
            If(ce, [after.eq(before) for before, after in zip(stages, stages[1:])]),
        ]
        self.sync += If(ce,
            read.eq(read_port.dat_r),
            of.eq(turn),
            begins.eq(index == 0),
            ends.eq(index == beats - 1),
            kept.eq(beside),
        )
        exponent = beside[:5]
        beside   = Cat(beside, ends)
        for _ in range(Mantissa.latency):
            later = Signal(7, reset_less=True)
            self.sync += If(ce, later.eq(beside))
            beside = later
        self.comb += Cat(source.exponent, source.finite, source.last).eq(beside)
        for n in range(lanes):
            mantissa = Mantissa(bits)
            self.submodules += mantissa
            self.comb += [
                mantissa.ce.eq(ce),
                mantissa.x.eq(read[16*n:16*(n + 1)]),
                mantissa.exponent.eq(exponent),
                source.data[bits*n:bits*(n + 1)].eq(mantissa.source),
            ]
