#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Compiles the firmware for the host, against the fake SoC of this directory."""

import os
import subprocess

from firmware import build as firmware_build

# Constants ----------------------------------------------------------------------------------------

DIRECTORY = os.path.dirname(os.path.abspath(__file__))
FIRMWARE  = ("block.c", "checksum.c", "info.c", "request.c", "ring.c", "scheduler.c", "selftest.c", "ssm.c")
NATIVE    = ("driver.c", "fake.c")
FLAGS     = ("-std=gnu99", "-O0", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all")

# Build --------------------------------------------------------------------------------------------

def defines(config):
    """The constants of LiteX's soc.h, as options of the compiler."""
    names = ("max_heads", "max_groups", "max_tokens", "resident_tiles", "stochastic_rounding")
    return [f"-DSSM_{name.upper()}={int(getattr(config, name))}" for name in names]


def build(directory, config):
    """Build the driver with the headers of an SSMConfig; returns its path."""
    firmware_build.write_headers(directory, config)
    path = os.path.join(directory, "driver")
    subprocess.run(["gcc", *FLAGS, "-o", path,
        f"-I{directory}", f"-I{DIRECTORY}", f"-I{firmware_build.DIRECTORY}",
        *defines(config),
        *(os.path.join(firmware_build.DIRECTORY, name) for name in FIRMWARE),
        *(os.path.join(DIRECTORY, name) for name in NATIVE)], check=True)
    return path
