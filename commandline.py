#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the commands share: how options are checked, and how a command ends."""

import argparse
import os
import signal
import sys

import processes

from processes import EXIT_INTERRUPTED

# Constants ----------------------------------------------------------------------------------------

EXIT_FAILED      = 1
EXIT_USAGE       = 2
EXIT_CLOSED_PIPE = 141 # As of a program that SIGPIPE ends, such as cat.

SUPERVISED = "MAMBA2_SUPERVISED" # In the environment of a command that another process watches over.

# Options ------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    """As argparse's, with errors of one line."""
    def error(self, message):
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def integer(low, high):
    """The `type` of an option that takes an integer from `low` to `high`."""
    def parse(text):
        try:
            value = int(text, 0)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be an integer from {low} to {high}, is {text!r}.")
        return value
    return parse


udp_port = integer(1, 65535)

# End ----------------------------------------------------------------------------------------------

def end_with(main, name):
    """Call `main`, a command; returns its exit status. SIGTERM, Ctrl-C and a closed pipe end it, with what it has opened closed."""
    signal.signal(signal.SIGTERM, processes.terminate)
    try:
        return main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError: # Nobody reads on, as with | head.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()) # For Python's own last flush.
        return EXIT_CLOSED_PIPE


def supervised(main, name):
    """As :func:`end_with`, in a process of its own: nothing of what `main` starts outlives this one, however it ends."""
    if SUPERVISED in os.environ:
        return end_with(main, name)
    return end_with(lambda: processes.run([sys.executable, *sys.orig_argv[1:]], env={**os.environ, SUPERVISED: "1"}), name)
