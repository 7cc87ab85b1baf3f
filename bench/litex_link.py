#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Writes and reads the simulated SoC by LiteX's own litex_server and RemoteClient; started by bench/link.py and by a test.

Runs in the simulation's network namespace. Prints JSON: the frames and bytes of each way to transfer, and how many words came back
wrong.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("litex_link.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import json
import random
import socket
import subprocess
import sys
import time

from dataclasses import asdict

from litex.tools.litex_client import RemoteClient

from bench.link import Traffic

# Constants ----------------------------------------------------------------------------------------

PORT          = 1234 # Of litex_server, TCP, and of Etherbone, UDP.
START_TIMEOUT = 60.0 # Seconds.
LONGEST       = 255  # Words of the longest list RemoteClient takes.

# Server -------------------------------------------------------------------------------------------

def wait_for_server(server):
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            return socket.create_connection(("localhost", PORT), timeout=1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("litex_link.py: litex_server does not answer: " + server.communicate()[0][-500:])
            time.sleep(0.1)

# Measurements -------------------------------------------------------------------------------------

def measure(client, words):
    """{"traffic": {name: frames and bytes}, "wrong": words} of `words` words each way."""
    base   = client.mems.main_ram.base + 0x80_0000
    values = random.Random(7).choices(range(2**32), k=words)
    result, wrong = {}, 0

    def settle():
        """Read a word: all that was sent before has then arrived, as the server handles one request after the other."""
        client.read(base)

    def counted(name, function):
        settle()
        start = Traffic.now()
        settle()
        one   = Traffic.now() - start
        start = Traffic.now()
        value = function()
        settle()
        result[name] = asdict(Traffic.now() - start - one)
        return value

    def write(length):
        for at in range(0, words, length):
            client.write(base + 4*at, values[at:at + length] if length > 1 else values[at])

    def read(length):
        got = []
        for at in range(0, words, length):
            got += client.read(base + 4*at, min(length, words - at)) if length > 1 else [client.read(base + 4*at)]
        return got

    def count_wrong(got):
        return sum(a != b for a, b in zip(got, values)) + abs(len(got) - words)

    counted("write_words", lambda: write(1))
    wrong += count_wrong(counted("read_words", lambda: read(1)))
    client.write(base, [0]*min(words, LONGEST))
    counted("write_lists", lambda: write(LONGEST))
    wrong += count_wrong(counted("read_lists", lambda: read(LONGEST)))
    return {"traffic": result, "wrong": wrong}

# Main ---------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ip",      required=True)
    parser.add_argument("--csr-csv", required=True)
    parser.add_argument("--words",   type=int, default=1000)
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "litex.tools.litex_server", "--udp", "--udp-ip",
        options.ip], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for_server(server)
        client = RemoteClient(csr_csv=options.csr_csv)
        client.open()
        print(json.dumps(measure(client, options.words)))
        client.close()
    finally:
        server.terminate()
        server.wait()

if __name__ == "__main__":
    sys.exit(main())
