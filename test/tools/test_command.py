#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""How commands end, within a program that has put something else in the place of stdout."""

import io
import signal
import sys

from tools.command import run_command

# Main ---------------------------------------------------------------------------------------------

def test_stdout_that_is_no_file(monkeypatch):
    """As in a notebook: it cannot be told how to write names that are no text, and need not."""
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert run_command("test", lambda: print("done")) == 0
    assert sys.stdout.getvalue() == "done\n"
