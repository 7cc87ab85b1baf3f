#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The benchmark of board and simulation: what it makes of measurements, with a board, without one, and with a silent one."""

import json
import sys

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from connection import Connection

from bench import board

from host.errors import LinkError

from model.bitexact import ssm_block
from model.exact.decoder import ExactDecoder

from operations.config import ProgramConfig, SSMConfig

# Helpers ------------------------------------------------------------------------------------------

ROWS = {"self-test": (1000, "cycles"), "decode": (50_000.0, "cycles a token"), "decode, differing values": (0, "")}


class Device:
    info = type("Info", (), {"lanes": 8, "resident_tiles": 0, "data_width": 256, "program": ProgramConfig(2), "config": type("Config", (), {"stochastic_rounding": False})})


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with devices that are not there: run(measured, *options) gives exit code, output and board.json."""
    def run(measured, *options):
        @contextmanager
        def open_device(args, log):
            opened.append((args.transport, args.lanes, args.data_width, args.rounding, args.pass_tokens, args.vector_lanes))
            device = type("Device", (Device,), {"name": args.transport})
            if isinstance(measured[args.transport], Exception):
                raise measured[args.transport]
            yield device
        opened = []
        monkeypatch.setattr(board, "open_device", open_device)
        monkeypatch.setattr(board, "measure", lambda device, on_board: measured[device.name])
        monkeypatch.setattr(board, "OUTPUT", tmp_path)
        monkeypatch.setattr(sys, "argv", ["board.py", *options])
        code = board.main()
        return code, capsys.readouterr().out, json.loads((tmp_path/"board.json").read_text()), opened
    return run

# Measurement --------------------------------------------------------------------------------------

def test_differing_counts_bits():
    """Of y and of the state, each value with a wrong bit once; NaN of other bits too."""
    case = board.make_case(2, 2, 3, 8, 1)
    y, h = ssm_block(**case)
    assert board.differing(case, SimpleNamespace(y=y, h=h), False) == 0
    y.view(np.uint16)[0, 1, 2] ^= 1
    h.view(np.uint16)[1, 0, 3:5] ^= 0x8000
    assert board.differing(case, SimpleNamespace(y=y, h=h), False) == 3
    assert board.differing(case, SimpleNamespace(y=y, h=h), True) > 3 # Rounded stochastically, other bits are right.


class MeasuredDevice:
    """What board.measure uses of a device; the link takes 2 s to write, 4 s to read, and damages two bytes."""
    info = SimpleNamespace(lanes=8, clock_hz=75_000_000, max_tokens=100, config=SSMConfig(lanes=8), program=None)

    def __init__(self, clock):
        self.clock = clock

    def run(self, job):
        return SimpleNamespace(cycles=1234)

    def free(self):
        pass

    def allocate(self, size, what):
        return 0

    def write(self, address, data, verify):
        self.clock.now += 2
        self.data = bytearray(data)
        self.data[5]  ^= 1
        self.data[50] ^= 1

    def read(self, address, size):
        self.clock.now += 4
        return self.data


def test_measure(monkeypatch):
    """Cycles a token, bytes a cycle, megabytes a second, what differs: of hand-made counters and a clock."""
    def run_block(device, case, mode):
        arrays = {name: array for name, array in vars(case).items() if array is not None}
        y, h   = ssm_block(**arrays)
        h.view(np.uint16)[0, 0, 0] ^= mode == "decode"
        return SimpleNamespace(y=y, h=h, summary={"cycles_per_token": 50.0, "cycles": 100, "dma_read_bytes": 300,
            "dma_write_bytes": 500})
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(board, "run_block", run_block)
    monkeypatch.setattr(board.time, "monotonic", lambda: clock.now)
    rows = board.measure(MeasuredDevice(clock), on_board=True)
    assert rows["lanes"] == (8, "") and rows["clock"] == (75.0, "MHz") and rows["self-test"] == (1234, "cycles")
    for name in board.CASES:
        assert rows[name]                        == (50.0, "cycles a token")
        assert rows[f"{name}, DRAM"]             == (8.0, "bytes a cycle")
        assert rows[f"{name}, differing values"] == (int("decode" in name), "")
    assert rows["link, writing"] == (board.LINK_BYTES/2e6, "MB/s")
    assert rows["link, reading"] == (board.LINK_BYTES/4e6, "MB/s")
    assert rows["link, differing bytes"] == (2, "")
    assert "link, writing" not in board.measure(MeasuredDevice(clock), on_board=False)


def test_measure_a_model(tmp_path, monkeypatch):
    """Tokens are the exact model's; a device that draws others is found out."""
    with Connection(tmp_path) as device:
        rows  = board.measure_model(device, "q4_0")
        draws = board.Draws
        assert rows["tiny model, Q4_0, differing tokens"] == (0, "")
        assert rows["prompt, tiny model, Q4_0"][1] == "cycles a token" and rows["token, tiny model, Q4_0"][0] > 0
        monkeypatch.setattr(board, "ExactDecoder", lambda network, _: ExactDecoder(network, draws(inverse=board.inverse_of(1.0), seed=1)))
        assert board.measure_model(device, "q4_0")["tiny model, Q4_0, differing tokens"][0] > 0

# Reports ------------------------------------------------------------------------------------------

def test_side_by_side(run, tmp_path):
    """A board, then a simulation of the same kind; the ratio of what both have."""
    code, text, results, opened = run({"etherbone": ROWS | {"link, reading": (9.5, "MB/s")},
        "sim": ROWS | {"decode": (25_000.0, "cycles a token")}}, "--transport", "etherbone", "--csr-csv", "csr.csv")
    assert code == 0 and opened == [("etherbone", *[None]*5), ("sim", 8, 256, "nearest", 2, 4)]
    assert results["board"]["link, reading"] == {"value": 9.5, "unit": "MB/s"}
    lines = {line[:36].strip(): line[36:].split() for line in text.splitlines()}
    assert lines["decode"] == ["50,000", "25,000", "2.000", "cycles", "a", "token"]
    assert lines["link, reading"] == ["9.5", "-", "-", "MB/s"]
    assert "<th>board</th><th>simulation</th><th>ratio</th>" in (tmp_path/"board.html").read_text()


def test_without_a_board(run):
    code, text, results, opened = run({"sim": ROWS})
    assert code == 0 and "No board was named" in text and opened == [("sim", *[None]*5)]
    assert results["board"] is None and results["simulation"]["self-test"]["value"] == 1000


def test_a_silent_board(run):
    """The simulation's half is run all the same, and the exit code tells."""
    code, text, results, opened = run({"uart": LinkError("nothing at /dev/ttyUSB1"), "sim": ROWS}, "--transport", "uart")
    assert code == 1 and "The board does not answer (nothing at /dev/ttyUSB1)" in text and results["board"] is None


def test_differing_bits(run):
    assert run({"sim": ROWS | {"decode, differing values": (3, "")}})[0] == 1
