#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A model on a device, in a program of one's own."""

import re
import subprocess
import sys

import pytest

from fake_device import EtherboneServer, FakeDevice, fake_firmware

from host.library import Mamba2

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws
from model.quantized import quantize_checkpoint
from model.tokenizer import ByteTokenizer

from operations.config import ProgramConfig

from tools.errors import CommandError
from tools.paths import ROOT

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def quantized():
    return quantize_checkpoint("tiny", "q8_0")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """(fake device, options that reach it)."""
    folder = tmp_path_factory.mktemp("board")
    with FakeDevice(program=ProgramConfig(pass_tokens=2)) as fake, EtherboneServer(fake) as server:
        (folder/"csr.csv").write_text(fake.csr_csv(buffer_depth=256))
        (folder/"firmware.bin").write_bytes(fake_firmware())
        yield fake, dict(transport="etherbone", ip=server.ip, udp_port=server.port, csr_csv=folder/"csr.csv", firmware=folder/"firmware.bin",
            timeout_scale=0.01)


def exact(quantized, prompt, tokens, draws=Draws()):
    decoder = ExactDecoder(ExactNetwork(quantized), draws)
    decoder.prefill(list(prompt.encode()))
    return ByteTokenizer().decode(list(decoder.generate(tokens)))

# Tests --------------------------------------------------------------------------------------------

def test_texts(board, quantized):
    """One after the other, greedy and drawn; one that is left before its end; up to a stop string."""
    with Mamba2("tiny", **board[1]) as mamba:
        assert "".join(mamba.generate("In the ", tokens=5)) == exact(quantized, "In the ", 5)
        assert mamba.figures.decode_tokens == 4 # The first one comes with the prompt.
        left = mamba.generate("And ", tokens=40)
        next(left)
        drawn = exact(quantized, "God said", 6, Draws.of(0.8, 5, 3, 0.9))
        assert "".join(mamba.generate(list(b"God said"), tokens=6, temperature=0.8, top_k=5, top_p=0.9, seed=3)) == drawn
        assert list(left) == []
        assert "".join(mamba.generate("God said", tokens=6, temperature=0.8, top_k=5, top_p=0.9, seed=3, stop=drawn[2:4])) == drawn[:2]
        assert list(mamba.generate("And ", tokens=40))[0] # Its end is not waited for by hand.


def test_errors(board):
    with Mamba2("tiny", **board[1]) as mamba:
        for options, message in (
            (dict(prompt=""),                       "prompt must be a text or tokens to begin with, is empty."),
            (dict(prompt=[256]),                    "token must be a number from 0 to 255, is 256."),
            (dict(prompt="a", temperature=-1),      "temperature must be from 0.0000153 to 131071, is -1."),
            (dict(prompt="a", top_k=65),            "top_k must be an integer from 1 to 64, is 65."),
            (dict(prompt="a", tokens=-1),           "tokens must be an integer from 0 to 2147483648, is -1."),
            (dict(prompt="a", stop=[""]),           "stop must be a text, is empty."),
        ):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
                mamba.generate(**options)
    with pytest.raises(TypeError, match="^an option must be one of .*transport.*, is transprot.$"):
        Mamba2("tiny", transprot="sim")
    with pytest.raises(ValueError, match="^--lanes: "):
        Mamba2("tiny", lanes=3)
    with pytest.raises(CommandError, match="csr.csv"):
        with Mamba2("tiny", transport="etherbone"):
            pass


def test_interrupted(board):
    """The job under way is given up, not waited for; the device goes on to the next one."""
    with pytest.raises(KeyboardInterrupt), Mamba2("tiny", **board[1]) as mamba:
        for _ in mamba.generate("In the ", tokens=60):
            raise KeyboardInterrupt
    with Mamba2("tiny", **board[1]) as mamba:
        assert len("".join(mamba.generate("In the ", tokens=3))) == 3


@pytest.mark.slow
def test_script_of_the_readme(quantized, tmp_path):
    """Letter for letter, in another folder, on the simulated device."""
    script, = re.findall(r"^(?:    from host.library .*\n)(?:(?:    .*)?\n)+", (ROOT/"README.md").read_text(), re.MULTILINE)
    (tmp_path/"text.py").write_text("\n".join(line[4:] for line in script.splitlines()))
    done = subprocess.run([sys.executable, "text.py"], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout == exact(quantized, "In the beginning", 40)
