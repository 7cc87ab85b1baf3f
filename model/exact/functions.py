#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Functions of one binary16 value, correctly rounded to binary16: exp, softplus and SiLU; and the reciprocal square root.

===================== =========== =========== ===========
function              of -inf     of +inf     of NaN
===================== =========== =========== ===========
exp(x)                +0          +inf        NaN
softplus(x)           +0          +inf        NaN
silu(x) = x/(1 + e^-x) -0         +inf        NaN
===================== =========== =========== ===========

A value that is not zero and rounds to zero keeps its sign; silu(-0) is -0.
"""

import functools
import math

import numpy as np

from model.exact.rounding import rounded

from operations.numerics import RSQRT_BITS

# Functions of 16 Bits -----------------------------------------------------------------------------

def _softplus(x):
    return np.logaddexp(x, 0)


def _silu(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(x == -np.inf, -0.0, x/(1 + np.exp(-x)))


FUNCTIONS = {"exp": np.exp, "softplus": _softplus, "silu": _silu}


@functools.cache
def table(name):
    """A function of all binary16 values, in the order of their bits: float16 (65536,).

    float64 is near enough to decide every one of them; a test holds that against mpmath.
    """
    x = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values = rounded(FUNCTIONS[name](x))
    values.flags.writeable = False
    return values


def exp(x):
    """RN16(e**x). x: float16."""
    return table("exp")[np.asarray(x, np.float16).view(np.uint16)]


def softplus(x):
    """RN16(log(1 + e**x)). x: float16."""
    return table("softplus")[np.asarray(x, np.float16).view(np.uint16)]


def silu(x):
    """RN16(x/(1 + e**-x)). x: float16."""
    return table("silu")[np.asarray(x, np.float16).view(np.uint16)]

# Reciprocal Square Root ---------------------------------------------------------------------------

def rsqrt(numerator, value, bits=RSQRT_BITS):
    """sqrt(numerator/value), rounded to `bits` significant bits: (significand, exponent), significand*2**exponent.

    Of integers above 0; to nearest, half way up. By a division and a square root, both of integers and rounded down; one bit more
    than wanted then decides.
    """
    shift = 2*(bits + 1) - (numerator.bit_length() - value.bit_length()) + 1
    shift += shift & 1 # The quotient has 2*(bits + 1) bits at least.
    quotient = (numerator << shift)//value if shift >= 0 else numerator//(value << -shift)
    root     = math.isqrt(quotient)
    excess   = root.bit_length() - bits
    result   = (root >> excess - 1) + 1 >> 1
    exponent = excess - shift//2
    return (result >> 1, exponent + 1) if result >> bits else (result, exponent)
