#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The cut: against all there are."""

from itertools import combinations

import numpy as np
import pytest

from host.cluster.cut import balanced, ranges

from tools.errors import UsageError

# Tests --------------------------------------------------------------------------------------------

def worst(layers, head, counts):
    ends  = np.cumsum([0, *counts])
    costs = [sum(layers[first:end]) for first, end in zip(ends, ends[1:])]
    return max([*costs[:-1], costs[-1] + head])


@pytest.mark.parametrize("seed", range(20))
def test_no_cut_is_better(seed):
    rng    = np.random.default_rng(seed)
    layers = rng.integers(1, 20, rng.integers(1, 9)).tolist()
    head   = int(rng.integers(0, 60))
    for stages in range(1, len(layers) + 1):
        counts = balanced(layers, head, stages)
        every  = [np.diff([0, *cuts, len(layers)]).tolist() for cuts in combinations(range(1, len(layers)), stages - 1)]
        assert counts in every and worst(layers, head, counts) == min(worst(layers, head, other) for other in every)


def test_the_head_counts():
    assert balanced([10]*6, 0, 3) == [2, 2, 2]
    assert balanced([10]*6, 20, 2) == [4, 2]
    assert balanced([10]*64, 35, 4) == [17, 17, 17, 13]


def test_ranges():
    assert ranges([1, 2], 3) == [(0, 1), (1, 3)]
    with pytest.raises(UsageError, match="^layers must be the model's 3 together, are 4.$"):
        ranges([2, 2], 3)
    with pytest.raises(UsageError, match="^stages must be at most the model's 2 layers, are 3.$"):
        balanced([1, 1], 1, 3)
