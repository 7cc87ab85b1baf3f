#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Block floating point and rows of quantised weights, against integers."""

from fractions import Fraction

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

import exact

from model.exact.blockfloat import to_block_float
from model.exact.linear import Linear

from operations.numerics import GROUP

# Block Floating Point -----------------------------------------------------------------------------

def quantised(group, bits):
    """(q, e) of a group of finite binary16 bits, by integers."""
    E = max(max(int(value) >> 10 & 31 for value in group), 1)
    e = E - 13 - bits
    q = []
    for value in group:
        integer = exact.INTEGERS[value]           # In units of 2**-24.
        shift   = -e - 24
        scaled  = abs(integer) << shift if shift >= 0 else abs(integer)
        if shift < 0:
            kept, rest, half = scaled >> -shift, scaled & (1 << -shift) - 1, 1 << -shift - 1
            scaled = kept + (rest > half or (rest == half and kept & 1))
        q.append(min(scaled, 2**(bits - 1) - 1)*(-1 if integer < 0 else 1))
    return q, e


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_groups(bits):
    rng    = np.random.default_rng(bits)
    vector = exact.operands(rng, (2000, GROUP))
    vector = np.where(vector & 0x7c00 == 0x7c00, vector & 0x83ff, vector).astype(np.uint16)
    vector[:500] &= 0x83ff | (rng.integers(0, 31, (500, 1), np.uint16) << 10) # Exponents nearer to each other.
    q, e, finite = to_block_float(vector.view(np.float16), bits)
    assert finite.all()
    for row in range(len(vector)):
        assert (q[row].tolist(), e[row, 0]) == quantised(vector[row].tolist(), bits)


def test_zeros_and_largest():
    zeros = np.zeros((1, GROUP), np.float16)
    q, e, finite = to_block_float(zeros)
    assert not q.any() and e == -26 and finite
    q, e, _ = to_block_float(np.full((1, GROUP), -65504, np.float16))
    assert (q == -8188).all() and e == 3
    q, e, _ = to_block_float(np.full((1, GROUP), 65504, np.float16), 8)
    assert (q == 127).all() # 2047/16 would round to 128.


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_not_finite(value):
    vector = np.ones((2, 2*GROUP), np.float16)
    vector[1, 40] = value
    q, _, finite = to_block_float(vector)
    assert finite.tolist() == [True, False]
    linear = Linear(np.ones((3, 2*GROUP), np.int8), np.ones((3, 2), np.float16))
    result = linear(vector)
    assert (result[0] == 64).all() and (result[1].view(np.uint16) == 0x7e00).all()
    assert (linear(vector, np.float32)[1].view(np.uint32) == 0x7fc00000).all()

# Rows ---------------------------------------------------------------------------------------------

def row_sum(weights, scales, vector, bits):
    """The exact sum of a row, a Fraction."""
    total = Fraction(0)
    for group, scale in enumerate(scales):
        part  = slice(GROUP*group, GROUP*(group + 1))
        q, e  = quantised(vector[part], bits)
        total += sum(a*b for a, b in zip(weights[part], q))*Fraction(exact.INTEGERS[scale], 2**24)*Fraction(2)**e
    return total


def check_rows(integers, scales, vectors, bits=14):
    linear = Linear(integers, scales.view(np.float16))
    half   = linear(vectors.view(np.float16), bits=bits).view(np.uint16)
    single = linear(vectors.view(np.float16), np.float32, bits).view(np.uint32)
    for r, vector in enumerate(vectors.tolist()):
        for row in range(len(integers)):
            total = row_sum(integers[row].tolist(), scales[row].tolist(), vector, bits)
            assert half[r, row]   == exact.round16(int(total*2**60), 60)
            assert single[r, row] == exact.round32(int(total*2**60), 60)


def finite_bits(rng, shape):
    return rng.integers(0, 0x7c00, shape, np.uint16) | rng.integers(0, 2, shape, np.uint16) << 15


@pytest.mark.parametrize("low, high", [(-8, 7), (-128, 127)])
@pytest.mark.parametrize("bits", [8, 14])
def test_rows(low, high, bits):
    rng = np.random.default_rng(high)
    check_rows(rng.integers(low, high + 1, (40, 3*GROUP), np.int8), finite_bits(rng, (40, 3)), finite_bits(rng, (5, 3*GROUP)), bits)


@pytest.mark.parametrize("weight", [-128, 127, -8, 7])
def test_largest(weight):
    """All at their ends: group sums are as large as they become, and results overflow."""
    scales  = np.array([[0x7bff, 0x7bff], [0x0001, 0x0001], [0x7bff, 0xfbff], [0x3c00, 0x0000]], np.uint16)
    vectors = np.stack([np.full(2*GROUP, bits, np.uint16) for bits in (0x7bff, 0x0001, 0xfbff, 0x3c01)])
    check_rows(np.full((4, 2*GROUP), weight, np.int8), scales, vectors)


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_row(data):
    """Cancelling rows too: the second group is the first one negated, but for little."""
    finite = st.integers(0, 0x7bff).flatmap(lambda bits: st.sampled_from([bits, bits | 0x8000]))
    half   = data.draw(st.lists(st.integers(-126, 126), min_size=GROUP, max_size=GROUP))
    nudge  = data.draw(st.integers(-1, 1))
    vector = data.draw(st.lists(finite, min_size=GROUP, max_size=GROUP))*2
    scale  = data.draw(finite)
    weights = np.array([[*half, half[0] + nudge, *half[1:]]], np.int8)
    weights[:, GROUP:] *= -1
    check_rows(weights, np.array([[scale, scale]], np.uint16), np.array([vector], np.uint16))


def test_independent_of_how_many():
    rng     = np.random.default_rng(5)
    linear  = Linear(rng.integers(-128, 128, (50, 2*GROUP), np.int8), rng.random((50, 2)).astype(np.float16))
    vectors = rng.standard_normal((8, 2*GROUP)).astype(np.float16)
    assert linear(vectors).tobytes() == b"".join(linear(vectors[n:n + 1]).tobytes() for n in range(8))
