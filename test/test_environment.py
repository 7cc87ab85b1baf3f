#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Commands started by a Python that lacks the packages, and from a checkout that is not what they expect."""

import os
import subprocess
import sys

import pytest

from targets.simulation.build import ROOT


@pytest.mark.parametrize("options", (["-S"], ["-I"], ["-IS"], ["-S", "-E"]), ids="".join)
def test_python_without_packages(options):
    """The command starts again by the Python of .venv, or ends with a line that says what is missing; it does not loop."""
    done = subprocess.run([getattr(sys, "_base_executable", sys.executable), *options, ROOT/"host"/"stream.py", "--help"],
        capture_output=True, text=True, timeout=60)
    if done.returncode:
        assert done.stderr.startswith("stream.py: error: Python packages are missing: ") and done.stderr.count("\n") == 1
    else:
        assert done.stdout.startswith("usage: stream.py")


def test_module_without_packages():
    done = subprocess.run([sys._base_executable, "-S", "-m", "cores.ssm.gen", "--help"], cwd=ROOT, capture_output=True, text=True,
        timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("usage: ")


def test_started_again_only_once():
    done = subprocess.run([sys.executable, "-S", ROOT/"host"/"stream.py"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "MAMBA2_STARTED_AGAIN": "1"})
    assert done.returncode == 1 and "Run make setup." in done.stderr and done.stderr.count("\n") == 1
