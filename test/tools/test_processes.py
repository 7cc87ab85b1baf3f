#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Nothing is left running of a command, however the program that started it ends; and builds are whole or not there."""

import os
import signal
import subprocess
import sys
import time

from pathlib import Path

import pytest

from tools import processes
from tools.command import EXIT_INTERRUPTED, EXIT_TERMINATED
from tools.paths import ROOT
from tools.simulation.build import fresh

# Helpers ------------------------------------------------------------------------------------------

def mentioning(text):
    """{process id: command line} of the running processes whose command line or folder contains a text."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            state = (folder/"stat").read_text().rpartition(")")[2] if folder.name.isdigit() else "Z"
            if "Z" not in state and int(folder.name) != os.getpid():
                line = (folder/"cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if text in line or text in os.readlink(folder/"cwd"):
                    found[int(folder.name)] = line
        except OSError: # It has ended.
            pass
    return found


def wait_until(condition, timeout):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def interruptible():
    """A shell's background jobs ignore it, and so would what is started here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(command, **options):
    return subprocess.Popen(list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=interruptible, **options)

# Commands -----------------------------------------------------------------------------------------

# A program that runs a shell, which starts processes: one that ignores signals, one in a process group of its own, as ninja's
# compilers are, and one whose parent has ended.
TREE = """
import signal, sys
from tools import processes
from tools.command import run_command
script = "trap '' TERM INT; sleep 987 & setsid --fork true; (sleep 987 &) ; set -m; sleep 987 & set +m; sleep 987"
sys.exit(run_command("tree", lambda: processes.run(["sh", "-c", script], cwd={folder!r})))
"""


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, EXIT_TERMINATED), (signal.SIGINT, EXIT_INTERRUPTED),
    (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_outlives_its_parent(tmp_path, number, status):
    program = start([sys.executable, "-c", TREE.format(root=str(ROOT), folder=str(tmp_path))])
    wait_until(lambda: sum(line.startswith("sleep 987") for line in mentioning(str(tmp_path)).values()) == 4, 20)
    program.send_signal(number)
    program.communicate(timeout=10)
    assert program.returncode == status
    wait_until(lambda: not mentioning(str(tmp_path)), 5)


def test_status_and_output(tmp_path):
    assert processes.run(["sh", "-c", "exit 7"]) == 7
    assert processes.run(["sh", "-c", "kill -9 $$"]) == 128 + 9
    assert processes.capture(["sh", "-c", "pwd; echo bad >&2"], tmp_path) == (0, f"{tmp_path}\nbad\n")
    with pytest.raises(FileNotFoundError, match="no-such-command is not installed: make setup installs it"):
        processes.run(["no-such-command"])


def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    assert processes.run(["sh", "-c", "sleep 987 & exit 3"], cwd=tmp_path) == 3
    assert not mentioning(str(tmp_path))

# Builds -------------------------------------------------------------------------------------------

def test_fresh_folder(tmp_path):
    """It is there when it is whole; what a killed build left is removed."""
    folder = tmp_path/"model"
    (tmp_path/"model.123.part"/"software").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError):
        with fresh(folder) as part:
            (part/"file").touch()
            1/0
    assert not list(tmp_path.iterdir())
    with fresh(folder) as part:
        assert part.parent == tmp_path and not folder.exists()
        (part/"file").touch()
    assert list(tmp_path.rglob("*")) == [folder, folder/"file"]


def building(folder):
    return start([sys.executable, ROOT/"targets"/"sim.py", "--build-only", "--lanes", "4", "--build-dir", folder])


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, EXIT_TERMINATED), (signal.SIGINT, EXIT_INTERRUPTED),
    (signal.SIGKILL, -signal.SIGKILL)])
def test_interrupted_build_of_the_simulation(tmp_path, number, status):
    """As a user interrupts it, while make, meson, ninja and compilers run: they end too, and the next build begins anew."""
    compiling = lambda: any(line.startswith(("ninja", "/usr/bin/ninja")) or "cc1" in line
        for line in mentioning(str(tmp_path)).values())
    process = building(tmp_path)
    wait_until(compiling, 60)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=10)
    assert (process.returncode, stderr) == (status, "sim.py: interrupted\n" if number == signal.SIGINT else "")
    wait_until(lambda: not mentioning(str(tmp_path)), 5)
    parts = set(tmp_path.glob("*.part"))
    assert len(parts) == (number == signal.SIGKILL) # That leaves no time to tidy up; the next build does.
    if parts:
        process = building(tmp_path)
        wait_until(lambda: set(tmp_path.glob("*.part")) - parts, 60)
        assert not parts & set(tmp_path.glob("*.part"))
        process.terminate()
        assert process.communicate(timeout=10)[1] == "" and process.returncode == EXIT_TERMINATED
        assert not list(tmp_path.glob("*.part"))


def test_interrupted_build_of_a_board(tmp_path):
    process = start([sys.executable, ROOT/"targets"/"arty.py", "--build", "--build-dir", tmp_path])
    wait_until((tmp_path/"software"/"libc").exists, 60)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == EXIT_TERMINATED
    wait_until(lambda: not mentioning(str(tmp_path)), 5)


@pytest.mark.parametrize("command", ["sim", "arty"])
def test_folder_with_a_space(tmp_path, command):
    """Is refused at once, in one line."""
    folder = tmp_path/"two words"
    done   = subprocess.run([sys.executable, ROOT/"targets"/f"{command}.py", "--build-dir", folder], capture_output=True,
        text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == "" and not folder.exists()
    assert done.stderr.startswith(f"{command}.py: error: the path of a folder to build in must be without spaces, is '{folder}")
    assert done.stderr.count("\n") == 1


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path/"file").touch()
    done = subprocess.run([sys.executable, ROOT/"targets"/"sim.py", "--build-only", "--build-dir", tmp_path/"file"/"sim"],
        capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "cannot build in" in done.stderr and "make it writable, or name another (--build-dir)" in done.stderr
