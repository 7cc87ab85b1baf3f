#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The banked memory for vectors, compiled, against numpy."""

import functools

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

from cores.memory.scratchpad import UNDER_WAY, Scratchpad

from tools.verilated import VerilatedModule, stream_ports

# Helpers ------------------------------------------------------------------------------------------

WORDS = 512
SIZES = [(8, WORDS, 3, 2, 4), (1, 96, 1, 1, 1), (2, 48, 2, 1, 2), (4, 384, 4, 4, 8), (4, 64, 2, 3, 1)]


@functools.cache
def unit(lanes=8, words=WORDS, reads=3, writes=2, banks=4):
    module = Scratchpad(lanes, words, reads, writes, banks)
    inputs, outputs = {}, {}
    for name, ports, payload, drives in (("read", module.reads, ("address",), False), ("source", module.sources, ("data",), True),
            ("write", module.writes, ("address", "data", "mask"), False)):
        for n, port in enumerate(ports):
            ports_in, ports_out = stream_ports(f"{name}{n}", port, payload, drives)
            inputs.update(ports_in)
            outputs.update(ports_out)
    return VerilatedModule(module, inputs, outputs)


def elements(rows, lanes):
    """Words of a port as their elements, (words, lanes)."""
    rows = rows[:, None] if rows.ndim == 1 else rows
    return np.ascontiguousarray(rows).view(np.uint16)[:, :lanes]


def random_words(rng, count, lanes):
    rows = rng.integers(0, 2**64, (count, -(-lanes//4)), dtype=np.uint64)
    return rows & np.uint64(2**(16*lanes) - 1) if lanes < 4 else rows


def fill(compiled, rng, lanes, words):
    """Reset, and all words written, by the first port. Returns their elements."""
    compiled.reset()
    data = random_words(rng, words, lanes)
    line = np.arange(words)
    compiled.streams({"write0": {"address": line, "data": data, "mask": np.full(words, 2**lanes - 1)}}, {}, limit=2*words)
    return elements(data, lanes)


def expected(start, accesses, reads):
    """Elements of words that are read. start: those of the memory. accesses: of writes, (cycles, addresses, elements, masks);
    reads: (cycles, addresses). A read sees the writes of earlier cycles."""
    cycles, addresses, data, masks = accesses
    span   = int(max(cycles.max(initial=0), reads[0].max(initial=0))) + 1
    wanted = start[reads[1]].copy()
    for lane in range(start.shape[1]):
        some  = masks >> lane & 1 == 1
        keys  = addresses[some].astype(np.int64)*span + cycles[some]
        order = np.argsort(keys)
        keys  = keys[order]
        assert (np.diff(keys) > 0).all(), "one word is written twice in a cycle"
        found = np.searchsorted(keys, reads[1].astype(np.int64)*span + reads[0]) - 1
        seen  = np.flatnonzero((found >= 0) & (keys[found]//span == reads[1])) if len(keys) else []
        wanted[seen, lane] = data[some][order][found[seen], lane]
    return wanted


def traffic(rng, size, cycles, duty=None, local=1.0):
    """Inputs of so many cycles, at random. duty: {"read", "write", "source"} of 256; local: of words, the part that is used."""
    lanes, words, reads, writes, _ = size
    duty = {"read": 256, "write": 256, "source": 256, **(duty or {})}
    most = max(int(words*local), 1)

    def chance(name):
        return rng.integers(0, 256, cycles) < duty[name]
    rows = {}
    for n in range(reads):
        rows |= {f"read{n}_valid": chance("read"), f"read{n}_address": rng.integers(0, most, cycles),
            f"source{n}_ready": chance("source")}
    for n in range(writes):
        rows |= {f"write{n}_valid": chance("write"), f"write{n}_address": rng.integers(0, most, cycles),
            f"write{n}_data": random_words(rng, cycles, lanes), f"write{n}_mask": rng.integers(0, 2**lanes, cycles)}
    return rows


def check(rng, size, rows):
    """Plays the rows, and asserts that each word read is what was written last before. Returns {name: rows} of the outputs, and the
    number of accesses."""
    lanes, words, reads, writes, banks = size
    compiled = unit(*size)
    start    = fill(compiled, rng, lanes, words)
    # Then the sources are drained.
    cycles   = len(rows["read0_valid"])
    rows     = {name: np.concatenate([row, np.full((UNDER_WAY + 4, *row.shape[1:]), name.endswith("_ready"), row.dtype)])
        for name, row in rows.items()}
    out      = compiled.run(compiled.outputs, **rows)
    accesses = [[], [], [], []]
    count    = 0
    for n in range(writes):
        taken = np.flatnonzero(rows[f"write{n}_valid"] & out[f"write{n}_ready"].astype(bool))
        count += len(taken)
        for column, more in zip(accesses, (taken, rows[f"write{n}_address"][taken], elements(rows[f"write{n}_data"][taken], lanes),
                rows[f"write{n}_mask"][taken])):
            column.append(more)
    accesses = [np.concatenate(column) for column in accesses]
    for n in range(reads):
        taken  = np.flatnonzero(rows[f"read{n}_valid"] & out[f"read{n}_ready"].astype(bool))
        count += len(taken)
        valid  = out[f"source{n}_valid"].astype(bool)
        gone   = np.flatnonzero(valid & rows[f"source{n}_ready"])
        data   = out[f"source{n}_data"]
        assert len(gone) == len(taken)
        assert (gone - taken >= Scratchpad.latency).all()
        assert np.array_equal(elements(data[gone], lanes), expected(start, accesses, (taken, rows[f"read{n}_address"][taken])))
        waits  = np.flatnonzero(valid & ~rows[f"source{n}_ready"])
        waits  = waits[waits < cycles]
        assert valid[waits + 1].all() and np.array_equal(data[waits], data[waits + 1])
    return out, count

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("local", [1.0, 0.05])
def test_against_numpy(size, local):
    """All ports, all words, and a few of them, of which most are read just after they were written."""
    rng      = np.random.default_rng(len(SIZES))
    _, count = check(rng, size, traffic(rng, size, 20_000, {"read": 200, "write": 150}, local))
    assert count > 20_000


@pytest.mark.parametrize("sink", [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
@pytest.mark.parametrize("size", [SIZES[0], SIZES[3]])
def test_stalls(sink, source, size):
    rng = np.random.default_rng(sink + source)
    check(rng, size, traffic(rng, size, 2000, {"read": sink, "write": sink, "source": source}))
    check(rng, size, traffic(rng, size, 2000, {"read": 256, "write": sink, "source": source}, 0.1))


def streams(compiled, first, count, rng, reads, writes):
    """Linear streams from the first addresses on, of readers and then of writers: (cycles, elements read, elements written)."""
    data = [random_words(rng, count, 8) for _ in range(writes)]
    line = np.arange(count)
    sinks  = {f"read{n}": {"address": first[n] + line} for n in range(reads)}
    sinks |= {f"write{n}": {"address": first[reads + n] + line, "data": data[n], "mask": np.full(count, 255)}
        for n in range(writes)}
    out, cycles = compiled.streams(sinks, {f"source{n}": (("data",), count) for n in range(reads)}, limit=2*count + 100)
    return cycles, [elements(out[f"source{n}"]["data"], 8) for n in range(reads)], [elements(row, 8) for row in data]


@pytest.mark.parametrize("reads, writes", [(1, 0), (2, 0), (3, 0), (2, 1), (3, 2)])
def test_linear_streams(reads, writes):
    """Whichever banks they begin in: a word a cycle each, after as many cycles as there are others."""
    rng, count = np.random.default_rng(1), 90
    compiled   = unit()
    for _ in range(40):
        memory = fill(compiled, rng, 8, WORDS)
        first  = 100*rng.permutation(5)[:reads + writes] + rng.integers(0, 4, reads + writes)
        cycles, found, written = streams(compiled, first, count, rng, reads, writes)
        assert count + Scratchpad.latency <= cycles <= count + Scratchpad.latency + max(reads - 1, 0)
        for n in range(reads):
            assert np.array_equal(found[n], memory[first[n]:first[n] + count])
        for n in range(writes):
            again = streams(compiled, [first[reads + n]], count, rng, 1, 0)
            assert again[0] == count + Scratchpad.latency
            assert np.array_equal(again[1][0], written[n])


def test_write_then_read():
    """A reader right behind a writer, the stated delay later."""
    rng, size = np.random.default_rng(1), SIZES[0]
    rows  = traffic(rng, size, 400, {"read": 0, "write": 0})
    write = np.arange(300)
    rows["write1_valid"][write], rows["write1_address"][write], rows["write1_mask"][write] = True, write, 255
    rows["read0_valid"][write + 1], rows["read0_address"][write + 1] = True, write
    out, count = check(rng, size, rows)
    assert count == 600
    found = out["source0_data"][write + 1 + Scratchpad.latency]
    assert np.array_equal(found, rows["write1_data"][write])


@pytest.mark.parametrize("size", [SIZES[0], SIZES[3], SIZES[4]])
def test_no_port_starves(size):
    """All ports want banks for long, the same or others: none waits for longer than each of the others takes once."""
    rng    = np.random.default_rng(1)
    _, words, reads, writes, banks = size
    cycles, epoch = 4000, 20
    rows   = traffic(rng, size, cycles)
    for name in rows:
        if name.endswith("_address"): # Of one bank in each epoch; the same for all in every second one.
            same = np.arange(cycles//epoch) % banks
            bank = np.where(np.arange(cycles//epoch) % 2, rng.integers(0, banks, cycles//epoch), same).repeat(epoch)
            rows[name] = rows[name]//banks*banks + bank
    out, _ = check(rng, size, rows)
    for kind, ports in (("read", reads), ("write", writes)):
        longest = 0
        for n in range(ports):
            for ready in out[f"{kind}{n}_ready"][:cycles].reshape(-1, epoch):
                edges   = np.flatnonzero(np.concatenate([[1], ready, [1]]))
                longest = max(longest, np.diff(edges).max() - 1)
        assert longest == ports - 1


def test_a_source_that_waits_is_in_nobodys_way():
    rng  = np.random.default_rng(1)
    rows = traffic(rng, SIZES[0], 1000, {"write": 0})
    rows["source0_ready"][:] = False
    for n in range(3): # The others are in step.
        rows[f"read{n}_address"] = (np.arange(1000) + n//2) % WORDS
    out, _ = check(rng, SIZES[0], rows)
    assert out["read0_ready"].sum() == UNDER_WAY
    assert out["read1_ready"].sum() + out["read2_ready"].sum() >= 1990


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), *[st.sampled_from([20, 128, 256])]*3, st.sampled_from([0.01, 0.03, 1.0]))
def test_any_traffic(seed, cycles, read, write, source, local):
    rng = np.random.default_rng(seed)
    check(rng, SIZES[2], traffic(rng, SIZES[2], cycles, {"read": read, "write": write, "source": source}, local))


@pytest.mark.parametrize("values, message", [
    (dict(lanes=3),             "lanes must be one of 1, 2, 4, 8, 16, 32, is 3."),
    (dict(banks=3),             "banks must be one of 1, 2, 4, 8, is 3."),
    (dict(words=4),             "words must be an integer from 8 to 1048576, is 4."),
    (dict(words=4098),          "words must be a multiple of 4, is 4098."),
    (dict(reads=0),             "reads must be an integer from 1 to 8, is 0."),
    (dict(writes=9),            "writes must be an integer from 1 to 8, is 9."),
])
def test_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Scratchpad(**values)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_ten_million(seed):
    rng = np.random.default_rng(1000 + seed)
    _, count = check(rng, SIZES[0], traffic(rng, SIZES[0], 40_000, {"read": 200, "write": 200, "source": 240}, (1, 0.02)[seed % 2]))
    assert count > 100_000
