#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Two and three simulated SoCs as one, each a Ray actor: the exact model's texts; a board that dies; nothing is left running."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

from pathlib import Path

import pytest

from stream_harness import STREAM, stream

from tools.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Helpers ------------------------------------------------------------------------------------------

def boards(folder, count, head=""):
    path = folder/"boards.toml"
    path.write_text(head + "".join(f'[[board]]\nname = "board {n}"\ntransport = "sim"\n' for n in range(count)))
    return path


def run(*arguments):
    done = stream(*arguments, timeout=1500)
    assert done.returncode == 0, done.stderr
    return done


def started(mark):
    """{process id: command line} of what a command has started, by a variable of its environment."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder/"environ").read_bytes():
                found[int(folder.name)] = (folder/"cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def processes(mark, name):
    """Process ids of those whose program, or title, has this name."""
    return [pid for pid, command in started(mark).items() if name in command.partition(" ")[0]]


def launch(mark, *arguments):
    """In a process group of its own, to which a terminal's Ctrl-C goes."""
    return subprocess.Popen([sys.executable, STREAM, *map(str, arguments)], cwd=ROOT, env=os.environ | {"CLUSTER_TEST": mark}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0)


def wait_for_text(process, words=3):
    """Until the command has written some of a text."""
    text = ""
    while text.count(" ") < words:
        piece = process.stdout.read(1)
        assert piece, process.stderr.read()
        text += piece
    return text


def assert_nothing_is_left(mark):
    deadline = time.monotonic() + 120 # Ray's own processes look now and then whether it is there.
    while (left := started(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left

# Texts --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("count, options", [(2, ()), (3, ("--temperature", "0.8", "--seed", "5"))])
def test_generate(tmp_path, count, options):
    """The tiny model has three layers."""
    path    = boards(tmp_path, count)
    command = ["generate", "--prompt", "In the beginning", "--tokens", "12", *options]
    device  = run(*command, "--boards", path, "--json", tmp_path/"out.json")
    assert device.stdout == run(*command, "--on", "exact").stdout
    summary = json.loads((tmp_path/"out.json").read_text())
    assert [board["board"] for board in summary["boards"]] == [f"board {n}" for n in range(count)]
    assert all(board["passes"] > 12 and board["cycles_per_token"] > 0 and board["error"] is None for board in summary["boards"])


def test_batch(tmp_path):
    """Both uses at once: two pipelines of two boards."""
    path    = boards(tmp_path, 4, "stages = 2\nlayers = [2, 1]\n")
    command = ["batch", "--tokens", "6", "--temperature", "0.7", *(word for prompt in ("In the", "And", "So", "The LORD", "He") for word in ("--prompt", prompt))]
    device  = run(*command, "--boards", path, "--sessions", "2", "--json", tmp_path/"out.json")
    assert device.stdout == run(*command, "--on", "exact").stdout
    assert all(board["passes"] > 6 for board in json.loads((tmp_path/"out.json").read_text())["boards"])

# Failures -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("what", ["Vsim", "StageDevice"])
def test_a_board_dies(tmp_path, what):
    """Its simulation, or its actor: it is named, the command fails, and nothing is left."""
    mark = f"died-{what}-{os.getpid()}"
    with launch(mark, "generate", "--boards", boards(tmp_path, 2), "--prompt", "In the beginning", "--tokens", "2000") as process:
        wait_for_text(process)
        victims = sorted(processes(mark, what))
        assert len(victims) >= 2, started(mark)
        os.kill(victims[-1], signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(r"^stream.py: error: board board [01]: ", stderr.splitlines()[-1]), stderr
    assert_nothing_is_left(mark)


def test_the_other_board_goes_on(tmp_path):
    """Two boards with the whole model, of which one dies: all texts are the exact model's."""
    mark    = f"other-{os.getpid()}"
    prompts = [word for prompt in ("In the", "And", "So", "The LORD") for word in ("--prompt", prompt)]
    command = ["batch", "--tokens", "40", *prompts]
    with launch(mark, *command, "--verbose", "--boards", boards(tmp_path, 2, "stages = 1\n"), "--sessions", "2", "--json", tmp_path/"out.json") as process:
        line = " "
        while line and not line.startswith("Loaded"):
            line = process.stderr.readline()
        time.sleep(10) # Some way into the texts; wherever it is, what comes out is the same.
        os.kill(max(processes(mark, "Vsim")), signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, stderr
    assert stdout == run(*command, "--on", "exact").stdout
    assert "failed: board board" in stderr
    assert_nothing_is_left(mark)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_interrupted(tmp_path, number, code):
    mark = f"interrupted-{number}-{os.getpid()}"
    with launch(mark, "generate", "--boards", boards(tmp_path, 2), "--prompt", "In the beginning", "--tokens", "2000") as process:
        wait_for_text(process)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == code
    assert_nothing_is_left(mark)

# Documentation ------------------------------------------------------------------------------------

def test_the_commands_of_the_page(tmp_path):
    """Those of docs/cluster.md, with the first file of boards there; and the second file can be read."""
    from host.cluster.boards import read_boards
    page  = (ROOT/"docs"/"cluster.md").read_text()
    files = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path/"boards.toml").write_text(files[1])
    assert len(read_boards(tmp_path/"boards.toml").all) == 2
    (tmp_path/"boards.toml").write_text(files[0])
    commands = [shlex.split(line.strip()) for line in page.splitlines() if line.startswith("    python host/stream.py")]
    assert len(commands) == 2
    for command in commands:
        done = subprocess.run([sys.executable, STREAM, *command[2:]], cwd=tmp_path, capture_output=True, text=True, timeout=1500,
            env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
