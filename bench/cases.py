#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Cases for measurements of time."""

import numpy as np

from host.device.case import Case

# Cases --------------------------------------------------------------------------------------------

def layer_case(tokens, heads=24, seed=2024):
    """T tokens of a Mamba-2 layer, 64 x 128 a head. Any values: no time depends on them."""
    random = np.random.default_rng(seed)
    draw   = lambda *shape: random.standard_normal(shape).astype(np.float16)
    return Case(x=draw(tokens, heads, 64), dt=abs(draw(tokens, heads)), dA=random.random((tokens, heads)).astype(np.float16),
        B=draw(tokens, 1, 128), C=draw(tokens, 1, 128), D=draw(heads))
