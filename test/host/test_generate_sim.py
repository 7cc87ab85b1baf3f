#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Text through the simulated SoC: the exact model's, token for token, and its state bit for bit."""

import json

import pytest

from checkpoints import MAMBA2_130M, make_transformers
from stream_harness import stream

# Helpers ------------------------------------------------------------------------------------------

def write(tmp_path, on, tokens, *options):
    """Greedy text of the tiny model, or another one: (summary, session file's content)."""
    done = stream("generate", "--on", on, "--prompt", "In the beginning", "--tokens", tokens, "--json",
        tmp_path/"out.json", "--save-session", tmp_path/"session", *options, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path/"out.json").read_text()), (tmp_path/"session").read_bytes()


def compare(tmp_path, tokens, *options, of_device=()):
    """The device's summary, after its tokens and all its state have been compared with the exact model's."""
    summary, session   = write(tmp_path, "device", tokens, "--transport", "sim", *options, *of_device)
    expected, expected_session = write(tmp_path, "exact", tokens, *options)
    assert summary["generated"] == expected["generated"]
    assert len(summary["generated"]) == tokens
    assert session == expected_session
    return summary

# Tests --------------------------------------------------------------------------------------------

def test_tiny(tmp_path):
    summary  = compare(tmp_path, 12)
    deferred = compare(tmp_path, 12, of_device=["--store-every", "4"])
    assert summary["cycles_per_token"] > 0 and deferred["write_bytes"] < 0.5*summary["write_bytes"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_512_tokens(tmp_path):
    summary = compare(tmp_path, 512)
    print(f"\ntiny: {summary}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_130m_shape(tmp_path):
    """Random weights in the shape of Mamba-2 130M, through all 24 layers."""
    make_transformers(tmp_path/"model", **MAMBA2_130M)
    summary = compare(tmp_path, 3, "--model", tmp_path/"model")
    assert summary["layers"] == 24
    decode = summary["decode"]
    print(f"\n130M shape: {decode['seconds']/decode['tokens']:.2f} s a token, {summary['cycles_per_token']:.0f} cycles a token")
