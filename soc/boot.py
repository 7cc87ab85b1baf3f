#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Boot ROM: where the LiteX BIOS ends, and where the CPU waits for a firmware.

    reset --> LiteX BIOS (ROM): initializes the DRAM --> boot ROM: waits for mailbox_boot --> firmware (DRAM)
                                                              ^                                  |
                                                              +----------- reboot request -------+
"""

from tools.firmware.bootrom import bootrom_image

# Constants ----------------------------------------------------------------------------------------

BOOTROM_ORIGIN = 0x0800_0000
BOOTROM_SIZE   = 0x0000_0400

# Helpers ------------------------------------------------------------------------------------------

def csr_address(soc, module, csr):
    """Bus address that a CSR will have, for what must know it before the SoC is finalized."""
    soc.csr.add(module, use_loc_if_exists=True)
    address = soc.mem_map["csr"] + soc.csr.paging*soc.csr.locs[module]
    for register in getattr(soc, module).get_csrs():
        if register.name == csr:
            return address
        address += -(-register.size//soc.csr.data_width)*(soc.csr.alignment//8)
    raise ValueError(f"csr must be a register of {module}, is {csr!r}.")

# Integration --------------------------------------------------------------------------------------

def add_boot(soc, name="bootrom"):
    """Add the boot ROM to a LiteX SoC that has a mailbox, and let the BIOS jump to it."""
    words = bootrom_image(csr_address(soc, "mailbox", "boot"), "CONFIG_CPU_HAS_DCACHE" in soc.constants)
    if 4*len(words) > BOOTROM_SIZE:
        raise ValueError(f"boot ROM must have at most {BOOTROM_SIZE} bytes, has {4*len(words)}.")
    soc.add_rom(name, origin=BOOTROM_ORIGIN, size=BOOTROM_SIZE, contents=words)
    soc.add_constant("ROM_BOOT_ADDRESS", BOOTROM_ORIGIN)
