#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Choosing tokens, and ending texts."""

import pytest
import torch

from hypothesis import given, strategies

from model.sampling import Sampler, StopStrings

# Sampler ------------------------------------------------------------------------------------------

PROBABILITIES = torch.tensor([0.05, 0.4, 0.3, 0.2, 0.05])
LOGITS        = PROBABILITIES.log()


def shares(draws=4000, tokens=(), logits=LOGITS, **options):
    """How often each token is drawn."""
    sampler = Sampler(seed=3, **options)
    counts  = torch.bincount(torch.tensor([sampler(logits, tokens) for _ in range(draws)]), minlength=len(logits))
    return counts/draws


def test_greedy():
    assert Sampler()(LOGITS) == 1
    assert Sampler()(torch.tensor([0.0, 2.0, 2.0])) == 1


@pytest.mark.parametrize("options, expected", [
    ({"temperature": 1.0},               [0.05, 0.4, 0.3, 0.2, 0.05]),
    ({"temperature": 0.5},               [0.0025/0.295, 0.16/0.295, 0.09/0.295, 0.04/0.295, 0.0025/0.295]),
    ({"temperature": 1.0, "top_k": 2},   [0, 4/7, 3/7, 0, 0]),
    ({"temperature": 1.0, "top_k": 9},   [0.05, 0.4, 0.3, 0.2, 0.05]),
    ({"temperature": 1.0, "top_p": 0.6}, [0, 4/7, 3/7, 0, 0]),
    ({"temperature": 1.0, "top_p": 0.1}, [0, 1, 0, 0, 0]),
])
def test_distribution(options, expected):
    assert torch.allclose(shares(**options), torch.tensor(expected, dtype=torch.float), atol=0.03)


def test_repetition_penalty():
    logits  = torch.tensor([2.0, 1.5, -1.0])
    penalty = Sampler(repetition_penalty=2.0)
    assert penalty(logits, [2]) == 0
    assert penalty(logits, [0, 0]) == 1
    assert logits.tolist() == [2.0, 1.5, -1.0]
    expected = torch.tensor([1.0, 1.5, -2.0]).softmax(0)
    assert torch.allclose(shares(tokens=[0, 2], logits=logits, temperature=1.0, repetition_penalty=2.0), expected, atol=0.03)


def test_seed():
    draw = lambda seed: [sampler(LOGITS) for sampler in [Sampler(1.0, seed=seed)] for _ in range(50)]
    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize("name, value", [("temperature", -1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0),
    ("top_p", 1.1), ("seed", -1), ("repetition_penalty", 0)])
def test_bad_options(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, is {value}"):
        Sampler(**{name: value})

# Stop Strings -------------------------------------------------------------------------------------

@given(strategies.lists(strategies.text("ab", max_size=3), max_size=12), strategies.lists(strategies.text("ab", min_size=1,
    max_size=4), max_size=3))
def test_stop_strings(pieces, strings):
    """In pieces, the text up to the first stop string comes out, no later than it is sure."""
    stop, passed, whole = StopStrings(strings), "", ""
    for piece in pieces:
        whole  += piece
        passed += stop(piece)
        if stop.found:
            break
        assert whole.startswith(passed)
        assert len(whole) - len(passed) < max(map(len, strings), default=1)
    places = [place for place in map(whole.find, strings) if place >= 0]
    assert stop.found == bool(places)
    assert passed + stop.flush() == whole[:min(places, default=len(whole))]


def test_empty_stop_string():
    with pytest.raises(ValueError, match="stop must be a text, is empty"):
        StopStrings([""])
