#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""bench/recall.py: its way around the SSM block is the exact model's, and the model of model/recall/ recalls."""

import json

import numpy as np
import pytest
import torch

from bench import recall
from bench.baselines import FLOAT32_STATE, NEAREST, STOCHASTIC, Run

from model.bitexact import ssm_block
from model.checkpoint import load_checkpoint
from model.config import Mamba2Config, NetworkConfig
from model.exact.network import ExactNetwork
from model.network import Mamba2Network
from model.quantized import from_network, quantize_model
from model.train_recall import NETWORK, RECALL, draw

from operations.config import SEED_STRIDE

torch.set_num_threads(1) # More only get in each other's way in models this small.

# Helpers ------------------------------------------------------------------------------------------

def random_model(n_layer=1):
    torch.manual_seed(5)
    layer = Mamba2Config(d_model=32, d_state=16, headdim=16, expand=1)
    return quantize_model(from_network(Mamba2Network(NetworkConfig(vocab_size=256, n_layer=n_layer, layer=layer))), "q8_0")


def made_up(right, sequences=8):
    """Results of which a share of the answers is right, the same in each sequence: {arithmetic: right of each distance}."""
    def one(shares):
        answers = np.stack([np.arange(100) < 100*share for share in shares])
        answers = np.broadcast_to(answers, (1, sequences, *answers.shape))
        zeros   = np.zeros(answers.shape[:3])
        return recall.Recall(answers, answers.astype(float), zeros, zeros)

    return {name: one(shares) for name, shares in right.items()}

# Measurement --------------------------------------------------------------------------------------

def test_measurement_is_the_exact_model(monkeypatch):
    """Questions one by one, through the whole exact model, have the same margins: all its bits are the same."""
    monkeypatch.setattr(recall, "CHUNK", 7)
    model     = random_model()
    distances = (5, 21)
    result    = recall.measure_recall(model, sequences=3, pairs=2, distances=distances, seeds=(9, 10), together=2)
    keys, values, tokens, _ = draw(np.random.default_rng(recall.SEED), 3, 2, distances[-1])
    heads     = model.config.layer.heads
    runs      = [(NEAREST.name, 0, None), (STOCHASTIC.name, 0, 9), (STOCHASTIC.name, 1, 10)]
    for name, run, seed in runs:
        for s in range(3):
            network = ExactNetwork(model, seed=None if seed is None else seed + s*heads*SEED_STRIDE)
            for d, distance in enumerate(distances):
                for i in range(2):
                    text          = [*tokens[s, :6 + distance], keys[s, i]]
                    right, margin = recall.judge(network(text, last_only=True)[0], values[s, i:i + 1])
                    assert result[name].margin[run, s, d, i] == margin[0]
                    assert result[name].right[run, s, d, i] == right[0]
    for name in (FLOAT32_STATE.name, recall.FINE):
        assert abs(result[name].margin - result[recall.FLOAT32].margin).max() < 0.05
    assert 0 < result[NEAREST.name].error.max() < 0.01 and not result[FLOAT32_STATE.name].error.any()


def test_binary32_differs_by_the_rounding_of_the_state_alone():
    """Where binary16 holds each state, all is the same."""
    rng   = np.random.default_rng(3)
    small = lambda *shape: rng.integers(-2, 3, shape)
    case  = {"x": small(12, 4, 8), "dt": rng.integers(0, 3, (12, 4)), "dA": rng.integers(0, 2, (12, 4)), "B": small(12, 2, 16),
        "C": small(12, 2, 16), "D": small(4)}
    case  = {name: array.astype(np.float16) for name, array in case.items()}
    run   = Run(FLOAT32_STATE, case)
    y, h  = ssm_block(**case)
    assert np.array_equal(run.all_y(), y) and np.array_equal(run.h, h) and abs(h).max() > 4
    assert run.h.dtype == np.float32


def test_judge():
    right, margin = recall.judge(np.array([[1, 3, 2], [5, 0, 1]], np.float32), np.array([1, 2]))
    assert right.tolist() == [True, False] and margin.tolist() == [1, -4]


def test_one_layer():
    with pytest.raises(ValueError, match="n_layer must be 1, is 2."):
        recall.Texts(ExactNetwork(random_model(2)), 1)

@pytest.mark.parametrize("near, stochastically, said", [
    ((1, 0.9),   (1, 0.9),   "Rounding to nearest, the smaller build, is enough"),
    ((1, 0.5),   (1, 0.9),   "Stochastic rounding, for texts as long as these: rounding to nearest has fewer right answers than "
        "binary32 over 2,000 tokens"),
    ((1, 0.5),   (0.8, 0.8), "fewer right answers with stochastic rounding over 1,000, 2,000 tokens, with rounding to nearest over "
        "2,000"),
], ids=["neither", "nearest", "both"])
def test_answer(near, stochastically, said):
    result = made_up({FLOAT32_STATE.name: (1, 0.9), NEAREST.name: near, STOCHASTIC.name: stochastically})
    text   = recall.answer(result, (1000, 2000))[0]
    assert said in text and ("The margin" in text) == (near != (1, 0.9))


def test_change():
    result = made_up({FLOAT32_STATE.name: (1, 0.9), NEAREST.name: (1, 0.8)})
    for kind, wanted in (("accuracy", (0, -10)), ("other", (0, 10)), ("margin", (0, -0.1)), ("size", (0, 0))):
        means, error = recall.change(result, NEAREST.name, kind)
        assert means == pytest.approx(wanted) and error == pytest.approx([0, 0])

# Model --------------------------------------------------------------------------------------------

def test_weights():
    assert (RECALL/"model.safetensors").stat().st_size < 1_000_000
    assert load_checkpoint(RECALL).config == NETWORK


def test_float32_recalls():
    """Over a short distance; bench/recall.py goes far."""
    keys, values, tokens, _ = draw(np.random.default_rng(1), 16, recall.PAIRS, 1024)
    right, margin = recall.measure_float32(load_checkpoint(RECALL), keys, values, tokens, (256, 1024))
    assert right.shape == (16, 2, recall.PAIRS)
    assert right.mean() > 0.95 and margin.mean() > 3


def test_bench(tmp_path):
    entries = recall.bench(tmp_path, sequences=2, distances=(32, 64), seeds=(1,))
    assert json.loads((tmp_path/"recall.json").read_text()) == entries
    values  = {entry["name"]: entry["value"] for entry in entries}
    for key in ("fp32", "rne", "sr", "float32"):
        assert values[f"recall_{key}_64"] > 90
    assert 0 < values["recall_rne_error"] < 2 and 0 < values["recall_sr_error"] < 2
    assert {entry["command"] for entry in entries} == {"python bench/recall.py"}
    assert (tmp_path/"recall.html").read_text().count("<svg") == 2
