#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The dispatcher: descriptors of a program, in order, to the queues of the engines."""

from functools import reduce
from operator import and_, or_

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from operations.config import check_range
from operations.program import (BY_CODE, DESCRIPTOR_WORDS, FIRST_OPERAND, FLAGS_BIT, NO_WAIT, OFFSET_BITS, OPERAND_BITS, WAIT_BITS, Code, Memory,
    Register, Unit)

# Helpers ------------------------------------------------------------------------------------------

def addresses_of(code):
    """Words of a code's operands that are addresses in DRAM, from the first operand on."""
    return [word - FIRST_OPERAND for operand, word, _ in BY_CODE[code].places() if isinstance(operand, Memory)]


def meaning(code):
    """Bits of a descriptor's words that mean something, the lowest first, as a number."""
    known = [0]*DESCRIPTOR_WORDS
    known[0] = 2**FLAGS_BIT - 1 | (2**len(BY_CODE[code].flags) - 1) << FLAGS_BIT
    for unit in Unit:
        known[1 + unit//4] |= NO_WAIT << WAIT_BITS*(unit % 4)
    for operand, word, bit in BY_CODE[code].places():
        known[word] |= 2**operand.bits - 1 << bit
    return sum(bits << 32*n for n, bits in enumerate(known))


def has_reserved_bits(is_code, words):
    """Whether of a descriptor's words bits are set that mean nothing. Signal expression; is_code: {code: Signal}."""
    masks  = {code: meaning(code) for code in is_code}
    groups = {} # {codes: bits of the words that mean nothing with these}
    for n, bit in enumerate(words):
        codes = tuple(code for code, mask in masks.items() if not mask >> n & 1)
        if codes:
            groups.setdefault(codes, []).append(bit)
    return reduce(or_, [(Cat(*bits) != 0) & reduce(or_, [is_code[code] for code in codes]) for codes, bits in groups.items()])

# Dispatcher ---------------------------------------------------------------------------------------

class Dispatcher(LiteXModule):
    """Issues descriptors, each when what it waits for has retired.

    ::

        sink -> check -> addresses: register + offset, one a cycle -> waits -> queue of its unit -> sources[unit]
                                                                        ^
                                                 retired[unit] -> number issued and not retired

    After ``start`` the sink takes a descriptor at a time, all 16 words, up to an END. Its ``operands`` go to its unit with each address in
    DRAM in place of register and offset. A unit says ``retired`` for a cycle when it has carried one out, in their order. ``done`` is set
    for a cycle when all up to the END have retired.

    A descriptor whose code is unknown, or in which a bit is set that means nothing, is not issued: ``error`` is set with ``done``, when
    those before it have retired. ``index`` is that of the descriptor that is under way, or was the last one.

    ``waiting[unit]`` is set in each cycle in which the descriptor waits for that unit: for one of its descriptors to retire, or for a place
    in its queue.

    A descriptor takes 4 cycles, and one for each of its addresses. Model: :meth:`model.machine.Machine.run`.

    Parameters
    ----------
    units : that there are, of :class:`operations.program.Unit`. Descriptors of others are errors.
    depth : of a queue.
    """
    def __init__(self, units=tuple(Unit), depth=4):
        check_range("depth", depth, 2, 16)
        self.start     = Signal()
        self.done      = Signal()
        self.error     = Signal()
        self.busy      = Signal()
        self.index     = Signal(16)
        self.registers = {register: Signal(32, name=f"register_{register.name.lower()}") for register in Register}
        self.sink      = sink = stream.Endpoint([("data", 32*DESCRIPTOR_WORDS)])
        self.sources   = {unit: stream.Endpoint([("code", 8), ("flags", 8), ("operands", OPERAND_BITS)], name=unit.name.lower()) for unit in units}
        self.retired   = {unit: Signal(name=f"retired_{unit.name.lower()}") for unit in units}
        self.waiting   = {unit: Signal(name=f"waiting_{unit.name.lower()}") for unit in units}

        # # #

        words    = [Signal(32, reset_less=True, name=f"word{n}") for n in range(DESCRIPTOR_WORDS)]
        code     = words[0][:FLAGS_BIT]
        operands = words[FIRST_OPERAND:]

        # What is issued and has not retired.
        pending = {unit: Signal(WAIT_BITS, name=f"pending_{unit.name.lower()}") for unit in units}
        issues  = {unit: Signal(name=f"issues_{unit.name.lower()}") for unit in units}
        self.sync += [pending[unit].eq(pending[unit] + issues[unit] - self.retired[unit]) for unit in units]
        holds   = {} # It may be issued, for all that this unit is about. A cycle late: once it may, it may until it is issued.
        queues  = {}
        mine    = {unit: Signal(name=f"is_{unit.name.lower()}") for unit in units}
        for unit in units:
            wait  = words[1 + unit//4][WAIT_BITS*(unit % 4):WAIT_BITS*(unit % 4 + 1)]
            queue = stream.SyncFIFO([("code", 8), ("flags", 8), ("operands", OPERAND_BITS)], depth)
            self.add_module(name=f"queue_{unit.name.lower()}", module=queue)
            queues[unit] = queue
            holds[unit]  = Signal(name=f"holds_{unit.name.lower()}")
            self.sync += holds[unit].eq((pending[unit] <= wait) & (~mine[unit] | (queue.sink.ready & (pending[unit] != NO_WAIT))))
            self.comb += [
                queue.sink.valid.eq(issues[unit]),
                queue.sink.code.eq(code),
                queue.sink.flags.eq(words[0][FLAGS_BIT:]),
                queue.sink.operands.eq(Cat(*operands)),
                queue.source.connect(self.sources[unit]),
            ]

        # One descriptor. ----------------------------------------------------------------------------
        known    = [each for each in Code if each == Code.END or BY_CODE[each].unit in units]
        is_code  = {each: Signal(reset_less=True, name=f"is_{each.name.lower()}") for each in known}
        wrong    = Signal(reset_less=True)
        ends     = Signal(reset_less=True)
        todo     = Signal(DESCRIPTOR_WORDS - FIRST_OPERAND, reset_less=True) # Words that are addresses,
        chosen   = Signal(DESCRIPTOR_WORDS - FIRST_OPERAND, reset_less=True) # and of these the first one.
        base     = Signal(32)
        place    = Signal(32)
        idle     = Signal()
        self.comb += [
            idle.eq(reduce(and_, [pending[unit] == 0 for unit in units])),
            Case(place[OFFSET_BITS:], {int(register): base.eq(signal) for register, signal in self.registers.items()}),
        ]
        self.fsm = fsm = FSM(reset_state="IDLE")
        self.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        fsm.act("IDLE",
            If(self.start,
                NextValue(self.index, 0),
                NextState("FETCH"),
            )
        )
        fsm.act("FETCH",
            sink.ready.eq(1),
            If(sink.valid,
                [NextValue(word, sink.data[32*n:32*(n + 1)]) for n, word in enumerate(words)],
                NextState("DECODE"),
            )
        )
        fsm.act("DECODE",
            [NextValue(signal, code == each) for each, signal in is_code.items()],
            NextState("CHECK"),
        )
        def one_of(codes):
            return reduce(or_, [is_code[each] for each in codes], 0)
        fsm.act("CHECK",
            NextValue(ends, is_code[Code.END]),
            NextValue(wrong, ~one_of(known) | has_reserved_bits(is_code, Cat(*words))),
            *([NextValue(bit, one_of(each for each in known if n in addresses_of(each)[:most])) for n, bit in enumerate(signal)]
                for signal, most in ((todo, None), (chosen, 1))),
            [NextValue(mine[unit], one_of(each for each in known if BY_CODE[each].unit == unit)) for unit in units],
            NextState("ADDRESSES"),
        )
        # The first of the words that are left, register and offset, becomes their sum.
        left = Signal(len(operands))
        next_chosen = 0
        for n in reversed(range(len(operands))):
            next_chosen = Mux(left[n], 1 << n, next_chosen)
        self.comb += [
            left.eq(todo & ~chosen),
            place.eq(reduce(or_, [Mux(chosen[n], word, 0) for n, word in enumerate(operands)])),
        ]
        fsm.act("ADDRESSES",
            NextState("ISSUE"),
            If(wrong | ends,
                NextState("DRAIN"),
            ).Elif(todo != 0,
                NextValue(todo, left),
                NextValue(chosen, next_chosen),
                [If(chosen[n], NextValue(word, base + place[:OFFSET_BITS])) for n, word in enumerate(operands)],
                If(left != 0, NextState("ADDRESSES")),
            )
        )
        fsm.act("ISSUE",
            [self.waiting[unit].eq(~holds[unit]) for unit in units],
            If(reduce(and_, holds.values()),
                [issues[unit].eq(mine[unit]) for unit in units],
                NextValue(self.index, self.index + 1),
                NextState("FETCH"),
            )
        )
        fsm.act("DRAIN",
            If(idle,
                self.done.eq(1),
                self.error.eq(wrong),
                NextState("IDLE"),
            )
        )
