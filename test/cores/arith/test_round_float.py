#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sums to binary16 and binary32, compiled, against exact integers."""

import numpy as np
import pytest

from hypothesis import given, settings, strategies as st

from exact import round16, round32

from cores.arith.round import FINITE, NAN, ZERO
from cores.arith.round_float import RoundFloat

from tools.verilated import VerilatedModule, pack_words, stream_ports

# Helpers ------------------------------------------------------------------------------------------

WIDTH, LSB = 103, -50
UNIT = []


def unit():
    if not UNIT:
        module = RoundFloat(WIDTH, LSB, 9)
        sink, source = stream_ports("sink", module.sink, ("data", "exponent", "special", "sign", "wide"), False), stream_ports("source", module.source, ("data",), True)
        UNIT.append(VerilatedModule(module, {**sink[0], **source[0]}, {**sink[1], **source[1]}))
    return UNIT[0]


def expected(value, wide, special, sign, exponent):
    """Bits of the result."""
    if special == NAN:
        return 0x7fc00000 if wide else 0x7e00
    if special != FINITE:
        return (0 if special == ZERO else 0x7f800000 if wide else 0x7c00) | sign << (31 if wide else 15)
    return (round32 if wide else round16)(value, -LSB - exponent)


def check(sums, wide, special=None, sign=None, exponent=None, duty=256, seed=1):
    """sums: integers; of the others, None: zeros. Returns the cycles."""
    compiled = unit()
    compiled.reset()
    special, sign, exponent = (np.zeros(len(sums), int) if array is None else array for array in (special, sign, exponent))
    wanted   = [expected(*case) for case in zip(sums, wide.tolist(), special.tolist(), sign.tolist(), exponent.tolist())]
    out, cycles = compiled.streams({"sink": {"data": pack_words((value & 2**WIDTH - 1 for value in sums), WIDTH), "special": special,
        "sign": sign, "wide": wide, "exponent": exponent & 511}},
        {"source": (("data",), len(sums))}, limit=100*len(sums) + 100, duty=duty, seed=seed)
    wrong = np.flatnonzero(out["source"]["data"] != np.array(wanted, np.uint64))
    assert not len(wrong), (sums[wrong[0]], wide[wrong[0]], hex(out["source"]["data"][wrong[0]]), hex(wanted[wrong[0]]))
    return cycles


def numbers(rng, count):
    """Of all lengths, half of them near to where a rounding turns."""
    lengths = rng.integers(1, WIDTH, count).tolist()
    words   = rng.integers(0, 2**63, (count, 2)).tolist()
    result  = []
    for n, (length, (high, low)) in enumerate(zip(lengths, words)):
        value = (high << 63 | low) >> 126 - length
        if n % 2: # A few bits, the half way between two, and a little.
            kept  = (11, 12, 24, 25, 3, 26)[n//2 % 6]
            cut   = max(length - kept, 0)
            value = (value >> cut << cut) + (n//2 % 3 - 1)
        result.append(-value if low & 1 else value)
    return [max(min(value, 2**(WIDTH - 1) - 1), 1 - 2**(WIDTH - 1)) for value in result]

# Tests --------------------------------------------------------------------------------------------

def test_against_integers():
    rng = np.random.default_rng(1)
    wide = rng.random(200_000) < 0.5
    check(numbers(rng, 200_000), wide, np.where(rng.random(200_000) < 0.9, FINITE, rng.integers(0, 4, 200_000)), rng.integers(0, 2, 200_000),
        np.where(wide, 0, rng.integers(-60, 100, 200_000)))


def test_latency():
    assert check([3, 4, 5], np.zeros(3, bool)) == 3 + RoundFloat.latency


@pytest.mark.parametrize("sink", [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
def test_stalls(sink, source):
    rng = np.random.default_rng(sink + source)
    check(numbers(rng, 2000), rng.random(2000) < 0.5, duty={"sink": sink, "source": source}, seed=sink*source)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(1 - 2**(WIDTH - 1), 2**(WIDTH - 1) - 1), st.booleans()), min_size=1, max_size=20))
def test_any_sum(cases):
    check([value for value, _ in cases], np.array([wide for _, wide in cases]))


def test_ends():
    """Zeros, powers of two and what lies beside them."""
    sums = [0, *(sign*(2**n + more) for n in range(WIDTH - 1) for more in (-1, 0, 1) for sign in (1, -1) if 2**n + more < 2**(WIDTH - 1))]
    for wide in (False, True):
        check(sums, np.full(len(sums), wide))


def test_refused():
    with pytest.raises(ValueError, match="lsb must be an integer from -126 to -14, is -130."):
        RoundFloat(103, -130)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_million(seed):
    rng = np.random.default_rng(1000 + seed)
    check(numbers(rng, 200_000), rng.random(200_000) < 0.5)
