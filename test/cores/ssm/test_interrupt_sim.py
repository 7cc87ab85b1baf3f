#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Ctrl-C at any moment of a command leaves the simulated SoC usable by the next one."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest


from cases import random_case
from stream_harness import STREAM

from model.bitexact import ssm_block

from operations.config import SystemConfig

from tools.simulation.runner import Simulation, network_permitted

# Helpers ------------------------------------------------------------------------------------------

pytestmark = pytest.mark.skipif(not network_permitted(), reason="network namespaces and TAP devices are not permitted here")


@pytest.fixture(scope="module")
def simulation():
    with Simulation(SystemConfig(), "etherbone") as simulation:
        yield simulation


def start(simulation, *arguments):
    namespace, ip, _ = simulation.endpoint
    command = ["nsenter", f"--net={namespace}", sys.executable, STREAM, *arguments, "--transport", "etherbone", "--ip", ip,
        "--csr-csv", simulation.csr_csv, "--firmware", simulation.firmware, "--timeout-scale", "1000"]
    return subprocess.Popen(list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 13))])
def test_interrupted(simulation, tmp_path, seed):
    """Several commands in turn are interrupted, at moments of which no two are alike; then one runs to its end."""
    rng     = np.random.default_rng(seed)
    moments = random.Random(seed)
    arrays  = random_case(rng, 12, 8, 32, 64)
    np.savez(tmp_path/"case.npz", **arrays)
    (tmp_path/"weights.bin").write_bytes(rng.bytes(400_000))
    run     = ["run", tmp_path/"case.npz", "--output", tmp_path/"out.npz", "--mode", "decode"]
    for command in (["load", tmp_path/"weights.bin"], run):
        process = start(simulation, *command)
        time.sleep(moments.uniform(1.5, 7)) # From the start of Python to some job; what matters is that it is any.
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in (0, 130) or "KeyboardInterrupt" in stderr, stderr # The last: Python's own imports.
        assert process.returncode == 0 or command is not run or not (tmp_path/"out.npz").exists()
        (tmp_path/"out.npz").unlink(missing_ok=True)
    process   = start(simulation, *run)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    y, h = ssm_block(**arrays)
    with np.load(tmp_path/"out.npz") as file:
        assert file["y"].tobytes() == y.tobytes() and file["h"].tobytes() == h.tobytes()
