#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The whole path: ``stream.py run`` in the simulation equals the bit-accurate model, bit for bit."""

import json

import numpy as np
import pytest

from cases import assert_same_bits, random_case
from stream_harness import stream

from host.commands.selftest import TESTS

from model.bitexact import ssm_block

# Helpers ------------------------------------------------------------------------------------------

def run_case(tmp_path, case, *options, seed=None):
    """Through stream.py and back; asserts the model's bits and returns the summary."""
    np.savez(tmp_path/"case.npz", **case)
    done = stream("run", tmp_path/"case.npz", "--output", tmp_path/"out.npz", "--json", tmp_path/"out.json",
        "--transport", "sim", *options)
    assert done.returncode == 0, done.stderr
    y, h = ssm_block(**case, seed=seed)
    with np.load(tmp_path/"out.npz") as out:
        assert set(out) == {"y", "h"}
        assert_same_bits(out["y"], y)
        assert_same_bits(out["h"], h)
    return json.loads((tmp_path/"out.json").read_text())

# Random Cases -------------------------------------------------------------------------------------

# tokens, heads, headdim, d_state, groups, with_h0, infinities, mode
CASES = {
    "one of each"          : ( 1,  1,  1,   1, 1, False, 0.0,   "prefill"),
    "largest tile"         : ( 2,  2, 64, 128, 1, True,  0.0,   "prefill"),
    "odd sizes"            : ( 5,  7, 13,  33, 1, True,  0.0,   "prefill"),
    "odd sizes, decode"    : ( 5,  7, 13,  33, 1, True,  0.0,   "decode"),
    "groups"               : ( 3,  6, 20,  24, 3, False, 0.0,   "prefill"),
    "groups, decode"       : ( 4, 10,  8,  40, 5, True,  0.0,   "decode"),
    "infinities"           : ( 4,  5, 31, 100, 1, True,  0.002, "prefill"),
    "infinities, decode"   : ( 3,  4, 64,  17, 2, False, 0.005, "decode"),
    "many heads"           : ( 1, 97,  3,  16, 1, True,  0.0,   "prefill"),
    "more than one chunk"  : (70,  3,  9,  20, 1, True,  0.0,   "prefill"),
    "ring wraps"           : (37,  2,  5,   8, 1, False, 0.0,   "decode"),
}


@pytest.mark.parametrize("name", CASES)
def test_random_case(tmp_path, name):
    *sizes, with_h0, infinities, mode = CASES[name]
    random  = np.random.default_rng(list(CASES).index(name))
    case    = random_case(random, *sizes, with_h0=with_h0, infinities=infinities)
    summary = run_case(tmp_path, case, "--mode", mode)
    tokens, heads, headdim, d_state, _ = sizes
    assert summary["lane_busy_cycles"] == tokens*heads*headdim*-(-d_state//summary["lanes"])
    assert summary["cycles"] > summary["lane_busy_cycles"]
    assert summary["cycles_per_token"] == summary["cycles"]/tokens
    assert summary["clock_hz"] == 100_000_000
    assert summary["lanes"]    == 16
    for key in ("dma_read_bytes", "dma_write_bytes", "transport", "firmware"):
        assert summary[key]


@pytest.mark.parametrize("lanes", [pytest.param(lanes, marks=pytest.mark.slow) for lanes in (4, 8, 32)])
def test_lanes(tmp_path, lanes):
    """Every number of lanes gives the same bits."""
    case    = random_case(np.random.default_rng(lanes), 3, 4, 33, 70, 2)
    summary = run_case(tmp_path, case, "--lanes", lanes)
    assert summary["lanes"] == lanes


@pytest.mark.parametrize("tokens, heads, mode", [(4, 3, "prefill"), (6, 3, "decode"), (6, 1, "decode"), (3, 5, "decode")])
def test_stochastic_rounding_and_state_on_chip(tmp_path, tokens, heads, mode):
    """The seed gets through to every head and token; decoding moves the state once in and once out, where four heads fit."""
    case    = random_case(np.random.default_rng(6), tokens, heads, 20, 40, 1)
    summary = run_case(tmp_path, case, "--lanes", 8, "--rounding", "stochastic", "--resident-tiles", 4, "--mode", mode,
        "--seed", 2**32 - 3, seed=2**32 - 3)
    assert summary["rounding"] == "stochastic"
    moves   = tokens if mode == "decode" and heads > 4 else 1
    records = 2*tokens*heads*24 # y: 24 of 20 elements.
    assert summary["dma_write_bytes"] == 2*moves*heads*20*40 + records


@pytest.mark.parametrize("store_every", [2, 4, 100])
def test_store_every(tmp_path, store_every):
    """Tokens run again on chip give the same bits; the state is written less often."""
    tokens, heads = 9, 5
    case    = random_case(np.random.default_rng(7), tokens, heads, 16, 32, 1)
    summary = run_case(tmp_path, case, "--mode", "decode", "--store-every", store_every)
    stores  = -(-tokens//store_every)
    assert summary["dma_write_bytes"] == 2*stores*heads*16*32 + 2*tokens*heads*16


def test_not_a_number(tmp_path):
    """NaN among x, B, C and h0 is carried through."""
    case = random_case(np.random.default_rng(1), 2, 2, 8, 16)
    case["x"][0, 0, 0] = case["B"][1, 0, 3] = case["h0"][1, 2, 3] = np.nan
    run_case(tmp_path, case)


def test_refused(tmp_path):
    """A case beyond the maxima does not start a simulation, and leaves no output."""
    case = random_case(np.random.default_rng(1), 1, 1, 65, 16)
    np.savez(tmp_path/"case.npz", **case)
    done = stream("run", tmp_path/"case.npz", "--output", tmp_path/"out.npz")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "x" in done.stderr and "65" in done.stderr and "64" in done.stderr
    assert not (tmp_path/"out.npz").exists()


@pytest.mark.parametrize("options, tests", [((), [name for name in TESTS if name != "engines"]), (("--pass-tokens", 2, "--data-width", 256), list(TESTS))])
def test_selftest(options, tests):
    done = stream("selftest", *options)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[name, "passed:"] for name in tests]
