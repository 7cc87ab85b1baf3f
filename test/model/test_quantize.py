#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Q8_0 and Q4_0 against the package gguf and against the rule, and python -m model.quantize."""

import os
import subprocess
import sys

import numpy as np
import pytest

from checkpoints import make_transformers
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from hypothesis import example, given, settings, strategies
from hypothesis.extra.numpy import array_shapes, arrays

from model.checkpoint import load_checkpoint
from model.checkpoint_config import CheckpointError
from model.gguf import read_gguf
from model.quantize import main
from model.quantized import QuantizedMatrix, quantize_checkpoint, quantize_matrix, unpack

from operations.numerics import GROUP

from tools.paths import ROOT

# Constants ----------------------------------------------------------------------------------------

TYPES    = {"q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0}
SIZES    = dict(hidden_size=64, num_heads=16) # Rows of whole groups; otherwise the small checkpoint.
WEIGHTS  = strategies.one_of(strategies.floats(-4, 4, width=32), strategies.floats(-2.0**18, 2.0**18, width=32),
    strategies.sampled_from([0.0, -0.0, 1e-7, -2e-8, 3e-6])).filter(lambda weight: weight == 0 or abs(weight) > 2.0**-118)
MATRICES = array_shapes(min_dims=2, max_dims=2, max_side=3).flatmap(
    lambda shape: arrays(np.float32, (shape[0], shape[1]*GROUP), elements=WEIGHTS))

# Rule ---------------------------------------------------------------------------------------------

def rule(group, kind):
    """(integers, scale) of 32 weights, one by one in float32."""
    one = np.float32(1)
    if kind == "q8_0":
        scale   = np.float32(abs(group).max())/np.float32(127)
        inverse = one/scale if scale else np.float32(0)
        scaled  = [weight*inverse for weight in group]
        return [int(np.sign(value)*np.floor(abs(value) + np.float64(0.5))) for value in map(np.float64, scaled)], np.float16(scale)
    largest = group[abs(group).argmax()] # The first one; its sign makes it -8.
    scale   = largest/np.float32(-8)
    inverse = one/scale if scale else np.float32(0)
    return [min(15, int(weight*inverse + np.float32(8.5))) - 8 for weight in group], np.float16(scale)


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=200, derandomize=True, deadline=None)
@given(weights=MATRICES)
@example(weights=np.zeros((1, GROUP), np.float32))
@example(weights=np.linspace(-127, 127, 2*GROUP, dtype=np.float32).reshape(1, -1)) # Halves are rounded away from zero.
def test_the_rule(kind, weights):
    matrix = quantize_matrix(weights, kind)
    assert matrix.integers.dtype == np.int8 and matrix.scales.dtype == np.float16
    assert matrix.integers.shape == weights.shape and matrix.scales.shape == (len(weights), weights.shape[1]//GROUP)
    stored = quantize(weights, TYPES[kind])
    assert np.array_equal(matrix.pack(), stored)
    assert np.array_equal(matrix.dequantize().view(np.uint32), dequantize(stored, TYPES[kind]).view(np.uint32))
    for row, integers, scales in zip(weights, matrix.integers, matrix.scales):
        for group, actual, scale in zip(row.reshape(-1, GROUP), integers.reshape(-1, GROUP), scales):
            expected, expected_scale = rule(group, kind)
            assert actual.tolist() == expected and scale.tobytes() == expected_scale.tobytes()


@pytest.mark.parametrize("kind, size", [("q8_0", 34), ("q4_0", 18)])
@settings(max_examples=50, derandomize=True, deadline=None)
@given(seed=strategies.integers(0, 2**32 - 1))
def test_any_bytes_are_unpacked_and_packed(kind, size, seed):
    stored = np.random.default_rng(seed).integers(0, 256, (3, 2*size), np.uint8)
    matrix = unpack(stored, kind)
    assert np.array_equal(matrix.pack(), stored)
    low, high = (-128, 127) if kind == "q8_0" else (-8, 7)
    assert low <= matrix.integers.min() and matrix.integers.max() <= high


@pytest.mark.parametrize("kind", TYPES)
def test_weights_at_the_ends(kind):
    assert not quantize_matrix(np.full((1, GROUP), 1e-42, np.float32), kind).dequantize().any()
    with pytest.raises(ValueError, match=f"weights must fit {kind}, its scales binary16, holds 1e\\+08"):
        quantize_matrix(np.full((1, GROUP), 1e8, np.float32), kind)
    with pytest.raises(ValueError, match="a must have rows of a multiple of 32 elements to be quantised, has 33"):
        quantize_matrix(np.zeros((2, 33), np.float32), kind, "a")

# Checkpoints --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a small checkpoint, untied."""
    directory = tmp_path_factory.mktemp("checkpoint")
    make_transformers(directory, **SIZES)
    return directory


def check_equal(actual, expected):
    """That two matrices have the same bits."""
    assert isinstance(actual, QuantizedMatrix) and actual.type == expected.type
    assert np.array_equal(actual.integers, expected.integers)
    assert np.array_equal(actual.scales.view(np.uint16), expected.scales.view(np.uint16))


@pytest.mark.parametrize("kind, head", [("q8_0", None), ("q4_0", None), ("q4_0", "q8_0"), ("q8_0", "q4_0")])
def test_a_folder(checkpoint, kind, head):
    model, network = quantize_checkpoint(checkpoint, kind, head), load_checkpoint(checkpoint)
    config         = network.config
    assert (model.d_model, model.n_layer, model.vocab_size, model.d_state, model.headdim, model.ngroups, model.d_inner, model.nheads,
        model.d_conv, model.norm_eps) == (64, 3, 96, 16, 8, 2, 128, 16, 4, 1e-5)
    assert model.dt_limit == config.layer.dt_limit and model.stop_tokens == config.stop_tokens and not model.tied
    check_equal(model.embedding, quantize_matrix(network.embedding.weight.numpy(), kind))
    check_equal(model.head,      quantize_matrix(network.lm_head.weight.numpy(), head or kind))
    for layer, expected in zip(model.layers, network.layers, strict=True):
        mixer = expected.mixer
        check_equal(layer.in_proj,  quantize_matrix(mixer.in_proj.weight.numpy(), kind))
        check_equal(layer.out_proj, quantize_matrix(mixer.out_proj.weight.numpy(), kind))
        for vector, tensor in ((layer.norm, expected.norm.weight), (layer.conv_bias, mixer.conv1d.bias), (layer.D, mixer.D),
                (layer.dt_bias, mixer.dt_bias), (layer.ssm_norm, mixer.norm.weight)):
            assert np.array_equal(vector, tensor.numpy()) and vector.dtype == np.float32
        assert np.array_equal(layer.conv_weight, mixer.conv1d.weight[:, 0].numpy())
        np.testing.assert_array_max_ulp(layer.A, mixer.A.numpy(), 2)


def test_a_tied_head_gets_its_type():
    model = quantize_checkpoint("tiny", "q4_0", "q8_0")
    assert model.tied and model.embedding.type == "q8_0" and model.layers[0].in_proj.type == "q4_0"

# Command ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", TYPES)
def test_integers_are_kept(checkpoint, tmp_path, kind):
    """A file of a file is the same, and only matrices of another type change."""
    paths = [str(tmp_path/f"{name}.gguf") for name in ("first", "again", "other")]
    assert main(["--model", str(checkpoint), "--type", kind, "--output", paths[0]]) == 0
    assert main(["--model", paths[0], "--type", kind, "--output", paths[1]]) == 0
    assert open(paths[0], "rb").read() == open(paths[1], "rb").read()
    other = "q4_0" if kind == "q8_0" else "q8_0"
    assert main(["--model", paths[0], "--type", kind, "--head-type", other, "--output", paths[2]]) == 0
    first, changed = read_gguf(paths[0]), read_gguf(paths[2])
    check_equal(changed.layers[2].in_proj, first.layers[2].in_proj)
    check_equal(changed.head, quantize_matrix(first.head.dequantize(), other))


def test_sizes_and_biases_that_cannot_be_quantised(checkpoint, tmp_path, capsys):
    for fields, message in (
            ({},                           "must have rows of a multiple of 32 elements to be quantised, has 48"),
            (SIZES | {"use_bias": True},   "in_proj and out_proj must be without biases in a GGUF file of mamba2, have them")):
        make_transformers(tmp_path/"model", **fields)
        capsys.readouterr() # transformers shows progress.
        assert main(["--model", str(tmp_path/"model"), "--type", "q8_0", "--output", str(tmp_path/"a.gguf")]) == 2
        error = capsys.readouterr().err
        assert message in error and str(tmp_path) in error and error.count("\n") == 1
        assert not (tmp_path/"a.gguf").exists()
    with pytest.raises(CheckpointError, match="is /none, which is no folder"):
        quantize_checkpoint("/none", "q8_0")


def test_the_command_as_it_is_typed(tmp_path):
    """Its progress is not shown in a pipe; its errors are one line and leave what is there."""
    output = tmp_path/"tiny.gguf"
    run    = lambda *options: subprocess.run([sys.executable, "-m", "model.quantize", *options], cwd=ROOT, capture_output=True,
        text=True)
    done = run("--model", "tiny", "--type", "q4_0", "--head-type", "q8_0", "--output", str(output))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (f"{output}: embedding q8_0, layers q4_0, head tied; {output.stat().st_size:,} bytes\n")
    assert os.listdir(tmp_path) == ["tiny.gguf"]
    for options, message in (
            (("--model", "tiny", "--output", str(output)),                             "required: --type"),
            (("--model", "tiny", "--type", "q5_0", "--output", str(output)),           "invalid choice: 'q5_0'"),
            (("--model", "/none", "--type", "q8_0", "--output", str(output)),          "is /none, which is no folder"),
            (("--model", "tiny", "--type", "q8_0", "--output", "/none/a"),             "/none/a: cannot be written"),
            (("--model", str(output), "--type", "q8_0", "--output", str(output)),      "must be another file"),
            (("--model", "tiny", "--type", "q8_0", "--output", str(tmp_path)),         "is a directory")):
        refused = run(*options)
        assert refused.returncode == 2 and message in refused.stderr and refused.stderr.count("\n") == 1
    assert read_gguf(output).embedding.type == "q8_0"


def test_a_file_needs_no_pytorch(tmp_path):
    assert main(["--model", "tiny", "--type", "q8_0", "--output", str(tmp_path/"a.gguf")]) == 0
    code = ("import sys; from model.quantized import quantize_checkpoint as q; from model.gguf import read_gguf; "
        "from model.tokenizer import load_tokenizer as t; path = sys.argv[1]; read_gguf(path); q(path, 'q4_0'); t(path, 256); "
        "sys.exit('torch' in sys.modules)")
    subprocess.run([sys.executable, "-c", code, str(tmp_path/"a.gguf")], cwd=ROOT, check=True)
