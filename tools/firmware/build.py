#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Builds the firmware against a LiteX build directory (with its ``software/include/generated``)."""

import os
import re

from collections.abc import Sequence

from operations import protocol
from operations.config import DATA_WIDTHS, FIRMWARE_CONSTANTS, MemoryConfig, ProgramConfig, SSMConfig, SystemConfig
from operations.header import c_header
from operations.program import Unit

from tools import processes
from tools.firmware.sampling import sampling_header
from tools.firmware.vectors import vectors_header
from tools.paths import ROOT

# Constants ----------------------------------------------------------------------------------------

DIRECTORY = str(ROOT/"firmware")

# Helpers ------------------------------------------------------------------------------------------

class BuildError(RuntimeError):
    """The firmware can't be built; the message says why."""


def check_path(path: str) -> None:
    """Raise :class:`BuildError` where make could not build in a folder."""
    if any(character.isspace() for character in path):
        raise BuildError(f"the path of a folder to build in must be without spaces, is {path!r}: make takes a space for the end "
            "of a name.")


def built_config(build_dir: str) -> SystemConfig:
    """The :class:`~operations.config.SystemConfig` of a build, from the constants of its ``soc.h``: what the firmware needs of it."""
    header = os.path.join(build_dir, "software", "include", "generated", "soc.h")
    try:
        with open(header) as file:
            constants = dict(re.findall(r"^#define (\w+) (\d+)$", file.read(), re.MULTILINE))
    except FileNotFoundError:
        raise BuildError(f"{header} does not exist: build the SoC's software first.") from None
    missing = [name for name in (*FIRMWARE_CONSTANTS, "MEMORY_DATA_WIDTH") if name not in constants]
    if missing:
        raise BuildError(f"{header} does not define {', '.join(missing)}: the SoC was built without the accelerator.")
    ssm     = SSMConfig(**{field.name: type(getattr(SSMConfig, field.name))(int(constants[name]))
        for name, field in FIRMWARE_CONSTANTS.items()})
    program = None
    if "PROGRAM_UNITS" in constants:
        number  = {name: int(constants[f"PROGRAM_{name.upper()}"]) for name in ("pass_tokens", "vector_lanes", "scratch", "activations")}
        program = ProgramConfig(**number, units=tuple(unit.name for unit in Unit if int(constants["PROGRAM_UNITS"]) >> unit & 1))
    return SystemConfig(MemoryConfig(int(constants["MEMORY_DATA_WIDTH"])), ssm, program=program)


def write_headers(directory: str, config: SystemConfig) -> None:
    """Write the generated headers of a firmware for `config`.

    Raises
    ------
    BuildError : the build has the units for whole models, and is too small for any.
    """
    try:
        vectors = vectors_header(config.ssm, config.program, config.memory.data_width or min(DATA_WIDTHS))
    except ValueError as error:
        raise BuildError(f"The self-test of the firmware does not fit: {error}") from error
    os.makedirs(directory, exist_ok=True)
    for name, text in (("protocol.h", c_header()), ("vectors.h", vectors), ("sampling_tables.h", sampling_header())):
        with open(os.path.join(directory, name), "w") as file:
            file.write(text)

# Build --------------------------------------------------------------------------------------------

def build(build_dir: str, defines: Sequence[str] = ()) -> str:
    """Build the firmware; returns the path of ``firmware.bin``.

    Parameters
    ----------
    build_dir : LiteX build directory, with its software built.
    defines   : Macros to define, for tests; each set of them is built in a directory of its own.

    Raises
    ------
    BuildError : with what is missing, or the compiler's output.
    """
    build_dir = os.path.abspath(build_dir)
    check_path(build_dir)
    check_path(DIRECTORY)
    directory = os.path.join(build_dir, "-".join(["firmware", *(define.lower() for define in defines)]))
    write_headers(directory, built_config(build_dir))
    command = [
        "make", "--always-make", "--directory", directory, "--file", os.path.join(DIRECTORY, "Makefile"),
        f"BUILD_DIR={build_dir}",
        f"BUILDINC_DIRECTORY={build_dir}/software/include", # Where it is now: LiteX has written where it was built.
        f"FIRMWARE_OFFSET={protocol.FIRMWARE_OFFSET:#x}",
        f"FIRMWARE_SIZE={protocol.FIRMWARE_SIZE:#x}",
        f"DEFINES={' '.join(defines)}",
    ]
    status, printed = processes.capture(command)
    if status:
        raise BuildError(f"The firmware does not build ({' '.join(command)}):\n{printed}")
    return os.path.join(directory, "firmware.bin")
