#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Scores of tokens: the log softmax of the exact model's logits, from wherever the session begins."""

import numpy as np
import pytest

from connection import Connection, loaded
from models import random_model

from host.device.scores import LogitsError, Score, Scorer, token_scores

from model.exact.network import ExactNetwork

# Tests --------------------------------------------------------------------------------------------

def test_token_scores():
    """Also of logits whose exponentials overflow; of equal ones the lower number is first."""
    found = token_scores(np.array([[1e4, 0, 1e4, -3e38]], np.float32), [1], 2)
    assert found == [Score(1, -1e4 - np.log(2), ((0, -np.log(2)), (2, -np.log(2))))]
    assert token_scores(np.zeros((1, 4), np.float32), [3], 0) == [Score(3, -np.log(4), ())]


@pytest.mark.parametrize("first", [0, 1, 7, 9])
def test_scorer(tmp_path, first):
    """A job at a time, of few tokens here."""
    model  = random_model()
    tokens = np.random.default_rng(first).integers(0, 70, 9).tolist()
    with Connection(tmp_path, patience=60) as device:
        there = loaded(device, model)
        there.chunk, there.logit_chunk = 3, 4
        scorer, found, jobs = Scorer(there, tokens, first, 3, there.slots[0]), [], 0
        while not scorer.ended:
            found += [item for item in scorer.step() if isinstance(item, Score)]
            jobs  += 1
        assert jobs == {0: 2, 1: 2, 7: 3, 9: 1}[first]
        wanted = token_scores(ExactNetwork(model)(tokens[:-1])[0], tokens[1:], 3)
        assert found == ([Score(tokens[0])] + wanted)[first:]


def test_not_finite(tmp_path, monkeypatch):
    with Connection(tmp_path) as device:
        there = loaded(device, random_model())
        monkeypatch.setattr(there, "read_logits", lambda count: np.full((count, 70), np.inf, np.float32))
        with pytest.raises(LogitsError, match="^the logits of token 0 must be finite, are not.$"):
            list(Scorer(there, [1, 2], 0, 0, there.slots[0]).step())
