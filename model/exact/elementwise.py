#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Operators element by element: each result rounded once."""

import numpy as np

from model.exact.functions import exp, silu, softplus
from model.exact.rounding import canonical, round_sum, rounded

# Operators ----------------------------------------------------------------------------------------

def product_sum(a, b):
    """RN16(sum of a*b over the last axis), exact but for the one rounding. float16 (..., terms), or what broadcasts.

    An exact sum of zero is +0, or -0 where all products are -0.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        terms   = np.asarray(a, np.float16).astype(np.float64)*np.asarray(b, np.float16).astype(np.float64)
        special = terms.sum(-1).astype(np.float16) # An infinity, or NaN.
    finite = np.isfinite(terms).all(-1)
    result = np.where(finite, round_sum(np.where(finite[..., None], terms, 0.0)), special)
    result = np.where(((terms == 0) & np.signbit(terms)).all(-1), np.float16(-0.0), result)
    return canonical(np.atleast_1d(result))


def add(a, b):
    """RN16(a + b). float16."""
    return product_sum(np.stack(np.broadcast_arrays(a, b), -1), np.float16(1))


def multiply(a, b):
    """RN16(a*b). float16."""
    with np.errstate(invalid="ignore"):
        return rounded(np.asarray(a, np.float16).astype(np.float64)*np.asarray(b, np.float16).astype(np.float64))


def add_residual(residual, delta):
    """RN32(residual + delta). float32, float16."""
    with np.errstate(over="ignore", invalid="ignore"):
        return canonical(residual + delta.astype(np.float32))


def gate(y, z):
    """RN16(y*silu(z)), silu(z) rounded before."""
    return multiply(y, silu(z))


def time_step(raw, bias, limits):
    """dt: softplus of RN16(raw + bias), no less and no more than the limits. float16; limits: two of them."""
    dt = softplus(add(raw, bias))
    return np.where(np.isnan(dt), dt, np.clip(dt, *(np.float16(limit) for limit in limits)))


def decay(dt, A):
    """dA: exp of RN16(dt*A). float16."""
    return exp(multiply(dt, A))
