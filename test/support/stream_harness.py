#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Runs host/stream.py in a process of its own, against a device in software or the simulation."""

import signal
import subprocess
import sys

from functools import partial

import numpy as np

from cases import random_case
from fake_device import fake_firmware

from tools.paths import ROOT

# Constants ----------------------------------------------------------------------------------------

STREAM = ROOT/"host"/"stream.py"

# Harness ------------------------------------------------------------------------------------------

class StreamHarness:
    """A fake device with both servers, and a folder with all files a command needs."""
    def __init__(self, folder, fake, etherbone, uart):
        self.folder    = folder
        self.fake      = fake
        self.etherbone = etherbone
        self.case      = folder/"case.npz"
        self.output    = folder/"out.npz"
        self.arrays    = small_arrays()
        self.files     = ["--csr-csv", folder/"csr.csv", "--firmware", folder/"firmware.bin"]
        self.links     = {
            "etherbone" : ["--transport", "etherbone", "--ip", etherbone.ip, "--udp-port", etherbone.port],
            "uart"      : ["--transport", "uart", "--port", uart.port.removeprefix("socket://")],
        }
        (folder/"csr.csv").write_text(fake.csr_csv(buffer_depth=256))
        (folder/"firmware.bin").write_bytes(fake_firmware())
        np.savez(self.case, **self.arrays)

    def start(self, *arguments, link="etherbone"):
        command = [sys.executable, STREAM, *arguments, *self.links[link], *self.files]
        return subprocess.Popen(list(map(str, command)), cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)) # A shell's background jobs ignore it.

    def run(self, *arguments, link="etherbone"):
        """(exit code, stdout, stderr) of a command."""
        process = self.start(*arguments, link=link)
        stdout, stderr = process.communicate(timeout=30)
        return process.returncode, stdout, stderr

    def run_case(self, *arguments, link="etherbone"):
        return self.run("run", self.case, "--output", self.output, *arguments, link=link)


def small_arrays(T=4, H=4, P=5, G=2, N=20):
    return random_case(np.random.default_rng(0), T, H, P, N, G)


def stream(*arguments, timeout=600):
    """Run host/stream.py; returns the completed process."""
    return subprocess.run([sys.executable, "host/stream.py", *map(str, arguments)], cwd=ROOT, capture_output=True,
        text=True, timeout=timeout)


def assert_one_line(stderr, message):
    assert stderr.count("\n") == 1, stderr
    assert message in stderr
    assert "Traceback" not in stderr
