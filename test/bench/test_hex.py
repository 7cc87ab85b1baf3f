#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""bench/hex.py: files written and played, files of others, and everything that can be wrong with them."""

import json
import os
import re

import numpy as np
import pytest
import torch

from hypothesis import given, settings, strategies

from cases import assert_same_bits, random_case

from bench import hex as bench

from model.bitexact import ssm_block
from model.case import save_case
from model.ssm import error_statistics, ssm_recurrence

from tools.errors import UsageError

# Helpers ------------------------------------------------------------------------------------------

SIZES = dict(heads=4, headdim=5, d_state=20, groups=2)
FILES = ("dt", "dA", "D", "B", "C", "x", "ssm_state")


def arguments(directory, output, layer=0, **sizes):
    sizes = SIZES | {"lanes": 4} | sizes
    return ["play", str(directory), "--layer", str(layer), "--output", str(output),
        *(word for name, value in sizes.items() for word in (f"--{name.replace('_', '-')}", str(value)))]


def read(path, shape):
    """As anyone would read such a file."""
    return np.array([int(line, 16) for line in open(path).read().split()], np.uint16).view(np.float16).reshape(shape)


def bits(value):
    return f"{int(np.float16(value).view(np.uint16)):04x}"


@pytest.fixture
def case():
    return random_case(np.random.default_rng(5), tokens=1, **SIZES)


@pytest.fixture
def data_set(tmp_path, case):
    """The .hex files of the case."""
    save_case(tmp_path/"case.npz", case)
    assert bench.main(["write", str(tmp_path/"case.npz"), str(tmp_path/"set")]) == 0
    return tmp_path/"set"


def fails(capsys, output, words, message):
    """The command ends with 2 and one line, and wrote nothing."""
    capsys.readouterr()
    assert bench.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert re.fullmatch(f"hex.py: error: {message}\n", captured.err), captured.err
    assert not os.path.exists(output)

# Writing ------------------------------------------------------------------------------------------

def test_write(data_set, case):
    assert sorted(path.name for path in data_set.iterdir()) == sorted(f"0_{name}.hex" for name in FILES)
    for name in FILES:
        text = (data_set/f"0_{name}.hex").read_text()
        assert re.fullmatch(r"([0-9a-f]{4}\n)+", text)
        expected = case["h0" if name == "ssm_state" else name]
        expected = expected if name in ("D", "ssm_state") else expected[0]
        assert_same_bits(read(data_set/f"0_{name}.hex", expected.shape), expected)


def test_write_token(tmp_path, capsys):
    """A token of several, with the state that those before it leave; a missing h0 is zeros."""
    case = random_case(np.random.default_rng(6), tokens=3, with_h0=False, **SIZES)
    save_case(tmp_path/"case.npz", case)
    words = ["write", str(tmp_path/"case.npz"), str(tmp_path/"set"), "--layer", "7"]
    fails(capsys, tmp_path/"set", words, ".*case.npz: tokens T must be 1, is 3; --token selects one of more.")
    fails(capsys, tmp_path/"set", words + ["--token", "3"], "--token must be an integer from 0 to 2, is 3.")
    fails(capsys, tmp_path/"set", words + ["--token", "-1"], "--token must be an integer from 0 to 2, is -1.")
    for token in (0, 2):
        assert bench.main(words + ["--token", str(token)]) == 0
        h = read(tmp_path/"set"/"7_ssm_state.hex", (4, 5, 20))
        if token:
            before = {name: array if name == "D" else array[:token] for name, array in case.items()}
            assert_same_bits(h, ssm_block(**before)[1])
        else:
            assert not h.view(np.uint16).any()
        assert_same_bits(read(tmp_path/"set"/"7_x.hex", (4, 5)), case["x"][token])


def test_write_errors(tmp_path, capsys, case):
    fails(capsys, tmp_path/"set", ["write", str(tmp_path/"none.npz"), str(tmp_path/"set")],
        r".*none.npz: cannot be read \(No such file or directory\).")
    save_case(tmp_path/"case.npz", case)
    (tmp_path/"file").write_text("")
    fails(capsys, tmp_path/"file"/"set", ["write", str(tmp_path/"case.npz"), str(tmp_path/"file"/"set")],
        r".*set: cannot be made \(Not a directory\): choose a folder that can.")

# Playing ------------------------------------------------------------------------------------------

def test_play(tmp_path, data_set, case, capsys):
    """What comes out is the model's, bit for bit; the summary holds the errors, the cycles and the gain."""
    wanted = np.zeros((4, 5), np.float16)
    (data_set/"0_y.hex").write_text("".join(f"{bits(value)}\n" for value in wanted.ravel()))
    assert bench.main(arguments(data_set, tmp_path/"new"/"out") + ["--json", str(tmp_path/"play.json")]) == 0
    y, h = ssm_block(**case)
    assert sorted(path.name for path in (tmp_path/"new"/"out").iterdir()) == ["0_ssm_state.hex", "0_y_out.hex"]
    assert_same_bits(read(tmp_path/"new"/"out"/"0_y_out.hex", (4, 5)), y[0])
    assert_same_bits(read(tmp_path/"new"/"out"/"0_ssm_state.hex", (4, 5, 20)), h)

    summary = json.loads((tmp_path/"play.json").read_text())
    assert {name: summary[name] for name in SIZES} == SIZES
    assert summary["mismatches"] == {"y": 0, "state": 0}
    for dtype in (torch.float64, torch.float16):
        expected = ssm_recurrence(**case, dtype=dtype)
        row      = summary["errors"][str(dtype)]
        assert (row["y_max"], row["y_mean"])         == error_statistics(y, expected[0])
        assert (row["state_max"], row["state_mean"]) == error_statistics(h, expected[1])
    row = summary["errors"]["0_y.hex"]
    assert (row["y_max"], row["y_mean"]) == error_statistics(y[0], wanted)
    cycles, sequential = summary["cycles"], summary["cycles_sequential"]
    assert summary["pipelining_gain"] == (cycles - sequential)/sequential < -0.62
    output = capsys.readouterr().out
    assert f"{summary['pipelining_gain']:.1%}" in output and "0_y.hex" in output


def test_play_files_of_others(tmp_path, data_set, case):
    """Upper case, line ends of Windows, none at the end, or empty lines there; infinities and NaN; results in place."""
    case["x"][0, 0, :3] = np.inf, -np.inf, np.nan
    text = [bits(value).upper() for value in case["x"].ravel()]
    (data_set/"0_x.hex").write_bytes("\r\n".join(text).encode())
    for name in ("dt", "C"):
        path = data_set/f"0_{name}.hex"
        path.write_text(path.read_text().upper() + "\n\n")
    assert bench.main(arguments(data_set, data_set) + ["--json", str(tmp_path/"play.json")]) == 0
    y, h = ssm_block(**case)
    assert_same_bits(read(data_set/"0_y_out.hex", (4, 5)), y[0])
    assert_same_bits(read(data_set/"0_ssm_state.hex", (4, 5, 20)), h)
    assert json.loads((tmp_path/"play.json").read_text())["mismatches"] == {"y": 0, "state": 0}


def test_play_detects_mismatch(tmp_path, data_set, capsys, monkeypatch):
    def wrong(**case):
        y, h = ssm_block(**case)
        y.view(np.uint16)[0, 1, 2] ^= 1
        return y, h

    monkeypatch.setattr(bench, "ssm_block", wrong)
    assert bench.main(arguments(data_set, tmp_path/"out") + ["--json", str(tmp_path/"play.json")]) == 1
    assert capsys.readouterr().err == "hex.py: error: the core and the bit-accurate model differ.\n"
    assert json.loads((tmp_path/"play.json").read_text())["mismatches"] == {"y": 2, "state": 0}

# Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line", ["", "3c0", "3c000", "3g00", "0x3c", " 3c00", "3c00 ", "// a", "1.5", "\u0663c00"])
def test_bad_line(tmp_path, data_set, capsys, line):
    path  = data_set/"0_B.hex"
    lines = path.read_text().splitlines()
    lines[6] = line
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    fails(capsys, tmp_path/"out", arguments(data_set, tmp_path/"out"),
        f"{path}:7: must be four hex digits, is {re.escape(repr(line))}.")


@pytest.mark.parametrize("name, shape", [("dt", "4 (H)"), ("D", "4 (H)"), ("C", "40 = 2*20 (G, N)"),
    ("x", "20 = 4*5 (H, P)"), ("ssm_state", "400 = 4*5*20 (H, P, N)"), ("y", "20 = 4*5 (H, P)")])
@pytest.mark.parametrize("change", [-1, 1, None])
def test_bad_length(tmp_path, data_set, capsys, name, shape, change):
    path  = data_set/f"0_{name}.hex"
    count = int(shape.split()[0])
    found = 0 if change is None else count + change
    path.write_text("3c00\n"*found)
    fails(capsys, tmp_path/"out", arguments(data_set, tmp_path/"out"),
        f"{path}:{min(found, count) + 1}: there must be {re.escape(shape)} values, are {found}.")


@settings(max_examples=200, derandomize=True, deadline=None)
@given(content=strategies.binary(max_size=60) | strategies.lists(strategies.sampled_from([b"3c00", b"7E01", b"\r", b"\n", b"g",
    b"0x1", b"-1"]), max_size=16).map(b"".join))
def test_any_other_content(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp()/"any.hex"
    path.write_bytes(content)
    try:
        assert bench.read_hex(path, (4,), "H").shape == (4,)
    except UsageError as error:
        assert str(error).startswith(f"{path}:") and "\n" not in str(error)


def test_missing_file(tmp_path, data_set, capsys):
    (data_set/"0_dA.hex").unlink()
    fails(capsys, tmp_path/"out", arguments(data_set, tmp_path/"out"), r".*0_dA.hex: cannot be read \(No such file.*")
    fails(capsys, tmp_path/"out", arguments(data_set, tmp_path/"out", layer=3), r".*3_dt.hex: cannot be read.*")


@pytest.mark.parametrize("name, value, allowed", [
    ("heads",   0,     "an integer from 1 to 65535"),
    ("headdim", 257,   "an integer from 1 to 256"),
    ("d_state", 513,   "an integer from 1 to 512"),
    ("groups",  3,     "a divisor of heads = 4"),
])
def test_bad_size(tmp_path, data_set, capsys, name, value, allowed):
    fails(capsys, tmp_path/"out", arguments(data_set, tmp_path/"out", **{name: value}),
        f"{name} must be {allowed}, is {value}.")


def test_output_not_writable(tmp_path, data_set, capsys):
    (tmp_path/"file").write_text("")
    fails(capsys, tmp_path/"file"/"out", arguments(data_set, tmp_path/"file"/"out"), ".*cannot be made.*")
    fails(capsys, tmp_path/"none", arguments(data_set, tmp_path/"out") + ["--json", str(tmp_path/"none"/"play.json")],
        ".*play.json: cannot be written.*")
    assert not list((tmp_path/"out").iterdir())


def test_usage_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(["play", "somewhere"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
