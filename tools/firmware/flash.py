#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The image of a firmware for the flash, from which the LiteX BIOS starts it: see soc/flash.py."""

import os

from pathlib import Path

from litex.soc.software.crcfbigen import insert_crc

# Constants ----------------------------------------------------------------------------------------

# Beyond any bitstream of the boards: those of the a7-35, the ECP5-85 and the a7-100 take 2.2, 2 and 3.8 MB. A multiple of
# all sector sizes, and below the 16 MiB that an address of three bytes reaches.
FLASH_OFFSET = 0x40_0000

# Image --------------------------------------------------------------------------------------------

def flash_image(build_dir: Path | str) -> str:
    """Path of the image in a build's folder."""
    return os.path.join(build_dir, "firmware", "firmware.fbi")


def write_flash_image(build_dir: Path | str) -> None:
    """Write the image of a build's firmware.bin."""
    firmware = os.path.join(build_dir, "firmware", "firmware.bin")
    insert_crc(firmware, fbi_mode=True, o_filename=flash_image(build_dir), little_endian=True)
