#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The arbiter of a memory port: each user gets its own beats, all of them, in order, and waits no longer than is stated.

In all runs of the cycles that a test names, of a small one: turns of two commands, four beats under way."""

import pytest

from migen import If, Signal

from litedram.common import LiteDRAMNativePort

from litex.soc.interconnect import stream

from tools.formal import Proof, check, mutant
from tools.paths import ROOT

# Helpers ------------------------------------------------------------------------------------------

SOURCE = ROOT/"cores"/"memory"/"arbiter.py"
BURST  = 2
SMALL  = {"UNDER_WAY = 64 # Beats.": "UNDER_WAY = 4"} # What is proven is the same source, with this constant.


def arbiter(users, mode, changes=None):
    """(proof, users' ports, the target) of users that ask whenever they like, by the rule of streams."""
    target = LiteDRAMNativePort(mode, address_width=3, data_width=128)
    dut    = mutant(SOURCE, SMALL | (changes or {}))["Arbiter"](target, BURST)
    ports  = [dut.get_port() for _ in range(users)]
    proof  = Proof(dut)
    for port in ports:
        proof.free_all([port.cmd.valid, port.cmd.addr])
        proof.assume(proof.holds(port.cmd, ["addr"]))
    return proof, ports, target


def reads(users=2, changes=None):
    """With a memory that gives a command's address as its beat, in their order, when it likes."""
    proof, ports, target = arbiter(users, "read", changes)
    memory  = stream.SyncFIFO([("address", 3)], 4)
    answers = Signal(name="answers")
    takes   = Signal(name="takes")
    proof.submodules += memory
    proof.free_all([answers, takes])
    proof.comb += [
        target.cmd.ready.eq(takes & memory.sink.ready),
        memory.sink.valid.eq(target.cmd.valid & takes),
        memory.sink.address.eq(target.cmd.addr),
        target.rdata.valid.eq(memory.source.valid & answers),
        target.rdata.data.eq(memory.source.address),
        memory.source.ready.eq(answers),
    ]
    chosen = proof.constant(3, "chosen")
    for n, port in enumerate(ports):
        asked = Signal(3, name=f"asked{n}")
        came  = Signal(3, name=f"came{n}")
        kept  = Signal(3, name=f"kept{n}")
        there = Signal(name=f"there{n}")
        asks  = proof.let(port.cmd.valid & port.cmd.ready)
        now   = proof.let(port.rdata.valid & (came == chosen))
        proof.sync += [
            If(asks, asked.eq(asked + 1)),
            If(port.rdata.valid, came.eq(came + 1)),
            If(asks & (asked == chosen), kept.eq(port.cmd.addr), there.eq(1)),
        ]
        proof.assume(asked != 7) # The counters do not wrap.
        proof.must(f"asked_for{n}", ~now | there)
        proof.must(f"its_own{n}", ~now | (port.rdata.data == kept))
    return proof


def waits(users=3, changes=None):
    """Commands of others, and cycles, while one waits for its turn."""
    proof, ports, target = arbiter(users, "write", changes)
    target.cmd.ready.reset = 1 # Nothing drives it: a memory that takes a command a cycle,
    target.wdata.ready.reset = 1 # and its data at once.
    for port in ports:
        port.wdata.valid.reset = 1
    waited, others = Signal(6, name="waited"), Signal(6, name="others_commands")
    port  = ports[0]
    asks  = [proof.let(each.cmd.valid & each.cmd.ready) for each in ports]
    other = proof.let(asks[1] | asks[2])
    still = proof.let(port.cmd.valid & ~port.cmd.ready)
    proof.sync += [
        waited.eq(0), others.eq(0),
        If(still, waited.eq(waited + 1), others.eq(others + other)),
    ]
    proof.must("served_before_others_had_too_much", others <= (users - 1)*BURST)
    proof.must("served_in_time", waited <= (users - 1)*BURST + users)
    return proof

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_each_user_gets_its_own_beats():
    """10 cycles."""
    found = check(reads(), 10) # Not in the assert: pytest gives what is made there names that Verilog has not.
    assert found is None


@pytest.mark.slow
def test_no_user_waits_for_ever():
    """15 cycles, of three users: as many as the longest wait takes, twice."""
    found = check(waits(), 15)
    assert found is None


@pytest.mark.slow
@pytest.mark.parametrize("make, changes, found", [
    (reads, {"order.sink.user.eq(user)": "order.sink.user.eq(~user)"}, None),
    (reads, {"order.source.ready.eq(target.rdata.valid | ": "order.source.ready.eq(1 | "}, None),
    (waits, {"If((others & turn[-1]) | ~(waits >> user)[0],": "If(~(waits >> user)[0],"}, None),
    (waits, {"If(asked & (others | (turn == 0)), turn.eq(turn + 1))": "If(asked & others, turn.eq(turn + 1))"}, "served_before_others_had_too_much"),
])
def test_mutants(make, changes, found):
    """The proof notices what is broken: also a turn that is one command too long."""
    name = check(make(changes=changes), 15 if make is waits else 10)
    assert name == found if found else name is not None
