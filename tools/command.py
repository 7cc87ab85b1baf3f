#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""How commands end: an error is one line and an exit code, a closed pipe is no error; what they have opened is closed."""

import io
import os
import signal
import sys

from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from tools.errors import CommandError, UsageError

# Constants ----------------------------------------------------------------------------------------

EXIT_FAILED      = CommandError.exit_code
EXIT_USAGE       = UsageError.exit_code
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141 # As of a program that SIGPIPE ends, such as cat.
EXIT_TERMINATED  = 143

# Main ---------------------------------------------------------------------------------------------

def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Handler of SIGTERM: ends as by sys.exit, so that simulation, link and builds are closed."""
    sys.exit(EXIT_TERMINATED)


def printable(message: str) -> str:
    """A message as one line, in which nothing steers the terminal: it may name what a file of any origin holds."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(message.split()))


def run_command(program: str, command: Callable[[], int | None],
                expected: type[Exception] | tuple[type[Exception], ...] = CommandError) -> int:
    """Run `command()`, and end as a command does.

    Parameters
    ----------
    program  : Name that an error line begins with.
    expected : Exceptions whose message says all; others are called unexpected.

    Returns
    -------
    The exit code: of the command, 0 for None; that of a CommandError; 2 for an expected ValueError; 1 for any other error; 130
    interrupted; 141 where nobody reads stdout any more. SIGTERM ends it with 143.
    """
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL: # Of stream.py, for the time before.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.stdout is None: # Closed from the start.
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper): # Else who calls has put something else in its place.
        sys.stdout.reconfigure(errors="backslashreplace") # Names of files may be other than text.
    try:
        try:
            return command() or 0
        finally:
            sys.stdout.flush() # Else a closed pipe is noticed after the end.
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()) # What is still to be written goes nowhere.
        return EXIT_CLOSED_PIPE
    except Exception as error:
        known   = isinstance(error, expected)
        message = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        print(f"{program}: error: {printable(message)}", file=sys.stderr)
        return getattr(error, "exit_code", EXIT_USAGE if known and isinstance(error, ValueError) else EXIT_FAILED)
