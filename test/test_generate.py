#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Generation, with a fake device that computes as the bit-accurate model does; and sessions in files."""

import json

import numpy as np
import pytest
import torch

from checkpoints import make_transformers
from fake_device import EtherboneServer, FakeDevice, UARTBoneServer, fake_firmware
from test_host_stream import Bench, assert_one_line

from cores.ssm.config import SSMConfig

from host.csr import CSRMap
from host.device import Device
from host.errors import AllocationError
from host.etherbone import Etherbone
from host.model import DeviceBlocks
from host.stream import main
from host.writer import generate_tokens

from model.checkpoint import CheckpointError, load_checkpoint
from model.decoder import CHUNK, BitExactBlocks, Decoder, TorchBlocks
from model.network import NetworkConfig
from model.reference import Mamba2Config
from model.sampling import Sampler
from model.session import load_session, session_bytes

# Fixtures -----------------------------------------------------------------------------------------

PROMPT = list(b"And it came to pass in the days when the judges ruled, that there was a famine in the land. ")

assert CHUNK < len(PROMPT) < 2*CHUNK


@pytest.fixture(scope="module")
def network():
    return load_checkpoint("tiny")


@pytest.fixture(params=[False, True], ids=["nearest", "stochastic"])
def device(request, tmp_path):
    """A booted device."""
    (tmp_path/"firmware.bin").write_bytes(fake_firmware())
    with FakeDevice(config=SSMConfig(lanes=16, stochastic_rounding=request.param)) as fake:
        (tmp_path/"csr.csv").write_text(fake.csr_csv())
        with EtherboneServer(fake) as server, Etherbone(server.ip, server.port, timeout=0.2) as transport:
            device = Device(transport, CSRMap.from_csv(tmp_path/"csr.csv"), patience=5, timeout_scale=0.1)
            device.boot(str(tmp_path/"firmware.bin"))
            yield device


@pytest.fixture
def bench(tmp_path):
    with FakeDevice() as fake, EtherboneServer(fake) as etherbone, UARTBoneServer(fake) as uart:
        yield Bench(tmp_path, fake, etherbone, uart)


def decode(decoder, tokens, **options):
    return list(generate_tokens(decoder, Sampler(**options), tokens))


def started(network, blocks, prompt=PROMPT):
    decoder = Decoder(network, blocks)
    decoder.prefill(prompt)
    return decoder


def assert_same_state(decoder, expected):
    """Tokens, logits and the state of all layers, bit for bit."""
    assert decoder.tokens == expected.tokens
    assert decoder.logits.numpy().tobytes() == expected.logits.numpy().tobytes()
    for layer, (conv, other) in enumerate(zip(decoder.conv, expected.conv)):
        assert conv.numpy().tobytes() == other.numpy().tobytes()
        state = expected.blocks.state(layer)
        assert np.any(state)
        assert decoder.blocks.state(layer).tobytes() == state.tobytes()

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


def test_device_equals_model(network, device):
    """Tokens, logits and states, bit for bit; with stochastic rounding too."""
    seed     = 5 if device.info.config.stochastic_rounding else None
    expected = started(network, BitExactBlocks(network.config, seed))
    decoder  = started(network, DeviceBlocks(device, network.config, seed or 0))
    assert decode(decoder, 10) == decode(expected, 10)
    assert_same_state(decoder, expected)
    assert decoder.blocks.jobs == 3*12 # Two chunks and ten tokens, each in three layers.
    assert decoder.blocks.cycles > 0 and decoder.blocks.seconds > 0
    for text in (decoder, expected):
        text.reset()
        text.take(PROMPT[:3])
    assert_same_state(decoder, expected)


def test_groups(device, tmp_path):
    make_transformers(tmp_path, n_groups=4)
    network  = load_checkpoint(tmp_path)
    seed     = 0 if device.info.config.stochastic_rounding else None
    decoder  = started(network, DeviceBlocks(device, network.config), [1, 2, 3])
    expected = started(network, BitExactBlocks(network.config, seed), [1, 2, 3])
    assert decode(decoder, 4) == decode(expected, 4)
    assert_same_state(decoder, expected)


def test_model_that_does_not_fit(device, tmp_path):
    make_transformers(tmp_path, head_dim=96, num_heads=1, n_groups=1)
    with pytest.raises(ValueError, match="headdim must be an integer from 1 to 64, is 96"):
        DeviceBlocks(device, load_checkpoint(tmp_path).config)
    config = NetworkConfig(vocab_size=8, n_layer=2000, layer=Mamba2Config(d_model=2048))
    with pytest.raises(AllocationError, match="the state of layer"):
        DeviceBlocks(device, config)


def test_input_that_float16_does_not_hold(network):
    layer = network.layers[1].mixer
    weight, layer.D = layer.D, torch.nn.Parameter(torch.full_like(layer.D, 1e6), requires_grad=False)
    try:
        with pytest.raises(ValueError, match=r"layer 1: D\[0\] must be a number from -65504 to 65504, is 1000000.0"):
            started(network, BitExactBlocks(network.config))
    finally:
        layer.D = weight

# Sessions -----------------------------------------------------------------------------------------

def test_session(network, device, tmp_path):
    """Saved from the device, it goes on there, and in the model, as if nothing had been; forks do not disturb each other."""
    seed    = 5 if device.info.config.stochastic_rounding else None
    decoder = started(network, DeviceBlocks(device, network.config, seed or 0))
    decode(decoder, 3)
    path = tmp_path/"session.safetensors"
    path.write_bytes(session_bytes(decoder))
    tokens = decode(decoder, 8)

    model = Decoder(network, BitExactBlocks(network.config, seed))
    load_session(model, path)
    assert decode(model, 8) == tokens
    assert_same_state(model, decoder)

    load_session(decoder, path)
    fork = decode(decoder, 8, temperature=1.0, seed=1)
    assert fork != tokens
    load_session(decoder, path)
    assert decode(decoder, 8) == tokens
    assert_same_state(decoder, model)


def test_sessions_that_do_not_fit(network, tmp_path):
    path    = tmp_path/"session"
    decoder = Decoder(network, TorchBlocks(network.config))
    with pytest.raises(ValueError, match="a session without a token is not allowed"):
        session_bytes(decoder)
    decoder.take(PROMPT[:2])
    path.write_bytes(session_bytes(decoder))
    with pytest.raises(CheckpointError, match=r"ssm.0 of float32, \(5, 64, 32\), is not allowed: float16"):
        load_session(Decoder(network, BitExactBlocks(network.config)), path)
    other = load_checkpoint("tiny")
    other.norm_f.weight = torch.nn.Parameter(2*other.norm_f.weight, requires_grad=False)
    with pytest.raises(CheckpointError, match="a model with other weights"):
        load_session(Decoder(other, TorchBlocks(network.config)), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is not a session"):
        load_session(decoder, path)

# Command ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("link", ["etherbone", "uart"])
def test_command(bench, link):
    code, stdout, stderr = bench.run("generate", "--prompt", "In the", "--tokens", 6, "--json", bench.folder/"out.json",
        link=link)
    assert code == 0, stderr
    summary = json.loads((bench.folder/"out.json").read_text())
    assert (summary["transport"], summary["blocks"], summary["layers"]) == (link, "device", 3)
    assert len(summary["generated"]) == summary["decode"]["tokens"] == 6 and summary["prefill"]["tokens"] == 6
    assert stdout == "In the" + summary["text"] + "\n" and bytes(summary["generated"]).decode() == summary["text"]
    assert summary["decode"]["cycles_per_token"] == 3000 # Of the fake device, 1000 a job.
    assert summary["decode"]["block_tokens_per_second"] == pytest.approx(1e8/3000)
    assert 0 < summary["decode"]["share_in_block"] <= 1
    assert "text: 6 tokens, " in stderr and "; 3000 cycles a token, " in stderr
    assert "the blocks alone, at 100 MHz: 33333.3 token/s" in stderr


def run_main(capsys, *arguments):
    """(exit code, stdout, stderr), with the blocks in the model."""
    code = main(["generate", "--blocks", "model", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_with_sessions(capsys, tmp_path):
    _, whole, _  = run_main(capsys, "--prompt", "And he", "--tokens", 30)
    _, first, _  = run_main(capsys, "--prompt", "And he", "--tokens", 10, "--save-session", tmp_path/"session")
    _, second, _ = run_main(capsys, "--load-session", tmp_path/"session", "--tokens", 20)
    assert first[:-1] + second == whole
    _, fork, _   = run_main(capsys, "--load-session", tmp_path/"session", "--prompt", " not", "--tokens", 20)
    assert fork.startswith(" not") and fork[-20:] != second[-20:]


def test_stop(capsys):
    _, whole, _ = run_main(capsys, "--prompt", "And it", "--tokens", 40)
    code, text, _ = run_main(capsys, "--prompt", "And it", "--tokens", 40, "--stop", "zzz", "--stop", whole[20:24])
    assert (code, text) == (0, whole[:whole.index(whole[20:24], len("And it"))] + "\n")


def test_sampling_options(capsys):
    options = ("--prompt", "And it", "--tokens", 30, "--temperature", 1.5)
    texts   = [run_main(capsys, *options, *more)[1] for more in ((), ("--seed", 0), ("--seed", 1),
        ("--seed", 1, "--top-k", 2), ("--seed", 1, "--top-p", 0.3), ("--seed", 1, "--repetition-penalty", 2))]
    assert texts[0] == texts[1]
    assert len(set(texts[1:])) == 5


def test_stochastic_rounding(capsys, tmp_path):
    """--seed is of the model's rounding too: same text in short, other bits."""
    sessions = []
    for seed in (1, 1, 2):
        assert run_main(capsys, "--prompt", "And it", "--tokens", 5, "--rounding", "stochastic", "--seed", seed,
            "--save-session", tmp_path/"session")[0] == 0
        sessions.append((tmp_path/"session").read_bytes())
    assert sessions[0] == sessions[1] != sessions[2]


@pytest.mark.parametrize("arguments, message", [
    ([],                                            "--prompt is missing"),
    (["--prompt", "a", "--tokens", "-1"],           "argument --tokens: must be an integer, at least 0, is '-1'\"),
    (["--prompt", "a", "--temperature", "hot"],     "argument --temperature: must be a number, at least 0, is 'hot'\"),
    (["--prompt", "a", "--temperature", "nan"],     "argument --temperature: must be a number, at least 0, is 'nan'\"),
    (["--prompt", "a", "--top-p", "0"],             "--top-p must be a number above 0, up to 1, is 0"),
    (["--prompt", "a", "--top-p", "2"],             "argument --top-p: must be a number, 0 to 1, is '2'\"),
    (["--prompt", "a", "--stop", ""],               "stop must be a text, is empty"),
    (["--prompt", "a", "--model", "/none"],         "is /none, which is no folder"),
    (["--prompt", "a", "--load-session", "/none"],  "/none: is not a session"),
    (["--prompt", "a", "--save-session", "/none/s"], "/none/s: cannot be written"),
])
def test_bad_options(capsys, arguments, message):
    try:
        code, _, stderr = run_main(capsys, *arguments)
    except SystemExit as error: # Of argparse.
        code, stderr = error.code, capsys.readouterr().err
    assert code == 2
    assert_one_line(stderr, message)
