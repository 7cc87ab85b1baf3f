#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Memory masters alone, against a memory that takes its commands at once and its time for the data."""

from collections import deque

import numpy as np
import pytest

from migen import *

from litedram.common import LiteDRAMNativePort

from cores.memory.arbiter import Arbiter
from cores.memory.interleaved import UNDER_WAY, InterleavedWriter
from cores.memory.region import Region

# Helpers ------------------------------------------------------------------------------------------

def port():
    return LiteDRAMNativePort("both", address_width=20, data_width=128)


def memory(target, log, rng, duty, delay=0, cycles=20_000):
    """Generator: answers a native port. Reads give their address; `log` gets ("read" or "write", address, data). In `duty` of
    256 cycles a command may be taken, in as many data may move: three cycles later or more, none in the first `delay` cycles."""
    waiting = deque()
    for cycle in range(cycles):
        takes = rng.integers(256) < duty and len(waiting) < 256
        moves = rng.integers(256) < duty and cycle >= delay and len(waiting) > 0 and cycle > waiting[0][2] + 2
        yield target.cmd.ready.eq(int(takes))
        we, address, _ = waiting[0] if moves else (0, 0, 0)
        yield target.wdata.ready.eq(int(moves and we))
        yield target.rdata.valid.eq(int(moves and not we))
        yield target.rdata.data.eq(address)
        yield
        if takes and (yield target.cmd.valid):
            waiting.append(((yield target.cmd.we), (yield target.cmd.addr), cycle))
        if moves:
            waiting.popleft()
            if we:
                assert (yield target.wdata.valid), "no data when the memory takes it"
            else:
                assert (yield target.rdata.ready), "a beat is not taken when it comes"
            log.append(("write" if we else "read", address, (yield target.wdata.data) if we else address))

# Shared Port --------------------------------------------------------------------------------------

def reader(user, addresses, got, pause, cycles=10_000):
    """Generator: asks for beats, with a pause after each of so many; `got` gets what arrives."""
    left = deque(addresses)
    idle = 0
    yield user.rdata.ready.eq(1)
    for _ in range(cycles):
        asks = bool(left) and not idle
        yield user.cmd.valid.eq(int(asks))
        yield user.cmd.we.eq(0)
        yield user.cmd.addr.eq(left[0] if left else 0)
        yield
        idle = max(idle - 1, 0)
        if asks and (yield user.cmd.ready):
            left.popleft()
            idle = 40 if len(left) % pause == 0 else 0
        if (yield user.rdata.valid):
            got.append((yield user.rdata.data))
        if len(got) == len(addresses):
            return
    raise TimeoutError(f"{len(got)} of {len(addresses)} beats after {cycles} cycles")


def writer(user, beats, done, pause, cycles=10_000):
    """Generator: writes {address: data}, in order; data waits for the memory."""
    commands, data = deque(beats), deque()
    idle = written = 0
    for _ in range(cycles):
        asks = bool(commands) and not idle
        yield user.cmd.valid.eq(int(asks))
        yield user.cmd.we.eq(1)
        yield user.cmd.addr.eq(commands[0] if commands else 0)
        yield user.wdata.valid.eq(int(bool(data)))
        yield user.wdata.data.eq(data[0] if data else 0)
        yield user.wdata.we.eq(0xffff)
        yield
        idle = max(idle - 1, 0)
        if data and (yield user.wdata.ready):
            data.popleft()
            written += 1
        if asks and (yield user.cmd.ready):
            data.append(beats[commands.popleft()])
            idle = 40 if len(commands) % pause == 0 else 0
        if written == len(beats):
            done.append(True)
            return
    raise TimeoutError(f"{written} of {len(beats)} beats after {cycles} cycles")


@pytest.mark.parametrize("users", [1, 2, 3])
@pytest.mark.parametrize("duty", [256, 90])
def test_shared_reads(users, duty):
    """Each user gets its own beats, in order; a user that pauses lets the others in; no more are under way than stated."""
    rng    = np.random.default_rng(users)
    target = port()
    dut    = Arbiter(target, most=16)
    ports  = [dut.get_port() for _ in range(users)]
    asked  = [[1000*n + address for address in range(60)] for n in range(users)]
    got    = [[] for _ in range(users)]
    log    = []
    under_way = []

    def watch():
        pending = 0
        while True:
            yield
            pending += (yield target.cmd.valid) & (yield target.cmd.ready)
            pending -= (yield target.rdata.valid)
            under_way.append(pending)

    run_simulation(dut, [*(reader(user, *each, pause=20) for user, *each in zip(ports, asked, got)),
        memory(target, log, rng, duty, cycles=4000), passive(watch)()])
    assert got == asked
    assert sorted(address for _, address, _ in log) == sorted(sum(asked, []))
    turns = [address//1000 for _, address, _ in log]
    changes = sum(before != after for before, after in zip(turns, turns[1:]))
    assert changes >= 2*users - 1 or users == 1 # Nobody waited until another one had everything.
    if users > 1: # One has the port to itself, and all it may use.
        assert max(under_way) <= 16 + 1


@pytest.mark.parametrize("duty", [256, 90])
def test_shared_writes(duty):
    """Each user's data goes to its own addresses."""
    rng    = np.random.default_rng(7)
    target = port()
    dut    = Arbiter(target, most=16)
    beats  = [{1000*n + address: int(rng.integers(2**62)) for address in range(50)} for n in range(2)]
    log, done = [], []
    ports  = [dut.get_port() for _ in range(2)]
    run_simulation(dut, [*(writer(user, each, done, pause=10) for user, each in zip(ports, beats)),
        memory(target, log, rng, duty, cycles=4000)])
    assert len(done) == 2
    assert {address: data for _, address, data in log} == beats[0] | beats[1]


def test_shared_port_that_is_finalized():
    dut = Arbiter(port())
    dut.get_port()
    dut.finalize()
    with pytest.raises(RuntimeError, match="^a port of a Arbiter must be asked for before it is finalized.$"):
        dut.get_port()

# Paged Writer -------------------------------------------------------------------------------------

@pytest.mark.parametrize("delay", [0, 400])
@pytest.mark.parametrize("duty",  [256, 100])
def test_paged_writer(delay, duty):
    """More beats than may be under way, to a memory that lets them wait: each is written, and done comes after the last."""
    rng    = np.random.default_rng(3)
    ports  = [port(), port()]
    dut    = InterleavedWriter(ports, Region(0, 2**20), page_beats=8)
    beats  = 3*UNDER_WAY + 8
    log, done_after = [], []

    def source():
        for n in range(beats):
            yield dut.sink.valid.eq(1)
            yield dut.sink.address.eq(n)
            yield dut.sink.data.eq(7*n + 1)
            yield dut.sink.last.eq(n == beats - 1)
            yield
            while not (yield dut.sink.ready):
                yield
        yield dut.sink.valid.eq(0)

    def watch():
        while True:
            yield
            if (yield dut.done):
                done_after.append(len(log))

    run_simulation(dut, [source(), passive(watch)(), *(memory(port, log, rng, duty, delay, 2500) for port in ports)])
    assert sorted((address, data) for _, address, data in log) == [(n, 7*n + 1) for n in range(beats)]
    assert done_after == [beats]
