#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The training script of the model that recalls: its task is what it says, and a seed gives the same weights again."""

import numpy as np
import torch

from model import train_recall
from model.train_recall import KEYS, MARK, NOTHING, VALUES, draw

torch.set_num_threads(1) # So that the same seed gives the same weights.

# Tests --------------------------------------------------------------------------------------------

def test_task():
    keys, values, tokens, wanted = draw(np.random.default_rng(2), 3, 5, 400)
    assert tokens.shape == wanted.shape == (3, 415)
    for row in range(3):
        told = dict(zip(keys[row].tolist(), values[row].tolist()))
        assert len(told) == 5 and set(told) <= set(KEYS) and set(told.values()) <= set(VALUES)
        assert tokens[row, :15].tolist() == [token for key, value in told.items() for token in (MARK, key, value)]
        assert MARK not in tokens[row, 15:]
        assert wanted[row].tolist() == [NOTHING]*15 + [told.get(token, NOTHING) for token in tokens[row, 15:].tolist()]
        assert (wanted[row] != NOTHING).any()
    again = draw(np.random.default_rng(2), 3, 5, 400)
    assert all(np.array_equal(one, other) for one, other in zip(again, (keys, values, tokens, wanted)))


def test_training():
    phases = ((8, 48, 15, 8), (8, 64, 10, 4))
    taken  = []
    train  = lambda: train_recall.train(phases, lambda *step: taken.append(step)).state_dict()
    first, second = train(), train()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [tokens for tokens, _, _ in taken[:25]] == [384]*15 + [256]*10 and taken[:25] == taken[25:]
    assert taken[24][1] < taken[0][1]
