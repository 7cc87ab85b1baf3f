#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The whole exact model: independent of how tokens are grouped, near float64 on the same weights, and without PyTorch."""

import subprocess
import sys

from dataclasses import replace

import numpy as np
import pytest

from model.checkpoint import load_checkpoint, to_network
from model.config import Mamba2Config, NetworkConfig
from model.exact.network import ExactNetwork, binary16
from model.network import Mamba2Network
from model.quantized import from_network, quantize_model

import torch

# Helpers ------------------------------------------------------------------------------------------

TEXT = np.frombuffer(b"In the beginning God created the heaven and the earth.", np.uint8).astype(np.int64)


@pytest.fixture(scope="module", params=["q8_0", "q4_0"])
def model(request):
    return quantize_model(from_network(load_checkpoint("tiny")), request.param)


def same(a, b):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes()

# Model --------------------------------------------------------------------------------------------

def test_near_float64(model):
    got    = ExactNetwork(model)(TEXT)[0]
    wanted = to_network(model).double().prefill(TEXT)[0].numpy()
    assert np.sqrt(np.square(got - wanted).mean()/np.square(wanted).mean()) < 0.0005
    assert (got.argmax(-1) == wanted.argmax(-1)).all()


@pytest.mark.parametrize("pieces", [[1]*8, [3, 5], [8]])
@pytest.mark.parametrize("seed", [None, 7])
def test_independent_of_grouping(model, pieces, seed):
    network       = ExactNetwork(model, seed=seed)
    logits, after = network(TEXT[:8])
    states, rows, first = None, [], 0
    for size in pieces:
        part, states = network(TEXT[first:first + size], states, first)
        rows.append(part)
        first += size
    same(np.concatenate(rows), logits)
    for a, b in zip(states, after):
        same(a.h, b.h)
        same(a.window, b.window)
    same(network(TEXT[:8], last_only=True)[0], logits[-1:])


def test_states_are_left_as_they_are(model):
    network   = ExactNetwork(model)
    states    = network(TEXT[:4])[1]
    before    = [(state.h.tobytes(), state.window.tobytes()) for state in states]
    first     = network(TEXT[4:6], states)[0]
    assert [(state.h.tobytes(), state.window.tobytes()) for state in states] == before
    same(network(TEXT[4:6], states)[0], first)


def test_groups_of_heads():
    """Two groups: B, C and the gated norm are of each."""
    torch.manual_seed(3)
    layer   = Mamba2Config(d_model=64, d_state=16, headdim=16, ngroups=2)
    network = Mamba2Network(NetworkConfig(vocab_size=50, n_layer=2, layer=layer)).requires_grad_(False)
    model   = quantize_model(from_network(network), "q8_0")
    got     = ExactNetwork(model)(np.arange(20))[0]
    wanted  = to_network(model).double().prefill(torch.arange(20))[0].numpy()
    assert np.sqrt(np.square(got - wanted).mean()/np.square(wanted).mean()) < 0.005


def test_fewer_bits_are_farther(model):
    wanted = to_network(model).double().prefill(TEXT)[0].numpy()
    errors = [np.square(ExactNetwork(model, bits)(TEXT)[0] - wanted).mean() for bits in (8, 10, 14)]
    assert errors[0] > 4*errors[1] > 16*errors[2]

# Limits -------------------------------------------------------------------------------------------

def test_refused(model):
    with pytest.raises(ValueError, match="bits must be an integer from 8 to 14, is 15"):
        ExactNetwork(model, 15)
    wrong = replace(model, layers=(replace(model.layers[0], D=np.full(5, 1e6, np.float32)), *model.layers[1:]))
    with pytest.raises(ValueError, match=r"layer 0\.D must be finite in binary16, one is 1e\+06"):
        ExactNetwork(wrong)
    config = replace(model.config, layer=replace(model.config.layer, d_model=80, headdim=32))
    with pytest.raises(ValueError, match="d_model must be a multiple of 32, is 80"):
        ExactNetwork(replace(model, config=config))
    assert binary16("x", [65519.0])[0] == 65504


def test_not_finite():
    """An infinity on its way makes NaN of the logits, and no exception."""
    model  = quantize_model(from_network(load_checkpoint("tiny")), "q8_0")
    layers = (replace(model.layers[0], norm=np.full(160, 60000, np.float32)), *model.layers[1:])
    logits = ExactNetwork(replace(model, layers=layers))(TEXT[:3])[0]
    assert (logits.view(np.uint32) == 0x7fc00000).all()


def test_without_torch():
    code = ("import sys; sys.modules['torch'] = None\n"
        "from model.exact import network, head\nfrom model import quantized, gguf\n")
    subprocess.run([sys.executable, "-c", code], check=True)
