#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The commands in README.md and docs/: each is run, letter for letter, here or by another test; or it is said why not."""

import re
import shutil
import signal
import subprocess

import httpx
import pytest

from tools.paths import ROOT

# Commands -----------------------------------------------------------------------------------------

PAGES   = ("README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT/"docs").glob("*.md")),
    "model/recall/README.md", "model/tiny/README.md")
PROGRAM = re.compile(r"(\.venv/bin/)?(python|make|pip|curl|sudo|ping|git|mamba2-\w+|\.) ")


def commands_of(text):
    """Of a page's indented blocks, a list: continued lines joined, comments left out, spaces single."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [re.sub(r"\s+#\s.*", "", line[4:]) for line in lines if line.startswith("    ")]
    return [re.sub(r" +", " ", line).strip() for line in found if PROGRAM.match(line)]


COMMANDS = {command for page in PAGES for command in commands_of((ROOT/page).read_text())}

# How each is run. Names in capitals are replaced by what `place` has.
RUN = {
    'python host/stream.py generate --model tiny --prompt "In the beginning" --tokens 100 --temperature 0.6 --seed 1',
    'python host/stream.py logits --model tiny --type q4_0 --tokens 1,2,3 --output logits.npy',
    'python host/stream.py generate --prompt "In the beginning" --tokens 40 --type q8_0 --on exact',
    'python host/stream.py load --model tiny --type q4_0 --plan',
    'python host/stream.py batch --prompt "In the beginning" --prompt "And God said" --tokens 40 --pass-tokens 4',
    'python host/stream.py generate --prompt "In the beginning" --tokens 100 --pass-tokens 4 --speculate',
    'python host/stream.py run CASE.npz --output OUT.npz --transport sim --json summary.json',
    "python -c \"from model.case import *; from model.reference import mamba2_130m_layer as c; save_case('case.npz', realistic_case(c, 4, seed=1))\"",
    'python bench/hex.py write CASE.npz DIR --token 0',
    'python targets/arty.py --help',
    'python targets/ecpix5.py --help',
    'python targets/genesys2.py --help',
    'python targets/kc705.py --help',
    'python -m cores.ssm.gen examples/ssm_8lanes_axi.yml',
    'python examples/other_board.py radiona_ulx3s --build --no-compile-gateware',
    'python examples/other_board.py radiona_ulx3s --pass-tokens 1 --build --no-compile-gateware',
    'python host/stream.py logits --model DIR --tokens 1,2,3 --output OUT.npy',
    'python -m model.logits --model DIR --tokens 1,2,3 --output OUT.npy',
    'python -m model.trace --model DIR',
    'python -m model.quantize --model DIR --type q8_0 --output FILE.gguf',
    'python host/stream.py generate --model DIR --type q4_0 --prompt TEXT --tokens 100 --on device',
    'python host/stream.py batch --model DIR --type q4_0 --prompt TEXT --prompt TEXT --pass-tokens 4',
    'python host/stream.py load --model DIR --type q4_0 --plan',
    'python host/stream.py load --model DIR --type q4_0',
    'python host/stream.py load --model FILE.gguf --plan',
    'python host/stream.py generate --model FILE.gguf --prompt "In the beginning" --tokens 40 --on exact',
}

SERVED = { # The first one until the others have been answered.
    'python host/stream.py serve --model tiny --pass-tokens 4',
    "curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d '{\"prompt\": \"The river \", \"max_tokens\": 24, \"temperature\": 0}'",
}

ELSEWHERE = { # Test that runs it.
    'python host/stream.py generate --boards boards.toml --prompt "In the beginning" --tokens 20' : "test/host/cluster/test_cluster_sim.py",
    'python host/stream.py batch --boards boards.toml --prompt "In the beginning" --prompt "And God said" --prompt "The LORD" --tokens 20' :
        "test/host/cluster/test_cluster_sim.py",
    'python host/stream.py serve --pass-tokens 4'                    : "test/test_documents.py: with --model tiny, its default",
    'python targets/sim.py'                                          : "test/targets/test_sim.py",
    'python bench/hex.py play DIR --layer 0 --heads 24 --headdim 64 --d-state 128 --output DIR2' : "test/bench/test_hex.py",
}

BOARD  = "needs a board"
VIVADO = "needs Vivado or openXC7; all but the bitstream: test/targets/test_arty.py"
LONG   = "takes from minutes to hours; its parts: test/bench"
SETUP  = "is how the tests came to run"
NOT_RUN = { # And why.
    'pip install ".[cluster]"'                                       : SETUP,
    'python bench/cluster.py'                                        : LONG,
    'make setup'                                                     : SETUP,
    '. .venv/bin/activate'                                           : SETUP,
    'make test'                                                      : "is these tests",
    'make demo'                                                      : "test/examples/test_demo.py runs what it runs",
    'make bench'                                                     : LONG,
    'make bench-model'                                               : LONG,
    'make bench-accuracy'                                            : LONG,
    'make bench-boards'                                              : LONG,
    '.venv/bin/python -m model.train'                                : LONG,
    '.venv/bin/python -m model.train_recall'                         : LONG,
    'python bench/quality.py'                                        : LONG,
    'python bench/recall.py'                                         : LONG,
    'python targets/ecpix5.py --build'                               : "takes an hour; all but the bitstream: test/targets/test_ecpix5.py",
    'python targets/arty.py --build'                                 : VIVADO,
    'python targets/arty.py --build --toolchain openxc7'             : VIVADO,
    'python targets/arty.py --variant a7-100 --build --load'         : VIVADO,
    'python targets/arty.py --with-flash-boot --build --flash'       : VIVADO,
    'python targets/arty.py --load'                                  : BOARD,
    'python targets/arty.py --flash'                                 : BOARD,
    'python examples/other_board.py radiona_ulx3s --build --load'    : BOARD,
    'python host/stream.py info --transport uart --port /dev/ttyUSB0 --csr-csv build/radiona_ulx3s/csr.csv --firmware '
        'build/radiona_ulx3s/firmware/firmware.bin'                  : BOARD,
    'sudo ip address add 192.168.1.100/24 dev eth1'                  : BOARD,
    'ping 192.168.1.50'                                              : BOARD,
}


def is_of_a_board(command):
    """Its options reach a board: `$board`. The same commands are run on the simulated SoC."""
    return "$board" in command

# Tests --------------------------------------------------------------------------------------------

def test_each_command_is_accounted_for():
    """And nothing is that is not there any more."""
    known = [RUN, SERVED, set(ELSEWHERE), set(NOT_RUN)]
    assert sorted(command for command in COMMANDS if not is_of_a_board(command) and sum(command in kind for kind in known) != 1) == []
    assert sorted(set().union(*known) - COMMANDS) == []
    assert {where.split(":")[0] for where in ELSEWHERE.values() if not (ROOT/where.split(":")[0]).exists()} == set()


def test_commands_of():
    assert commands_of("    make  demo      # a model\n\ntext `make x`\n    x = 1\n    curl a \\\n        -d 'b # c'\n") == ["make demo", "curl a -d 'b"]
    assert len(COMMANDS) > 50


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that looks like the project's, and has what the names in capitals stand for."""
    folder = tmp_path_factory.mktemp("commands")
    for path in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        name = path.split("/")[0]
        if not (folder/name).exists():
            (folder/name).symlink_to(ROOT/name)
    shutil.copytree(ROOT/"model"/"tiny", folder/"DIR")
    run(folder, "python -c \"from model.case import *; from model.reference import mamba2_130m_layer as c; save_case('CASE.npz', realistic_case(c, 4, seed=1))\"")
    run(folder, "python -m model.quantize --model DIR --type q8_0 --output FILE.gguf")
    return folder


def shell(folder, command):
    python = f"PATH={str(ROOT/'.venv'/'bin')!r}:\"$PATH\" PYTHONPATH={str(ROOT)!r}; export PATH PYTHONPATH; exec "
    return dict(args=python + command, shell=True, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(folder, command):
    done = subprocess.run(**shell(folder, command), timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(RUN))
def test_command(place, command):
    """It ends well, and says something or writes what it is to."""
    output = re.search(r"--output (\S+)|'(case.npz)'", command)
    if "bench/hex.py write" in command: # Of hex data, not of a checkpoint.
        command = command.replace("DIR", "HEX")
    told = run(place, command)
    assert (place/(output[1] or output[2])).exists() if output else told


@pytest.mark.slow
def test_serve_and_curl(place):
    """The server, and the answer that the README says."""
    serve, curl = sorted(SERVED, key=lambda command: command.startswith("curl"))
    process = subprocess.Popen(**shell(place, serve))
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:8000/" in line, process.stderr.read()
        assert '"text":"the son of Asa the LORD "' in re.sub(r'": "', '":"', run(place, curl.replace("curl ", "curl --silent ", 1)))
        assert "<!DOCTYPE html>" in httpx.get("http://127.0.0.1:8000/", timeout=60).text
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
