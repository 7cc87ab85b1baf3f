#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""GGUF files: what a model and its vocabulary are after a round trip, other types, and files that are not as they must be."""

import json
import subprocess
import sys

from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

from checkpoints import KINDS, TEXT, make_original, make_transformers, train_tokenizer
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType
from gguf.gguf_writer import GGUFValue
from hypothesis import HealthCheck, given, settings, strategies

from host.stream import main as stream

from model.checkpoint import load_checkpoint
from model.checkpoint_config import CheckpointError
from model.gguf import _Writer, open_gguf, read_gguf, write_gguf
from model.logits import compute_logits, main as logits
from model.quantize import main as quantize, quantize_file
from model.quantized import from_network, quantize_model
from model.tokenizer import ByteTokenizer, NumberTokenizer, load_tokenizer
from model.trace import main as trace
from model.vocabulary import WHOLE, byte_alphabet

from tools.paths import ROOT

# Constants ----------------------------------------------------------------------------------------

SIZES  = dict(hidden_size=64, num_heads=16)
TOKENS = torch.randint(96, (41,), generator=torch.Generator().manual_seed(7))

# Helpers ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a small checkpoint, untied, and a file of it in Q8_0."""
    directory = tmp_path_factory.mktemp("checkpoint")
    make_transformers(directory, **SIZES)
    quantize_file(directory, "q8_0", directory/"model.gguf")
    return directory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny model's file."""
    path = tmp_path_factory.mktemp("tiny")/"tiny.gguf"
    quantize_file("tiny", "q8_0", path)
    return path


def rewrite(source, path, values=None, tensors=None, arch="mamba2"):
    """Write a file again, some of it changed: {key: value, or None to leave out}, {name: (array, GGUF's type), or None}."""
    file = open_gguf(source)
    with open(path, "wb") as output:
        writer = _Writer(output)
        writer.arch = arch
        writer.kv_data[0].clear()
        for key, value in (file.values | (values or {})).items():
            if value is not None:
                writer.kv_data[0][key] = value
        kept = {name: (tensor.data, tensor.tensor_type) for name, tensor in file.tensors.items()} | (tensors or {})
        kept = {name: entry for name, entry in kept.items() if entry is not None}
        for name, (array, kind) in kept.items():
            writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes, kind)
        writer.write_header()
        writer.write_padding(output, output.tell())
        for array, _ in kept.values():
            output.write(np.ascontiguousarray(array).data)
            writer.write_padding(output, array.nbytes)
    return path


def text(value):
    return GGUFValue(value, GGUFValueType.STRING)


def integer(value):
    return GGUFValue(value, GGUFValueType.UINT32)


def float32(array):
    return np.asarray(array, np.float32), GGMLQuantizationType.F32


def check_error(path, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)

# Round Trip ---------------------------------------------------------------------------------------

VARIANTS = {
    "groups, untied" : {},
    "tied"           : {"tie_word_embeddings": True, "n_groups": 1},
    "no bias"        : {"use_conv_bias": False},
    "eps, taps"      : {"layer_norm_epsilon": 1e-2, "conv_kernel": 3, "n_groups": 4},
    "dt limited"     : {"time_step_limit": (0.01, 0.05)},
    "stop tokens"    : {"eos_token_id": [7, 9]},
}

@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_float32_is_the_same_model(tmp_path, fields, capsys):
    """Without quantisation the file is the checkpoint, but for the last bit of A."""
    make_transformers(tmp_path, **SIZES, **fields)
    network = load_checkpoint(tmp_path)
    write_gguf(tmp_path/"a.gguf", from_network(network))
    again   = load_checkpoint(tmp_path/"a.gguf")
    config  = network.config
    assert again.config == replace(config, layer=replace(config.layer, chunk_size=256, conv_bias=True))
    torch.testing.assert_close(compute_logits(again, TOKENS), compute_logits(network, TOKENS), rtol=1e-4, atol=1e-4)
    for name, weight in network.state_dict().items():
        if not name.endswith("A_log"):
            assert torch.equal(again.state_dict()[name], weight)
    quantize_file(tmp_path, "q8_0", tmp_path/"b.gguf")
    assert load_checkpoint(tmp_path/"b.gguf").config == again.config
    assert ("dt is limited to (0.01, 0.05), which llama.cpp does not do" in capsys.readouterr().err) == ("time_step_limit" in fields)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_the_weights_are_the_dequantised_ones(checkpoint, tmp_path, kind):
    model   = quantize_file(checkpoint, kind, tmp_path/"a.gguf")
    network = load_checkpoint(tmp_path/"a.gguf")
    for weight, matrix in ((network.embedding.weight, model.embedding), (network.lm_head.weight, model.head),
            (network.layers[1].mixer.in_proj.weight, model.layers[1].in_proj),
            (network.layers[1].mixer.out_proj.weight, model.layers[1].out_proj)):
        assert np.array_equal(weight.numpy(), matrix.dequantize())
    error = (compute_logits(network, TOKENS) - compute_logits(load_checkpoint(checkpoint), TOKENS)).abs().max()
    assert 0 < error < (0.2 if kind == "q8_0" else 3)


def test_what_llama_cpp_asks_for(checkpoint):
    """Names, shapes (the last dimension first) and keys, as its converter writes them."""
    reader = GGUFReader(checkpoint/"model.gguf")
    shapes = {tensor.name: (tensor.tensor_type.name, tensor.shape.tolist()) for tensor in reader.tensors}
    assert len(shapes) == 3 + 3*9
    assert {name: shape for name, shape in shapes.items() if not name.startswith(("blk.1", "blk.2"))} == {
        "token_embd.weight" : ("Q8_0", [64, 96]),   "output.weight"           : ("Q8_0", [64, 96]),
        "output_norm.weight": ("F32", [64]),        "blk.0.attn_norm.weight"  : ("F32", [64]),
        "blk.0.ssm_in.weight": ("Q8_0", [64, 336]), "blk.0.ssm_conv1d.weight" : ("F32", [4, 192]),
        "blk.0.ssm_conv1d.bias": ("F32", [192]),    "blk.0.ssm_dt.bias"       : ("F32", [16]),
        "blk.0.ssm_a": ("F32", [1, 16]),            "blk.0.ssm_d"             : ("F32", [1, 16]),
        "blk.0.ssm_norm.weight": ("F32", [64, 2]),  "blk.0.ssm_out.weight"    : ("Q8_0", [128, 64]),
    }
    values = {key: field.contents() for key, field in reader.fields.items() if key.startswith(("mamba2.", "general."))}
    assert values.pop("mamba2.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert values == {"general.architecture": "mamba2", "general.file_type": 7, "general.quantization_version": 2,
        "mamba2.context_length": 2**20, "mamba2.embedding_length": 64, "mamba2.feed_forward_length": 0,
        "mamba2.attention.head_count": 0, "mamba2.block_count": 3, "mamba2.ssm.conv_kernel": 4, "mamba2.ssm.inner_size": 128,
        "mamba2.ssm.state_size": 16, "mamba2.ssm.time_step_rank": 16, "mamba2.ssm.group_count": 2, "mamba2.vocab_size": 96}


@pytest.mark.parametrize("kind, said", [("F16", False), ("BF16", False), ("Q5_0", True), ("Q4_1", True)])
def test_other_types(checkpoint, tmp_path, kind, said, capsys):
    number  = GGMLQuantizationType[kind]
    weights = load_checkpoint(checkpoint).layers[1].mixer.in_proj.weight.numpy()
    stored  = gguf.quantize(weights, number)
    path    = rewrite(checkpoint/"model.gguf", tmp_path/"a.gguf", tensors={"blk.1.ssm_in.weight": (stored, number)})
    network = load_checkpoint(path)
    assert np.array_equal(network.layers[1].mixer.in_proj.weight.numpy(), gguf.dequantize(stored, number))
    assert capsys.readouterr().err == (f"{path}: dequantised to float32: {kind}\n" if said else "")
    assert isinstance(read_gguf(path).layers[1].in_proj, np.ndarray)
    assert quantize_model(read_gguf(path), "q8_0").layers[1].in_proj.type == "q8_0"

# Errors -------------------------------------------------------------------------------------------

NAN = np.nan

ERRORS = {
    "architecture" : ({"general.architecture": text("mamba")}, {},  "general.architecture must be mamba2, is 'mamba'"),
    "no key"       : ({"mamba2.ssm.state_size": None}, {},          "mamba2.ssm.state_size must be there, is missing"),
    "type of key"  : ({"mamba2.ssm.state_size": text("a")}, {},     "mamba2.ssm.state_size must be of type int, is 'a'"),
    "state"        : ({"mamba2.ssm.state_size": integer(0)}, {},    "d_state must be"),
    "heads"        : ({"mamba2.ssm.time_step_rank": integer(5)}, {}, "ssm.time_step_rank, the heads, must be a divisor of .* 128"),
    "inner"        : ({"mamba2.ssm.inner_size": integer(100)}, {},  "ssm.inner_size must be a multiple of .* = 64, is 100"),
    "width"        : ({"mamba2.embedding_length": integer(32)}, {}, r"token_embd.weight must have shape \(vocabulary, 32\), has"),
    "layers"       : ({"mamba2.block_count": integer(9)}, {},       "blk.8.ssm_a must be there by block_count, is missing"),
    "less layers"  : ({"mamba2.block_count": integer(2)}, {},       "blk.2.attn_norm.weight must be left out"),
    "vocabulary"   : ({"mamba2.vocab_size": integer(95)}, {},       "vocab_size must be the 96 rows of token_embd.weight, is 95"),
    "eps"          : ({"mamba2.attention.layer_norm_rms_epsilon": GGUFValue(NAN, GGUFValueType.FLOAT32)}, {}, "norm_eps must be"),
    "missing"      : ({}, {"blk.1.ssm_d": None},                    "blk.1.ssm_d must be there by its fields, is missing"),
    "embedding"    : ({}, {"token_embd.weight": None},              "token_embd.weight must be there, is missing"),
    "extra"        : ({}, {"blk.1.ffn_up.weight": float32([1])},    "blk.1.ffn_up.weight must be left out"),
    "shape"        : ({}, {"blk.1.ssm_d": float32([1]*15)},         r"blk.1.ssm_d must have shape \(16, 1\) by its fields, has \(15,\)"),
    "not finite"   : ({}, {"output_norm.weight": float32([NAN]*64)}, "output_norm.weight must be finite, holds values"),
    "scale"        : ({}, {"output.weight": (np.full((96, 68), 0x7c, np.uint8), GGMLQuantizationType.Q8_0)},
        "output.weight must be finite, holds scales"),
    "A"            : ({}, {"blk.0.ssm_a": float32(np.ones((16, 1)))}, "blk.0.ssm_a must be below 0"),
    "integers"     : ({}, {"output_norm.weight": (np.ones(64, np.int32), GGMLQuantizationType.I32)},
        "output_norm.weight must have a type of weights that the package gguf can dequantise, has I32"),
    "limit"        : ({"mamba2_litex.dt_limit": GGUFValue([1.0], GGUFValueType.ARRAY, GGUFValueType.FLOAT64)}, {},
        "mamba2_litex.dt_limit must be two numbers"),
    "stop"         : ({"mamba2_litex.stop_tokens": GGUFValue(["a"], GGUFValueType.ARRAY, GGUFValueType.STRING)}, {},
        "mamba2_litex.stop_tokens must be integers"),
}

@pytest.mark.parametrize("values, tensors, message", ERRORS.values(), ids=ERRORS)
def test_errors(checkpoint, tmp_path, values, tensors, message):
    check_error(rewrite(checkpoint/"model.gguf", tmp_path/"bad.gguf", values, tensors), message)


def test_files_that_are_none(checkpoint, tmp_path):
    path, content = tmp_path/"bad.gguf", (checkpoint/"model.gguf").read_bytes()
    for data, message in (
            (b"",                                             "must be a GGUF file, is of another format"),
            (b"version https://git-lfs.github.com/spec/v1\n", "must be a GGUF file, is a Git LFS pointer"),
            (b"GGUF",                                         "must be a whole GGUF file, is truncated"),
            (b"GGUF" + bytes([0, 0, 0, 3]) + content[8:],     "must be a whole GGUF file, is "),
            (b"GGUF" + bytes([9, 0, 0, 0]) + content[8:],     "must be a whole GGUF file, is damaged .*version 9"),
            (content[:100],                                   "is truncated: its list of fields and tensors"),
            (content[:-5],                                    "is truncated: blk.2.ssm_out.weight ends at byte")):
        path.write_bytes(data)
        check_error(path, message)


def test_a_type_that_nobody_knows(checkpoint, tmp_path):
    content = bytearray((checkpoint/"model.gguf").read_bytes())
    place   = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    content[place] = 99
    (tmp_path/"bad.gguf").write_bytes(content)
    check_error(tmp_path/"bad.gguf", "output_norm.weight must have a type of GGUF, has number 99")


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_damage_of_any_kind(checkpoint, tmp_path_factory, data):
    """A file of which some bytes are others, or whose end is missing, loads or is refused by a CheckpointError."""
    path    = tmp_path_factory.getbasetemp()/"damage.gguf"
    content = bytearray((checkpoint/"model.gguf").read_bytes())
    for _ in range(data.draw(strategies.integers(1, 4))):
        content[data.draw(strategies.integers(0, 4000))] = data.draw(strategies.integers(0, 255))
    path.write_bytes(content[:data.draw(strategies.one_of(strategies.just(len(content)), strategies.integers(0, len(content))))])
    try:
        load_checkpoint(path)
        load_tokenizer(path, 96)
    except CheckpointError:
        pass

# Vocabularies -------------------------------------------------------------------------------------

def test_bytes(tiny):
    assert isinstance(load_tokenizer(tiny, 256), ByteTokenizer)
    tokens = open_gguf(tiny).values["tokenizer.ggml.tokens"].value
    assert tokens == byte_alphabet() and len(set(tokens)) == 256
    assert open_gguf(tiny).values["tokenizer.ggml.merges"].value == []


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer(tmp_path, kind, whole):
    """As the folder's; without the tokenizer.json in the file, by llama.cpp's keys, where it is of a kind that these can say."""
    train_tokenizer(tmp_path, kind)
    make_transformers(tmp_path, **SIZES | {"vocab_size": 420})
    quantize_file(tmp_path, "q8_0", tmp_path/"a.gguf")
    expected = load_tokenizer(tmp_path, 420)
    path     = tmp_path/"a.gguf" if whole else rewrite(tmp_path/"a.gguf", tmp_path/"b.gguf", {WHOLE: None})
    actual   = load_tokenizer(path, 420)
    if not whole and kind != "bytes":
        assert isinstance(actual, NumberTokenizer)
        return
    tokens = expected.encode(TEXT + "<|endoftext|>ab  c\n\n12")
    assert actual.encode(TEXT + "<|endoftext|>ab  c\n\n12") == tokens
    assert actual.encode(TEXT, continuing=True) == expected.encode(TEXT, continuing=True)
    assert actual.decode(tokens) == expected.decode(tokens)
    stop = load_checkpoint(path).config.stop_tokens
    assert set(stop) == {*expected.stop_tokens, *load_checkpoint(tmp_path).config.stop_tokens}


@pytest.mark.parametrize("values, message", [
    ({"tokenizer.ggml.model": text("llama")},      "tokenizer.ggml.model must be gpt2, is 'llama': give --tokenizer FILE"),
    ({"tokenizer.ggml.pre": text("qwen2")},        "tokenizer.ggml.pre must be gpt-2 or .*, is 'qwen2'"),
    ({"tokenizer.ggml.tokens": None},              "tokenizer.ggml.tokens must be there, is missing"),
    ({"tokenizer.ggml.token_type": GGUFValue([1], GGUFValueType.ARRAY, GGUFValueType.INT32)}, "must have 256 entries, .* has 1"),
    ({"tokenizer.ggml.merges": GGUFValue(["no", "b"], GGUFValueType.ARRAY, GGUFValueType.STRING)}, "must be a tokenizer, is none"),
    ({WHOLE: text("{")},                           f"{WHOLE} must be JSON, is not"),
    ({WHOLE: text("[]")},                          f"{WHOLE} must be a JSON object"),
])
def test_vocabularies_that_are_refused(tiny, tmp_path, values, message, capsys):
    """By generate, in one line; logits need none."""
    path = rewrite(tiny, tmp_path/"a.gguf", values)
    assert stream(["generate", "--model", str(path), "--on", "torch", "--prompt", "a", "--tokens", "2"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(path) in error
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(path, 256)
    assert logits(["--model", str(path), "--tokens", "1,2", "--output", str(tmp_path/"a.npy")]) == 0
    assert np.load(tmp_path/"a.npy").shape == (2, 256)


def test_a_padded_vocabulary_without_a_tokenizer(checkpoint, tmp_path, capsys):
    make_original(tmp_path/"original", checkpoint)
    output = str(tmp_path/"a.gguf")
    assert quantize(["--model", str(tmp_path/"original"), "--type", "q8_0", "--output", output]) == 0
    assert capsys.readouterr().err == f"{output}: without a vocabulary that llama.cpp knows.\n"
    assert isinstance(load_tokenizer(output, 96), NumberTokenizer)

# Commands -----------------------------------------------------------------------------------------

def test_generate(tiny, tmp_path, capsys):
    """The text of the file is that of the quantised network, and the device's specification takes it too."""
    texts = []
    for on in ("torch", "exact"):
        assert stream(["generate", "--model", str(tiny), "--on", on, "--prompt", "In the beginning", "--tokens", "12",
            "--json", str(tmp_path/"a.json")]) == 0
        texts.append(json.loads((tmp_path/"a.json").read_text())["text"])
    assert texts[0] == texts[1] and len(texts[0]) == 12
    assert trace(["--model", str(tiny), "--tokens", "1,2", "--output", str(tmp_path/"trace")]) == 0


def test_the_commands_as_they_are_typed(checkpoint, tmp_path):
    bad = rewrite(checkpoint/"model.gguf", tmp_path/"bad.gguf", {"general.architecture": text("llama")})
    (tmp_path/"cut.gguf").write_bytes((checkpoint/"model.gguf").read_bytes()[:-40])
    for command, path, message in (
            (["host/stream.py", "generate", "--prompt-tokens", "1", "--on", "torch"], bad, "must be mamba2, is 'llama'"),
            (["-m", "model.logits", "--tokens", "1", "--output", str(tmp_path/"a.npy")], tmp_path/"cut.gguf", "is truncated: blk.2"),
            (["-m", "model.quantize", "--type", "q8_0", "--output", str(tmp_path/"a.gguf")], tmp_path/"cut.gguf", "is truncated")):
        done = subprocess.run([sys.executable, *command, "--model", str(path)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr and str(path) in done.stderr
        assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert not (tmp_path/"a.gguf").exists()
