#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""bench/accuracy.py: the arithmetics it compares, and all of it on a small layer."""

import json
import re

import numpy as np
import pytest
import torch

from cases import assert_same_bits, random_case

from bench import accuracy, baselines, drift

from model.bitexact import ssm_block
from model.case import realistic_case
from model.reference import Mamba2Config
from model.ssm import ssm_recurrence

# Constants ----------------------------------------------------------------------------------------

LAYER = Mamba2Config(d_model=32, headdim=8, ngroups=2) # 8 heads.
NAMES = {"y_mean_err_ratio", "y_max_err_ratio", "y_max_err_torch16", "y_mean_err_torch16", "drift_rne_ratio",
    "drift_sr_ratio", "pipelining_gain"}
KEYS  = {"name", "value", "unit", "bound", "ratio", "config", "command"}

# Arithmetics --------------------------------------------------------------------------------------

@pytest.fixture
def case():
    return random_case(np.random.default_rng(9), tokens=3, heads=4, headdim=5, d_state=20, groups=2)


@pytest.mark.parametrize("arithmetic", [baselines.EXACT, baselines.TORCH_FLOAT16], ids=["float64", "float16"])
def test_as_written_is_the_recurrence(case, arithmetic):
    run   = baselines.Run(arithmetic, case)
    dtype = torch.from_numpy(run.h).dtype
    y, h = ssm_recurrence(**case, dtype=dtype)
    assert np.array_equal(run.all_y(), y.numpy())
    assert np.array_equal(run.h, h.numpy())


def test_nearest_is_the_core(case):
    run  = baselines.Run(baselines.NEAREST, case)
    y, h = ssm_block(**case)
    assert_same_bits(run.all_y(), y)
    assert_same_bits(run.h, h)


def test_per_operation_rounds_each_time(case):
    """Against the same with every operation spelt out, one value at a time."""
    half = np.float16
    run  = baselines.Run(baselines.PER_OPERATION, case)
    run.step()
    y = run.y()
    for head, row in ((0, 0), (3, 4)):
        x, dt, dA, D = case["x"][0, head, row], case["dt"][0, head], case["dA"][0, head], case["D"][head]
        B, C  = (case[name][0, head//2] for name in "BC")
        terms = []
        for n in range(20):
            h = half(half(dA*case["h0"][head, row, n]) + half(half(dt*x)*B[n]))
            assert run.h[head, row, n] == h
            terms.append(half(h*C[n]))
        while len(terms) > 1:
            terms = [half(sum(terms[n:n + 2], half(0))) for n in range(0, len(terms), 2)]
        assert y[head, row] == half(terms[0] + half(D*x))


def test_state_in_float32(case):
    run = baselines.Run(baselines.FLOAT32_STATE, case)
    y   = run.all_y()
    assert (run.h.dtype, y.dtype) == (np.float32, np.float16)
    assert np.allclose(run.h, ssm_recurrence(**case)[1].numpy(), rtol=1e-5, atol=1e-5)


def test_stochastic_is_unbiased():
    """Without input, the mean of many states keeps to the exact decay; to nearest they all fade too fast."""
    decay  = drift.measure_decay(tokens=500)
    exact  = decay[baselines.EXACT.name][-1]
    assert abs(decay[baselines.STOCHASTIC.name][-1]/exact - 1) < 1e-3
    assert decay[baselines.NEAREST.name][-1]/exact - 1 < -0.05


def test_drift_case():
    """A third of the heads as drawn, the others slower."""
    case, drawn = drift.drift_case(8), realistic_case(drift.LAYER, 8, drift.SEED)
    third = drift.LAYER.heads//3
    assert_same_bits(case["dA"][:, :third], drawn["dA"][:, :third])
    assert (case["dA"][:, third:] >= drawn["dA"][:, third:]).all() and (case["dA"] <= 1).all()

# Command ------------------------------------------------------------------------------------------

def test_bench(tmp_path):
    area = [dict.fromkeys(KEYS, "") | {"name": "lut_per_lane", "value": 325, "bound": 650, "ratio": 0.5}]
    (tmp_path/"area.json").write_text(json.dumps(area))
    accuracy.bench(tmp_path, LAYER, tokens=2, seeds=range(1, 3), drift_tokens=256, decay_tokens=64, lanes=4)
    entries = json.loads((tmp_path/"accuracy.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert all(set(entry) == KEYS for entry in entries)
    values  = {entry["name"]: entry["value"] for entry in entries}
    assert len(values) == len(entries) and NAMES | {"lut_per_lane"} <= set(values)
    assert 0 < values["y_mean_err_ratio_floor"] <= values["y_mean_err_ratio"] < 1
    assert 0 < values["drift_rne_ratio"] <= 1
    assert values["pipelining_gain"] < -62
    page = (tmp_path/"accuracy.html").read_text()
    assert all(name in page for name in values)
    assert page.count("<svg") == page.count("</svg>") == 5
    assert not re.search(r"<(link|script|img)|url\((?!#)|@import", page) # Nothing is loaded from elsewhere.
