#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Generation, with a fake device that computes as the bit-accurate model does; and sessions in files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch

from safetensors.numpy import load, save
from safetensors.torch import load_file, save_file

from checkpoints import KINDS, make_transformers, train_tokenizer
from fake_device import EtherboneServer, FakeDevice, UARTBoneServer
from stream_harness import STREAM, StreamHarness, assert_one_line

from host.generate import Screen, generate_tokens
from host.stream import main

from model.checkpoint import TINY, CheckpointError, load_checkpoint
from model.decoder import BitExactBlocks, Decoder, TorchBlocks
from model.exact.decoder import CHUNK
from model.exact.network import ExactNetwork
from model.logits import main as write_logits
from model.quantized import quantize_checkpoint
from model.sampling import Sampler
from model.session import load_session, session_bytes, signed
from model.tokenizer import load_tokenizer

from operations.config import ProgramConfig
from operations.protocol import Error


# Fixtures -----------------------------------------------------------------------------------------

PROMPT = list(b"And it came to pass in the days when the judges ruled, that there was a famine in the land. ")

assert CHUNK < len(PROMPT) < 2*CHUNK


@pytest.fixture(scope="module")
def network():
    return load_checkpoint("tiny")


@pytest.fixture
def harness(tmp_path):
    with FakeDevice() as fake, EtherboneServer(fake) as etherbone, UARTBoneServer(fake) as uart:
        yield StreamHarness(tmp_path, fake, etherbone, uart)


def decode(decoder, tokens, **options):
    return list(generate_tokens(decoder, Sampler(**options), tokens))


def started(network, blocks, prompt=PROMPT):
    decoder = Decoder(network, blocks)
    decoder.prefill(prompt)
    return decoder


# Decoder ------------------------------------------------------------------------------------------

def test_float32_blocks_are_the_reference(network):
    """In float32 the decoder computes what the network does."""
    decoder        = started(network, TorchBlocks(network.config))
    logits, states = network.prefill(PROMPT)
    for _ in range(5):
        assert (decoder.logits - logits[-1]).abs().max() < 1e-4*logits.abs().max()
        token          = decoder.logits.argmax().item()
        logits, states = network.prefill([token], states)
        decoder.take([token])
    for layer, state in enumerate(states):
        assert np.allclose(decoder.blocks.state(layer), state.ssm, rtol=1e-3, atol=1e-4)


def test_command_with_a_model_that_does_not_fit(capsys, tmp_path):
    """Said before a simulation is built, with all that is to be built otherwise."""
    make_transformers(tmp_path, hidden_size=96, head_dim=96, num_heads=2, state_size=130)
    capsys.readouterr()
    assert main(["generate", "--model", str(tmp_path), "--prompt-tokens", "1", "--lanes", "32"]) == 2
    assert_one_line(capsys.readouterr().err, "the model's headdim must be an integer from 1 to 64, is 96; build the gateware "
        "with --max-headdim 96 and --max-d-state 160.")


def test_input_that_float16_does_not_hold(network):
    layer = network.layers[1].mixer
    weight, layer.D = layer.D, torch.nn.Parameter(torch.full_like(layer.D, 1e6), requires_grad=False)
    try:
        with pytest.raises(ValueError, match=r"layer 1, tokens 0 to 63: D\[0\] must be a number from -65504 to 65504, is 1000000.0"):
            started(network, BitExactBlocks(network.config))
    finally:
        layer.D = weight

# Overflow -----------------------------------------------------------------------------------------

OVERFLOWS = { # Weights, by what they make overflow in float16: {name: value}; and who says so.
    "y"      : ({"backbone.layers.1.mixer.D": 6e4}, "the logits of token 5 must be finite, are not."),
    "state"  : ({"backbone.layers.2.mixer.conv1d.bias": 3e4, "backbone.layers.2.mixer.D": 0.0}, "the logits of token 5 must be finite, are not."),
    "inputs" : ({"backbone.layers.0.mixer.conv1d.bias": 1e5}, "layer 0.conv bias must be finite in binary16, one is 100000."),
    "norm"   : ({"backbone.norm_f.weight": 3e38}, "the last norm must be finite in binary16, one is 3e+38."),
}


@pytest.fixture(params=OVERFLOWS)
def overflowing(request, tmp_path):
    """(folder of the tiny model with other weights, what is said)."""
    values, message = OVERFLOWS[request.param]
    weights = load_file(TINY/"model.safetensors")
    for name, value in values.items():
        weights[name] = torch.full_like(weights[name], value, dtype=torch.float32)
    save_file(weights, tmp_path/"model.safetensors")
    (tmp_path/"config.json").write_text((TINY/"config.json").read_text())
    return tmp_path, message


@pytest.mark.parametrize("options", [(), ("--temperature", 1)])
def test_what_is_not_finite_is_an_error(capsys, overflowing, options):
    """Not an empty text and exit 0, and when sampling no error of PyTorch's."""
    code, _, stderr = run_main(capsys, "--on", "exact", "--model", overflowing[0], "--prompt", "And it", "--tokens", 5, *options)
    assert code == 2
    assert_one_line(stderr, overflowing[1])


def test_the_token_that_is_not_finite(network):
    """By its place in the text, in a chunk of a prompt and where tokens come one by one."""
    class Overflow(TorchBlocks):
        def run(self, layer, token, inputs):
            y = super().run(layer, token, inputs)
            if layer == 2 and token <= self.at < token + len(y):
                y[self.at - token, 0, 0] = np.nan
            return y

    for at in (3, CHUNK + 7, CHUNK + 10):
        decoder = Decoder(network, Overflow(network.config))
        decoder.blocks.at = at
        with pytest.raises(ValueError, match=f"layer 2: state and y of token {at} must be finite, are not."):
            decoder.prefill(PROMPT[:CHUNK + 9])
            decode(decoder, 3)


def test_logits_that_are_not_finite_are_not_written(tmp_path, capsys):
    weights = load_file(TINY/"model.safetensors")
    save_file(weights | {"backbone.norm_f.weight": torch.full((160,), 3e38)}, tmp_path/"model.safetensors")
    (tmp_path/"config.json").write_text((TINY/"config.json").read_text())
    assert write_logits(["--model", str(tmp_path), "--tokens", "1,2", "--output", str(tmp_path/"out.npy")]) == 2
    assert_one_line(capsys.readouterr().err, "the logits of token 0 must be finite, are not.")
    assert not (tmp_path/"out.npy").exists()

# Sessions -----------------------------------------------------------------------------------------

def test_sessions_that_do_not_fit(network, tmp_path):
    path    = tmp_path/"session"
    decoder = Decoder(network, TorchBlocks(network.config))
    with pytest.raises(ValueError, match="a session must have a token, has none"):
        session_bytes(decoder)
    decoder.take(PROMPT[:2])
    path.write_bytes(session_bytes(decoder))
    with pytest.raises(CheckpointError, match=r"ssm.0 must be float16 of \(5, 64, 32\), is float32 of"):
        load_session(Decoder(network, BitExactBlocks(network.config)), path)
    other = load_checkpoint("tiny")
    other.norm_f.weight = torch.nn.Parameter(2*other.norm_f.weight, requires_grad=False)
    with pytest.raises(CheckpointError, match="a model with other weights"):
        load_session(Decoder(other, TorchBlocks(network.config)), path)
    fewer = Decoder(network, TorchBlocks(network.config))
    fewer.network = types.SimpleNamespace(config=network.config, initial_state=lambda: network.initial_state()[:2])
    with pytest.raises(CheckpointError, match="must be a session of this model, conv.2 is too many"):
        load_session(fewer, path)


@pytest.fixture(scope="module")
def saved(network):
    """(a decoder, its session's arrays, and the content of the file)."""
    decoder = Decoder(network, BitExactBlocks(network.config))
    decoder.take(PROMPT[:2])
    content = session_bytes(decoder)
    arrays  = load(content)
    del arrays["sha256"]
    return decoder, arrays, content


def test_changed_sessions(saved, tmp_path):
    """Any flipped bit, in the header or in an array, and any missing end."""
    decoder, _, content = saved
    path   = tmp_path/"session"
    random = np.random.default_rng(1)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(0, 8*header, 13), *random.integers(8*header, 8*len(content), 300)]
    for place in map(int, places):
        changed = bytearray(content)
        changed[place//8] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=f"{path}: must be a session( as it was saved)?, is "):
            load_session(decoder, path)
    for size in (0, 7, header, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="must be a session, is damaged or of another kind"):
            load_session(decoder, path)
    path.write_bytes(content)
    load_session(decoder, path)


@pytest.mark.parametrize("changes, message", [
    ({"tokens": np.array([1, 256])},                   "token must be a number from 0 to 255, is 256"),
    ({"tokens": np.array([-1])},                       "token must be a number from 0 to 255, is -1"),
    ({"tokens": np.zeros(0, np.int64)},                r"tokens must be int64 of \(None,\), is int64 of \(0,\)"),
    ({"tokens": np.zeros((1, 2), np.int64)},           r"tokens must be int64 of \(None,\), is int64 of \(1, 2\)"),
    ({"logits": np.full(256, np.nan, np.float32)},     "logits must be finite, is not"),
    ({"logits": np.zeros(255, np.float32)},            r"logits must be float32 of \(256,\), is float32 of \(255,\)"),
    ({"ssm.1": np.full((5, 64, 32), np.inf, np.float16)}, "ssm.1 must be finite, is not"),
    ({"network": np.zeros(32, np.uint8)},              "is one of a model with other weights"),
    ({"logits": None},                                 "must be a session of --on torch, is one of --on device or exact."),
    ({"more": np.zeros(1)},                            "must be a session of this model, more is too many"),
])
def test_sessions_that_are_whole_and_wrong(saved, tmp_path, changes, message):
    """Their digest is right: somebody made them so."""
    decoder, arrays, _ = saved
    (tmp_path/"session").write_bytes(signed({name: array for name, array in (arrays | changes).items() if array is not None}))
    with pytest.raises(ValueError, match=message):
        load_session(decoder, tmp_path/"session")


def test_session_without_a_digest(saved, tmp_path):
    (tmp_path/"session").write_bytes(save(saved[1]))
    with pytest.raises(CheckpointError, match="must be a session as it was saved, is without a digest"):
        load_session(saved[0], tmp_path/"session")

# Command ------------------------------------------------------------------------------------------

def run_main(capsys, *arguments):
    """(exit code, stdout, stderr), in PyTorch unless they say another."""
    code = main(["generate", *(() if "--on" in arguments else ("--on", "torch")), *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_with_sessions(capsys, tmp_path):
    _, whole, _  = run_main(capsys, "--prompt", "And he", "--tokens", 30)
    _, first, _  = run_main(capsys, "--prompt", "And he", "--tokens", 10, "--save-session", tmp_path/"session")
    _, second, _ = run_main(capsys, "--load-session", tmp_path/"session", "--tokens", 20)
    assert first[:-1] + second == whole
    content = bytearray((tmp_path/"session").read_bytes())
    content[len(content)//2] ^= 1
    (tmp_path/"changed").write_bytes(content)
    code, stdout, stderr = run_main(capsys, "--load-session", tmp_path/"changed")
    assert (code, stdout) == (2, "")
    assert_one_line(stderr, "changed: must be a session as it was saved, is changed.")
    _, fork, _   = run_main(capsys, "--load-session", tmp_path/"session", "--prompt", " not", "--tokens", 20)
    assert fork.startswith(" not") and fork[-20:] != second[-20:]


def test_stop(capsys):
    _, whole, _ = run_main(capsys, "--prompt", "And it", "--tokens", 40)
    code, text, _ = run_main(capsys, "--prompt", "And it", "--tokens", 40, "--stop", "zzz", "--stop", whole[20:24])
    assert (code, text) == (0, whole[:whole.index(whole[20:24], len("And it"))] + "\n")


def test_sampling_options(capsys):
    options = ("--on", "torch", "--prompt", "And it", "--tokens", 30, "--temperature", 1.5)
    texts   = [run_main(capsys, *options, *more)[1] for more in ((), ("--seed", 0), ("--seed", 1),
        ("--seed", 1, "--top-k", 2), ("--seed", 1, "--top-p", 0.3), ("--seed", 1, "--repetition-penalty", 2))]
    assert texts[0] == texts[1]
    assert len(set(texts[1:])) == 5


def test_stochastic_rounding(capsys, tmp_path):
    """--seed is of the model's rounding too: same text in short, other bits."""
    sessions = []
    for seed in (1, 1, 2):
        assert run_main(capsys, "--on", "exact", "--prompt", "And it", "--tokens", 5, "--rounding", "stochastic", "--seed", seed,
            "--save-session", tmp_path/"session")[0] == 0
        sessions.append((tmp_path/"session").read_bytes())
    assert sessions[0] == sessions[1] != sessions[2]


# Tokens -------------------------------------------------------------------------------------------

def run_json(capsys, path, *arguments):
    """(stdout, the summary) of a command that does not fail."""
    code, stdout, stderr = run_main(capsys, *arguments, "--json", path)
    assert code == 0, stderr
    return stdout, json.loads(path.read_text())


@pytest.mark.parametrize("options", [(), ("--temperature", 1, "--seed", 3)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_in_parts(capsys, tmp_path, kind, options):
    """Four tokens and four more are eight, and what is shown is the decoding of all tokens, whatever the tokenizer adds."""
    make_transformers(tmp_path, vocab_size=420)
    train_tokenizer(tmp_path, kind)
    tokenizer = load_tokenizer(tmp_path, 420)
    options   = ("--model", tmp_path, *options)
    more      = (*options, "--load-session", tmp_path/"session", "--tokens", 4)
    stdout, whole = run_json(capsys, tmp_path/"out", *options, "--prompt", "den Deich", "--tokens", 8)
    assert whole["prompt_tokens"] == tokenizer.encode("den Deich") and len(whole["generated_tokens"]) == 8
    assert stdout == tokenizer.decode(whole["prompt_tokens"] + whole["generated_tokens"]) + "\n"
    assert stdout.endswith(whole["text"] + "\n")

    _, first = run_json(capsys, tmp_path/"out", *options, "--prompt", "den Deich", "--tokens", 4, "--save-session",
        tmp_path/"session")
    _, rest  = run_json(capsys, tmp_path/"out", *more)
    assert first["generated_tokens"] + rest["generated_tokens"] == whole["generated_tokens"]
    assert (rest["prompt_tokens"], rest["prefill"]["tokens"]) == ([], 0)

    _, rest = run_json(capsys, tmp_path/"out", *more, "--prompt", " den")
    assert rest["prompt_tokens"] == tokenizer.encode(" den", continuing=True) and 1 not in rest["prompt_tokens"]


def test_numbers(capsys, tmp_path):
    """Without a tokenizer, and without a vocabulary of bytes, as state-spaces' checkpoints come."""
    make_transformers(tmp_path)
    capsys.readouterr()
    code, stdout, stderr = run_main(capsys, "--model", tmp_path, "--prompt", "In the")
    assert (code, stdout) == (2, "")
    assert_one_line(stderr, f"{tmp_path}/tokenizer.json: must be there to read a text, is missing, and a vocabulary of 96 tokens "
        "is not one of bytes: give --tokenizer FILE, or tokens as numbers (--prompt-tokens 1,2,3).")
    stdout, summary = run_json(capsys, tmp_path/"out", "--model", tmp_path, "--prompt-tokens", "5,6", "--tokens", 3)
    assert stdout == "5 6 " + " ".join(map(str, summary["generated_tokens"])) + "\n"
    train_tokenizer(tmp_path, "words")
    (tmp_path/"tokenizer.json").rename(tmp_path/"elsewhere.json")
    stdout, summary = run_json(capsys, tmp_path/"out", "--model", tmp_path, "--prompt", "den", "--tokenizer",
        tmp_path/"elsewhere.json", "--tokens", 3)
    assert stdout.startswith("den") and summary["prompt_tokens"][0] == 1


def test_text_begins_after_the_prompt(capsys, tmp_path):
    """Also where the prompt ends with what looks like half a character."""
    stdout, summary = run_json(capsys, tmp_path/"out", "--prompt", "a\N{REPLACEMENT CHARACTER}", "--tokens", 0)
    assert (stdout, summary["text"]) == ("a\N{REPLACEMENT CHARACTER}\n", "")
    stdout, summary = run_json(capsys, tmp_path/"out", "--prompt", "a\N{REPLACEMENT CHARACTER}", "--tokens", 4)
    assert stdout == f"a\N{REPLACEMENT CHARACTER}{summary['text']}\n"
    assert bytes(summary["generated_tokens"]).decode(errors="replace") == summary["text"]


def test_tokenizer_that_leads_nowhere(capsys, tmp_path):
    """As in an incomplete cache of a hub: an error, not a model of bytes."""
    make_transformers(tmp_path)
    (tmp_path/"tokenizer.json").symlink_to(tmp_path/"blobs"/"none")
    capsys.readouterr()
    code, stdout, stderr = run_main(capsys, "--model", tmp_path, "--prompt", "In the")
    assert (code, stdout) == (2, "")
    assert_one_line(stderr, f"{tmp_path}/tokenizer.json: ")


def test_end_of_text(capsys, tmp_path):
    """By --stop-token, generation_config.json, and the tokenizer: before the token, which is not taken."""
    make_transformers(tmp_path)
    options = ("--model", tmp_path, "--prompt-tokens", "5,6", "--tokens", 12)
    tokens  = run_json(capsys, tmp_path/"out", *options)[1]["generated_tokens"]
    stop    = tokens[6]
    assert len(tokens) == 12 and tokens.index(stop) > 1
    until   = tokens[:tokens.index(stop)]
    assert run_json(capsys, tmp_path/"out", *options, "--stop-token", 95, "--stop-token", stop)[1]["generated_tokens"] == until
    (tmp_path/"generation_config.json").write_text(json.dumps({"eos_token_id": [stop]}))
    assert run_json(capsys, tmp_path/"out", *options)[1]["generated_tokens"] == until
    (tmp_path/"generation_config.json").unlink()
    train_tokenizer(tmp_path, "bytes")
    token = load_tokenizer(tmp_path, 96).tokenizer.id_to_token(stop)
    (tmp_path/"tokenizer_config.json").write_text(json.dumps({"eos_token": token}))
    assert run_json(capsys, tmp_path/"out", *options)[1]["generated_tokens"] == until


def test_the_end_inside_a_character(capsys, tmp_path):
    """The tail is U+FFFD, and not lost."""
    stdout, summary = run_json(capsys, tmp_path/"out", "--prompt-tokens", "97,195", "--tokens", 0)
    assert (stdout, summary["text"]) == ("a\N{REPLACEMENT CHARACTER}\n", "\N{REPLACEMENT CHARACTER}")

# Shell --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments", [
    (STREAM, "--help"),
    (STREAM, "generate", "--on", "exact", "--prompt", "a", "--tokens", "3"),
    ("-m", "model.logits", "--help"),
], ids=["help", "generate", "model"])
def test_nobody_reads(arguments):
    """As with | head: no message, and the exit code of a program that SIGPIPE ends."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=TINY.parent.parent, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": ""})
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), stderr) == (141, "")


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_narrow_terminals(monkeypatch, capsys, columns):
    """All of the text is shown, and it ends."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    screen      = Screen(5)
    screen.live = True
    screen.write("ab cdefgh")
    screen.close()
    assert "".join(capsys.readouterr().out.split()) == "abcdefgh"


def test_prompt_that_is_not_utf8():
    done = subprocess.run([sys.executable, STREAM, "generate", "--prompt", b"a\xff"], text=True, capture_output=True)
    assert done.returncode == 2
    assert_one_line(done.stderr, r"argument --prompt: must be UTF-8, is 'a\udcff'.")

# Options ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, message", [
    ([],                                            "--prompt must be a text to begin with, is missing"),
    (["--prompt", "a", "--tokens", "-1"],           "argument --tokens: must be an integer of at least 0, is '-1'"),
    (["--prompt", "a", "--temperature", "hot"],     "argument --temperature: must be a finite number of at least 0, is 'hot'"),
    (["--prompt", "a", "--temperature", "nan"],     "argument --temperature: must be a finite number of at least 0, is 'nan'"),
    (["--prompt", "a", "--top-p", "0"],             "--top-p must be a number above 0, up to 1, is 0"),
    (["--prompt", "a", "--top-p", "2"],             "argument --top-p: must be a number from 0 to 1, is '2'"),
    (["--prompt", "a", "--stop", ""],               "stop must be a text, is empty"),
    (["--prompt", "a", "--model", "/none"],         "is /none, which is no folder"),
    (["--prompt", "a", "--model", ""],              "or tiny, is '', which is no folder"),
    (["--prompt", "a", "--load-session", "/none"],  "/none: must be a session, there is none."),
    (["--prompt", "a", "--temperature", "inf"],     "argument --temperature: must be a finite number of at least 0, is 'inf'."),
    (["--prompt-tokens", "1,256"],                  "token must be a number from 0 to 255, is 256"),
    (["--prompt-tokens", "1,x"],                    "must be integers from 0 to 16777215, separated by commas, is '1,x'"),
    (["--prompt-tokens", str(10**30)],              "must be integers from 0 to 16777215"),
    (["--prompt-tokens", "1", "--prompt", "a"],     "argument --prompt: not allowed with argument --prompt-tokens"),
    (["--prompt", "a\udcff"],                       r"argument --prompt: must be UTF-8, is 'a\udcff'."),
    (["--prompt", "a", "--stop", "\udcff"],         "argument --stop: must be UTF-8"),
    (["--prompt", "a", "--stop-token", "256"],      "token must be a number from 0 to 255, is 256"),
    (["--prompt", "a", "--stop-token", "-1"],       "argument --stop-token: must be an integer of at least 0, is '-1'"),
    (["--prompt", "a", "--tokenizer", "/none"],     "/none: must be a file that can be read, cannot"),
    (["--prompt", "a", "--save-session", "/none/s"], "/none/s: cannot be written"),
])
def test_bad_options(capsys, arguments, message):
    try:
        code, _, stderr = run_main(capsys, *arguments)
    except SystemExit as error: # Of argparse.
        code, stderr = error.code, capsys.readouterr().err
    assert code == 2
    assert_one_line(stderr, message)

def test_rate_of_a_single_token(capsys, tmp_path):
    """It comes with the prompt, whose time it takes; those behind it have times of their own."""
    for tokens in (1, 5):
        code, _, stderr = run_main(capsys, "--on", "exact", "--prompt", "a", "--tokens", tokens, "--json", tmp_path/"out")
        decode = json.loads((tmp_path/"out").read_text())["decode"]
        assert code == 0 and decode["tokens"] == tokens and ("text: 1 tokens\n" in stderr) == (tokens == 1)
        assert decode["tokens_per_second"] == (tokens - 1)/decode["seconds"]

# Whole Model --------------------------------------------------------------------------------------

def run_generate(*arguments):
    result = subprocess.run([sys.executable, STREAM, "generate", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    return result.returncode, result.stdout, result.stderr


def test_on_exact(tmp_path):
    """The whole exact model writes; greedily, the tokens that its own logits say."""
    path = tmp_path/"out.json"
    code, stdout, _ = run_generate("--prompt", "And", "--tokens", "8", "--on", "exact", "--type", "q4_0", "--json", path)
    summary = json.loads(path.read_text())
    assert code == 0 and stdout.startswith("And") and summary["on"] == "exact"
    tokens  = [*b"And", *summary["generated_tokens"]]
    logits  = ExactNetwork(quantize_checkpoint("tiny", "q4_0"))(tokens)[0]
    assert logits.argmax(-1)[2:-1].tolist() == summary["generated_tokens"]


class Whole:
    """A harness whose device runs whole models, and commands in this process, which has loaded PyTorch already."""
    def __init__(self, harness, capsys):
        self.harness = harness
        self.fake    = harness.fake
        self.folder  = harness.folder
        self.capsys  = capsys

    def run(self, *arguments, on="device", link="etherbone"):
        """(exit code, stdout, stderr) of generate."""
        more = [*self.harness.links[link], *self.harness.files] if on == "device" else []
        self.capsys.readouterr()
        code = main(["generate", "--on", on, *map(str, (*arguments, *more))])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def whole(tmp_path, capsys):
    with FakeDevice(program=ProgramConfig(pass_tokens=4), ram_size=0x100_0000) as fake, EtherboneServer(fake) as etherbone, \
            UARTBoneServer(fake) as uart:
        yield Whole(StreamHarness(tmp_path, fake, etherbone, uart), capsys)


@pytest.mark.parametrize("link", ["etherbone", "uart"])
def test_on_device(whole, link):
    """Drawn, in parts, by sessions that the exact model and the device take from each other; files and texts are the same."""
    options  = ["--type", "q4_0", "--temperature", "0.8", "--seed", "3", "--top-k", "20"]
    sessions = {}
    for on in ("device", "exact"):
        path = whole.folder/f"{on}.json"
        code, stdout, stderr = whole.run(*options, "--prompt", "And it came", "--tokens", "12", "--json", path, "--save-session",
            whole.folder/on, on=on, link=link)
        assert code == 0, stderr
        assert stdout == "And it came" + json.loads(path.read_text())["text"] + "\n"
        sessions[on] = json.loads(path.read_text()), (whole.folder/on).read_bytes()
    device, exact = (sessions[on][0] for on in ("device", "exact"))
    assert device["generated_tokens"] == exact["generated_tokens"] and len(device["generated_tokens"]) == 12
    assert sessions["device"][1] == sessions["exact"][1]
    assert (device["on"], device["transport"], device["lanes"], device["pass_tokens"], device["clock_hz"]) == ("device", link, 16, 4, 10**8)
    assert device["peak_bytes_per_cycle"] == 16 and device["decode_passes"] == 11 and device["prefill_cycles"] > 0
    assert device["cycles_per_token"] == device["decode_cycles"]/11
    assert device["dram_share"] == pytest.approx((device["read_bytes"] + device["write_bytes"])/(16*device["cycles_per_token"]))
    assert 0.99 < device["dram_share"] <= 1 # Of the fake device.
    assert set(device["wait_cycles"]) == {"move", "gemv", "vector", "ssm", "head", "tape"}
    assert all(exact[name] is None for name in ("transport", "lanes", "pass_tokens", "clock_hz", "cycles_per_token", "dram_share", "read_bytes"))
    # Each goes on from the other's, twice.
    texts = {whole.run(*options, "--load-session", whole.folder/saved, "--tokens", "9", on=on, link=link)[1]
        for on, saved in (("device", "exact"), ("exact", "device"))*2}
    assert len(texts) == 1
    assert whole.run(*options, "--prompt", "And it came", "--tokens", "21", on="exact")[1] == "And it came" + device["text"] + texts.pop()


def test_speculate(whole):
    """The text, and how many of the drafts were right."""
    path = whole.folder/"out.json"
    code, stdout, stderr = whole.run("--prompt", "And it came", "--tokens", "60", "--speculate", "--store-every", "3", "--json", path)
    summary = json.loads(path.read_text())
    assert (code, stdout) == (0, whole.run("--prompt", "And it came", "--tokens", "60", on="exact")[1]), stderr
    assert 0 < summary["accepted"] <= summary["drafted"] and summary["decode_passes"] == 59 - summary["accepted"] and summary["speculate"]
    assert f"{summary['drafted']} drafts, {summary['accepted']} of them right: 59 tokens in {summary['decode_passes']} passes" in stderr


def test_no_tokens(whole):
    """A prompt alone is run and saved."""
    for on in ("device", "exact"):
        assert whole.run("--prompt", "And it came", "--tokens", "0", "--save-session", whole.folder/on, on=on)[:2] == (0, "And it came\n")
    assert (whole.folder/"device").read_bytes() == (whole.folder/"exact").read_bytes()


def test_stop_on_device(whole):
    """A text of the host's ends it, in the middle of a job; the session is that of the exact model."""
    text = whole.run("--prompt", "And it", "--tokens", "40", on="exact")[1]
    for on in ("device", "exact"):
        code, stdout, stderr = whole.run("--prompt", "And it", "--tokens", "40", "--stop", text[20:24], "--save-session", whole.folder/on, on=on)
        assert (code, stdout) == (0, text[:text.index(text[20:24], 6)] + "\n"), stderr
    assert (whole.folder/"device").read_bytes() == (whole.folder/"exact").read_bytes()


def test_sessions_of_others(whole):
    """Of PyTorch, or of other weights."""
    assert whole.run("--prompt", "And", "--tokens", "2", "--save-session", whole.folder/"torch", on="torch")[0] == 0
    assert whole.run("--type", "q4_0", "--prompt", "And", "--tokens", "2", "--save-session", whole.folder/"q4_0", on="exact")[0] == 0
    for name, message in (("torch", "must be a session of --on device or exact, is one of --on torch."),
            ("q4_0", "must be a session of this model, is one of a model with other weights.")):
        for on in ("device", "exact"):
            code, stdout, stderr = whole.run("--load-session", whole.folder/name, on=on)
            assert (code, stdout) == (2, "")
            assert_one_line(stderr, f"{name}: {message}")


def test_interrupted_on_device(whole):
    """By Ctrl-C: exit code 130; the next command is right, and need not wait for the whole job."""
    whole.fake.token_seconds = 0.1
    path    = whole.folder/"out.json"
    process = whole.harness.start("generate", "--prompt", "And it", "--tokens", "4000", "--json", path, "--save-session", whole.folder/"session")
    while not whole.fake.generated:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and not path.exists() and not (whole.folder/"session").exists()
    whole.fake.token_seconds = 0
    code, stdout, stderr = whole.run("--prompt", "And it", "--tokens", "10")
    assert (code, stdout) == (0, whole.run("--prompt", "And it", "--tokens", "10", on="exact")[1]), stderr
    assert whole.fake.boots == 1


def test_failed_on_device(whole):
    """One line, and nothing is saved."""
    whole.fake.fail_generate = Error.BAD_LOGITS, 0x7fc00000
    code, _, stderr = whole.run("--prompt", "And it", "--tokens", "10", "--save-session", whole.folder/"session")
    assert code == 1 and "failed: BAD_LOGITS (error 24, detail 0x7fc00000)." in stderr and not (whole.folder/"session").exists()


def test_device_without_engines(harness):
    code, stdout, stderr = harness.run("generate", "--prompt", "And it")
    assert (code, stdout) == (1, "")
    assert_one_line(stderr, "The gateware must have the engines that run whole models, has none: build it with --pass-tokens 1")


@pytest.mark.parametrize("options, message", [
    (["--on", "device", "--blocks", "model"],   "unrecognized arguments: --blocks model"),
    (["--on", "device", "--repetition-penalty", "2"], "--repetition-penalty must be left out with --on device, is 2: --on torch has it."),
    (["--on", "exact", "--store-every", "2"],   "--store-every must be left out with --on exact, is 2: it is of a device's DRAM."),
    (["--on", "exact", "--speculate"],          "--speculate must be left out with --on exact: it is of a device's passes."),
    (["--speculate"],                           "pass_tokens of the device must be 2, 4 or 8 for drafts (--speculate), is 1: they are run beside a token."),
    (["--store-every", "9"],                    "argument --store-every: must be an integer from 1 to 8, is '9'."),
    (["--top-k", "65"],                         "--top-k must be 1 to 64 with --on device, is 65: --on torch takes any."),
    (["--top-k", "0", "--temperature", "1"],    "--top-k must be 1 to 64 with --on device, is 0, for all: --on torch takes any."),
    (["--temperature", "1e9"],                  "--temperature must be from 0.0000153 to 131071, is 1e+09."),
    (["--data-width", "512", "--vector-lanes", "2"], "vector_lanes must be at least 4 with data_width = 512, is 2."),
    (["--on", "exact", "--prompt-tokens", "256"], "token must be a number from 0 to 255, is 256."),
])
def test_on_refused(options, message):
    code, stdout, stderr = run_generate(*(() if "--prompt-tokens" in options else ("--prompt", "And")), *options)
    assert (code, stdout) == (2, "") and message in stderr and "Traceback" not in stderr
