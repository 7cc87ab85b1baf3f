#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py load --model``, and what builds it and other commands ask for."""

import argparse
import json

import pytest

from fake_device import EtherboneServer, FakeDevice, UARTBoneServer
from models import random_model
from stream_harness import StreamHarness, assert_one_line

from host.commands.whole_model import build_image
from host.connect import add_device_arguments, simulated_system
from host.stream import main

from model.image import Image
from model.quantized import quantize_checkpoint

from operations.config import ALIGNMENT, ProgramConfig, SSMConfig
from operations.protocol import DATA_OFFSET

# Helpers ------------------------------------------------------------------------------------------

def run(capsys, *arguments):
    """(exit code, stdout, stderr)."""
    try:
        code = main(list(map(str, arguments)))
    except SystemExit as error: # Of argparse.
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def harness(tmp_path):
    with FakeDevice(program=ProgramConfig(pass_tokens=2), ram_size=0x100_0000) as fake, EtherboneServer(fake) as etherbone, \
            UARTBoneServer(fake) as uart:
        yield StreamHarness(tmp_path, fake, etherbone, uart)


def options(harness):
    return [*harness.links["etherbone"], *harness.files]

# Plan ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("board", [(), ("--transport", "etherbone", "--lanes", 32, "--data-width", 512, "--pass-tokens", 4, "--memory", 256)])
def test_plan(capsys, tmp_path, board):
    """Without any device: what lies one behind the other, and the bound that DRAM sets."""
    code, stdout, stderr = run(capsys, "load", "--model", "tiny", "--type", "q4_0", "--plan", "--json", tmp_path/"plan.json", *board)
    assert (code, stderr) == (0, "")
    plan  = json.loads((tmp_path/"plan.json").read_text())
    image = Image(quantize_checkpoint("tiny", "q4_0"), plan["data_width"], SSMConfig(lanes=plan["lanes"]), ProgramConfig(plan["pass_tokens"]))
    assert (plan["lanes"], plan["data_width"], plan["pass_tokens"]) == ((32, 512, 4) if board else (16, 128, 1))
    assert plan["image_bytes"] == image.size == len(image.to_bytes()) and plan["data_size"] == 2**28 - DATA_OFFSET and plan["fits"]
    end = 0
    for row in plan["map"]:
        assert end <= row["offset"] < end + ALIGNMENT
        end = row["offset"] + row["bytes"]
    assert end == plan["memory_bytes"]
    assert plan["tokens_per_second"] == pytest.approx(1e8*plan["data_width"]/8/(plan["read_bytes"] + plan["write_bytes"]))
    assert f"at most          {plan['tokens_per_second']:.2f} token/s" in stdout


def test_plan_of_a_board(capsys, harness):
    code, stdout, stderr = run(capsys, "load", "--model", "tiny", "--plan", *options(harness))
    assert (code, stderr) == (0, "") and "2 tokens a pass" in stdout and f"of {0x100_0000 - DATA_OFFSET} of the data region" in stdout


def test_bound_of_130m():
    """The tape is nearly all that a token costs: each weight once, and state twice."""
    model  = random_model(kind="q4_0", n_layer=1, d_model=768, d_state=128, headdim=64)
    image  = Image(model, 128, SSMConfig(), ProgramConfig())
    weights = sum(matrix.integers.size for layer in model.layers for matrix in (layer.in_proj, layer.out_proj)) + model.head.integers.size
    state  = 24*64*128*2
    read   = weights*(4 + 16/32)//8 + state
    assert read < image.traffic(1).read < 1.05*read and state < image.traffic(1).written < 1.05*state


@pytest.mark.parametrize("arguments, message", [
    (["--model", "tiny", "--plan", "--memory", 4, "--data-width", 1], "argument --data-width: invalid choice: 1"),
    (["--model", "tiny", "--memory", 64],           "--memory must be left out without --plan."),
    (["--model", "tiny", "--plan", "--memory", 1],  "argument --memory: must be an integer from 4 to 4096, is '1'."),
    (["--plan"],                                    "files or --model must be given, neither are."),
    (["a", "--model", "tiny"],                      "files or --model must be given, both are."),
    (["a", "--plan"],                               "--plan must be left out without --model."),
    (["--model", "tiny", "--manifest", "m"],        "--manifest must be left out with --model."),
    (["--model", "/none", "--plan"],                "--model must be the folder of a checkpoint"),
    (["--model", "tiny", "--data-width", 512, "--vector-lanes", 1, "--plan"], "vector_lanes must be at least 4 with data_width = 512, is 1."),
])
def test_refused(capsys, arguments, message):
    code, stdout, stderr = run(capsys, "load", *arguments)
    assert (code, stdout) == (2, "")
    assert_one_line(stderr, message)


def test_memory_that_is_too_small():
    """By how much, and what is large enough."""
    system = simulated_system(argparse.Namespace(pass_tokens=1, vector_lanes=None, data_width=None, lanes=None, resident_tiles=None, rounding=None))
    image  = build_image(random_model(), system)
    size   = image.memory_bytes()
    image.check_memory(size)
    with pytest.raises(ValueError, match=f"the model takes {size} bytes .*, 64 more than the {size - 64} that are free: a memory of 4 MiB holds it, "
            "or --type q4_0"):
        image.check_memory(size - 64)

# Load ---------------------------------------------------------------------------------------------

def test_load(capsys, harness, tmp_path):
    """Verified; again, nothing of the weights is sent; other commands see it, and leave it there."""
    sent = []
    for _ in range(2):
        code, stdout, stderr = run(capsys, "load", "--model", "tiny", "--json", tmp_path/"out.json", *options(harness))
        assert (code, stderr) == (0, "") and "all right on the device (CRC-32, computed there)" in stdout
        sent.append(json.loads((tmp_path/"out.json").read_text())["sent"])
    assert sent[0] > 500_000 and sent[1] == 0
    code, stdout, stderr = run(capsys, "info", "--json", tmp_path/"info.json", *options(harness))
    assert code == 0 and "models     whole, 2 tokens a pass; 4 vector lanes, 65536 elements of scratchpad, 256 words of activations; MOVE, GEMV" in stdout
    info = json.loads((tmp_path/"info.json").read_text())
    assert info["loaded"]["sections"] == ["model"] and info["loaded"]["complete"]
    assert info["program"] == {"pass_tokens": 2, "vector_lanes": 4, "elements": 65536, "activations": 256,
        "units": ["MOVE", "GEMV", "VECTOR", "SSM", "HEAD"]}

# Builds -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, whole_model, expected", [
    ([],                                          False, None),
    ([],                                          True,  ProgramConfig()),
    (["--pass-tokens", "4"],                      False, ProgramConfig(4)),
    (["--vector-lanes", "8", "--lanes", "32"],    True,  ProgramConfig(1, 8)),
])
def test_builds(arguments, whole_model, expected):
    parser = argparse.ArgumentParser()
    add_device_arguments(parser)
    assert simulated_system(parser.parse_args(arguments), whole_model).program == expected


def test_what_a_board_must_have(capsys, harness):
    for more, message in ((["--pass-tokens", 4], "--pass-tokens 4 is not what the device has: 2."),
            (["--vector-lanes", 2], "--vector-lanes 2 is not what the device has: 4.")):
        code, stdout, stderr = run(capsys, "info", *more, *options(harness))
        assert (code, stdout) == (2, "")
        assert_one_line(stderr, message)
