#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The simulated SoC: the Arty's clock, DRAM and CPU, with the accelerator."""

from dataclasses import replace

from migen import *
from migen.genlib.io import CRG

from litex.build.generic_platform import Pins, Subsignal
from litex.build.sim import SimPlatform

from litex.soc.cores.uart import RS232PHYModel, UARTBone
from litex.soc.integration.soc_core import SoCCore

from litedram.modules import MT41K128M16
from litedram.phy.model import SDRAMPHYModel

from litespi.modules import S25FL128S

from soc.accelerator import add_accelerator
from soc.dram import controller_settings
from soc.etherbone import add_etherbone
from soc.flash import add_flash_boot

from targets.common import BIOS_ROM_SIZE, cpu_variant
from targets.simulation.phy import EthernetPHY

# Constants ----------------------------------------------------------------------------------------

SYS_CLK_FREQ = 100e6

MAC_ADDRESS  = 0x10e2d5000000
IP_ADDRESS   = "192.168.1.50"
HOST_ADDRESS = "192.168.1.100"
UDP_PORT     = 1234

# IOs ----------------------------------------------------------------------------------------------

def _stream_pads(name, number=None, last=()):
    subsignals = []
    for direction in ("source", "sink"):
        subsignals += [Subsignal(f"{direction}_{signal}", Pins(1)) for signal in ("valid", "ready", *last)]
        subsignals += [Subsignal(f"{direction}_data", Pins(8))]
    return (name, 0, *subsignals)

_io = [
    ("sys_clk", 0, Pins(1)),
    _stream_pads("console"),
    _stream_pads("uartbone"),
    _stream_pads("eth", last=("last",)),
    ("spiflash", 0, *(Subsignal(name, Pins(1)) for name in ("cs_n", "clk", "mosi", "miso"))),
]

# SimSoC -------------------------------------------------------------------------------------------

class SimSoC(SoCCore):
    """Simulated SoC

    Both transports are always there, so that one model serves both: Etherbone on the pads ``eth``, UARTBone on the
    pads ``uartbone``. The BIOS initializes the DRAM and goes to the boot ROM without tests and delays. `protect` is
    :func:`soc.etherbone.add_etherbone`'s; `with_flash_boot` adds a flash on the pads ``spiflash``.
    """
    def __init__(self, config, protect=False, with_flash_boot=False):
        platform = SimPlatform("SIM", list(_io))

        # CRG --------------------------------------------------------------------------------------
        reset    = Signal() # Driven by LiteX: the SoC resets where ctrl_reset is written.
        self.crg = CRG(platform.request("sys_clk"), rst=reset)
        self.crg.rst = reset

        # SoCCore ----------------------------------------------------------------------------------
        SoCCore.__init__(self, platform, SYS_CLK_FREQ,
            ident                = "Mamba-2 SSM accelerator in simulation",
            cpu_type             = "vexriscv",
            cpu_variant          = cpu_variant(config),
            integrated_rom_size  = BIOS_ROM_SIZE,
            integrated_sram_size = 0x2000,
            with_uart            = False)
        self.add_uart(name="uart", uart_name="sim", uart_pads=platform.request("console"))

        # BIOS Config ------------------------------------------------------------------------------
        # Without delays the BIOS does not wait for a serial boot either.
        for config_name in ("BIOS_NO_DELAYS", "BIOS_NO_CRC"):
            self.add_config(config_name)
        self.add_constant("SDRAM_TEST_DISABLE")

        # DDR3 SDRAM -------------------------------------------------------------------------------
        module      = MT41K128M16(SYS_CLK_FREQ, "1:4")
        self.sdrphy = SDRAMPHYModel(module, data_width=16, clk_freq=SYS_CLK_FREQ)
        self.add_sdram("sdram",
            phy                 = self.sdrphy,
            module              = module,
            l2_cache_size       = 0, # The accelerator's ports bypass it.
            controller_settings = controller_settings(),
        )

        # SPI Flash --------------------------------------------------------------------------------
        if with_flash_boot:
            add_flash_boot(self, S25FL128S)

        # UARTBone ---------------------------------------------------------------------------------
        self.uartbone_phy = RS232PHYModel(platform.request("uartbone"))
        self.uartbone     = UARTBone(self.uartbone_phy, clk_freq=SYS_CLK_FREQ)
        self.bus.add_master(name="uartbone", master=self.uartbone.wishbone)

        # Accelerator ------------------------------------------------------------------------------
        add_accelerator(self, replace(config, gated_clock=True))

        # Etherbone --------------------------------------------------------------------------------
        self.ethphy = EthernetPHY(platform.request("eth"))
        add_etherbone(self, self.ethphy, MAC_ADDRESS, IP_ADDRESS, UDP_PORT, protect)
        self.comb += self.ethphy.hold.eq(self.etherbone.buffer.filling)
