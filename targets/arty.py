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

import os
import shutil
import sys

from functools import partial

from migen import *

from litedram.modules import MT41K128M16
from litedram.phy import s7ddrphy

from liteeth.phy.mii import LiteEthPHYMII

from litespi.modules import S25FL128S

from litex_boards.platforms import digilent_arty
from litex_boards.targets.digilent_arty import _CRG

from targets.board import BoardSoC, TargetError, board_parser, print_written, run, supervised, write_gateware

from tools.paths import BUILD

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

# Toolchains ---------------------------------------------------------------------------------------

def missing_tools(toolchain):
    """Commands not on the PATH and environment variables not set that the toolchain needs."""
    commands, variables = TOOLCHAINS[toolchain]
    if "LITEX_ENV_VIVADO" in os.environ and toolchain == "vivado": # Then LiteX's script finds it there.
        return []
    return [name for name in commands if shutil.which(name) is None] + \
        [name for name in variables if not os.environ.get(name)]


_NO_BITSTREAM = """\
no bitstream: {toolchain} needs {missing}, not found on the PATH or in the environment. What Vivado needs is in
  {gateware_dir}
Alternatives:
  - Vivado (the free edition covers this part): source its settings64.sh and run this command again, or run
    bash build_{name}.sh in that folder on a machine that has it.
  - openXC7 (https://github.com/openXC7, toolchain-installer): open tools. Put its commands on the PATH, set CHIPDB to a
    folder for its databases and PRJXRAY_DB_DIR to prjxray-db, and run this command with --toolchain openxc7.
  - The simulation needs neither board nor toolchain: python targets/sim.py"""

def build(soc, output_dir, compile_gateware, toolchain, missing):
    """Build all; `missing` is what the toolchain lacks. Returns LiteX's Builder.

    Raises
    ------
    TargetError : without the toolchain there is no bitstream; or it failed.
    """
    builder = write_gateware(soc, output_dir, compile_gateware and not missing)
    print_written(builder, "xdc", f"{soc.get_build_name()}.{'tcl' if missing or toolchain == 'vivado' else 'ys'}")
    if compile_gateware and missing:
        raise TargetError(_NO_BITSTREAM.format(toolchain=toolchain, missing=", ".join(missing),
            gateware_dir=builder.gateware_dir, name=soc.get_build_name()))
    return builder

# Command Line -------------------------------------------------------------------------------------

def main():
    lanes = ", ".join(f"{lanes} on the {variant}" for variant, (lanes, _) in VARIANTS.items())
    parser, board, tools = board_parser("Digilent Arty A7", 100e6, (50e6, 125e6), "build/arty/VARIANT", lanes=None,
        lanes_default=lanes)
    board.add_argument("--variant", default="a7-35", choices=VARIANTS, help="Board (default: %(default)s).")
    tools.add_argument("--toolchain", choices=TOOLCHAINS, help="What builds the bitstream (default: vivado; openxc7 where "
        "only that is found).")
    args = parser.parse_args()

    lanes, name = VARIANTS[args.variant]
    args.lanes  = args.lanes or lanes
    toolchain   = args.toolchain or ("openxc7" if missing_tools("vivado") and not missing_tools("openxc7") else "vivado")
    missing     = missing_tools(toolchain)
    return run(parser, args, name,
        # Without openXC7 there, LiteX can't write its script: Vivado's is written then.
        make_soc   = partial(ArtySoC, variant=args.variant, toolchain="vivado" if missing else toolchain),
        build      = partial(build, toolchain=toolchain, missing=missing),
        output_dir = str(BUILD/"arty"/args.variant))


if __name__ == "__main__":
    sys.exit(supervised(main, "arty.py"))
