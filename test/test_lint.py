#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""ruff and mypy, as pyproject.toml configures them."""

import subprocess
import sys

import pytest

from tools.paths import ROOT


@pytest.mark.parametrize("command", [["ruff", "check", "--quiet", "."], ["mypy", "--no-error-summary"]], ids=lambda words: words[0])
def test_lint(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
