#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py logits``, as a user types it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fake_device import EtherboneServer, FakeDevice, UARTBoneServer
from stream_harness import STREAM, StreamHarness

from model.checkpoint import load_checkpoint, to_network
from model.exact.network import ExactNetwork
from model.quantized import quantize_checkpoint

from operations.config import ProgramConfig

# Helpers ------------------------------------------------------------------------------------------

TOKENS = [72, 101, 108, 108, 111]


def run(*arguments):
    result = subprocess.run([sys.executable, STREAM, "logits", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    return result.returncode, result.stdout, result.stderr

# Logits -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, expected", [
    (["--on", "exact"],                              lambda: ExactNetwork(quantize_checkpoint("tiny", "q8_0"))(TOKENS)[0]),
    (["--on", "exact", "--type", "q4_0", "--head-type", "q8_0"], lambda: ExactNetwork(quantize_checkpoint("tiny", "q4_0", "q8_0"))(TOKENS)[0]),
    (["--on", "torch"],                              lambda: load_checkpoint("tiny").prefill(TOKENS)[0].numpy()),
    (["--on", "torch", "--type", "q4_0"],            lambda: to_network(quantize_checkpoint("tiny", "q4_0")).prefill(TOKENS)[0].numpy()),
])
def test_logits(tmp_path, options, expected):
    output, summary = tmp_path/"out.npy", tmp_path/"out.json"
    code, stdout, stderr = run("--tokens", ",".join(map(str, TOKENS)), "--output", output, "--json", summary, *options)
    assert (code, stderr) == (0, "") and "5 x 256 logits" in stdout
    logits = np.load(output)
    wanted = expected()
    assert logits.dtype == np.float32
    if "torch" in options: # Its sums depend on the number of threads.
        assert np.allclose(logits, wanted, atol=1e-4)
    else:
        assert logits.tobytes() == wanted.tobytes()
    assert json.loads(summary.read_text())["best"] == logits.argmax(-1).tolist()


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_on_device(tmp_path, kind, tokens):
    with FakeDevice(program=ProgramConfig(pass_tokens=tokens), ram_size=0x100_0000) as fake, EtherboneServer(fake) as etherbone, \
            UARTBoneServer(fake) as uart:
        harness = StreamHarness(tmp_path, fake, etherbone, uart)
        code, stdout, stderr = harness.run("logits", "--tokens", ",".join(map(str, TOKENS)), "--output", tmp_path/"out.npy", "--type", kind,
            "--json", tmp_path/"out.json")
    assert (code, stderr) == (0, "") and "5 x 256 logits, device" in stdout
    assert np.load(tmp_path/"out.npy").tobytes() == ExactNetwork(quantize_checkpoint("tiny", kind))(TOKENS)[0].tobytes()
    assert json.loads((tmp_path/"out.json").read_text())["on"] == "device"


@pytest.mark.parametrize("options, message", [
    (["--tokens", "256"],                   "token must be a number from 0 to 255, is 256."),
    (["--tokens", "1", "--model", "/none"], "--model must be the folder of a checkpoint, with config.json, a GGUF file, or tiny"),
    (["--tokens", "1", "--type", "q5_0"],   "--type"),
    (["--tokens", ""],                      "--tokens"),
])
def test_refused(tmp_path, options, message):
    code, stdout, stderr = run("--output", tmp_path/"out.npy", *options)
    assert (code, stdout) == (2, "") and message in stderr and "Traceback" not in stderr
    assert not (tmp_path/"out.npy").exists()


def test_output_that_cannot_be_written():
    code, stdout, stderr = run("--tokens", "1", "--output", "/none/out.npy")
    assert (code, stdout) == (2, "") and "/none/out.npy" in stderr
