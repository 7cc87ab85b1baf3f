#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""RMSNorm: a vector over its root mean square, times a weight.

::

    S = sum of u**2                               exact, a multiple of 2**-48
    s = sqrt(n/(S + n*eps))                       rounded to 17 significant bits, to nearest
    y = RN16(u*w*s)                               one rounding of the exact product

n*eps is rounded to a multiple of 2**-48 beforehand, 1 of them at least, so a vector of zeros gives zeros. With an infinity or a
NaN in it, all of the result is NaN.
"""

import numpy as np

from model.exact.functions import rsqrt
from model.exact.rounding import rounded

from operations.numerics import UNIT_BITS

# Norm ---------------------------------------------------------------------------------------------

def eps_units(size, eps):
    """size*eps in units of 2**-48: an integer, 1 or more."""
    return max(round(size*eps*2**UNIT_BITS), 1)


def _scale(u, eps):
    """(significand, exponent) of s. u: finite float16 (n,). eps: in units."""
    units   = (u.astype(np.float64)*2.0**(UNIT_BITS//2)).astype(np.int64).tolist()
    squares = sum(unit*unit for unit in units)
    return rsqrt(len(units) << UNIT_BITS, squares + eps)


def rms_norm(u, weight, eps, groups=1):
    """RMSNorm of each of `groups` equal parts.

    Parameters
    ----------
    u      : float16 (R, n).
    weight : float16 (n,), finite.
    eps    : above 0.
    groups : a divisor of n.

    Returns
    -------
    float16 (R, n).
    """
    return rms_norm_units(u, weight, eps_units(u.shape[1]//groups, eps), groups)


def rms_norm_units(u, weight, eps, groups=1):
    """As :func:`rms_norm`, with eps as :func:`eps_units` has it."""
    parts  = u.reshape(len(u), groups, -1)
    weight = weight.reshape(groups, -1).astype(np.float64)
    result = np.empty(parts.shape, np.float16)
    for r in range(len(u)):
        for group in range(groups):
            part = parts[r, group]
            if not np.isfinite(part).all():
                result[r, group] = np.nan
                continue
            significand, exponent = _scale(part, eps)
            with np.errstate(invalid="ignore"): # Of a weight that is not finite.
                result[r, group] = rounded(part.astype(np.float64)*weight[group]*np.ldexp(float(significand), exponent))
    return result.reshape(u.shape)
