#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Commands of which nothing is left running, however the program that started them ends.

make, meson, ninja and compilers start processes of their own, which a signal to their parent does not reach. So a command runs
below a supervisor, this file run as a program, in a session of its own:

    program --- pipe --> supervisor --> command --> its processes

The pipe closes when the program closes it or dies, by SIGKILL too. Then the supervisor kills all of its session.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

# Constants ----------------------------------------------------------------------------------------

EXIT_NOT_FOUND = 127 # As a shell has it.

# Commands -----------------------------------------------------------------------------------------

def run(command: Sequence[Path | str], output: IO[Any] | None = None, cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None) -> int:
    """Run a command to its end; returns its exit status, 128 + n where signal n ended it.

    An exception, such as KeyboardInterrupt or the SystemExit of a handler of SIGTERM, ends the command and all it has started
    before it gets out of here.

    Parameters
    ----------
    output : File for what the command prints; None: where this program prints.

    Raises
    ------
    FileNotFoundError : there is no such command.
    """
    supervisor = subprocess.Popen([sys.executable, "-I", "-S", os.path.abspath(__file__), *map(str, command)], cwd=cwd, env=env,
        stdin=subprocess.PIPE, stdout=output, stderr=output and subprocess.STDOUT, start_new_session=True)
    try:
        status = supervisor.wait()
    finally:
        assert supervisor.stdin is not None # A pipe.
        supervisor.stdin.close()
        supervisor.wait()
    if status == EXIT_NOT_FOUND:
        raise FileNotFoundError(f"{command[0]} is not installed: make setup installs it, or says what to install.")
    return status


def capture(command: Sequence[Path | str], cwd: Path | str | None = None) -> tuple[int, str]:
    """(exit status, what it printed) of :func:`run`."""
    with tempfile.TemporaryFile() as output:
        status = run(command, output, cwd)
        output.seek(0)
        return status, output.read().decode(errors="replace")

# Supervisor ---------------------------------------------------------------------------------------

def _session() -> Iterator[int]:
    """Process ids of this process' session, without its own and without those that have ended; none where there is no /proc."""
    own, session = os.getpid(), os.getsid(0)
    for pid in map(int, filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ())):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state, *fields = file.read().rpartition(")")[2].split()
        except OSError: # It has ended meanwhile.
            continue
        if int(fields[2]) == session and pid != own and state not in "ZX":
            yield pid


def _kill_session() -> None:
    """Kill all of this process' session but itself."""
    while pids := list(_session()): # Again: they may have started others meanwhile.
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def _watch() -> None:
    """Wait for the end of the pipe, then end everything."""
    while os.read(0, 1):
        pass
    _kill_session()
    os.killpg(0, signal.SIGKILL) # Itself, and where there is no /proc at least its process group.


def _supervise(command: Sequence[str]) -> int:
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return EXIT_NOT_FOUND
    threading.Thread(target=_watch, daemon=True).start()
    status = process.wait()
    _kill_session()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    os._exit(_supervise(sys.argv[1:]))
