#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Builds the simulated SoC, its BIOS, its Verilator model and the firmware, and keeps them for the next run."""

import fcntl
import hashlib
import json
import os
import shutil
import sys

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from operations.config import SystemConfig

from tools import processes
from tools.firmware.build import BuildError, build as build_firmware, check_path
from tools.paths import BUILD, ROOT

# Constants ----------------------------------------------------------------------------------------

BUILD_DIR = BUILD/"sim"

# What a model is made from: when one of these changes, it is built anew.
GATEWARE_SOURCES = ("operations", "cores", "soc", "targets/common.py", "targets/simulation/soc.py", "targets/simulation/gated_clock.py",
    "targets/simulation/phy.py", "targets/simulation/timeline.py",
    "targets/simulation/main.cpp", "firmware/bootrom.S", "tools/firmware/bootrom.py",
    "tools/simulation/dram.py", "tools/simulation/settings.py", "tools/simulation/timeline.py")
FIRMWARE_SOURCES = ("firmware", "tools/firmware", "operations", "model/bitexact.py")

VERILATOR_FLAGS = (
    "--cc", "--exe", "--top-module", "sim", "--prefix", "Vsim", "-O3",
    "--x-assign", "fast", "--x-initial", "fast", "--noassert",
    "--flatten", "--output-split", "300000", "--output-split-cfuncs", "30000", # Large functions compile and run faster.
    "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-COMBDLY",
)
OPTIMIZATION = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2") # -O3 and -march=native were measured to be no faster.
CLANG        = ("CXX=clang++", "LINK=clang++", "CFG_CXXFLAGS_NO_UNUSED=-faligned-new") # A tenth faster than g++'s models.

# Helpers ------------------------------------------------------------------------------------------

def sources_hash(sources: Iterable[str], *others: object) -> str:
    """Hash of the contents of files and folders below the project's root, and of the text of further objects."""
    digest = hashlib.sha256(repr(others).encode())
    for source in sources:
        for path in sorted(ROOT.glob(source)):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and "__pycache__" not in file.parts:
                    digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock: of two programs that build the same thing, the second waits and finds it built."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which becomes `folder` at the end: whole, or not at all."""
    for left in folder.parent.glob(f"{folder.name}.*.part"): # By a build that was killed.
        shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _run(command: Sequence[str], cwd: Path, log: Path) -> None:
    with open(log, "a") as file:
        try:
            status = processes.run(command, file, cwd)
        except FileNotFoundError as error:
            raise BuildError(str(error)) from None
    if status:
        raise BuildError(f"{command[0]} failed: its output is in {log}.")

# Gateware -----------------------------------------------------------------------------------------

def _write_soc(config: SystemConfig, options: dict[str, bool], folder: Path, log: Path) -> list[str]:
    """Write the SoC's Verilog with the BIOS in its ROM; returns the paths of all Verilog."""
    with open(log, "a") as file:
        status = processes.run([sys.executable, "-m", "targets.simulation.soc", folder,
            json.dumps({"config": asdict(config), **options})], file, ROOT)
    if status:
        raise BuildError(f"LiteX failed: its output is in {log}.")
    return json.loads((folder/"sources.json").read_text())


def _build_model(verilog: Iterable[str], gateware_dir: Path, trace: bool, with_flash_boot: bool, log: Path) -> None:
    """Compile the Verilog to obj_dir/Vsim."""
    main   = ROOT/"targets"/"simulation"/"main.cpp"
    flags  = ["--trace-fst", "-CFLAGS", "-DTRACE"] if trace else []
    flags += ["-CFLAGS", "-DFLASH"] if with_flash_boot else []
    ccache = ["OBJCACHE=ccache"] if shutil.which("ccache") else []
    clang  = CLANG if shutil.which("clang++") else ()
    _run(["verilator", *VERILATOR_FLAGS, *flags, *verilog, str(main)], gateware_dir, log)
    _run(["make", "-C", "obj_dir", "-f", "Vsim.mk", f"-j{os.cpu_count()}", *OPTIMIZATION, *clang, *ccache, "Vsim"],
        gateware_dir, log)


def _prune_software(software_dir: Path, log: Path) -> None:
    """Keep the C library, 5% of LiteX's build of it: the rest are its objects, copies and debugging information."""
    libc = software_dir/"libc"
    for path in libc.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix == ".a" and path.name != "libc.a":
            path.unlink()
    _run(["riscv64-unknown-elf-strip", "--strip-debug", str(libc/"libc.a")], software_dir, log)

# Build --------------------------------------------------------------------------------------------

def build(config: SystemConfig, trace: bool = False, build_dir: Path | str | None = None,
          report: Callable[[str], None] = lambda line: None, protect: bool = False, with_flash_boot: bool = False,
          wide: bool = False, timeline: bool = False) -> Path:
    """Build what is not built yet, and return its folder.

    Parameters
    ----------
    config    : The SystemConfig of the SoC.
    trace     : Build a model that can write waves; it is slower.
    build_dir : Folder of all models; each gets one below it, named by the hash of what it is made from. It need not be
                writable where everything is built.
    report    : Called with a line of text when something has to be built.
    protect, with_flash_boot, wide, timeline : Of :class:`targets.simulation.soc.SimSoC`; with a flash, firmware/firmware.fbi is the
                firmware's image for it.

    Raises
    ------
    BuildError : a step failed, or the folder cannot be written, or its path has a space.
    """
    options = {"protect": protect, "with_flash_boot": with_flash_boot, "wide": wide, "timeline": timeline}
    name    = sources_hash(GATEWARE_SOURCES, config, trace, options, VERILATOR_FLAGS, OPTIMIZATION,
        *map(version, ("litex", "litedram", "litespi")))
    folder  = Path(build_dir or BUILD_DIR).absolute()/name
    digest  = sources_hash(FIRMWARE_SOURCES)
    if _has_firmware(folder, digest):
        return folder
    for path in (folder, ROOT, sys.prefix): # The last two: where sources are.
        check_path(str(path))
    try:
        with locked(folder.with_suffix(".lock")):
            if not folder.exists():
                report(f"Building the simulated SoC, {config.ssm.lanes} lanes, in {folder} (once, about a minute)...")
                _build(config, options, trace, folder)
            if not _has_firmware(folder, digest):
                report("Building the firmware...")
                _build_firmware(folder, digest)
    except OSError as error:
        raise BuildError(f"cannot build in {folder.parent} ({error}): make it writable, or name another (--build-dir).") from error
    return folder


def _build(config: SystemConfig, options: dict[str, bool], trace: bool, folder: Path) -> None:
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    with fresh(folder) as part:
        verilog = _write_soc(config, options, part, log)
        _prune_software(part/"software", log)
        _build_model(verilog, part/"gateware", trace, options["with_flash_boot"], log)


def _has_firmware(folder: Path, digest: str) -> bool:
    """Whether the firmware in a model's folder is that of the sources with this hash."""
    stamp = folder/"firmware.stamp"
    return stamp.exists() and stamp.read_text() == digest


def _build_firmware(folder: Path, digest: str) -> None:
    from tools.firmware.flash import write_flash_image # Imports LiteX, which nothing else here needs.

    stamp = folder/"firmware.stamp"
    stamp.unlink(missing_ok=True)
    build_firmware(str(folder))
    write_flash_image(folder)
    stamp.write_text(digest)
