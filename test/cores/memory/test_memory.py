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

from cores.memory.arbiter import UNDER_WAY as ARBITER_UNDER_WAY, Arbiter
from cores.memory.bursts import BurstGenerator, StridedBursts
from cores.memory.convert import BeatsToWords, WordsToBeats
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

# Arbiter ------------------------------------------------------------------------------------------

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
def test_reads(users, duty):
    """Each user gets its own beats, in order; a user that pauses lets the others in; no more are under way than stated."""
    rng    = np.random.default_rng(users)
    target = port()
    dut    = Arbiter(target, burst=16)
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
        assert max(under_way) <= ARBITER_UNDER_WAY + 1


@pytest.mark.parametrize("duty", [256, 90])
def test_writes(duty):
    """Each user's data goes to its own addresses."""
    rng    = np.random.default_rng(7)
    target = port()
    dut    = Arbiter(target, burst=16)
    beats  = [{1000*n + address: int(rng.integers(2**62)) for address in range(50)} for n in range(2)]
    log, done = [], []
    ports  = [dut.get_port() for _ in range(2)]
    run_simulation(dut, [*(writer(user, each, done, pause=10) for user, each in zip(ports, beats)),
        memory(target, log, rng, duty, cycles=4000)])
    assert len(done) == 2
    assert {address: data for _, address, data in log} == beats[0] | beats[1]


@pytest.mark.parametrize("duty", [256, 90])
@pytest.mark.parametrize("burst", [4, 16])
def test_a_stream_that_never_pauses_starves_nobody(burst, duty):
    """Between two commands of a user that always has one, each of the others gets `burst` at most."""
    rng    = np.random.default_rng(5)
    target = port()
    dut    = Arbiter(target, burst=burst)
    ports  = [dut.get_port() for _ in range(3)]
    asked  = [[1000*n + address for address in range(200)] for n in range(3)]
    got    = [[] for _ in range(3)]
    log    = []
    run_simulation(dut, [*(reader(user, *each, pause=10**6) for user, *each in zip(ports, asked, got)),
        memory(target, log, rng, duty, cycles=4000)])
    assert got == asked
    users = [address//1000 for _, address, _ in log]
    for user in range(3):
        places = [n for n, other in enumerate(users) if other == user]
        waits  = [after - before - 1 for before, after in zip([-1] + places, places)]
        assert max(waits) <= 2*burst
    assert max(len(run) for run in "".join(map(str, users)).replace("0", " ").split()) > 1 # In bursts, not one by one.


def test_arbiter_that_is_finalized():
    dut = Arbiter(port())
    dut.get_port()
    dut.finalize()
    with pytest.raises(RuntimeError, match="^a port of an Arbiter must be asked for before it is finalized.$"):
        dut.get_port()

# Interleaved Writer ----------------------------------------------------------------------------------

@pytest.mark.parametrize("delay", [0, 400])
@pytest.mark.parametrize("duty",  [256, 100])
def test_interleaved_writer(delay, duty):
    """More beats than may be under way, to a memory that lets them wait: each is written, and done comes after the last."""
    rng    = np.random.default_rng(3)
    ports  = [port(), port()]
    dut    = InterleavedWriter(ports, Region(0, 2**20), page_beats=8)
    beats  = 3*UNDER_WAY + 8
    log, done_after = [], []

    def source():
        for n in range(beats):
            yield dut.sink.valid.eq(1)
            yield dut.sink.address.eq(16*n)
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

# Bursts -------------------------------------------------------------------------------------------

def addresses(dut, source, descriptors, rng, cycles=5000):
    """The (address, last) that come of descriptors, {field: value}, and how often `empty` pulsed."""
    out, empty = [], []

    def feed():
        for descriptor in descriptors:
            for name, value in descriptor.items():
                yield getattr(dut.sink, name).eq(value)
            yield dut.sink.valid.eq(1)
            yield
            while not (yield dut.sink.ready):
                yield
            yield dut.sink.valid.eq(0)
        for _ in range(50):
            yield

    @passive
    def drain():
        while True:
            yield source.ready.eq(int(rng.random() < 0.7))
            yield
            if (yield source.valid) and (yield source.ready):
                out.append(((yield source.address), (yield source.last)))
            if hasattr(dut, "empty"):
                empty.append((yield dut.empty))

    run_simulation(dut, [feed(), drain()])
    return out, sum(empty)


@pytest.mark.parametrize("shift", [4, 5, 6])
def test_burst(shift):
    """A record's beats, in bytes, whatever their width."""
    rng     = np.random.default_rng(shift)
    dut     = BurstGenerator(shift, 8)
    records = [(int(rng.integers(2**26)), int(rng.integers(1, 40))) for _ in range(8)]
    out, _  = addresses(dut, dut.source, [{"record": record, "length": length} for record, length in records], rng)
    assert out == [((64*record + (n << shift)) % 2**32, int(n == length - 1)) for record, length in records for n in range(length)]


@pytest.mark.parametrize("shift", [4, 5, 6])
def test_strided_bursts(shift):
    """Two ways in turn, of which the second may be left out; counts of 0, 1 and more."""
    rng         = np.random.default_rng(shift)
    dut         = StridedBursts({"x": False, "bc": True}, shift, 8)
    lengths     = {"x": 3, "bc": 5}
    strides     = {"x": 7, "bc": 2}
    for name in lengths:
        getattr(dut, f"length_{name}").reset.value = lengths[name]
        getattr(dut, f"stride_{name}").reset.value = strides[name]
    descriptors = [{"x": int(rng.integers(2**20)), "bc": int(rng.integers(2**20)), "count": count, "omit_bc": omit}
        for count, omit in ((1, 0), (4, 0), (0, 0), (3, 1), (0, 1), (1, 1), (2, 0))]
    out, empty  = addresses(dut, dut.source, descriptors, rng)
    expected    = []
    for descriptor in descriptors:
        ways = ["x"] + ["bc"]*(1 - descriptor["omit_bc"])
        one  = [64*(descriptor[way] + t*strides[way]) + (n << shift) for t in range(descriptor["count"]) for way in ways
            for n in range(lengths[way])]
        expected += [(address, int(n == len(one) - 1)) for n, address in enumerate(one)]
    assert out == expected and empty == 2

# Converters ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("beat, word", [(128, 64), (256, 64), (512, 64), (512, 128), (128, 128), (128, 512)])
def test_records_to_words_and_back(beat, word):
    """Records of any number of words (whole ones, where a word is wider); what is left of a beat is skipped, and zeros."""
    rng     = np.random.default_rng(beat + word)
    top     = Module()
    top.submodules.to_words = to_words = BeatsToWords(beat, word)
    top.submodules.to_beats = to_beats = WordsToBeats(word, beat)
    records = [[int.from_bytes(rng.bytes(word//8), "little") for _ in range(int(rng.integers(1, 12)))] for _ in range(12)]
    beats   = []
    for record in records:
        data  = b"".join(value.to_bytes(word//8, "little") for value in record)
        data += bytes(-len(data) % (beat//8))
        beats.append([int.from_bytes(data[n:n + beat//8], "little") for n in range(0, len(data), beat//8)])
    words, out = [], []

    def feed():
        for data in sum(beats, []):
            while rng.random() < 0.3:
                yield
            yield to_words.sink.data.eq(data)
            yield to_words.sink.valid.eq(1)
            yield
            while not (yield to_words.sink.ready):
                yield
            yield to_words.sink.valid.eq(0)
        for _ in range(40):
            yield

    @passive
    def between():
        """Words from one to the other, with the marks of a record's end."""
        number = taken = 0
        while True:
            end = number < len(records) and taken == len(records[number]) - 1
            yield to_words.end.eq(int(end))
            yield to_beats.sink.last.eq(int(end))
            yield
            if (yield to_words.source.valid) and (yield to_words.source.ready):
                words.append((yield to_words.source.data))
                number, taken = (number + 1, 0) if end else (number, taken + 1)

    @passive
    def drain():
        while True:
            yield to_beats.source.ready.eq(int(rng.random() < 0.7))
            yield
            if (yield to_beats.source.valid) and (yield to_beats.source.ready):
                out.append(((yield to_beats.source.data), (yield to_beats.source.last)))

    top.comb += [
        to_beats.sink.valid.eq(to_words.source.valid),
        to_beats.sink.data.eq(to_words.source.data),
        to_words.source.ready.eq(to_beats.sink.ready),
    ]
    run_simulation(top, [feed(), between(), drain()])
    assert words == sum(records, [])
    assert [data for data, _ in out] == sum(beats, [])
    assert [last for _, last in out] == sum(([0]*(len(each) - 1) + [1] for each in beats), [])

# Region -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("base, limit", [(0x4000_0000, 0x5000_0000), (0x4000_0000, 0x4000_00c0), (0x4000_1040, 0x4000_3000)])
def test_region(base, limit):
    """The first and the last byte are inside, those next to them are not; offsets count from the base."""
    region  = Region(base, limit)
    address = Signal(32)
    inside, offset = Signal(), Signal(32)
    top     = Module()
    top.comb += inside.eq(region.contains(address)), offset.eq(region.offset(address))

    def check():
        for value, expected in ((base, 1), (limit - 1, 1), (base - 1, 0), (limit, 0), (0, 0), (2**32 - 1, 0)):
            yield address.eq(value)
            yield
            assert (yield inside) == expected
            if expected:
                assert (yield offset) == value - base

    run_simulation(top, check())
