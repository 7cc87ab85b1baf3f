#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Commands started by a Python that lacks the packages, and from a checkout that is not what they expect."""

import os
import shutil
import subprocess
import sys

import pytest

from operations.config import SystemConfig

from tools.paths import ROOT
from tools.simulation.build import build

# Helpers ------------------------------------------------------------------------------------------

READ_ONLY = "mount --bind . . && mount -o remount,ro,bind . && cd \"$PWD\" && "


def run(command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, **options)


def mounts_permitted():
    """Whether this process may mount in a namespace of its own."""
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY + "true"]
    return shutil.which("unshare") is not None and run(command, cwd=ROOT).returncode == 0

# Python -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", (["-S"], ["-I"], ["-IS"], ["-S", "-E"]), ids="".join)
@pytest.mark.parametrize("command", ["host/stream.py", "targets/arty.py", "bench/fit.py"])
def test_python_without_packages(command, options):
    """One line says what to do."""
    done = run([sys._base_executable, *options, ROOT/command, "--help"])
    if done.returncode: # Else that Python has them.
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(f"{command.partition('/')[2]}: error: ") and done.stderr.count("\n") == 1
        assert "run make setup, then . .venv/bin/activate" in done.stderr


@pytest.mark.parametrize("module", ["cores.ssm.gen", "host.stream", "model.logits"])
def test_module_without_packages(module):
    done = run([sys._base_executable, "-S", "-m", module, "--help"], cwd=ROOT)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "error: Python packages are missing: numpy, " in done.stderr and "run make setup" in done.stderr


@pytest.mark.parametrize("package, extra, arguments", [
    ("torch",       "model",    ["generate", "--prompt", "In", "--tokens", "1"]),
    ("tokenizers",  "model",    ["generate", "--on", "exact", "--prompt", "In", "--tokens", "1"]),
    ("torch",       "model",    ["logits", "--tokens", "1", "--output", os.devnull]),
    ("gguf",        "model",    ["logits", "--tokens", "1", "--output", os.devnull]),
    ("safetensors", "model",    ["load", ROOT/"model"/"tiny"/"model.safetensors"]),
    ("litex",       "gateware", ["info"]),
])
def test_command_without_the_packages_of_an_extra(package, extra, arguments):
    """One line says which extra brings them."""
    hide = f"import sys; sys.modules[{package!r}] = None; from host import stream; sys.exit(stream.main(sys.argv[1:]))"
    done = run([sys.executable, "-c", hide, *arguments], cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"stream.py: error: Python packages are missing: {package}: install the extra {extra}, in the project's "
        f"folder by pip install \".[{extra}]\".\n")

# Checkout -----------------------------------------------------------------------------------------

@pytest.mark.skipif(not mounts_permitted(), reason="mounts are not permitted here")
def test_read_only_checkout():
    """Where everything is built, all that needs nothing built works; the rest says what could not be written."""
    folder  = build(SystemConfig())
    command = lambda *words: run(["unshare", "--mount", "sh", "-c", READ_ONLY + 'exec "$@"', "sh", *words], cwd=ROOT)
    assert command("touch", "file").returncode
    done = command(sys.executable, "targets/sim.py", "--build-only")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n", "")
    done = command(sys.executable, "host/stream.py", "selftest")
    assert (done.returncode, done.stderr) == (0, "")
    done = command(sys.executable, "targets/sim.py", "--build-only", "--max-d-state", "112")
    assert done.returncode == 1 and "Read-only file system" in done.stderr and done.stderr.count("\n") == 1
    assert "make it writable, or name another (--build-dir)" in done.stderr


def test_folder_with_a_space(tmp_path):
    """Is refused before anything is installed."""
    folder = tmp_path/"two words"
    (folder/"scripts").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "scripts/setup.sh"):
        shutil.copy(ROOT/name, folder/name)
    done = run(["make", "demo"], cwd=folder, env={name: value for name, value in os.environ.items() if "MAKE" not in name})
    assert done.returncode and done.stdout == ""
    assert done.stderr.startswith(f"setup.sh: error: the project's folder must be without spaces, is '{folder}'")
    assert sorted(path.name for path in folder.rglob("*")) == ["Makefile", "pyproject.toml", "scripts", "setup.sh"]
