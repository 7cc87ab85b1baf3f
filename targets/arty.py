#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Digilent Arty A7 with the accelerator, reached by Etherbone and by UARTBone."""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("arty.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "migen")

import sys

from functools import partial

from migen import *

from litedram.modules import MT41K128M16
from litedram.phy import s7ddrphy

from liteeth.phy.mii import LiteEthPHYMII

from litespi.modules import S25FL128S

from litex_boards.platforms import digilent_arty
from litex_boards.targets.digilent_arty import _CRG

from operations.config import ProgramConfig

from targets.board import BoardSoC, Defaults, board_parser, supervised
from targets.xilinx import add_toolchain_argument, run_xilinx

from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

VARIANTS = { # What is built by default. What that takes: bench/fit.py.
    "a7-35"  : Defaults(lanes=8,  model={"lanes": 4, "vector_lanes": 1}),
    "a7-100" : Defaults(lanes=32, model={"lanes": 16, "tape_depth": 1024}, pass_tokens=4),
}
BOARDS = {"a7-35": "arty_a7_35t", "a7-100": "arty_a7_100t"} # openFPGALoader's names.

# ArtySoC ------------------------------------------------------------------------------------------

class ArtySoC(BoardSoC):
    """Arty SoC

    LED 0 blinks, LED 1 is on while jobs are in the ring, LED 2 from an error to the next job. `links` are
    :meth:`~targets.board.BoardSoC.add_links`'s.
    """
    flash_module = S25FL128S

    def __init__(self, config, variant="a7-35", toolchain="vivado", sys_clk_freq=100e6, with_etherbone=True, **links):
        platform = digilent_arty.Platform(variant=variant, toolchain=toolchain)

        # CRG --------------------------------------------------------------------------------------
        self.crg = _CRG(platform, sys_clk_freq)

        # BoardSoC ---------------------------------------------------------------------------------
        BoardSoC.__init__(self, platform, sys_clk_freq, f"Arty {variant}", config)

        # DDR3 SDRAM -------------------------------------------------------------------------------
        self.ddrphy = s7ddrphy.A7DDRPHY(platform.request("ddram"),
            memtype      = "DDR3",
            nphases      = 4,
            sys_clk_freq = sys_clk_freq)
        self.add_dram(MT41K128M16(sys_clk_freq, "1:4"))

        # Links, Accelerator -----------------------------------------------------------------------
        if with_etherbone:
            self.ethphy = LiteEthPHYMII(
                clock_pads = platform.request("eth_clocks"),
                pads       = platform.request("eth"))
        self.add_links(config, **links)

        # LEDs -------------------------------------------------------------------------------------
        leds = platform.request_all("user_led")
        self.add_status_leds(heartbeat=leds[0], running=leds[1], error=leds[2])

# Command Line -------------------------------------------------------------------------------------

def main():
    lanes  = ", ".join(f"{variant.lanes} on the {name}, {variant.model['lanes']} with whole models" for name, variant in VARIANTS.items())
    tokens = ", ".join(f"{variant.pass_tokens} on the {name}" for name, variant in VARIANTS.items())
    parser, board, tools = board_parser("Digilent Arty A7", 100e6, (50e6, 125e6), "build/arty/VARIANT", lanes=None,
        lanes_default=lanes, pass_tokens_default=tokens,
        vector_lanes_default=f"{ProgramConfig.vector_lanes}, {VARIANTS['a7-35'].model['vector_lanes']} on the a7-35",
        tape_depth_default=f"{ProgramConfig.tape_depth}, {VARIANTS['a7-100'].model['tape_depth']} on the a7-100")
    board.add_argument("--variant", default="a7-35", choices=VARIANTS, help="Board (default: %(default)s).")
    add_toolchain_argument(tools)
    args = parser.parse_args()

    VARIANTS[args.variant].complete(args)
    return run_xilinx(parser, args, BOARDS[args.variant], partial(ArtySoC, variant=args.variant), str(BUILD/"arty"/args.variant))


if __name__ == "__main__":
    sys.exit(supervised(main, "arty.py"))
