#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Compiles the firmware for the host, against the fake SoC of this directory."""

import os
import subprocess

from cores.common.counters import COUNTER_BITS

from operations.config import MemoryConfig, SystemConfig
from operations.program import Unit

from tools.firmware import build as firmware_build

# Constants ----------------------------------------------------------------------------------------

DIRECTORY = os.path.dirname(os.path.abspath(__file__))
FIRMWARE  = ("block.c", "checksum.c", "engine.c", "info.c", "operations.c", "request.c", "ring.c", "scheduler.c", "selftest.c",
    "ssm.c", "ssm_job.c", "generate.c", "batch.c", "passes.c", "drafts.c", "image.c", "program.c", "sampling.c", "pass_job.c")
DATA_WIDTH = 128
FLAGS     = ("-std=gnu99", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all")
SANITIZE  = "-fsanitize=address,undefined"

# Build --------------------------------------------------------------------------------------------

def program_defines(program):
    """Those of a :class:`~operations.config.ProgramConfig`."""
    words = {"pass_tokens": program.pass_tokens, "vector_lanes": program.vector_lanes, "scratch": program.elements,
        "activations": program.activations, "units": sum(1 << Unit[name] for name in program.units), "counter_bits": COUNTER_BITS}
    return [f"-DPROGRAM_{name.upper()}={value}" for name, value in words.items()]


def defines(config, program=None):
    """The constants of LiteX's soc.h, as options of the compiler."""
    names = ("max_heads", "max_groups", "max_tokens", "resident_tiles", "stochastic_rounding")
    return [f"-DSSM_COUNTER_BITS={COUNTER_BITS}", f"-DMEMORY_DATA_WIDTH={DATA_WIDTH}",
        *(f"-DSSM_{name.upper()}={int(getattr(config, name))}" for name in names), *(program_defines(program) if program else [])]


def build(directory, config, main="driver.c", compiler=("gcc", "-O0", SANITIZE), without=(), program=None):
    """Build `main` and the firmware with the headers of an SSMConfig, and perhaps a ProgramConfig; returns the program's path. without:
    engines that are not there, by name."""
    firmware_build.write_headers(directory, SystemConfig(MemoryConfig(DATA_WIDTH), config, program=program))
    path = os.path.join(directory, os.path.splitext(main)[0])
    subprocess.run([*compiler, *FLAGS, "-o", path,
        f"-I{directory}", f"-I{DIRECTORY}", f"-I{firmware_build.DIRECTORY}",
        *defines(config, program), *(f"-DWITHOUT_{name}" for name in without),
        *(os.path.join(firmware_build.DIRECTORY, name) for name in FIRMWARE),
        *(os.path.join(DIRECTORY, name) for name in (main, "fake.c")), "-lz"], check=True)
    return path


def build_fuzzer(directory, config, program=None):
    """Build the fuzzer of the ring with libFuzzer; returns its path."""
    return build(directory, config, "fuzz.c", ("clang", "-O1", SANITIZE + ",fuzzer"), program=program)


def build_seeded_fuzzer(directory, config, program=None):
    """Build it so that it makes its inputs itself, which needs no clang; returns its path."""
    return build(directory, config, "fuzz.c", ("gcc", "-O1", SANITIZE, "-DFUZZ_SEEDED"), program=program)
