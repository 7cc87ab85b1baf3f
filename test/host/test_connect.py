#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The options that choose a device, as typed: what is wrong is said in one line, before anything is opened."""

import subprocess
import sys

import pytest

from host.connect import SIM_TIMEOUT_SCALE, _resync_time
from host.device.csr import CSRMap

from tools.paths import ROOT

@pytest.mark.parametrize("options, message", [
    (["--udp-port", "70000"],        "argument --udp-port: must be an integer from 1 to 65535, is '70000'."),
    (["--udp-port", "0"],            "argument --udp-port: must be an integer from 1 to 65535, is '0'."),
    (["--udp-port", "etherbone"],    "argument --udp-port: must be an integer from 1 to 65535, is 'etherbone'."),
    (["--resident-tiles", "1"],      "argument --resident-tiles: resident_tiles must be an integer from 2 to 256, is 1."),
    (["--resident-tiles", "257"],    "argument --resident-tiles: must be an integer from 0 to 256, is '257'."),
    (["--baudrate", "0"],            "argument --baudrate: must be an integer from 1 to 12000000, is '0'."),
    (["--timeout-scale", "0"],       "argument --timeout-scale: must be a number from 0.001 to 1000000.0, is '0'."),
    (["--timeout-scale", "nan"],     "argument --timeout-scale: must be a number from 0.001 to 1000000.0, is 'nan'."),
    (["--transport", "etherbone"],   "--csr-csv is missing: give csr.csv"),
])
def test_options(options, message):
    done = subprocess.run([sys.executable, ROOT/"host"/"stream.py", "info", *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_time_to_resynchronize():
    """Half as long again as the bridge takes to give a command up, by the clock of the device."""
    board, simulated = CSRMap({}, {}, {}, {}), CSRMap({}, {}, {"uartbone_timeout_ms": 10}, {})
    assert _resync_time(board, 1) == pytest.approx(0.15)
    assert _resync_time(simulated, SIM_TIMEOUT_SCALE) == pytest.approx(15)
