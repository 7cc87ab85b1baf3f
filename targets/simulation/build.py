#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Builds the simulated SoC, its BIOS, its Verilator model and the firmware, and keeps them for the next run."""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess

from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

# Constants ----------------------------------------------------------------------------------------

ROOT      = Path(__file__).resolve().parents[2]
BUILD_DIR = ROOT/"build"/"sim"

# What a model is made from: when one of these changes, it is built anew.
GATEWARE_SOURCES = ("cores", "soc/accelerator.py", "soc/boot.py", "soc/checksum.py", "soc/dram.py", "soc/etherbone.py",
    "soc/flash.py", "soc/mailbox.py", "soc/protocol.py", "soc/wishbone_slice.py", "soc/write_filter.py", "targets/common.py",
    "targets/simulation/soc.py", "targets/simulation/phy.py", "targets/simulation/main.cpp", "firmware/bootrom*")
FIRMWARE_SOURCES = ("firmware", "soc/flash.py", "soc/protocol.py", "cores/ssm/config.py", "cores/ssm/layout.py",
    "model/bitexact.py")

VERILATOR_FLAGS = (
    "--cc", "--exe", "--top-module", "sim", "--prefix", "Vsim", "-O3",
    "--x-assign", "fast", "--x-initial", "fast", "--noassert",
    "--flatten", "--output-split", "300000", "--output-split-cfuncs", "30000", # Large functions compile and run faster.
    "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-COMBDLY",
)
OPTIMIZATION = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2") # -O3 and -march=native were measured to be no faster.
CLANG        = ("CXX=clang++", "LINK=clang++", "CFG_CXXFLAGS_NO_UNUSED=-faligned-new") # A tenth faster than g++'s models.

# Errors -------------------------------------------------------------------------------------------

class BuildError(RuntimeError):
    """A step of a build failed; the message says which, and where its output is."""

# Helpers ------------------------------------------------------------------------------------------

def sources_hash(sources, *others):
    """Hash of the contents of files and folders below the project's root, and of the text of further objects."""
    digest = hashlib.sha256(repr(others).encode())
    for source in sources:
        for path in sorted(ROOT.glob(source)):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and "__pycache__" not in file.parts:
                    digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def locked(path):
    """Hold a file lock: of two programs that build the same thing, the second waits and finds it built."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def output_to(path):
    """Send what this process and its children print, LiteX's loggers too, to a file."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    with open(path, "a") as file:
        saved = [os.dup(fd) for fd in (1, 2)]
        try:
            for fd in (1, 2):
                os.dup2(file.fileno(), fd)
            yield
        finally:
            for fd, copy in zip((1, 2), saved):
                os.dup2(copy, fd)
                os.close(copy)
            logging.disable(level)


def _run(command, cwd, log):
    with open(log, "a") as file:
        try:
            returncode = subprocess.run(command, cwd=cwd, stdout=file, stderr=file).returncode
        except FileNotFoundError:
            raise BuildError(f"{command[0]} is not installed: make setup installs it, or says what to install.")
    if returncode:
        raise BuildError(f"{command[0]} failed: its output is in {log}.")

# Gateware -----------------------------------------------------------------------------------------

def _build_soc(config, protect, with_flash_boot, build_dir, log):
    """Write the SoC's Verilog with the BIOS in its ROM."""
    from litex.soc.integration.builder import Builder
    from targets.common import builder_environment
    from targets.simulation.soc import SimSoC

    try:
        with output_to(log), builder_environment():
            soc = SimSoC(config, protect, with_flash_boot)
            Builder(soc, output_dir=str(build_dir), compile_gateware=False, bios_console="disable").build()
    except (OSError, subprocess.CalledProcessError, SystemExit) as error:
        raise BuildError(f"LiteX failed ({error}): its output is in {log}.")
    return [source[0] for source in soc.platform.sources if source[0].endswith((".v", ".sv"))]


def _build_model(verilog, gateware_dir, trace, with_flash_boot, log):
    """Compile the Verilog to obj_dir/Vsim."""
    main   = Path(__file__).with_name("main.cpp")
    flags  = ["--trace-fst", "-CFLAGS", "-DTRACE"] if trace else []
    flags += ["-CFLAGS", "-DFLASH"] if with_flash_boot else []
    ccache = ["OBJCACHE=ccache"] if shutil.which("ccache") else []
    clang  = CLANG if shutil.which("clang++") else ()
    _run(["verilator", *VERILATOR_FLAGS, *flags, *verilog, str(main)], gateware_dir, log)
    _run(["make", "-C", "obj_dir", "-f", "Vsim.mk", f"-j{os.cpu_count()}", *OPTIMIZATION, *clang, *ccache, "Vsim"],
        gateware_dir, log)

def _prune_software(software_dir, log):
    """Keep the C library, 5% of LiteX's build of it: the rest are its objects, copies and debugging information."""
    libc = software_dir/"libc"
    for path in libc.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix == ".a" and path.name != "libc.a":
            path.unlink()
    _run(["riscv64-unknown-elf-strip", "--strip-debug", str(libc/"libc.a")], software_dir, log)

# Build --------------------------------------------------------------------------------------------

def build(config, trace=False, build_dir=None, report=lambda line: None, protect=False, with_flash_boot=False):
    """Build what is not built yet, and return its folder.

    Parameters
    ----------
    config    : The SSMConfig of the accelerator.
    trace     : Build a model that can write waves; it is slower.
    build_dir : Folder of all models; each gets one below it, named by the hash of what it is made from.
    report    : Called with a line of text when something has to be built.
    protect   : Etherbone writes only what jobs need.
    with_flash_boot : The SoC has a flash from which it boots; firmware/firmware.fbi is the firmware's image for it.

    Raises
    ------
    BuildError : a step failed.
    """
    name      = sources_hash(GATEWARE_SOURCES, config, trace, protect, with_flash_boot, VERILATOR_FLAGS, OPTIMIZATION,
        *map(version, ("litex", "litedram", "litespi")))
    model_dir = Path(build_dir or BUILD_DIR).absolute()/name
    with locked(model_dir.with_suffix(".lock")):
        complete = model_dir/"complete"
        if not complete.exists():
            report(f"Building the simulated SoC, {config.lanes} lanes, in {model_dir} (once, about a minute)...")
            shutil.rmtree(model_dir, ignore_errors=True)
            model_dir.mkdir(parents=True)
            log     = model_dir/"build.log"
            verilog = _build_soc(config, protect, with_flash_boot, model_dir, log)
            _prune_software(model_dir/"software", log)
            _build_model(verilog, model_dir/"gateware", trace, with_flash_boot, log)
            complete.touch()
        _build_firmware(model_dir, report)
    return model_dir


def _build_firmware(model_dir, report):
    from firmware.build import BuildError as FirmwareError, build as build_firmware
    from soc.flash import write_flash_image

    stamp  = model_dir/"firmware.stamp"
    digest = sources_hash(FIRMWARE_SOURCES)
    if stamp.exists() and stamp.read_text() == digest:
        return
    report("Building the firmware...")
    stamp.unlink(missing_ok=True)
    try:
        build_firmware(str(model_dir))
        write_flash_image(model_dir)
    except FirmwareError as error:
        raise BuildError(str(error))
    stamp.write_text(digest)
