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
    texts   = ([*tokens]*n if tokens else range(n) for n in range(1, draws + 1)) # A draw depends on the place.
    counts  = torch.bincount(torch.tensor([sampler(logits, text) for text in texts]), minlength=len(logits))
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
    draw = lambda seed, places: [Sampler(1.0, seed=seed)(LOGITS, range(place)) for place in places]
    assert draw(1, range(50)) == draw(1, range(50)) != draw(2, range(50))
    assert draw(1, range(50))[20:] == draw(1, range(20, 50)) # In a text that goes on.


@pytest.mark.parametrize("temperature", [1e-320, 1e-30])
def test_low_temperatures(temperature):
    assert {Sampler(temperature)(LOGITS*1e30, range(place)) for place in range(20)} == {1}


@pytest.mark.parametrize("top_p, expected", [(0.25, {0}), (0.5, {0, 1}), (0.51, {0, 1, 2}), (1.0, {0, 1, 2, 3})])
def test_ties_of_top_p(top_p, expected):
    """Of equally likely tokens the first ones are kept, as few as have the probability."""
    sampler = Sampler(1.0, top_p=top_p)
    assert {sampler(torch.zeros(4), range(place)) for place in range(100)} == expected


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


def test_the_first_stop_in_the_text():
    """Not the first in the list; of two at one place, the text before is the same."""
    stop = StopStrings(["cd", "bc", "b"])
    assert (stop("abcd"), stop.found, stop.flush()) == ("a", True, "")


def test_empty_stop_string():
    with pytest.raises(ValueError, match="stop must be a text, is empty"):
        StopStrings([""])
