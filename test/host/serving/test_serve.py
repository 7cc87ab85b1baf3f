#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The command serve: what it refuses before anything is built, and, in the slow suite, a served simulation."""

import functools
import glob
import os
import random
import signal
import socket
import subprocess
import sys
import time

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import openai
import pytest

from host.stream import main

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws
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

@contextmanager
def served(*options):
    """Context manager: (process of stream.py serve on a simulated device, name of its model, URL)."""
    process = subprocess.Popen([sys.executable, ROOT/"host"/"stream.py", "serve", "--pass-tokens", "4", "--port", "0", *options], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        name, url, *_ = process.stdout.readline().split()
        yield process, name.rstrip(":"), url.rstrip(",")
    finally:
        process.kill()
        process.communicate()


def interrupt(process):
    """Ctrl-C: it ends, and says so."""
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "stream.py: interrupted\n") and process.returncode == 130


@functools.cache
def exact(prompt, tokens, draws=Draws()):
    """Text of the exact model."""
    decoder = ExactDecoder(ExactNetwork(quantize_checkpoint("tiny", None, None)), draws)
    decoder.prefill(list(prompt.encode()))
    return bytes(decoder.generate(tokens)).decode("latin-1")


@pytest.mark.slow
def test_simulation():
    """Clients at once; then Ctrl-C, in the middle of a text: its client is told, and nothing is left."""
    with served() as (process, name, url):
        with openai.OpenAI(base_url=url + "v1", api_key="none", max_retries=0) as client, ThreadPoolExecutor(8) as pool:
            def ask(number):
                prompt = "The river of the king"[:4 + number]
                answer = client.completions.create(model=name, prompt=prompt, max_tokens=6 + number % 5, temperature=0)
                return answer.choices[0].text, exact(prompt, 6 + number % 5)
            for found, wanted in pool.map(ask, range(12)):
                assert found == wanted
            with pytest.raises(openai.APIError, match="The server ends."):
                for number, _ in enumerate(client.completions.create(model="tiny", prompt="The", max_tokens=5000, stream=True)):
                    if number == 5:
                        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "stream.py: interrupted\n") and process.returncode == 130

# Endurance ----------------------------------------------------------------------------------------

CLIENTS = 16
SECONDS = 300
PROMPTS = ("In the beginning", "And God said", "The river of the king", "And it came to pass in those days, that ")


def resident(pid):
    """Bytes of a process that are in memory."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1])*os.sysconf("SC_PAGE_SIZE")


def children(pid):
    """Process ids of all that a process has started, and these."""
    found = [int(child) for path in glob.glob(f"/proc/{pid}/task/*/children") for child in open(path).read().split()]
    return found + [other for child in found for other in children(child)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_clients_for_minutes():
    """16 clients for five minutes: prompts that go on from texts before, drawn and greedy ones, scores, stop strings, streams that are left. Each
    answer is the exact model's; at the end nothing is under way, memory has not grown, and no process or port is left."""
    with served("--kept-sessions", "8") as (process, name, url):
        end     = time.monotonic() + SECONDS
        answers = [] # (prompt, tokens, draws, stop, text, scored)
        def client_loop(number):
            rng    = random.Random(number)
            prompt = rng.choice(PROMPTS)
            with openai.OpenAI(base_url=url + "v1", api_key="none", max_retries=0, timeout=300) as client:
                while time.monotonic() < end:
                    tokens = rng.choice((4, 9, 16))
                    seed   = rng.randrange(3)
                    drawn  = rng.random() < 0.5
                    stop   = "e " if rng.random() < 0.2 else None
                    fields = dict(model=name, prompt=prompt, max_tokens=tokens, temperature=0.8 if drawn else 0, seed=seed, stop=stop)
                    kind   = rng.choice(("whole", "scored", "stream", "left"))
                    if kind in ("stream", "left"):
                        text = ""
                        with client.completions.create(**fields, stream=True) as stream:
                            for count, event in enumerate(stream):
                                if kind == "left" and count == 2:
                                    break
                                text += event.choices[0].text if event.choices else ""
                    else:
                        answer = client.completions.create(**fields, logprobs=2 if kind == "scored" else None)
                        text   = answer.choices[0].text
                        assert (answer.choices[0].logprobs is not None) == (kind == "scored")
                    if kind != "left":
                        answers.append((prompt, tokens, Draws.of(0.8, 64, seed) if drawn else Draws(), stop, text))
                    whole  = prompt + text
                    prompt = whole if kind != "left" and len(whole) < 60 and whole.isascii() and rng.random() < 0.6 else rng.choice(PROMPTS)

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client_loop, number) for number in range(CLIENTS)]
            time.sleep(SECONDS/3)
            before = resident(process.pid)
            for client in clients:
                client.result()
        assert resident(process.pid) < before + 2**26
        metrics = dict(line.split() for line in httpx.get(url + "metrics", timeout=60).text.splitlines() if line.startswith("mamba2_"))
        assert float(metrics["mamba2_waiting_texts"]) == 0 and float(metrics["mamba2_running_texts"]) == 0
        assert float(metrics["mamba2_kept_sessions"]) == 8 and float(metrics["mamba2_evicted_sessions_total"]) > 0
        assert float(metrics["mamba2_reused_tokens_total"]) > 0 and float(metrics["mamba2_healthy"]) == 1
        print(f"{len(answers)} answers; {metrics}")
        assert len(answers) > 2*CLIENTS
        for prompt, tokens, draws, stop, text in answers:
            wanted = exact(prompt, tokens, draws)
            assert text == (wanted.split(stop)[0] if stop else wanted), prompt
        started = children(process.pid)
        interrupt(process)
        assert started and not any(os.path.exists(f"/proc/{pid}") for pid in started)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, timeout=5)
