#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The exact arithmetic that the other tests trust, and whether its vectors are as hard as they claim."""

from fractions import Fraction

import numpy as np
import pytest

import exact

# Helpers ------------------------------------------------------------------------------------------

COUNT = 20_000


def dropped(totals, scale):
    """How far each total is from the nearest boundary between two results, 0: a tie, 1: a binary16; and which are 0."""
    distances = []
    for total in totals:
        drop = max(abs(total).bit_length() - 11, scale - 24)
        if total and drop > 0:
            distances.append(abs(abs(total) % (1 << drop) - (1 << drop - 1))/(1 << drop - 1))
    return np.array(distances), np.mean([total == 0 for total in totals])

# Rounding -----------------------------------------------------------------------------------------

def test_round16_at_and_beside_every_boundary():
    finite  = range(exact.INFINITY16)
    # In units of 2**-30; after the largest comes what would follow, 2**16.
    nearest = [exact.INTEGERS[bits] << 6 for bits in finite] + [65536 << 30]
    for bits in finite:
        low, high = nearest[bits], nearest[bits + 1]
        middle    = (low + high)//2
        even      = bits if bits % 2 == 0 else bits + 1
        expected  = {low: bits, low + 1: bits, middle - 1: bits, middle: even, middle + 1: bits + 1, high - 1: bits + 1}
        for value, result in expected.items():
            assert exact.round16(value, 30) == result
            assert exact.round16(-value, 30, zero_sign=1) == result | 0x8000


def test_round16_stochastically():
    """Of 1024 random numbers as many round up as the rest is parts of 1024 (to the nearest); what is exact stays."""
    rng = np.random.default_rng(3)
    for value, scale in zip(rng.integers(1, 2**40, 40).tolist(), rng.integers(24, 80, 40).tolist()):
        results = [exact.round16(value, scale, random=random) for random in range(1024)]
        deciding = exact.deciding_random(value, scale)
        exactly  = Fraction(value, 2**scale)
        low      = max(bits for bits in range(exact.INFINITY16) if Fraction(exact.INTEGERS[bits], 2**24) <= exactly)
        ulp      = Fraction(exact.INTEGERS[low + 1] - exact.INTEGERS[low], 2**24) if low < 0x7bff else 32
        rest     = (exactly - Fraction(exact.INTEGERS[low], 2**24))/ulp
        assert results == [low]*deciding + [low + 1]*(1024 - deciding)
        assert abs(1024 - deciding - 1024*rest) <= Fraction(1, 2)


def test_round16_of_what_float64_holds():
    rng   = np.random.default_rng(1)
    value = rng.integers(-2**52, 2**52, COUNT)
    scale = rng.integers(30, 80, COUNT)
    with np.errstate(over="ignore"):
        expected = np.ldexp(value.astype(np.float64), -scale).astype(np.float16).view(np.uint16)
    assert [exact.round16(int(v), int(s)) for v, s in zip(value, scale)] == expected.tolist()


@pytest.mark.parametrize("bits, value", [(0x0000, 0), (0x8000, 0), (0x0001, Fraction(1, 2**24)),
    (0x03ff, Fraction(1023, 2**24)), (0x0400, Fraction(1, 2**14)), (0x3555, Fraction(1365, 4096)),
    (0xc248, Fraction(-201, 64)), (0x7bff, 65504)])
def test_integers(bits, value):
    assert Fraction(exact.INTEGERS[bits], 2**24) == value


def test_integers_are_what_numpy_reads():
    bits   = np.arange(1 << 16, dtype=np.uint16)
    finite = np.isfinite(bits.view(np.float16))
    assert np.array_equal(np.array(exact.INTEGERS)[finite]*2.0**-24, bits.view(np.float16)[finite].astype(np.float64))

# Operations ---------------------------------------------------------------------------------------

P0, N0, P1, N1, PINF, NINF, NAN = 0x0000, 0x8000, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7e00


@pytest.mark.parametrize("operands, result", [
    ((N0, P1, N0, P1, P1), N0),     # -0 + -0.
    ((N0, P1, P0, P1, P1), P0),     # -0 + +0.
    ((P1, P1, P1, P1, N1), P0),     # 1 - 1.
    ((PINF, P0, P1, P1, P1), NAN),  # inf*0.
    ((P1, P1, PINF, P1, P0), NAN),
    ((PINF, P1, PINF, P1, N1), NAN),# inf - inf.
    ((PINF, P1, NINF, P1, N1), PINF),
    ((P1, P1, P1, NINF, P1), NINF),
    ((0xfd00, P1, P1, P1, P1), NAN),# A signalling, negative NaN.
    ((0x8001, 0x0001, P0, P1, P1), N0), # Rounds to zero, keeps its sign.
    ((0x8001, 0x0001, N0, P1, P1), N0),
])
def test_state_update_of_special_values(operands, result):
    assert exact.state_update(*(np.array([bits], np.uint16) for bits in operands)) == [result]


@pytest.mark.parametrize("h, C, D, x, result", [
    ((N0, N0), (P1, P1), N0, P1, P0),        # An exact sum of zero is +0.
    ((P1, N1), (P1, P1), P0, P0, P0),
    ((0x8001, P0), (0x0001, P0), P0, P0, N0),# Rounds to zero, keeps its sign.
    ((PINF, P1), (P1, P1), NINF, P1, NAN),
    ((PINF, P1), (P1, P1), PINF, P1, PINF),
    ((P1, P1), (P1, P1), N1, PINF, NINF),
    ((P0, P1), (PINF, P1), P1, P1, NAN),
    ((0x7bff, 0x7bff), (P1, N1), P1, 0x7bff, 0x7bff), # Only the sum is rounded: no overflow on the way.
])
def test_dot_skip_of_special_values(h, C, D, x, result):
    arrays = [np.array([value], np.uint16) for value in (h, C, D, x)]
    assert exact.dot_skip(*arrays) == [result]

# Vectors ------------------------------------------------------------------------------------------

def check_coverage(results, totals, scale):
    distances, zeros = dropped(totals, scale)
    shares = {
        "NaN"              : np.mean(exact.is_nan(results)),
        "infinity"         : np.mean(exact.is_infinity(results)),
        "subnormal"        : np.mean((results & 0x7c00 == 0) & ~exact.is_zero(results)),
        "cancelled to zero": zeros,
        "tie"              : np.mean(distances == 0),
        "beside a tie"     : np.mean((distances > 0) & (distances < 2**-8)),
        "beside a binary16": np.mean((distances < 1) & (distances > 1 - 2**-8)),
    }
    assert {name: share for name, share in shares.items() if share < 0.01} == {}


def test_update_vectors_cover():
    vectors = exact.update_vectors(np.random.default_rng(1), COUNT)
    finite  = ~np.any([vector & 0x7c00 == 0x7c00 for vector in vectors], axis=0)
    value   = exact.INTEGERS
    totals  = [(value[h]*value[dA] << 24) + value[dt]*value[x]*value[B]
        for h, dA, dt, x, B in zip(*(vector[finite].tolist() for vector in vectors))]
    check_coverage(exact.state_update(*vectors), totals, 72)


@pytest.mark.parametrize("lanes", [5, 33])
def test_dot_vectors_cover(lanes):
    a, b   = exact.dot_vectors(np.random.default_rng(1), COUNT, lanes)
    finite = ~np.any((a & 0x7c00 == 0x7c00) | (b & 0x7c00 == 0x7c00), axis=1)
    check_coverage(exact.dot_skip(a[:, 1:], b[:, 1:], a[:, 0], b[:, 0]), exact.dot_integers(a[finite], b[finite]), 48)
