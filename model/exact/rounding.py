#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Rounding to binary16 and binary32: exact sums, rounded once to nearest, ties to even."""

import math

import numpy as np

# Constants ----------------------------------------------------------------------------------------

NAN16 = np.uint16(0x7e00) # The only NaN that results are.
NAN32 = np.uint32(0x7fc00000)

# Rounding -----------------------------------------------------------------------------------------

def canonical(values):
    """Replace every NaN by the canonical one, in place. float16 or float32. Returns the array."""
    bits = values.view(np.uint16 if values.dtype == np.float16 else np.uint32)
    bits[np.isnan(values)] = NAN16 if values.dtype == np.float16 else NAN32
    return values


def rounded(values, dtype=np.float16):
    """float64 values that are exact to `dtype`, to nearest even, overflow to infinity, NaN to the canonical one."""
    with np.errstate(over="ignore"):
        return canonical(np.atleast_1d(values).astype(dtype)).reshape(np.shape(values))


def _odd_sum(terms):
    """The exact sum of some floats as one, rounded to odd: then the rounding after it is the only one."""
    total = math.fsum(terms)
    error = math.fsum([*terms, -total])
    if error and not int(np.float64(total).view(np.int64)) & 1:
        total = math.nextafter(total, math.copysign(math.inf, error))
    return total


def round_sum(terms, dtype=np.float16):
    """The exact sum over the last axis, rounded once.

    terms: float64 (..., n), finite. Returns `dtype` (...). An exact sum of zero is +0; one that rounds to zero keeps its sign.

    A float64 sum with a bound of its error decides almost all; the few that lie too near to where the rounding turns are
    summed again without error.
    """
    total = terms.sum(-1) + 0.0
    bound = np.abs(terms).sum(-1)*(terms.shape[-1]*2.0**-52)
    with np.errstate(over="ignore"):
        low, high = (total - bound).astype(dtype), (total + bound).astype(dtype)
    result = np.atleast_1d(low)
    open_  = np.atleast_1d((low != high) | (np.signbit(low) != np.signbit(high)))
    exact  = terms.reshape(-1, terms.shape[-1])
    flat   = result.reshape(-1)
    for index in np.flatnonzero(open_):
        with np.errstate(over="ignore"):
            flat[index] = np.float64(_odd_sum(exact[index].tolist()) + 0.0).astype(dtype)
    return flat.reshape(total.shape)
