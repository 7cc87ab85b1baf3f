#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Digilent Genesys 2 (Kintex-7 325T, a DDR3 SDRAM of 32 bits: ports of 256) with the accelerator, reached by Etherbone and by
UARTBone."""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("genesys2.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "migen")

import sys

from migen import *

from litedram.modules import MT41J256M16
from litedram.phy import s7ddrphy

from liteeth.phy.s7rgmii import LiteEthPHYRGMII

from litex_boards.platforms import digilent_genesys2

from targets.board import BoardSoC, board_parser, supervised
from targets.xilinx import KintexCRG, add_toolchain_argument, run_xilinx

from tools.paths import BUILD

# Genesys2SoC --------------------------------------------------------------------------------------

class Genesys2SoC(BoardSoC):
    """Genesys 2 SoC

    LED 0 blinks, LED 1 is on while jobs are in the ring, LED 2 from an error to the next job. `links` are
    :meth:`~targets.board.BoardSoC.add_links`'s.
    """
    def __init__(self, config, toolchain="vivado", sys_clk_freq=100e6, with_etherbone=True, **links):
        platform = digilent_genesys2.Platform(toolchain=toolchain)

        # CRG --------------------------------------------------------------------------------------
        self.crg = KintexCRG(platform, sys_clk_freq, ~platform.request("cpu_reset_n"))

        # BoardSoC ---------------------------------------------------------------------------------
        BoardSoC.__init__(self, platform, sys_clk_freq, "Genesys 2", config)

        # DDR3 SDRAM, ports of 256 bits -----------------------------------------------------------------
        self.ddrphy = s7ddrphy.K7DDRPHY(platform.request("ddram"),
            memtype      = "DDR3",
            nphases      = 4,
            sys_clk_freq = sys_clk_freq)
        self.add_dram(MT41J256M16(sys_clk_freq, "1:4"))

        # Links, Accelerator -----------------------------------------------------------------------
        if with_etherbone:
            self.ethphy = LiteEthPHYRGMII(
                clock_pads = platform.request("eth_clocks"),
                pads       = platform.request("eth"))
        self.add_links(config, wide=True, **links)

        # LEDs -------------------------------------------------------------------------------------
        leds = platform.request_all("user_led")
        self.add_status_leds(heartbeat=leds[0], running=leds[1], error=leds[2])

# Command Line -------------------------------------------------------------------------------------

def main():
    parser, _, tools = board_parser("Digilent Genesys 2", 100e6, (50e6, 125e6), "build/genesys2", lanes=32, pass_tokens=4, flash_boot=False)
    add_toolchain_argument(tools)
    return run_xilinx(parser, parser.parse_args(), "genesys2", Genesys2SoC, str(BUILD/"genesys2"), 256)


if __name__ == "__main__":
    sys.exit(supervised(main, "genesys2.py"))
