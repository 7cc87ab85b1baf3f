#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""bench/quality.py, and the tiny model itself."""

import json
import re

import numpy as np
import pytest
import torch

from bench import quality

from model.checkpoint import TINY, load_checkpoint
from model.exact.decoder import CHUNK

torch.set_num_threads(1) # More only get in each other's way in models this small.

# Tests --------------------------------------------------------------------------------------------

def test_ngram_entropy():
    assert quality.ngram_entropy(b"abab"*100, 1) == pytest.approx(np.log(2))
    assert quality.ngram_entropy(b"abab"*100, 2) == pytest.approx(0, abs=1e-9)
    assert quality.ngram_entropy(b"aab"*1000, 2) == pytest.approx(2/3*np.log(2), rel=1e-2)


def test_tiny_fits_the_repository():
    assert (TINY/"model.safetensors").stat().st_size < 2_000_000
    assert len((TINY/"heldout.txt").read_bytes()) > quality.TOKENS


def test_bench(tmp_path):
    """The model beats the best trigrams there can be, and the core's arithmetic does not harm it."""
    entries = {entry["name"]: entry for entry in quality.bench(tmp_path, tokens=2*CHUNK)}
    assert json.loads((tmp_path/"quality.json").read_text()) == list(entries.values())
    assert {entry["command"] for entry in entries.values()} == {"python bench/quality.py"}
    assert entries["tiny_loss"]["ratio"] < 1
    for name in ("float16", "rne", "sr"):
        assert entries[f"tiny_perplexity_{name}_change"]["value"] < 0.5
        assert entries[f"tiny_top1_{name}"]["value"] > 95
        assert 0 < entries[f"tiny_kl_{name}"]["value"] < 1e-4
        assert 0 < entries[f"tiny_drift_{name}"]["value"] < 0.01
    assert (tmp_path/"quality.html").read_text().count("<svg") == 2


def test_text_is_language():
    """Most words that the model writes greedily are words of the held-out text."""
    network        = load_checkpoint("tiny")
    known          = set(re.findall(rb"[a-z]+", (TINY/"heldout.txt").read_bytes().lower()))
    logits, states = network.prefill(list(b"And the king said unto "))
    text           = b""
    for _ in range(200):
        token          = logits.reshape(-1, 256)[-1].argmax().item()
        text          += bytes([token])
        logits, states = network.step(token, states)
    words = re.findall(rb"[a-z]+", text.lower())[:-1]
    assert len(words) > 25
    assert sum(word in known for word in words) > 0.8*len(words)
