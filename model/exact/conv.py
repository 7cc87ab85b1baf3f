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

from model.exact.elementwise import product_sum

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
    taps = weight.shape[1]
    past = np.concatenate([window, x])
    a    = np.empty((*x.shape, taps + 1), np.float16)
    b    = np.ones((x.shape[1], taps + 1), np.float16)
    for k in range(taps):
        a[..., k] = past[k:k + len(x)]
    a[..., taps] = bias
    b[:, :taps]  = weight
    return product_sum(a, b), past[len(x):]
