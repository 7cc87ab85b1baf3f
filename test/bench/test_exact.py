#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""bench/exact.py: its figures on small models, and that they would notice."""

import numpy as np
import pytest

from bench import exact as bench

from model.config import Mamba2Config, NetworkConfig
from model.exact import functions

# Tests --------------------------------------------------------------------------------------------

def test_files(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "FORMULAS", {"silu": bench.FORMULAS["silu"]})
    small   = NetworkConfig(vocab_size=64, n_layer=1, layer=Mamba2Config(d_model=64, d_state=16, headdim=32))
    entries = bench.bench(tmp_path, tokens=128, config=small, count=4)
    values  = {entry["name"]: entry["value"] for entry in entries}
    assert set(values) == {"exact_q8_ppl", "exact_q4_ppl", "exact_logit_error", "exact_logit_differs", "function_max_ulp",
        "function_not_correctly_rounded"}
    assert 0 < values["exact_q8_ppl"] < 0.05 and 0 < values["exact_logit_error"] < 0.006
    assert 0.49 < values["function_max_ulp"] <= 0.5 and values["function_not_correctly_rounded"] == 0
    assert "Q4_0, head in Q8_0" in (tmp_path/"exact.html").read_text()


def test_loss():
    """Of a model that gives each next byte a probability of its own."""
    text = np.array([0, 1, 2, 3]*40)
    def run(tokens, states, first):
        assert first == (states or 0)
        logits = np.zeros((len(tokens), 4), np.float32)
        logits[np.arange(len(tokens)), (tokens + 1) % 4] = np.log(3)
        return logits, first + len(tokens)
    assert bench.loss_of(run, text, "test") == pytest.approx(np.log(2))


def test_a_wrong_bit_is_counted(monkeypatch):
    table = functions.table("exp").copy()
    table.view(np.uint16)[0x3c00] += 1
    monkeypatch.setattr(bench.functions, "table", lambda name: table)
    inputs, errors, wrong = bench.measure_function("exp")
    assert wrong == 1 and 0.5 < abs(errors).max() < 1.5 and inputs[abs(errors).argmax()] == 1
