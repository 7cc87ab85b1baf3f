#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Block floating point: how a vector of activations meets the weights.

Each group of 32 elements of a binary16 vector has the exponent of its largest magnitude, and each element a signed mantissa of
m bits::

    E = the largest exponent field in the group, 1 where it is 0
    q = RN(x / 2**e), e = E - 13 - m            integer; to nearest, ties to even; at most 2**(m - 1) - 1 in magnitude
    x ~ q * 2**e

From m = 12 on the largest element is kept exactly, and no q is ever cut off. A group of zeros has E = 1 and q = 0. A vector with
an infinity or a NaN in it makes NaN of all that is computed from it.
"""

import numpy as np

from operations.numerics import GROUP, MANTISSA_BITS

# Quantisation -------------------------------------------------------------------------------------

def to_block_float(x, bits=MANTISSA_BITS):
    """A vector in block floating point.

    Parameters
    ----------
    x    : float16 (..., n), n a multiple of GROUP.
    bits : m, 8 to 14.

    Returns
    -------
    (q, e, finite) : int16 (..., n), int (..., n/GROUP), and bool (...): whether all of x is finite.
    """
    groups  = np.ascontiguousarray(x, np.float16).reshape(*x.shape[:-1], -1, GROUP)
    finite  = np.isfinite(x).all(-1)
    groups  = np.where(finite[..., None, None], groups, np.float16(0))
    fields  = (groups.view(np.uint16) >> 10 & 31).max(-1).astype(np.int64)
    e       = np.maximum(fields, 1) - 13 - bits
    most    = 2**(bits - 1) - 1
    q       = np.clip(np.rint(np.ldexp(groups.astype(np.float64), -e[..., None])), -most, most)
    return q.astype(np.int16).reshape(x.shape), e, finite
