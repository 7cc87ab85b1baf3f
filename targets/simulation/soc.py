#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The simulated SoC: the Arty's clock, DRAM and CPU, with the accelerator.

Run as a program, with a folder and SimSoC's parameters as JSON, it writes the SoC's Verilog and BIOS there, and to
sources.json the paths of the Verilog; tools/simulation/build.py does that.
"""

import json
import os
import re
import sys

from migen import *
from migen.genlib.io import CRG

from litex.build.generic_platform import Pins, Subsignal
from litex.build.sim import SimPlatform

from litex.soc.cores.uart import RS232PHYModel, UARTBone
from litex.soc.integration.builder import Builder
from litex.soc.integration.soc_core import SoCCore

from litedram.modules import MT41K64M16, MT41K128M16
from litedram.phy.model import SDRAMPHYModel

from litespi.modules import S25FL128S

from operations.config import SystemConfig

from soc.accelerator import add_accelerator
from soc.dram import controller_settings, refresh_in_time
from soc.etherbone import add_etherbone
from soc.flash import add_flash_boot

from targets.common import BIOS_ROM_SIZE, builder_environment, sram_size
from targets.simulation.gated_clock import GatedClocks
from targets.simulation.phy import EthernetPHY
from targets.simulation.timeline import Timeline

from tools.simulation.dram import DRAMBanks
from tools.simulation.settings import IP_ADDRESS, MAC_ADDRESS, SYS_CLK_FREQ, UDP_PORT

# Constants ----------------------------------------------------------------------------------------

# Seconds by the SoC's clock after which UARTBone gives up a command: a tenth of a board's, as the clock is that much slower.
UARTBONE_TIMEOUT = 0.01

# Modules of 16 bits side by side make up the DRAM's width. Of four, the smaller ones fit below the bus' other regions.
DRAMS = {16: MT41K128M16, 32: MT41K128M16, 64: MT41K64M16}

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
    pads ``uartbone``. The BIOS initializes the DRAM and goes to the boot ROM without tests and delays. `protect`
    and `wide` are :func:`soc.etherbone.add_etherbone`'s; `with_flash_boot` adds a flash on the pads ``spiflash``, and
    `timeline` has it print what engines and DRAM do.
    """
    def __init__(self, config, protect=False, with_flash_boot=False, wide=False, timeline=False):
        platform = SimPlatform("SIM", list(_io))

        # CRG --------------------------------------------------------------------------------------
        reset    = Signal() # Driven by LiteX: the SoC resets where ctrl_reset is written.
        self.crg = CRG(platform.request("sys_clk"), rst=reset)
        self.crg.rst = reset

        # SoCCore ----------------------------------------------------------------------------------
        SoCCore.__init__(self, platform, SYS_CLK_FREQ,
            ident                = "Mamba-2 SSM accelerator in simulation",
            cpu_type             = "vexriscv",
            cpu_variant          = config.cpu_variant,
            integrated_rom_size  = BIOS_ROM_SIZE,
            integrated_sram_size = sram_size(config),
            with_uart            = False)
        self.add_uart(name="uart", uart_name="sim", uart_pads=platform.request("console"))

        # BIOS Config ------------------------------------------------------------------------------
        # Without delays the BIOS does not wait for a serial boot either.
        for config_name in ("BIOS_NO_DELAYS", "BIOS_NO_CRC"):
            self.add_config(config_name)
        self.add_constant("SDRAM_TEST_DISABLE")

        # DDR3 SDRAM -------------------------------------------------------------------------------
        width       = (config.memory.data_width or 128)//8 # Of the DRAM: a port moves eight words of it.
        module      = refresh_in_time(DRAMS[width](SYS_CLK_FREQ, "1:4"))
        self.sdrphy = SDRAMPHYModel(module, data_width=width, clk_freq=SYS_CLK_FREQ)
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
        self.uartbone     = UARTBone(self.uartbone_phy, clk_freq=SYS_CLK_FREQ*UARTBONE_TIMEOUT/0.1)
        self.bus.add_master(name="uartbone", master=self.uartbone.wishbone)
        self.add_constant("UARTBONE_TIMEOUT_MS", round(1000*UARTBONE_TIMEOUT)) # For the host.

        # Accelerator ------------------------------------------------------------------------------
        add_accelerator(self, config)
        self.clocks = GatedClocks(self.ssm, getattr(self, "program", None))
        if timeline:
            self.timeline = Timeline(self.program, self.sdram.crossbar.masters)

        # Etherbone --------------------------------------------------------------------------------
        self.ethphy = EthernetPHY(platform.request("eth"))
        add_etherbone(self, self.ethphy, MAC_ADDRESS, IP_ADDRESS, UDP_PORT, protect, wide)
        # While the SoC asks for the host's hardware address, answers wait for it, so nothing may wait before the reply.
        asking     = self.ethcore_etherbone.arp.table.request_timer.wait
        self.comb += self.ethphy.hold.eq(self.etherbone.buffer.filling & ~asking)

# DRAM ---------------------------------------------------------------------------------------------

def add_dram_files(verilog, banks):
    """Have the DRAM's banks, memories of the Verilog's text of so many words, filled at the start from the files that plusargs name:
    +dram0=FILE, +dram1=FILE, ... Words lie there one after the other, the highest byte first."""
    memories = re.findall(rf"^reg \[\d+:0\] (\w+)\[0:{banks.words - 1}\];$", verilog, re.MULTILINE)
    if len(memories) != banks.count:
        raise ValueError(f"the Verilog must have {banks.count} memories of {banks.words} words, has {len(memories)}.")
    lines = ["string dram_path;", "integer dram_file;", "integer dram_bytes;", "initial begin"]
    for bank, memory in enumerate(memories):
        lines += [f"    if ($value$plusargs(\"dram{bank}=%s\", dram_path)) begin", "        dram_file = $fopen(dram_path, \"rb\");",
            f"        dram_bytes = $fread({memory}, dram_file);", "        $fclose(dram_file);", "    end"]
    head, end = verilog.rsplit("endmodule", 1)
    return "\n".join([head.rstrip(), "", *lines, "end", "", "endmodule"]) + end

# Main ---------------------------------------------------------------------------------------------

def write(folder, config, **options):
    """Write Verilog, BIOS and sources.json."""
    soc = SimSoC(SystemConfig.from_dict(config), **options)
    with builder_environment():
        Builder(soc, output_dir=folder, compile_gateware=False, bios_console="disable").build()
    path = os.path.join(folder, "gateware", "sim.v")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(add_dram_files(text, DRAMBanks.of(config["memory"]["data_width"])))
    verilog = [source[0] for source in soc.platform.sources if source[0].endswith((".v", ".sv"))]
    with open(os.path.join(folder, "sources.json"), "w") as file:
        json.dump(verilog, file)


if __name__ == "__main__":
    write(sys.argv[1], **json.loads(sys.argv[2]))
