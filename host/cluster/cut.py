#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Where a model is cut into stages: layer by layer, such that the stage that reads and writes the most bytes a token has as few as can be."""

from collections.abc import Sequence

from tools.errors import UsageError


def balanced(layers: Sequence[int], head: int, stages: int) -> list[int]:
    """How many layers each stage has.

    Parameters
    ----------
    layers : what each layer costs, bytes a token.
    head   : what the head costs, of the last stage.
    stages : 1 to the layers.

    Raises
    ------
    UsageError : there are more stages than layers.
    """
    check_stages(len(layers), stages)
    sums = [0]
    for cost in layers:
        sums.append(sums[-1] + cost)
    # best[n]: (the most of a stage, where the last one of them begins) for the last n layers in so many stages.
    total  = len(layers)
    best: dict[int, tuple[int, tuple[int, ...]]] = {first: (sums[total] - sums[first] + head, (total - first,)) for first in range(total)}
    for more in range(1, stages):
        best = {first: min((max(sums[end] - sums[first], best[end][0]), (end - first, *best[end][1]))
            for end in range(first + 1, total - more + 1)) for first in range(total - more)}
    return list(best[0][1])


def check_stages(layers: int, stages: int) -> None:
    """Raise UsageError unless so many layers are enough for the stages."""
    if stages > layers:
        raise UsageError(f"stages must be at most the model's {layers} layers, are {stages}.")


def ranges(counts: Sequence[int], layers: int) -> list[tuple[int, int]]:
    """(first, end) of the layers of each stage.

    Raises
    ------
    UsageError : together they are not the model's.
    """
    if sum(counts) != layers:
        raise UsageError(f"layers must be the model's {layers} together, are {sum(counts)}.")
    ends = [sum(counts[:n]) for n in range(len(counts) + 1)]
    return list(zip(ends, ends[1:]))
