#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""model.trace: operations, ranges, page, and cases that other commands take."""

import json

import numpy as np
import pytest
import torch

from hypothesis import given, strategies

from host.device.case import load_case

from model import hex_files
from model.bitexact import ssm_block
from model.checkpoint import load_checkpoint
from model.decoder import Decoder, TorchBlocks
from model.ranges import EXPONENTS, Range, TracingBlocks, shapes, stages
from model.reference import Mamba2Config, mamba2_130m_layer
from model.trace import byte_rows, main

from operations.config import SSMConfig

torch.set_num_threads(1) # More only get in each other's way in models this small.

# Operations ---------------------------------------------------------------------------------------

def test_operations_of_the_130m_block():
    state = 24*64*128
    block = {stage.name: (stage.multiplies, stage.adds, stage.accumulations) for stage in stages(mamba2_130m_layer)}
    assert block == {"scale": (1536, 0, 0), "decay": (state, 0, 0), "state update": (state, state, 0),
        "reduction": (state, 0, state), "skip": (1536, 1536, 0)}
    assert shapes(mamba2_130m_layer)["state"] == ((24, 64, 128), 393216)
    rows = byte_rows(mamba2_130m_layer)[1]
    assert rows[-1][:3] == ["block", "", "793,232"] # 2*(3*24 + 2*128 + 2*24*64 + 2*24*64*128): the state is read and written.
    assert shapes(Mamba2Config(d_model=64, headdim=16, d_state=8, ngroups=4))["B"] == ((4, 8), 64)

# Ranges -------------------------------------------------------------------------------------------

@given(strategies.lists(strategies.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
def test_range_says_what_float16_makes_of_values(values):
    values = np.array(values)
    with np.errstate(over="ignore"):
        halves = abs(values.astype(np.float16))
    result = Range()
    for part in np.array_split(values, 2):
        result.add(part)
    assert result.overflows  == np.isinf(halves).sum()
    assert result.underflows == ((halves == 0) & (values != 0)).sum()
    assert result.zeros      == (values == 0).sum()
    assert result.subnormals == ((halves > 0) & (abs(values) < 2.0**-14)).sum()
    assert result.count      == len(values) and result.histogram.sum() == len(values) - result.zeros
    assert result.largest    == abs(values).max()
    assert ("overflow" in result.verdict) == bool(result.overflows)


def test_histogram():
    result = Range()
    result.add([1.0, -1.9, 2.0, 0.0, 2.0**-100])
    assert {exponent: count for exponent, count in zip(EXPONENTS, result.histogram) if count} == {-64: 1, 0: 2, 1: 1}


def test_tracing_blocks_compute_as_pytorch():
    network = load_checkpoint("tiny")
    traced, plain = (Decoder(network, blocks(network.config)) for blocks in (TracingBlocks, TorchBlocks))
    for decoder in (traced, plain):
        decoder.prefill(list(b"And it came to pass."))
        decoder.take([10])
    assert torch.equal(traced.logits, plain.logits)
    ranges = traced.blocks.ranges[1]
    assert ranges["state"].count == 21*5*64*32 and ranges["dt"].count == 21*5
    assert traced.blocks.inputs(1).x.shape == (21, 5, 64)

# Command ------------------------------------------------------------------------------------------

def test_command(tmp_path, capsys):
    assert main(["--prompt", "And he said", "--output", str(tmp_path/"out"), "--cases", str(tmp_path/"cases")]) == 0
    stdout = capsys.readouterr().out
    assert "tiny: 3 layers, 11 tokens" in stdout and "state update" in stdout
    page = (tmp_path/"out"/"trace.html").read_text()
    assert page.count("<svg") == 1 and page.count("<table>") == 3 and "state update" in page
    summary = json.loads((tmp_path/"out"/"trace.json").read_text())
    assert len(summary["ranges"]) == 3 and summary["ranges"][2]["state"]["overflows"] == 0

    for layer in range(3):
        case = load_case(tmp_path/"cases"/f"{layer}.npz", SSMConfig())
        assert (case.tokens, case.heads, case.headdim, case.d_state) == (11, 5, 64, 32)
        _, h = ssm_block(case.x[:10], case.dt[:10], case.dA[:10], case.B[:10], case.C[:10], case.D)
        read = lambda name, shape, sizes: hex_files.read_hex(tmp_path/"cases"/f"{layer}_{name}.hex", shape, sizes)
        assert np.array_equal(read("ssm_state", (5, 64, 32), "HPN"), h)
        assert np.array_equal(read("x", (5, 64), "HP"), case.x[10])


@pytest.mark.parametrize("arguments, message", [
    (["--tokens", "1,256"],                      "token must be a number from 0 to 255, is 256"),
    (["--prompt", ""],                           "tokens must have shape (T,) with T >= 1, have (0,)"),
    (["--model", "/none"],                       "is /none, which is no folder"),
    (["--prompt", "a", "--output", "/proc/out"], "/proc/out: cannot be made"),
])
def test_bad_options(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
