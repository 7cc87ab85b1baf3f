#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The benchmark of board and simulation: what it makes of measurements, with a board, without one, and with a silent one."""

import json
import sys

from contextlib import contextmanager

import pytest

from bench import board

from host.errors import LinkError

# Helpers ------------------------------------------------------------------------------------------

ROWS = {"self-test": (1000, "cycles"), "decode": (50_000.0, "cycles a token"), "decode, differing values": (0, "")}


class Device:
    info = type("Info", (), {"lanes": 8, "resident_tiles": 0, "config": type("Config", (), {"stochastic_rounding": False})})


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command with devices that are not there: run(measured, *options) gives exit code, output and board.json."""
    def run(measured, *options):
        @contextmanager
        def open_device(args, log):
            opened.append((args.transport, args.lanes, args.rounding))
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

# Reports ------------------------------------------------------------------------------------------

def test_side_by_side(run, tmp_path):
    """A board, then a simulation of the same kind; the ratio of what both have."""
    code, text, results, opened = run({"etherbone": ROWS | {"link, reading": (9.5, "MB/s")},
        "sim": ROWS | {"decode": (25_000.0, "cycles a token")}}, "--transport", "etherbone", "--csr-csv", "csr.csv")
    assert code == 0 and opened == [("etherbone", None, None), ("sim", 8, "nearest")]
    assert results["board"]["link, reading"] == {"value": 9.5, "unit": "MB/s"}
    lines = {line[:36].strip(): line[36:].split() for line in text.splitlines()}
    assert lines["decode"] == ["50,000", "25,000", "2.000", "cycles", "a", "token"]
    assert lines["link, reading"] == ["9.5", "-", "-", "MB/s"]
    assert "<th>board</th><th>simulation</th><th>ratio</th>" in (tmp_path/"board.html").read_text()


def test_without_a_board(run):
    code, text, results, opened = run({"sim": ROWS})
    assert code == 0 and "No board was named" in text and opened == [("sim", None, None)]
    assert results["board"] is None and results["simulation"]["self-test"]["value"] == 1000


def test_a_silent_board(run):
    """The simulation's half is run all the same, and the exit code tells."""
    code, text, results, opened = run({"uart": LinkError("nothing at /dev/ttyUSB1"), "sim": ROWS}, "--transport", "uart")
    assert code == 1 and "The board does not answer (nothing at /dev/ttyUSB1)" in text and results["board"] is None


def test_differing_bits(run):
    assert run({"sim": ROWS | {"decode, differing values": (3, "")}})[0] == 1
