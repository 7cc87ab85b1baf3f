#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Checkpoints of both layouts, against transformers' own Mamba2 on the same files."""

import json
import os
import subprocess
import sys
import tracemalloc
import zipfile


import numpy as np
import pytest
import torch

from checkpoints import KINDS, TEXT, make_original, make_transformers, train_tokenizer, write_config
from hypothesis import HealthCheck, given, settings, strategies
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from model.checkpoint import CheckpointError, load_checkpoint
from model.logits import compute_logits, main
from model.tokenizer import ByteTokenizer, TextStream, load_tokenizer

from tools.paths import ROOT

# Constants ----------------------------------------------------------------------------------------

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
    make_transformers(tmp_path, shard_size="60KB")
    assert (tmp_path/"model.safetensors.index.json").exists()
    sharded, whole = (compute_logits(load_checkpoint(directory), TOKENS) for directory in (tmp_path, checkpoint[0]))
    assert torch.equal(sharded, whole)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.rename(shard.with_suffix(".gone"))
    check_error(tmp_path, f"{shard.name}: must be a file, is missing")


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
    check_error(path.parent, "part-0.bin: more must be there by pytorch_model.bin.index.json, is missing")


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
    ("num_hidden_layers",   4,        "layers.3 must be there by config.json, is missing"),
    ("num_hidden_layers",   2,        "backbone.layers.2.* must be left out"),
    ("tie_word_embeddings", True,     "lm_head.weight must be the embedding, .* differs"),
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
    ("ssm_cfg",        7,                                      "ssm_cfg must be a JSON object, is 7"),
    ("pad_vocab_size_multiple", 0,                             "pad_vocab_size_multiple must be an integer of at least 1, is 0"),
])
def test_original_fields(checkpoint, tmp_path, field, value, message):
    make_original(tmp_path/"original", checkpoint[0], **{field: value})
    check_error(tmp_path/"original", message)


@pytest.mark.parametrize("fields", [
    {"intermediate_size": 96}, {"pad_vocab_size_multiple": 8}, {"max_position_embeddings": 2048}, {"torchscript": False},
    {"auto_map": {"AutoModel": "modeling_mamba2.Mamba2Model"}}, {"device": "cuda"}, {"mamba_ssm_version": "2.2.4"},
    {"transformers_version": "4.44.0"}, {"unsloth_version": "2025.1"}, {"num_labels": 2}, {"top_k": 50}, {"name_or_path": "x"},
])
def test_fields_that_say_nothing(damaged, fields):
    write_config(damaged[0], damaged[1] | fields)
    load_checkpoint(damaged[0])


def test_original_fields_that_say_nothing(checkpoint, tmp_path):
    layer = {"layer": "Mamba2", "d_state": 16, "headdim": 8, "ngroups": 2, "chunk_size": 16}
    for number, more in enumerate(({"d_ssm": 96}, {"d_ssm": None}, {"device": "cuda", "dtype": "float32"})):
        make_original(tmp_path/str(number), checkpoint[0], model_type="mamba2", architectures=["MambaLMHeadModel"],
            max_position_embeddings=2048, transformers_version="4.40", ssm_cfg=layer | more)
        load_checkpoint(tmp_path/str(number))
    make_original(tmp_path/"less", checkpoint[0], ssm_cfg=layer | {"d_ssm": 48})
    check_error(tmp_path/"less", r"ssm_cfg.d_ssm must be expand\*d_model = 96, is 48")


@pytest.mark.parametrize("vocab_size, multiple", [(93, 16), (96, 8), (95, 1)])
def test_padding_of_the_vocabulary(checkpoint, tmp_path, vocab_size, multiple):
    """To the next multiple, and not beyond where it is one."""
    make_original(tmp_path/"original", checkpoint[0], vocab_size=vocab_size, pad_vocab_size_multiple=multiple)
    if vocab_size == 95:
        check_error(tmp_path/"original", r"must have shape \(95, 48\) by config.json, has \(96, 48\)")
    else:
        assert load_checkpoint(tmp_path/"original").config.vocab_size == 96


@pytest.mark.parametrize("text, message", [
    ('{"vocab_size": 96, "vocab_size": 97}',     "vocab_size must be there once, is there more often"),
    ("["*100_000,                                "config.json: must be JSON, is not"),
    ('{"vocab_size": ' + "9"*5000 + "}",         "config.json: must be JSON, is not"),
    ('{"model_type": "mamba2", "time_step_limit": "12"}',           "the limit of dt must be two numbers, is '12'"),
    ('{"model_type": "mamba2", "time_step_limit": ["0", "inf"]}',   "the limit of dt must be two numbers"),
])
def test_odd_json(damaged, text, message):
    (damaged[0]/"config.json").write_text(text)
    check_error(damaged[0], message)


def test_config_is_not_json(damaged):
    (damaged[0]/"config.json").write_text("{")
    check_error(damaged[0], "config.json: must be JSON, is not")
    (damaged[0]/"config.json").unlink()
    check_error(damaged[0], "config.json: must be a file that can be read, cannot")

# Damage -------------------------------------------------------------------------------------------

def test_truncated_safetensors(damaged):
    path = damaged[0]/"model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    check_error(damaged[0], r"is truncated: (backbone|lm_head)\S+ ends at byte %d, the file at %d\." % (len(whole), len(whole) - 8))
    path.write_bytes(whole[:-100])
    check_error(damaged[0], r"is truncated: (backbone|lm_head)\S+ ends at byte \d+, the file at \d+\.")
    for content in (path.read_bytes()[:8], b"\x10"): # Whole tensors are cut off, or all.
        path.write_bytes(content)
        check_error(damaged[0], "model.safetensors: must be a whole .safetensors file, is damaged or of another format")


def test_truncated_bin(checkpoint, tmp_path):
    make_original(tmp_path/"original", checkpoint[0])
    path = tmp_path/"original"/"pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-100])
    check_error(tmp_path/"original", "pytorch_model.bin: must be a whole file of tensors alone, is truncated, damaged or holds")


def test_bin_runs_no_code(checkpoint, tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path/"made"),)

    make_original(tmp_path/"original", checkpoint[0])
    torch.save({"backbone.norm_f.weight": Code()}, tmp_path/"original"/"pytorch_model.bin")
    check_error(tmp_path/"original", "pytorch_model.bin: must be a whole file of tensors alone, is .* holds other objects")
    assert not (tmp_path/"made").exists()


def test_wrong_tensors(damaged):
    directory, _, weights = damaged
    name = "backbone.layers.1.mixer.A_log"
    for tensor, message in ((torch.full((12,), torch.nan), "must be finite, holds values that are not"),
            (torch.zeros(12, dtype=torch.int32), "must be floating point, is torch.int32"),
            (torch.zeros(11), r"must have shape \(12,\) by config.json, has \(11,\)")):
        save_file(weights | {name: tensor}, directory/"model.safetensors")
        check_error(directory, f"{name} {message}")
    save_file(weights | {"backbone.layers.0.mixer.extra": torch.zeros(1)}, directory/"model.safetensors")
    check_error(directory, "backbone.layers.0.mixer.extra must be left out")
    (directory/"model.safetensors").unlink()
    check_error(directory, "weights must be there as one of model.safetensors")

class Reduced:
    """Pickled as a call."""
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("tensors, message", [
    ([1],                                         "must hold a dict of tensors, holds a list"),
    ({7: torch.zeros(1)},                         "names of tensors must be strings, one is 7"),
    ({"a": "text"},                               "a must be a tensor, is a str"),
    ({"a": torch.eye(2).to_sparse()},             "a must be a dense tensor, is sparse"),
    ({"a": torch.zeros(2, device="meta")},        "a must be a dense tensor, is sparse, quantised or without data"),
    ({"backbone.norm_f.weight": torch.zeros(1).expand(2**40)}, r"norm_f.weight must have shape \(48,\) .* has \(1099511627776,\)"),
    ({"a": Reduced(bytearray, 2**50)},            "must be a whole file of tensors alone, is truncated, damaged or holds"),
    ({"a": Reduced(os.getcwd)},                   "must be a whole file of tensors alone, is truncated, damaged or holds"),
])
def test_wrong_objects_in_a_bin(checkpoint, tmp_path, tensors, message):
    make_original(tmp_path/"original", checkpoint[0])
    path = tmp_path/"original"/"pytorch_model.bin"
    if isinstance(tensors, dict) and "backbone.norm_f.weight" in tensors:
        tensors = torch.load(path, weights_only=True) | tensors
    torch.save(tensors, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path/"original")
    assert "weights_only" not in str(caught.value) # PyTorch's advice is to unpickle without safety.


def test_compressed_bin(checkpoint, tmp_path):
    """PyTorch compresses nothing: a zip that does may unpack to any size."""
    make_original(tmp_path/"original", checkpoint[0])
    path = tmp_path/"original"/"pytorch_model.bin"
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    check_error(tmp_path/"original", "must be stored as PyTorch does, is compressed or encrypted")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a"*300, "a\0b", "\ud800", 7, None])
def test_index_of_other_files(damaged, name):
    directory = damaged[0]
    (directory/"model.safetensors").rename(directory.parent/"model.safetensors")
    (directory/"model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    check_error(directory, "weight_map must be an object of names of files in the same folder")


def test_tensor_under_two_names(damaged):
    directory, _, weights = damaged
    save_file(weights | {"backbone.embedding.weight": torch.zeros(96, 48)}, directory/"model.safetensors")
    check_error(directory, "a tensor must be there once, one is there under two names")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json"])
@pytest.mark.parametrize("content, kind", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", r"a Git LFS pointer \(git lfs pull"),
    (b"<!DOCTYPE html><html>Sign in</html>",                              "an HTML page"),
])
def test_what_a_download_left(damaged, name, content, kind):
    directory = damaged[0]
    if name == "pytorch_model.bin":
        (directory/"model.safetensors").unlink()
    (directory/name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: must be .*, is {kind}"):
        load_checkpoint(directory)
        load_tokenizer(directory, 96)


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_damage_of_any_kind(checkpoint, tmp_path_factory, data):
    """A checkpoint of which some bytes are others loads, or is refused by a CheckpointError."""
    directory = tmp_path_factory.getbasetemp()/"damage"
    if not directory.exists():
        make_original(directory, checkpoint[0])
        torch.save(torch.load(directory/"pytorch_model.bin", weights_only=True), directory/"old",
            _use_new_zipfile_serialization=False)
        (directory/"model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    kind    = data.draw(strategies.sampled_from(["config.json", "model.safetensors", "pytorch_model.bin", "old", "index"]))
    source  = {"model.safetensors": checkpoint[0]/"model.safetensors", "index": directory/"model.safetensors.index.json"}
    content = bytearray(source.get(kind, directory/kind).read_bytes())
    ends    = [place for place in (*range(4000), *range(len(content) - 4000, len(content))) if 0 <= place < len(content)]
    for _ in range(data.draw(strategies.integers(1, 4))): # The beginning and the end hold what is not weights.
        content[data.draw(strategies.sampled_from(ends))] = data.draw(strategies.integers(0, 255))
    broken = directory/"broken"
    broken.mkdir(exist_ok=True)
    for path in broken.iterdir():
        path.unlink()
    layout = checkpoint[0] if kind in source else directory
    (broken/"config.json").write_bytes((layout/"config.json").read_bytes())
    (broken/"pytorch_model.bin").write_bytes((directory/"pytorch_model.bin").read_bytes())
    name = {"old": "pytorch_model.bin", "index": "model.safetensors.index.json"}.get(kind, kind)
    (broken/name).write_bytes(content)
    try:
        load_checkpoint(broken)
    except CheckpointError:
        pass


def test_layers_that_are_not_there_are_not_made(damaged):
    """Their names would take more memory than this."""
    write_config(damaged[0], damaged[1] | {"num_hidden_layers": 65535})
    tracemalloc.start()
    try:
        check_error(damaged[0], "layers.65534 must be there by config.json, is missing")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()

# Tokenizers ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(directory, request.param)
    return load_tokenizer(directory, 999)


def decode(tokenizer, tokens, size=1):
    """The text of tokens that come so many at a time."""
    stream = TextStream(tokenizer)
    return "".join(stream(tokens[n:n + size]) for n in range(0, len(tokens), size)) + stream.flush()


def test_bytes_and_numbers(tmp_path):
    assert load_tokenizer(tmp_path, 256).encode(TEXT) == list(TEXT.encode())
    assert decode(load_tokenizer(tmp_path, 256), list(TEXT.encode())) == TEXT
    assert decode(load_tokenizer(tmp_path, 257), [256, 0, 3]) == "256 0 3"
    assert load_tokenizer(tmp_path, 257).encode("") == []
    with pytest.raises(CheckpointError, match="tokenizer.json: must be there to read a text, is missing, and a vocabulary of "
            "257 tokens is not one of bytes: give --tokenizer FILE, or tokens as numbers"):
        load_tokenizer(tmp_path, 257).encode("a")


def test_a_text_in_two_parts(tokenizer):
    """What goes on has no special token and no space that is not there."""
    first, second = tokenizer.encode("den Deich"), tokenizer.encode("en Sylter", continuing=True)
    assert first[0] == 1 and 1 not in second
    assert tokenizer.encode("", continuing=True) == []
    assert tokenizer.decode(first + second).strip() == "den Deichen Sylter"
    assert tokenizer.decode(first + tokenizer.encode(" den", continuing=True)).strip() == "den Deich den"


@settings(max_examples=100, derandomize=True, deadline=None)
@given(data=strategies.data())
def test_pieces_are_the_text(tokenizer, data):
    """Of any tokens, one by one or in groups: no space is lost, and a character that is not finished is U+FFFD."""
    tokens = data.draw(strategies.lists(strategies.integers(0, 420), max_size=200))
    assert decode(tokenizer, tokens) == decode(tokenizer, tokens, 7) == tokenizer.decode(tokens)


def test_pieces_come_early_and_cheaply(tokenizer):
    """A word is shown with its token, and what is decoded again stays short."""
    stream = TextStream(tokenizer)
    shown  = ""
    for token in tokenizer.encode(TEXT*20):
        shown += stream([token])
        assert len(stream.tokens) <= 150
    assert shown + stream.flush() == tokenizer.decode(tokenizer.encode(TEXT*20)) and len(shown) > 19*len(TEXT)


def test_bytes_at_the_end_of_a_text():
    stream = TextStream(ByteTokenizer())
    assert [stream([byte]) for byte in "aö".encode()[:2]] == ["a", ""]
    assert stream.flush() == "\N{REPLACEMENT CHARACTER}"


def test_nothing_is_cut_off_or_added(tmp_path):
    """A tokenizer.json may say how to truncate and pad batches."""
    train_tokenizer(tmp_path, "bytes")
    path = tmp_path/"tokenizer.json"
    whole = load_tokenizer(tmp_path, 999).encode(TEXT)
    spec  = Tokenizer.from_file(str(path))
    spec.enable_truncation(4)
    spec.enable_padding(length=500)
    spec.save(str(path))
    assert load_tokenizer(tmp_path, 999).encode(TEXT) == whole


@pytest.mark.parametrize("config, older, expected", [
    (None,                                         None,                  (0,)),  # <|endoftext|>
    ({},                                           None,                  (0,)),
    ({"eos_token": None},                          None,                  (0,)),
    ({"eos_token": "<s>"},                         None,                  (1,)),
    ({"eos_token": {"content": "<s>", "id": 7}},   None,                  (1,)),
    ({},                                           {"eos_token": "<s>"},  (1,)),
    ({"eos_token": "<s>"},                         {"eos_token": "none"}, (1,)),
    ({"eos_token": "</s>"},                        None, "eos_token must be a token of the tokenizer, is '</s>'"),
    ({"eos_token": 5},                             None, "eos_token must be a token of the tokenizer, is 5"),
    ({"eos_token": ["<s>"]},                       None, "eos_token must be a token of the tokenizer, is "),
])
def test_end_of_text_by_the_tokenizer(tmp_path, config, older, expected):
    train_tokenizer(tmp_path, "bytes")
    if config is not None:
        (tmp_path/"tokenizer_config.json").write_text(json.dumps(config))
    if older is not None:
        (tmp_path/"special_tokens_map.json").write_text(json.dumps(older))
    if isinstance(expected, tuple):
        assert load_tokenizer(tmp_path, 999).stop_tokens == expected
    else:
        with pytest.raises(CheckpointError, match=f"tokenizer_config.json: {expected}"):
            load_tokenizer(tmp_path, 999)


@pytest.mark.parametrize("own, of_generation, expected", [
    (None,   None,                     ()),
    (7,      None,                     (7,)),
    ([7, 8], None,                     (7, 8)),
    (7,      {},                       (7,)),
    (7,      {"eos_token_id": 9},      (9,)),
    (7,      {"eos_token_id": [9, 7]}, (9, 7)),
    (7,      {"eos_token_id": None},   ()),
    ("7",    None,                     "config.json: eos_token_id must be null, an integer of at least 0 or a list of them, is '7'"),
    ([7.0],  None,                     "eos_token_id must be null, an integer"),
    (True,   None,                     "eos_token_id must be null, an integer"),
    (-1,     None,                     "eos_token_id must be null, an integer"),
    (7,      {"eos_token_id": "9"},    "generation_config.json: eos_token_id must be null, an integer"),
    (7,      [],                       "generation_config.json: the file must be a JSON object"),
])
def test_end_of_text_by_the_model(damaged, own, of_generation, expected):
    directory, config, _ = damaged
    write_config(directory, config | {"eos_token_id": own})
    if of_generation is not None:
        (directory/"generation_config.json").write_text(json.dumps(of_generation))
    if isinstance(expected, tuple):
        assert load_checkpoint(directory).config.stop_tokens == expected
    else:
        check_error(directory, expected)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(data=strategies.data())
def test_damaged_tokenizer(tmp_path_factory, data):
    directory = tmp_path_factory.getbasetemp()/"damaged_tokenizer"
    directory.mkdir(exist_ok=True)
    path = directory/"whole.json"
    if not path.exists():
        train_tokenizer(directory, "llama")
        (directory/"tokenizer.json").rename(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(strategies.integers(1, 4))):
        content[data.draw(strategies.integers(0, 4000))] = data.draw(strategies.sampled_from(b'{}[]":,0-9aeflnrstuy\\\xff'))
    (directory/"tokenizer.json").write_bytes(content)
    try:
        tokenizer = load_tokenizer(directory, 999)
        tokenizer.decode(tokenizer.encode("den Deich", continuing=True))
    except CheckpointError:
        pass
