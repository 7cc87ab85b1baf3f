#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The command serve: what it refuses before anything is built, and, in the slow suite, a served simulation."""

import signal
import socket
import subprocess
import sys

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from host.stream import main

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.quantized import quantize_checkpoint

from tools.paths import ROOT

# Refusals -----------------------------------------------------------------------------------------

def refusal(capfd, *options):
    assert main(["serve", *map(str, options)]) == 2
    stderr = capfd.readouterr().err
    assert stderr.count("\n") == 1
    return stderr.removeprefix("stream.py: error: ").rstrip()


def test_access(capfd, tmp_path):
    """Others are let in with a key, or where it is said that there is none."""
    assert refusal(capfd, "--host", "0.0.0.0").startswith("--host must be an address of this machine alone without --api-key-file, is 0.0.0.0: ")
    (tmp_path/"empty").write_text("\n")
    assert refusal(capfd, "--api-key-file", tmp_path/"empty") == f"{tmp_path/'empty'}: must have a key in its first line, has none."
    assert refusal(capfd, "--api-key-file", tmp_path/"none").startswith(f"{tmp_path/'none'}: must be a file with a key, cannot be read: ")
    (tmp_path/"key").write_text("secret\n")
    assert refusal(capfd, "--api-key-file", tmp_path/"key", "--no-api-key") == "--no-api-key must be left out with --api-key-file."
    assert refusal(capfd, "--rounding", "stochastic").startswith("--rounding must be nearest for several texts at once")


def test_address_in_use(capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal(capfd, "--port", port).startswith(f"--host and --port must be an address that is free here, are 127.0.0.1 and {port}: ")

# Simulation ---------------------------------------------------------------------------------------

@pytest.mark.slow
def test_simulation(tmp_path):
    """Clients at once; then Ctrl-C, in the middle of a text: its client is told, and nothing is left."""
    process = subprocess.Popen([sys.executable, ROOT/"host"/"stream.py", "serve", "--pass-tokens", "4", "--port", "0"], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        name, url, *_ = process.stdout.readline().split()
        model = quantize_checkpoint("tiny", None, None)
        with openai.OpenAI(base_url=url.rstrip(",") + "v1", api_key="none", max_retries=0) as client, ThreadPoolExecutor(8) as pool:
            def ask(number):
                prompt = "The river of the king"[:4 + number]
                exact  = ExactDecoder(ExactNetwork(model))
                exact.prefill(list(prompt.encode()))
                answer = client.completions.create(model=name.rstrip(":"), prompt=prompt, max_tokens=6 + number % 5, temperature=0)
                return answer.choices[0].text, bytes(exact.generate(6 + number % 5)).decode()
            for found, wanted in pool.map(ask, range(12)):
                assert found == wanted
            with pytest.raises(openai.APIError, match="The server ends."):
                for number, _ in enumerate(client.completions.create(model="tiny", prompt="The", max_tokens=5000, stream=True)):
                    if number == 5:
                        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "stream.py: interrupted\n") and process.returncode == 130
    finally:
        process.kill()
        process.communicate()
