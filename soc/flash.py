#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Boot from flash: the LiteX BIOS starts a firmware without a host.

    reset --> LiteX BIOS (ROM) --> image in the flash --right length and CRC--> DRAM: firmware
                                                      --else--> boot ROM: waits for the host (soc/boot.py)

The flash holds the bitstream at 0 and at FLASH_OFFSET the image: length, CRC-32, firmware.bin. The BIOS copies the latter
to the start of main RAM, where the host would have loaded it.
"""

from litespi.opcodes import SpiNorFlashOpCodes

from tools.firmware.flash import FLASH_OFFSET

# Integration --------------------------------------------------------------------------------------

def add_flash_boot(soc, module):
    """Add the SPI flash, read-only, to a LiteX SoC, and let the BIOS start the firmware in it.

    One data line and the plain read command are what every flash answers to after power-on, and fast enough for an image of
    some ten KiB. For four lines LiteX's BIOS would have to write the flash's configuration register, which has bits that
    can be written once only; and with CSRs of the core it would try out ever higher clocks. So neither is there.

    Parameters
    ----------
    soc    : A LiteX SoC whose platform has the pads "spiflash".
    module : Class of LiteSPI's that describes the flash.
    """
    soc.add_spi_flash(mode="1x", module=module(SpiNorFlashOpCodes.READ_1_1_1), with_master=False, with_csr=False)
    pads = soc.platform.lookup_request("spiflash")
    for name in ("wp", "hold"): # Active low.
        if hasattr(pads, name):
            soc.comb += getattr(pads, name).eq(1)
    soc.add_constant("FLASH_BOOT_ADDRESS", soc.bus.regions["spiflash"].origin + FLASH_OFFSET)
