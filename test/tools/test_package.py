#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The project as a package: built as a wheel, it works without its checkout."""

import os
import subprocess
import sys
import zipfile

import pytest

from tools.paths import ROOT

# Helpers ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    done   = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder,
        ROOT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    wheel, = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder/"site")
    return folder/"site"


def run(installed, folder, *command):
    """A command with the package in a folder that is not the checkout: isolated, so that only that package is found."""
    code = f"import runpy, sys; sys.{'path'}.insert(0, {str(installed)!r}); sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    return subprocess.run([sys.executable, "-c", code, *map(str, command)], cwd=folder, capture_output=True, text=True, timeout=300,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})

# Tests --------------------------------------------------------------------------------------------

def test_files(installed):
    """What is no Python is there, too."""
    for path in ("firmware/main.c", "firmware/Makefile", "firmware/linker.ld", "firmware/bootrom.S", "targets/simulation/main.cpp",
        "host/serving/page.html", "model/recall/model.safetensors", "model/tiny/model.safetensors", "operations/protocol.py"):
        assert (installed/path).exists(), path


@pytest.mark.slow
def test_installed(tmp_path):
    """pip install . in an environment of its own, with nothing but what it names: the command reaches for a board; what it lacks it names."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path/"venv"], check=True, timeout=120)
    subprocess.run([tmp_path/"venv"/"bin"/"pip", "install", "--quiet", ROOT], check=True, timeout=600)
    def command(*arguments):
        return subprocess.run([tmp_path/"venv"/"bin"/"mamba2-litex", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    done = command("--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: mamba2-litex "), done.stderr
    done = command("info", "--transport", "etherbone", "--csr-csv", "none.csv")
    assert done.returncode == 2 and done.stderr.startswith("mamba2-litex: error: none.csv: "), done.stderr
    done = command("generate")
    assert done.returncode == 2 and "extra" in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("module", ["host.stream", "targets.sim", "targets.arty", "targets.ecpix5", "targets.genesys2", "targets.kc705"])
def test_help(installed, tmp_path, module):
    done = run(installed, tmp_path, module, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


def test_gen(installed, tmp_path):
    """It writes to the current folder."""
    done = run(installed, tmp_path, "cores.ssm.gen", ROOT/"examples"/"ssm_4lanes_stream.yml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path/"build"/"gen"/"ssm_4lanes_stream.v").exists()


@pytest.mark.slow
def test_builds(installed, tmp_path):
    """The simulated SoC, and a board's but for the bitstream."""
    for module, *options in (("targets.sim", "--build-only", "--lanes", "4"), ("targets.arty",)):
        done = run(installed, tmp_path, module, *options)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path/"build"/"arty"/"a7-35"/"firmware"/"firmware.bin").exists()
