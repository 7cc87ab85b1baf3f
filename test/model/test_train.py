#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The training script: it learns, a seed gives the same weights again, and what it writes is a checkpoint."""

import shutil

import pytest
import torch

from model import train
from model.checkpoint import TINY, load_checkpoint
from model.network import NetworkConfig
from model.reference import Mamba2Config

torch.set_num_threads(1) # So that the same seed gives the same weights.

# Tests --------------------------------------------------------------------------------------------

@pytest.fixture
def small(monkeypatch):
    """A network and steps small enough to train in a test."""
    monkeypatch.setattr(train, "NETWORK", NetworkConfig(vocab_size=256, n_layer=2, layer=Mamba2Config(d_model=32, d_state=8,
        headdim=16, chunk_size=16)))
    monkeypatch.setattr(train, "LENGTH", 32)
    monkeypatch.setattr(train, "WARMUP", 5)


def test_training(small, tmp_path):
    text    = b"All work and no play makes Jack a dull boy. "*50
    losses  = []
    network = train.train(text, 40, lambda step, loss: losses.append(loss))
    assert len(losses) == 40 and losses[-1] < 0.5*losses[0]
    again   = train.train(text, 40)
    assert all(torch.equal(one, other) for one, other in zip(network.state_dict().values(), again.state_dict().values()))

    train.save(network, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == train.NETWORK
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float())


def test_tiny_is_what_the_script_trains():
    assert load_checkpoint("tiny").config == train.NETWORK


@pytest.mark.skipif(shutil.which("bible") is None, reason="the Debian package bible-kjv is not installed")
def test_text():
    text, held_out = train.read_text()
    assert len(text) > 4_000_000 and text.startswith(b"In the beginning God created the heaven and the earth.\n")
    assert held_out == (TINY/"heldout.txt").read_bytes()
    assert held_out.splitlines()[0] not in text
