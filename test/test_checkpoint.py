#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Checkpoints of both layouts, against transformers' own Mamba2 on the same files."""

import json
import os
import subprocess
import sys

from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import make_original, make_transformers, write_config
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model.checkpoint import CheckpointError, load_checkpoint
from model.logits import compute_logits, main
from model.tokenizer import ByteTokenizer, load_tokenizer

# Constants ----------------------------------------------------------------------------------------

ROOT   = Path(__file__).resolve().parent.parent
TOKENS = torch.randint(96, (41,), generator=torch.Generator().manual_seed(7)) # Two chunks and a part of one.
LIMIT  = 1e-4 # Relative error of the logits.

VARIANTS = {
    "groups, untied" : {},
    "tied"           : {"tie_word_embeddings": True, "n_groups": 1},
    "biases"         : {"use_bias": True, "use_conv_bias": False},
    "dt limited"     : {"time_step_limit": (0.01, 0.05)},
    "eps, taps"      : {"layer_norm_epsilon": 1e-2, "conv_kernel": 3, "n_groups": 4},
}

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(folder, transformers' model) of the small checkpoint."""
    directory = tmp_path_factory.mktemp("checkpoint")
    return directory, make_transformers(directory)


@pytest.fixture
def damaged(checkpoint, tmp_path):
    """A copy to damage: (folder, its config, its weights)."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path/name).write_bytes((checkpoint[0]/name).read_bytes())
    return tmp_path, json.loads((tmp_path/"config.json").read_text()), load_file(checkpoint[0]/"model.safetensors")


def expected_logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model(tokens[None]).logits[0]


def expected_steps(model):
    """transformers' logits, token by token."""
    cache, rows = None, []
    with torch.no_grad():
        for token in TOKENS:
            output = model(token.view(1, 1), use_cache=True, **({} if cache is None else {"cache": cache}))
            cache  = output.cache
            rows.append(output.logits[0, 0])
    return torch.stack(rows)


def relative_error(actual, expected):
    return ((actual - expected).abs().max()/expected.abs().max()).item()


def check_error(directory, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(directory)
    assert "\n" not in str(caught.value)

# Logits -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_logits(tmp_path, fields):
    model    = make_transformers(tmp_path, **fields)
    network  = load_checkpoint(tmp_path)
    expected = expected_logits(model)
    assert relative_error(compute_logits(network, TOKENS), expected) < LIMIT
    assert relative_error(compute_logits(network, TOKENS, step=True), expected) < LIMIT
    if "time_step_limit" not in fields: # transformers does not limit dt where it steps.
        assert relative_error(compute_logits(network, TOKENS, step=True), expected_steps(model)) < LIMIT


@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": True}], ids=["untied", "tied"])
def test_original_layout(tmp_path, fields):
    model = make_transformers(tmp_path/"source", **fields)
    make_original(tmp_path/"original", tmp_path/"source")
    assert relative_error(compute_logits(load_checkpoint(tmp_path/"original"), TOKENS), expected_logits(model)) < LIMIT


def test_sharded(checkpoint, tmp_path):
    model = make_transformers(tmp_path, shard_size="60KB")
    assert (tmp_path/"model.safetensors.index.json").exists()
    sharded, whole = (compute_logits(load_checkpoint(directory), TOKENS) for directory in (tmp_path, checkpoint[0]))
    assert torch.equal(sharded, whole)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.rename(shard.with_suffix(".gone"))
    check_error(tmp_path, f"{shard.name}: is missing")


def test_sharded_and_old_bin(checkpoint, tmp_path):
    """Several .bin with an index, in the format before PyTorch 1.6, which cannot be mapped into memory."""
    make_original(tmp_path/"original", checkpoint[0])
    path    = tmp_path/"original"/"pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    path.unlink()
    index = {name: f"part-{n % 2}.bin" for n, name in enumerate(weights)}
    for part in set(index.values()):
        torch.save({name: weights[name] for name in weights if index[name] == part}, path.with_name(part),
            _use_new_zipfile_serialization=False)
    path.with_name("pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    assert relative_error(compute_logits(load_checkpoint(path.parent), TOKENS), expected_logits(checkpoint[1])) < LIMIT
    path.with_name("pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index | {"more": "part-0.bin"}}))
    check_error(path.parent, "part-0.bin: more is missing, which pytorch_model.bin.index.json says is there")


def test_greedy_tokens(checkpoint):
    directory, model = checkpoint
    with torch.no_grad():
        expected = model.generate(TOKENS[None], max_new_tokens=256, do_sample=False)[0, len(TOKENS):].tolist()
    network        = load_checkpoint(directory)
    logits, states = network.prefill(TOKENS)
    token, actual  = logits[-1].argmax().item(), []
    for _ in range(256):
        actual.append(token)
        logits, states = network.step(token, states)
        token = logits.argmax().item()
    assert actual == expected
    assert len(set(expected)) > 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights(damaged, dtype):
    directory, _, weights = damaged
    save_file({name: weight.to(dtype) for name, weight in weights.items()}, directory/"model.safetensors")
    network = load_checkpoint(directory)
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert torch.equal(network.embedding.weight, weights["backbone.embeddings.weight"].to(dtype).float())


def test_logits_command(checkpoint, tmp_path):
    arguments = ["--model", str(checkpoint[0]), "--tokens", ",".join(map(str, TOKENS.tolist())), "--output"]
    assert main([*arguments, str(tmp_path/"prefill.npy")]) == 0
    subprocess.run([sys.executable, "-m", "model.logits", *arguments, str(tmp_path/"step.npy"), "--step"], cwd=ROOT,
        check=True)
    for name in ("prefill.npy", "step.npy"):
        logits = np.load(tmp_path/name)
        assert logits.dtype == np.float32 and logits.shape == (len(TOKENS), 96)
        assert relative_error(torch.from_numpy(logits), expected_logits(checkpoint[1])) < LIMIT


def test_logits_command_refuses(checkpoint, tmp_path, capsys):
    output = tmp_path/"out.npy"
    for model, tokens, message in ((checkpoint[0], "1,96", "token must be a number from 0 to 95, is 96"),
            (tmp_path/"none", "1", "which is no folder")):
        assert main(["--model", str(model), "--tokens", tokens, "--output", str(output)]) == 2
        assert message in capsys.readouterr().err
        assert not output.exists()

# Configurations -----------------------------------------------------------------------------------

@pytest.mark.parametrize("field, value, message", [
    ("model_type",          "llama",  "model_type must be 'mamba2', is 'llama'"),
    ("hidden_act",          "gelu",   "hidden_act must be 'silu' or 'swish', is 'gelu'"),
    ("quantization_config", {},       "quantization_config must be left out, is {}: this field is not known"),
    ("use_bias",            1,        "use_bias must be true or false, is 1"),
    ("num_heads",           13,       "num_heads must be expand.* = 12, is 13"),
    ("n_groups",            5,        "ngroups must be a divisor of the 12 heads, is 5"),
    ("state_size",          "16",     "d_state must be an integer from 1 to 65535, is '16'"),
    ("layer_norm_epsilon",  "small",  "norm_eps must be a positive number, is 'small'"),
    ("time_step_limit",     "none",   "limit of dt must be two numbers, is 'none'"),
    ("vocab_size",          97,       r"backbone.embeddings.weight must have shape \(97, 48\) by config.json, has \(96, 48\)"),
    ("num_hidden_layers",   4,        "layers.3.norm.weight is missing"),
    ("num_hidden_layers",   2,        "backbone.layers.2.* must be left out"),
    ("tie_word_embeddings", True,     "lm_head.weight differs from the embedding"),
])
def test_fields(damaged, field, value, message):
    directory, config, _ = damaged
    write_config(directory, config | {field: value})
    check_error(directory, message)


@pytest.mark.parametrize("field, value, message", [
    ("d_intermediate", 64,                                     "d_intermediate must be 0, is 64"),
    ("attn_layer_idx", [1],                                    r"attn_layer_idx must be \[\], is \[1\]"),
    ("rms_norm",       False,                                  "rms_norm must be True, is False"),
    ("ssm_cfg",        {},                                     "ssm_cfg.layer must be 'Mamba2', is missing"),
    ("ssm_cfg",        {"layer": "Mamba1"},                    "ssm_cfg.layer must be 'Mamba2', is 'Mamba1'"),
    ("ssm_cfg",        {"layer": "Mamba2", "D_has_hdim": True}, "ssm_cfg.D_has_hdim must be False, is True"),
    ("ssm_cfg",        {"layer": "Mamba2", "new": 1},          "ssm_cfg.new must be left out, is 1: this field is not known"),
    ("ssm_cfg",        7,                                      "ssm_cfg is not a JSON object"),
    ("pad_vocab_size_multiple", 0,                             "pad_vocab_size_multiple must be an integer of at least 1, is 0"),
])
def test_original_fields(checkpoint, tmp_path, field, value, message):
    make_original(tmp_path/"original", checkpoint[0], **{field: value})
    check_error(tmp_path/"original", message)


def test_config_is_not_json(damaged):
    (damaged[0]/"config.json").write_text("{")
    check_error(damaged[0], "config.json: is not JSON")
    (damaged[0]/"config.json").unlink()
    check_error(damaged[0], "config.json: cannot be read")

# Damage -------------------------------------------------------------------------------------------

def test_truncated_safetensors(damaged):
    path = damaged[0]/"model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    check_error(damaged[0], r"model.safetensors: (backbone|lm_head)\S+ is truncated")
    path.write_bytes(b"\x10")
    check_error(damaged[0], "model.safetensors: the header is damaged")


def test_truncated_bin(checkpoint, tmp_path):
    make_original(tmp_path/"original", checkpoint[0])
    path = tmp_path/"original"/"pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-100])
    check_error(tmp_path/"original", "pytorch_model.bin: is truncated, damaged")


def test_bin_runs_no_code(checkpoint, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path/"made"),)

    make_original(tmp_path/"original", checkpoint[0])
    torch.save({"backbone.norm_f.weight": Code()}, tmp_path/"original"/"pytorch_model.bin")
    check_error(tmp_path/"original", "pytorch_model.bin: is truncated, damaged or no file of tensors")
    assert not (tmp_path/"made").exists()


def test_wrong_tensors(damaged):
    directory, _, weights = damaged
    name = "backbone.layers.1.mixer.A_log"
    for tensor, message in ((torch.full((12,), torch.nan), "holds values that are not finite"),
            (torch.zeros(12, dtype=torch.int32), "must be floating point, is torch.int32"),
            (torch.zeros(11), r"must have shape \(12,\) by config.json, has \(11,\)")):
        save_file(weights | {name: tensor}, directory/"model.safetensors")
        check_error(directory, f"{name} {message}")
    save_file(weights | {"backbone.layers.0.mixer.extra": torch.zeros(1)}, directory/"model.safetensors")
    check_error(directory, "backbone.layers.0.mixer.extra must be left out")
    (directory/"model.safetensors").unlink()
    check_error(directory, "no weights: one of model.safetensors")

# Tokenizers ---------------------------------------------------------------------------------------

def decode(tokenizer, tokens):
    step = tokenizer.decoder()
    return "".join(map(step, tokens))


def test_tokenizers(tmp_path):
    text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. "
    assert isinstance(load_tokenizer(tmp_path), ByteTokenizer)
    assert load_tokenizer(tmp_path).encode(text) == list(text.encode())
    assert decode(load_tokenizer(tmp_path), text.encode()) == text

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder       = decoders.ByteLevel()
    trained.train_from_iterator([text]*4, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"],
        show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    trained.save(str(tmp_path/"tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    tokens    = tokenizer.encode(text + "ÿ")
    assert len(tokens) < len(text) and decode(tokenizer, tokens) == text + "ÿ"
    assert tokenizer.stop_tokens == (0,)

    (tmp_path/"tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer.json: is not a tokenizer"):
        load_tokenizer(tmp_path)
