#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM core as a unit of programs: the descriptor SSM, in place of what a CPU writes to the registers."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from operations.program import BY_CODE, OPERAND_BITS, Code, fields

# Constants ----------------------------------------------------------------------------------------

SETTLE = 8 # Cycles from new sizes to all that is reckoned from them.

# SSM Unit -----------------------------------------------------------------------------------------

class SSMUnit(LiteXModule):
    """A descriptor at a time: shown while it is ``active``, pushed once, and carried out when all its tiles are in memory.

    The ``sink`` takes ``code``, ``flags`` and ``operands`` (addresses in place of registers and offsets) when the one before has been
    carried out: ``idle`` then. ``job`` has its operands by name; numbers that descriptors hold less one are whole. ``busy`` comes from
    the core: it has tiles.
    """
    def __init__(self):
        self.sink   = sink = stream.Endpoint([("code", 8), ("flags", 8), ("operands", OPERAND_BITS)])
        self.idle   = Signal()
        self.active = Signal()
        self.push   = Signal()
        self.busy   = Signal()
        descriptor  = BY_CODE[Code.SSM]
        self.job    = {operand.name: Signal(operand.bits + (1 if operand.low else 0), name=f"job_{operand.name}")
            for operand in descriptor.operands}
        self.zero_state = Signal()
        self.no_store   = Signal()

        # # #

        held  = Record(fields(descriptor), reset_less=True)
        count = Signal(max=SETTLE)
        self.comb += [self.job[operand.name].eq(getattr(held, operand.name) + operand.low) for operand in descriptor.operands]
        self.fsm = fsm = FSM(reset_state="IDLE")
        self.comb += self.active.eq(~self.idle)
        fsm.act("IDLE",
            self.idle.eq(1),
            sink.ready.eq(1),
            If(sink.valid,
                NextValue(held.raw_bits(), sink.operands),
                NextValue(self.zero_state, sink.flags[0]),
                NextValue(self.no_store, sink.flags[1]),
                NextValue(count, SETTLE - 1),
                NextState("SETTLE"),
            )
        )
        fsm.act("SETTLE",
            NextValue(count, count - 1),
            If(count == 0, NextState("PUSH")),
        )
        fsm.act("PUSH",
            self.push.eq(1),
            NextState("PUSHED"),
        )
        fsm.act("PUSHED",
            NextState("TILES"),
        )
        fsm.act("TILES",
            If(~self.busy, NextState("IDLE")),
        )
