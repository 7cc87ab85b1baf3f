#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Compiled modules: values of any width arrive, streams keep their rules, and who breaks them is found out."""

import numpy as np
import pytest

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from tools import verilated as compiled
from tools.verilated import VerilatedModule, pack_words, stream_ports, unpack_words, words_of

# Modules ------------------------------------------------------------------------------------------

WIDTHS = (1, 7, 16, 31, 32, 33, 63, 64, 65, 96, 128, 200)


class Echo(LiteXModule):
    """Each input complemented, at once and a cycle later; and a count of the cycles."""
    def __init__(self):
        self.values  = {width: Signal(width) for width in WIDTHS}
        self.now     = {width: Signal(width) for width in WIDTHS}
        self.later   = {width: Signal(width) for width in WIDTHS}
        self.borrow  = {width: Signal(width + 1) for width in WIDTHS} # Shows bits that should not be there.
        self.count   = Signal(32)
        self.running = Signal()

        # # #

        for width in WIDTHS:
            self.comb += [
                self.now[width].eq(~self.values[width]),
                self.borrow[width].eq(self.values[width] + 0),
            ]
            self.sync += self.later[width].eq(~self.values[width])
        self.sync += If(self.running, self.count.eq(self.count + 1))


def compile_echo():
    module = Echo()
    return VerilatedModule(module, {"running": module.running, **{f"in{width}": module.values[width] for width in WIDTHS}},
        {"count": module.count, **{f"{name}{width}": getattr(module, name)[width]
            for name in ("now", "later", "borrow") for width in WIDTHS}})


class Liar(LiteXModule):
    """A source that withdraws (or changes, if told) its beat after a cycle if it is not taken."""
    def __init__(self):
        self.change = Signal()
        self.source = source = stream.Endpoint([("data", 8)])
        count       = Signal(8)
        self.comb += [
            source.valid.eq(~count[0] | self.change),
            source.data.eq(count),
        ]
        self.sync += count.eq(count + 1)


class Fifo(LiteXModule):
    def __init__(self):
        self.fifo = stream.SyncFIFO([("data", 128), ("tag", 5)], 4)


def compile_fifo():
    module = Fifo()
    sink_in, sink_out     = stream_ports("sink",   module.fifo.sink,   ("data", "tag", "last"), drives=False)
    source_in, source_out = stream_ports("source", module.fifo.source, ("data", "tag", "last"), drives=True)
    return VerilatedModule(module, {**sink_in, **source_in}, {**sink_out, **source_out})

# Words --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", WIDTHS)
def test_pack_words(width):
    values = [0, 1, (1 << width) - 1, (1 << width) // 3]
    rows   = pack_words(values, width)
    assert rows.shape == (4, words_of(width)) and rows.dtype == np.uint64
    assert unpack_words(rows) == values
    assert unpack_words(pack_words([-1], width)) == [(1 << width) - 1]

# Ports --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def echo():
    with compile_echo() as module:
        yield module


@pytest.mark.parametrize("width", WIDTHS)
def test_values_arrive(echo, width):
    rng    = np.random.default_rng(width)
    mask   = (1 << width) - 1
    values = [int.from_bytes(rng.bytes(25), "little") & mask for _ in range(100)]
    out    = echo.run([f"now{width}", f"later{width}"], **{f"in{width}": pack_words(values, width)})
    now, later = ([int(row) for row in rows] if rows.ndim == 1 else unpack_words(rows) for rows in out.values())
    assert now == [~value & mask for value in values]
    assert later[1:] == now[:-1]
    for value in values[:3]:
        echo.poke(**{f"in{width}": value})
        assert echo.peek(f"now{width}") == ~value & mask # At once, without a clock.


@pytest.mark.parametrize("width", [width for width in WIDTHS if width % 64])
def test_excess_bits_are_cut(echo, width):
    ones = np.full((1, words_of(width)), 2**64 - 1, np.uint64)
    rows = echo.run([f"borrow{width}"], **{f"in{width}": ones})[f"borrow{width}"]
    assert (rows.tolist() if rows.ndim == 1 else unpack_words(rows)) == [(1 << width) - 1]


def test_step_and_reset(echo):
    echo.reset()
    echo.poke(running=1)
    assert echo.peek("count") == 0
    echo.step(5)
    assert echo.peek("count") == 5
    assert echo.run(["count"], running=[1, 1, 0, 0, 1])["count"].tolist() == [5, 6, 7, 7, 7]
    assert echo.peek("count") == 8
    echo.reset()
    assert echo.peek("count") == 0


def test_instances_are_apart(echo):
    with compile_echo() as other:
        echo.reset()
        echo.poke(running=1)
        echo.step(3)
        assert (echo.peek("count"), other.peek("count")) == (3, 0)

# Streams ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def fifo():
    with compile_fifo() as module:
        yield module


@pytest.mark.parametrize("duty", [256, 128, 5, {"sink": 10}, {"source": 10}])
def test_streams(fifo, duty):
    rng  = np.random.default_rng(1)
    sent = {"data": rng.integers(0, 2**64, (300, 2), np.uint64), "tag": rng.integers(0, 32, 300),
        "last": rng.integers(0, 2, 300)}
    received, cycles = fifo.streams({"sink": sent}, {"source": (("data", "tag", "last"), 300)}, 100_000, duty)
    assert all(np.array_equal(received["source"][name], sent[name]) for name in sent)
    lowest = min(duty.values()) if isinstance(duty, dict) else duty
    assert 300*256/lowest*0.8 <= cycles <= 300*256/lowest*2.5 + 10


def test_streams_time_out(fifo):
    sent = {"data": np.zeros((3, 2), np.uint64), "tag": [0]*3, "last": [0]*3}
    with pytest.raises(TimeoutError, match="50 cycles were not enough; beats moved: sink 3 of 3, source 3 of 4."):
        fifo.streams({"sink": sent}, {"source": (("data",), 4)}, limit=50)


@pytest.mark.parametrize("change", [0, 1])
def test_streams_find_a_beat_withdrawn_or_changed(change):
    module = Liar()
    driven, read = stream_ports("source", module.source, ("data",), drives=True)
    with VerilatedModule(module, {"change": module.change, **driven}, read) as liar:
        liar.poke(change=change)
        with pytest.raises(RuntimeError, match="a source changed or withdrew a waiting beat; beats moved: source"):
            liar.streams({}, {"source": (("data",), 50)}, limit=1000, duty=100)

# Build --------------------------------------------------------------------------------------------

def test_a_library_is_built_once(echo, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("was built again")
    monkeypatch.setattr(compiled.processes, "capture", fail)
    compile_echo().close()


def test_without_verilator(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="verilator was not found on PATH: install it"):
        compile_fifo()


def test_verilator_says_why_it_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "CACHE", tmp_path)
    monkeypatch.setattr(compiled, "_TEMPLATE", "#error no such wrapper")
    with pytest.raises(RuntimeError, match="verilator failed:(.|\n)*no such wrapper"):
        compile_fifo()
    assert list(tmp_path.iterdir()) == []
