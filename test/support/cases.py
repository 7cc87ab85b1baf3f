#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Random cases for tests of the gateware and of the whole path."""

import numpy as np

# Values -------------------------------------------------------------------------------------------

def random_values(random, shape, subnormals=0.02, infinities=0.0):
    """float16 of standard normal distribution, some of them replaced by subnormals and infinities of either sign."""
    values = random.standard_normal(shape).astype(np.float16)
    choice = random.random(shape)
    sign   = np.where(random.random(shape) < 0.5, -1, 1)
    values = np.where(choice < subnormals, sign*random.integers(1, 1024, shape)*2.0**-24, values)
    values = np.where(choice > 1 - infinities, sign*np.inf, values)
    return values.astype(np.float16)


def random_case(random, tokens, heads, headdim, d_state, groups=1, with_h0=True, infinities=0.0):
    """The arrays of a case, {name: float16 array}."""
    case = {
        "x" : random_values(random, (tokens, heads, headdim), infinities=infinities),
        "dt": abs(random_values(random, (tokens, heads))),
        "dA": np.exp(-abs(random.standard_normal((tokens, heads)))).astype(np.float16),
        "B" : random_values(random, (tokens, groups, d_state), infinities=infinities),
        "C" : random_values(random, (tokens, groups, d_state), infinities=infinities),
        "D" : random_values(random, (heads,)),
    }
    if with_h0:
        case["h0"] = random_values(random, (heads, headdim, d_state), infinities=infinities)
    return case


def assert_same_bits(actual, expected):
    """Equal shape, type and bits; NaN equals NaN of the same bits."""
    assert actual.dtype == expected.dtype == np.float16
    assert actual.shape == expected.shape
    wrong = np.argwhere(actual.view(np.uint16) != expected.view(np.uint16))
    assert not len(wrong), (f"{len(wrong)} of {actual.size} differ, the first at {tuple(wrong[0])}: "
        f"{actual[tuple(wrong[0])]!r} is not {expected[tuple(wrong[0])]!r}")
