#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Linear layers on quantised weights: an exact sum a row, rounded once.

A row of Q8_0 or Q4_0 has a binary16 scale d and 32 integers w for each group of 32 columns; the vector is in block floating
point (:mod:`model.exact.blockfloat`)::

    y = RN( sum over groups of (sum over the group of w*q) * d * 2**e )

The sum is exact, so its order does not matter, nor how many vectors are computed at once.
"""

import numpy as np

from model.exact.blockfloat import to_block_float
from model.exact.rounding import round_sum

from operations.numerics import GROUP, MANTISSA_BITS

# Constants ----------------------------------------------------------------------------------------

ROWS = 8192 # At once, so that what is under way stays in the processor's cache.

# Linear -------------------------------------------------------------------------------------------

class Linear:
    """A matrix of quantised weights, ready for vectors.

    Parameters
    ----------
    integers : int8 (rows, n), from -8 to 7 or from -128 to 127; n a multiple of GROUP.
    scales   : float16 (rows, n/GROUP), finite.
    """
    def __init__(self, integers, scales):
        rows, columns = integers.shape
        self.rows     = rows
        self.narrow   = integers.size == 0 or (integers.min() >= -8 and integers.max() <= 8)
        # Group by group, in float32: what is summed there stays below 2**24.
        self.weights  = np.ascontiguousarray(integers.reshape(rows, columns//GROUP, GROUP).transpose(1, 0, 2), np.float32)
        self.scales   = scales.astype(np.float64)

    def group_sums(self, q, first, last):
        """Exact sums of w*q by group, float64 (groups, rows from first to last, R). q: int16 (R, n)."""
        groups  = q.reshape(len(q), -1, GROUP).transpose(1, 2, 0)
        weights = self.weights[:, first:last]
        if self.narrow:
            return (weights @ groups.astype(np.float32)).astype(np.float64)
        high = (groups + 64) >> 7
        low  = groups - (high << 7)
        return (weights @ high.astype(np.float32)).astype(np.float64)*128 + weights @ low.astype(np.float32)

    def __call__(self, x, dtype=np.float16, bits=MANTISSA_BITS):
        """The rows' results.

        x: float16 (R, n). Returns `dtype` (R, rows); all NaN for an x that is not finite.
        """
        q, e, finite = to_block_float(x, bits)
        result       = np.empty((len(x), self.rows), dtype)
        for first in range(0, self.rows, ROWS):
            last  = min(first + ROWS, self.rows)
            sums  = self.group_sums(q, first, last)
            terms = sums.transpose(2, 1, 0)*self.scales[first:last]
            result[:, first:last] = round_sum(np.ldexp(terms, e[:, None, :]), dtype)
        result[~finite] = np.nan
        return result
