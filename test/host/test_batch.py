#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The command batch, with a fake device, against the exact model and the command generate."""

import json
import signal
import time

import pytest

from fake_device import EtherboneServer, FakeDevice, UARTBoneServer
from stream_harness import StreamHarness, assert_one_line

from host.stream import main

from operations.config import ProgramConfig, SSMConfig

# Fixtures -----------------------------------------------------------------------------------------

PROMPTS = ("And it came", "In", "The LORD", "So", "And he")


@pytest.fixture
def harness(tmp_path):
    with FakeDevice(program=ProgramConfig(pass_tokens=4), ram_size=0x100_0000) as fake, EtherboneServer(fake) as etherbone, \
            UARTBoneServer(fake) as uart:
        yield StreamHarness(tmp_path, fake, etherbone, uart)


def run(capsys, harness, *arguments, on="device", command="batch"):
    """(exit code, stdout, stderr), in this process, which has loaded PyTorch already."""
    more = [*harness.links["etherbone"], *harness.files] if on == "device" else []
    capsys.readouterr()
    code = main([command, "--on", on, *map(str, (*arguments, *more))])
    captured = capsys.readouterr()
    return code, captured.out, captured.err

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [(), ("--temperature", "0.8", "--top-k", "20", "--seed", "3"), ("--sessions", "2", "--stop-token", "32")])
def test_texts(capsys, harness, options):
    """What the exact model writes, and what generate writes of each prompt by itself."""
    path    = harness.folder/"out.json"
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    code, stdout, stderr = run(capsys, harness, *prompts, "--prompt-tokens", "65,66", "--tokens", "8", *options, "--json", path)
    assert code == 0, stderr
    summary = json.loads(path.read_text())
    exact   = [option for option in options if option not in ("--sessions", "2")]
    assert run(capsys, harness, *prompts, "--prompt-tokens", "65,66", "--tokens", "8", *exact, on="exact")[:2] == (0, stdout)
    assert [bytes(text["prompt_tokens"]).decode() for text in summary["texts"]] == [*PROMPTS, "AB"]
    assert summary["sessions"] == (2 if "--sessions" in options else 4) and summary["clock_hz"] == 10**8
    assert summary["cycles_per_token"] > 0 and 0.9 < summary["dram_share"] <= 1
    assert "token/s at 100 MHz, all texts together" in stderr
    for number, text in ((0, summary["texts"][0]), (4, summary["texts"][4])):
        if "--seed" in options:
            exact[-1] = str(3 + number)
        alone = run(capsys, harness, "--prompt", PROMPTS[number], "--tokens", "8", *exact, on="exact", command="generate")[1]
        assert alone == PROMPTS[number] + text["text"] + "\n"
        assert f"--- {number + 1}: {len(PROMPTS[number])} tokens, {len(text['generated_tokens'])} more\n{alone}" in stdout


def test_interrupted(capsys, harness):
    """By Ctrl-C: exit code 130, nothing is written, and the next command need not wait for the whole job."""
    harness.fake.token_seconds = 0.1
    path    = harness.folder/"out.json"
    process = harness.start("batch", "--prompt", "And it", "--prompt", "In", "--tokens", "2000", "--json", path)
    while not harness.fake.generated:
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stdout == "" and not path.exists()
    harness.fake.token_seconds = 0
    code, stdout, stderr = run(capsys, harness, "--prompt", "And it", "--prompt", "In", "--tokens", "5")
    assert (code, stdout) == run(capsys, harness, "--prompt", "And it", "--prompt", "In", "--tokens", "5", on="exact")[:2], stderr
    assert harness.fake.boots == 1


def test_shown_at_once(capsys, harness):
    """A text that has ended is shown before the others end, and stays when these fail."""
    harness.fake.hang = 14
    harness.fake.fail = {}
    path    = harness.folder/"out.json"
    process = harness.start("batch", "--prompt", "And it", "--prompt", "In", "--sessions", "1", "--tokens", "8", "--json", path)
    line    = process.stdout.readline()
    assert line == "--- 1: 6 tokens, 8 more\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and not path.exists()


@pytest.mark.parametrize("prompts", [40])
def test_many_prompts(capsys, tmp_path, prompts):
    """There need be room for those that run together only."""
    with FakeDevice(program=ProgramConfig(pass_tokens=4), ram_size=0x34_0000) as fake, EtherboneServer(fake) as etherbone, UARTBoneServer(fake) as uart:
        harness = StreamHarness(tmp_path, fake, etherbone, uart)
        code, stdout, stderr = run(capsys, harness, *["--prompt", "a"]*prompts, "--tokens", "1")
        assert code == 0 and stdout.count("--- ") == prompts, stderr


@pytest.mark.parametrize("options, message", [
    ([],                                         "--prompt must be given for each text, is missing; or --prompt-tokens."),
    (["--prompt", "a", "--prompt", ""],          "--prompt must be a text to begin with, is empty: the 2. one."),
    (["--prompt-tokens", "256"],                 "token must be a number from 0 to 255, is 256."),
    (["--prompt", "a", "--tokens", "0"],         "argument --tokens: must be an integer of at least 1, is '0'."),
    (["--prompt", "a", "--top-k", "65"],         "argument --top-k: must be an integer from 1 to 64, is '65'."),
    (["--prompt", "a", "--temperature", "1e9"],  "temperature must be from 0.0000153 to 131071, is 1e+09."),
    (["--prompt", "a", "--on", "torch"],         "argument --on: invalid choice: 'torch'"),
    (["--prompt", "a", "--sessions", "2", "--on", "exact"], "--sessions must be left out with --on exact, is 2: it is of a device."),
    (["--prompt", "a", "--rounding", "stochastic"], "--rounding must be nearest for several texts at once, is stochastic: a pass has one seed."),
    (["--prompt", "a", "--stop-token", "300"],   "token must be a number from 0 to 255, is 300."),
])
def test_refused(capsys, options, message):
    try:
        code = main(["batch", *options])
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert_one_line(captured.err, message)


def test_refused_by_the_device(capsys, harness, tmp_path):
    code, _, stderr = run(capsys, harness, "--prompt", "a", "--sessions", "5")
    assert code == 2 and "--sessions must be 1 to 4, is 5: a pass has no more tokens (--pass-tokens)" in stderr
    folder = tmp_path/"stochastic"
    folder.mkdir()
    with FakeDevice(SSMConfig(stochastic_rounding=True), program=ProgramConfig(pass_tokens=4), ram_size=0x100_0000) as fake, \
            EtherboneServer(fake) as etherbone, UARTBoneServer(fake) as uart:
        code, stdout, stderr = run(capsys, StreamHarness(folder, fake, etherbone, uart), "--prompt", "a")
        assert (code, stdout) == (2, "") and "rounding of the device must be to nearest for several texts at once, is stochastic" in stderr
