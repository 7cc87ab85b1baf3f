#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What examples/demo.py refuses, before it starts a simulation."""

import subprocess
import sys

import pytest

from tools.paths import ROOT

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, message", [
    (["--prompt", ""],       "--prompt must be a text to begin with, is empty."),
    (["--prompt", b"a\xff"], r"argument --prompt: must be UTF-8, is 'a\udcff'."),
    (["--tokens", "0"],      "argument --tokens: must be an integer of at least 1, is '0'."),
    (["--model", "/none"],   "is /none, which is no folder, and no file."),
])
def test_refused(arguments, message):
    done = subprocess.run([sys.executable, ROOT/"examples"/"demo.py", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("demo.py: error: ")
    assert done.stderr.endswith(f"{message}\n") and done.stderr.count("\n") == 1
