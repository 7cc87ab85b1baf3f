#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Functions against mpmath: all inputs; the reciprocal square root against integers."""

import mpmath
import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

import exact

from model.exact import functions

from operations.numerics import RSQRT_BITS

# Functions of 16 Bits -----------------------------------------------------------------------------

FORMULAS = {
    "exp"     : mpmath.exp,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "silu"    : lambda x: x/(1 + mpmath.exp(-x)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_all_inputs_correctly_rounded(name):
    table = functions.table(name).view(np.uint16)
    with mpmath.workprec(120):
        for bits in range(65536):
            if bits & 0x7c00 == 0x7c00:
                continue
            x     = mpmath.ldexp(exact.INTEGERS[bits], -24)
            value = FORMULAS[name](x)
            if abs(value) > 2**20:
                value = 2**20
            sign  = bits >> 15 if name == "silu" else 0
            # Cut off at 2**-100; none is exact but those of zero and one half, so a last bit says what was cut off.
            integer  = int(mpmath.floor(mpmath.ldexp(abs(value), 100)))
            integer |= mpmath.ldexp(abs(value), 100) != integer
            assert table[bits] == exact.round16(-integer if sign else integer, 100, zero_sign=sign), hex(bits)


@pytest.mark.parametrize("name, results", [("exp", (0x0000, 0x7c00)), ("softplus", (0x0000, 0x7c00)), ("silu", (0x8000, 0x7c00))])
def test_special_values(name, results):
    table = functions.table(name).view(np.uint16)
    assert (table[0xfc00], table[0x7c00]) == results
    nan = [bits for bits in range(65536) if bits & 0x7fff > 0x7c00]
    assert (table[nan] == 0x7e00).all()


def test_by_name():
    x = np.array([-1.5, 0.0, 3.25], np.float16)
    for name in FORMULAS:
        assert getattr(functions, name)(x).tobytes() == functions.table(name)[x.view(np.uint16)].tobytes()

# Reciprocal Square Root ---------------------------------------------------------------------------

def check_rsqrt(numerator, value, bits=RSQRT_BITS):
    """The result lies at most half of its last place away, half way only below: both sides squared are integers."""
    significand, exponent = functions.rsqrt(numerator, value, bits)
    assert 2**(bits - 1) <= significand < 2**bits
    power = 2*exponent - 2 # (2*significand -+ 1)**2 * 2**power against numerator/value.
    scale = lambda integer, by: integer << by if by >= 0 else integer
    for half, above in ((2*significand - 1, False), (2*significand + 1, True)):
        left, right = scale(half*half*value, power), scale(numerator, -power)
        assert left > right if above else left <= right


@settings(max_examples=2000, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 2**60), st.integers(1, 2**95))
def test_rsqrt(numerator, value):
    check_rsqrt(numerator, value)


@pytest.mark.parametrize("numerator", [1, 2, 3, 768 << 48, 1536 << 48])
def test_rsqrt_of_each_half(numerator):
    """Of all finite binary16 values above zero, in units of 2**-24."""
    for bits in range(1, 0x7c00):
        check_rsqrt(numerator, exact.INTEGERS[bits])


@pytest.mark.parametrize("bits", [2, 8, 11, 24])
def test_rsqrt_of_other_widths(bits):
    for value in range(1, 3000):
        check_rsqrt(1, value, bits)
        check_rsqrt(value, 7, bits)
