#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Assembles the boot ROM (``bootrom.S``), in which the CPU waits for a firmware."""

import os
import shutil
import struct
import subprocess
import tempfile

from litex.soc.cores.cpu import CPU_GCC_TRIPLE_RISCV32

from operations.protocol import REBOOT

from tools.paths import ROOT

# Constants ----------------------------------------------------------------------------------------

SOURCE     = ROOT/"firmware"/"bootrom.S"
LINE_WORDS = 8 # The instruction cache fetches lines of this many words.

# Helpers ------------------------------------------------------------------------------------------

def _toolchain() -> str:
    for triple in CPU_GCC_TRIPLE_RISCV32:
        if shutil.which(f"{triple}-gcc"):
            return triple
    raise FileNotFoundError("No RISC-V compiler found: install the Debian package gcc-riscv64-unknown-elf.")

# Boot ROM -----------------------------------------------------------------------------------------

def bootrom_image(mailbox_boot_address: int, has_dcache: bool = True) -> list[int]:
    """The boot ROM's 32-bit words. It may be placed anywhere.

    Parameters
    ----------
    mailbox_boot_address : Bus address of the CSR ``mailbox_boot``.
    has_dcache           : Whether the VexRiscv has a data cache.

    Raises
    ------
    ValueError        : the address is not a multiple of 4 in 32 bits.
    FileNotFoundError : no RISC-V compiler is installed.
    """
    if not 0 <= mailbox_boot_address < 2**32 or mailbox_boot_address % 4:
        raise ValueError(f"mailbox_boot_address must be a multiple of 4 from 0x0 to 0xfffffffc, is {mailbox_boot_address:#x}.")
    triple = _toolchain()
    with tempfile.TemporaryDirectory() as directory:
        elf, image = os.path.join(directory, "bootrom.o"), os.path.join(directory, "bootrom.bin")
        subprocess.run([f"{triple}-gcc", "-march=rv32i2p0", "-mabi=ilp32", "-c", SOURCE, "-o", elf,
            f"-DMAILBOX_BOOT_ADDRESS={mailbox_boot_address:#x}", f"-DREBOOT={REBOOT:#x}",
            *(["-DCPU_HAS_DCACHE"] if has_dcache else [])], check=True)
        subprocess.run([f"{triple}-objcopy", "-O", "binary", elf, image], check=True)
        with open(image, "rb") as file:
            code = file.read()
    code += bytes(-len(code) % (4*LINE_WORDS))
    return list(struct.unpack(f"<{len(code)//4}I", code))
