#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Digilent Arty A7 with the accelerator, reached by Etherbone and by UARTBone."""

import argparse
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import environment # First: the others need it.

from migen import *

from litex.soc.integration.builder import Builder
from litex.soc.integration.soc_core import SoCCore

from litedram.modules import MT41K128M16
from litedram.phy import s7ddrphy

from liteeth.phy.mii import LiteEthPHYMII

from litex_boards.platforms import digilent_arty
from litex_boards.targets.digilent_arty import _CRG

from soc.console import add_console
from soc.dram import controller_settings
from soc.etherbone import add_etherbone

from targets.board import (ROOT, TargetError, add_board_arguments, add_build_arguments, add_status_leds, print_written,
    program, soc_arguments, write_gateware)
from targets.common import BIOS_ROM_SIZE, add_config_arguments, add_system, config_from_arguments

# Constants ----------------------------------------------------------------------------------------

VARIANTS = {         # Lanes by default, openFPGALoader's name. What they take: bench/fit.py.
    "a7-35"  : (8,  "arty_a7_35t"),
    "a7-100" : (32, "arty_a7_100t"),
}

TOOLCHAINS = {       # Commands, environment variables that LiteX's script needs; without them it ends in the middle.
    "vivado"  : (("vivado",), ()),
    "openxc7" : (("yosys", "nextpnr-xilinx", "fasm2frames", "xc7frames2bit"), ("CHIPDB", "PRJXRAY_DB_DIR")),
}

# ArtySoC ------------------------------------------------------------------------------------------

class ArtySoC(SoCCore):
    """Arty SoC

    The serial port is UARTBone, the console a crossover (``litex_term crossover``). LED 0 blinks, LED 1 is on while
    jobs are in the ring, LED 2 from an error to the next job.
    """
    def __init__(self, config, variant="a7-35", toolchain="vivado", sys_clk_freq=100e6, baudrate=115200, with_etherbone=True,
        eth_ip   = "192.168.1.50",
        mac      = 0x10e2d5000000,
        udp_port = 1234,
        protect  = False):
        platform = digilent_arty.Platform(variant=variant, toolchain=toolchain)

        # CRG --------------------------------------------------------------------------------------
        self.crg = _CRG(platform, sys_clk_freq)

        # SoCCore ----------------------------------------------------------------------------------
        SoCCore.__init__(self, platform, sys_clk_freq,
            ident                = f"Mamba-2 SSM accelerator on Arty {variant}",
            cpu_type             = "vexriscv",
            cpu_variant          = "lite" if variant == "a7-35" else "standard",
            integrated_rom_size  = BIOS_ROM_SIZE,
            integrated_sram_size = 0x2000,
            with_uart            = False)

        # DDR3 SDRAM -------------------------------------------------------------------------------
        self.ddrphy = s7ddrphy.A7DDRPHY(platform.request("ddram"),
            memtype      = "DDR3",
            nphases      = 4,
            sys_clk_freq = sys_clk_freq)
        self.add_sdram("sdram",
            phy                 = self.ddrphy,
            module              = MT41K128M16(sys_clk_freq, "1:4"),
            l2_cache_size       = 0, # The accelerator's ports bypass it.
            controller_settings = controller_settings(),
        )

        # UARTBone, Console ------------------------------------------------------------------------
        self.add_uartbone(baudrate=baudrate)
        add_console(self)

        # Accelerator ------------------------------------------------------------------------------
        add_system(self, config)

        # Etherbone --------------------------------------------------------------------------------
        if with_etherbone:
            self.ethphy = LiteEthPHYMII(
                clock_pads = platform.request("eth_clocks"),
                pads       = platform.request("eth"))
            add_etherbone(self, self.ethphy, mac, eth_ip, udp_port, protect)

        # LEDs -------------------------------------------------------------------------------------
        leds = platform.request_all("user_led")
        add_status_leds(self, heartbeat=leds[0], running=leds[1], error=leds[2])

# Toolchains ---------------------------------------------------------------------------------------

def missing_tools(toolchain):
    """Commands not on the PATH and environment variables not set that the toolchain needs."""
    commands, variables = TOOLCHAINS[toolchain]
    if "LITEX_ENV_VIVADO" in os.environ and toolchain == "vivado": # Then LiteX's script finds it there.
        return []
    return [name for name in commands if shutil.which(name) is None] + [name for name in variables if not os.environ.get(name)]


_NO_BITSTREAM = """\
no bitstream: {toolchain} needs {missing}, not found on the PATH or in the environment. What Vivado needs is in
  {gateware_dir}
Alternatives:
  - Vivado (the free edition covers this part): source its settings64.sh and run this command again, or run
    bash build_{name}.sh in that folder on a machine that has it.
  - openXC7 (https://github.com/openXC7, toolchain-installer): open tools. Put its commands on the PATH, set CHIPDB to a
    folder for its databases and PRJXRAY_DB_DIR to prjxray-db, and run this command with --toolchain openxc7.
  - The simulation needs neither board nor toolchain: python targets/sim.py"""

# Command Line -------------------------------------------------------------------------------------

def _parser():
    parser = argparse.ArgumentParser(description="Digilent Arty A7 with the Mamba-2 accelerator. Without further "
        "options, writes Verilog, constraints, scripts, BIOS and firmware.")
    add_config_arguments(parser, lanes=None,
        lanes_default=", ".join(f"{lanes} on the {variant}" for variant, (lanes, _) in VARIANTS.items()))
    group = parser.add_argument_group("board")
    group.add_argument("--variant", default="a7-35", choices=VARIANTS, help="Board (default: %(default)s).")
    add_board_arguments(group, sys_clk_freq=100e6, limits=(50e6, 125e6))
    group = add_build_arguments(parser, "build/arty/VARIANT")
    group.add_argument("--toolchain", choices=TOOLCHAINS, help="What builds the bitstream (default: vivado; openxc7 where only "
        "that is found).")
    return parser


def main():
    parser = _parser()
    args   = parser.parse_args()
    lanes, board = VARIANTS[args.variant]
    args.lanes   = args.lanes or lanes
    config     = config_from_arguments(parser, args)
    output_dir = os.path.abspath(args.build_dir or os.path.join(ROOT, "build", "arty", args.variant))
    toolchain  = args.toolchain or ("openxc7" if missing_tools("vivado") and not missing_tools("openxc7") else "vivado")
    missing    = missing_tools(toolchain)
    try:
        # Without openXC7 there, LiteX can't write its script: Vivado's is written then.
        soc = ArtySoC(config, args.variant, "vivado" if missing else toolchain, **soc_arguments(args))
        if args.build or not (args.load or args.flash):
            bitstream = args.build and not args.no_compile_gateware
            builder   = write_gateware(soc, output_dir, compile_gateware=bitstream and not missing)
            print_written(builder, "xdc", f"{soc.get_build_name()}.{'tcl' if missing or toolchain == 'vivado' else 'ys'}")
            if bitstream and missing:
                raise TargetError(_NO_BITSTREAM.format(toolchain=toolchain, missing=", ".join(missing),
                    gateware_dir=builder.gateware_dir, name=soc.get_build_name()))
        else:
            builder = Builder(soc, output_dir=output_dir)
        for mode in ("load", "flash"):
            if getattr(args, mode):
                program(builder, board, mode)
    except TargetError as error:
        print(f"arty.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
