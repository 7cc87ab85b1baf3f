#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The head's candidates: the best of a vocabulary of logits."""

import numpy as np

from operations.numerics import CANDIDATES

# Selection ----------------------------------------------------------------------------------------

def best(logits, count=CANDIDATES):
    """The likeliest tokens, best first; of equal ones the lower number first; NaN is below everything.

    logits: float32 (vocabulary,). Returns (tokens, logits), int64 and float32, of as many as there are, `count` at most.
    """
    keys  = np.where(np.isnan(logits), -np.inf, logits) + np.float32(0) # -0 is 0.
    order = np.lexsort((np.arange(len(keys)), np.isnan(logits), -keys))[:count]
    return order, logits[order]
