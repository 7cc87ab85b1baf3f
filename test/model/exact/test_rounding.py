#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Exact sums, rounded once, against integers."""

import math

from fractions import Fraction

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

import exact

from model.exact.rounding import canonical, round_sum

# Helpers ------------------------------------------------------------------------------------------

TERM = st.builds(lambda significand, exponent: math.ldexp(significand, exponent), st.integers(-2**36, 2**36), st.integers(-50, 10))


def expected(row, dtype):
    total = sum(map(Fraction, row))
    if dtype == np.float32:
        return exact.round32(int(total*2**60), 60)
    return exact.round16(int(total*2**60), 60)

# Sums ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.lists(TERM, min_size=5, max_size=5), min_size=1, max_size=8))
def test_any_sum(dtype, rows):
    bits = round_sum(np.array(rows), dtype).view(np.uint16 if dtype == np.float16 else np.uint32)
    assert bits.tolist() == [expected(row, dtype) for row in rows]


@pytest.mark.parametrize("tail", [0.0, 2.0**-60, -2.0**-60])
@pytest.mark.parametrize("sign", [1, -1])
def test_ties(sign, tail):
    """Half way between two results, and just beside, where float64 sees no difference."""
    for significand in (1024, 1025, 2047):
        row = [sign*float(significand), sign*0.5, tail]
        assert int(round_sum(np.array([row])).view(np.uint16)[0]) == expected(row, np.float16)


def test_cancellation():
    """What is left lies far below what was there."""
    rows = np.array([[2.0**40, 2.0**-20, -2.0**40], [2.0**40, 2.0**-70, -2.0**40], [1.0, -1.0, 0.0], [-1.0, 1.0, -2.0**-30],
        [65504.0, 16.0, -2.0**-40], [65504.0, 16.0, 0.0]])
    got  = round_sum(rows).view(np.uint16)
    assert got.tolist() == [0x0010, 0x0000, 0x0000, 0x8000, 0x7bff, 0x7c00]


def test_canonical():
    bits = np.array([0x7c01, 0xfe00, 0x7c00, 0x8000], np.uint16)
    assert canonical(bits.view(np.float16)).view(np.uint16).tolist() == [0x7e00, 0x7e00, 0x7c00, 0x8000]
