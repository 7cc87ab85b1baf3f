#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The causal convolution along the tokens, a few taps a channel.

::

    y[t] = RN16( sum over k of w[k]*x[t - K + 1 + k] + b )        exact products, exact sum, one rounding

In front of the first token x is zero. The window, the K - 1 tokens before the next one, is the state.
"""

import numpy as np

from model.exact.rounding import canonical, round_sum

# Convolution --------------------------------------------------------------------------------------

def conv1d(x, weight, bias, window):
    """T tokens.

    Parameters
    ----------
    x      : float16 (T, channels).
    weight : float16 (channels, K), the last tap that of the token itself. Finite, as the bias.
    bias   : float16 (channels,).
    window : float16 (K - 1, channels), of the tokens before.

    Returns
    -------
    (y, window) : float16 (T, channels), and the new window.
    """
    taps   = weight.shape[1]
    past   = np.concatenate([window, x])
    terms  = np.empty((*x.shape, taps + 1))
    with np.errstate(invalid="ignore"):
        for k in range(taps):
            terms[..., k] = past[k:k + len(x)].astype(np.float64)*weight[:, k].astype(np.float64)
    terms[..., taps] = bias
    finite = np.isfinite(terms).all(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        special = terms.sum(-1).astype(np.float16) # An infinity, or NaN.
    y = np.where(finite, round_sum(np.where(finite[..., None], terms, 0.0)), special)
    return canonical(y), past[len(x):]
