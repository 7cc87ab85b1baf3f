#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""LambdaConcept ECPIX-5 (85F) with the accelerator, reached by Etherbone and by UARTBone. Its bitstream is built by open
tools alone."""

import argparse
import os
import resource
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import environment # First: the others need it.

from migen import *

from litex.soc.integration.builder import Builder
from litex.soc.integration.soc_core import SoCCore

from litedram.modules import MT41K256M16
from litedram.phy import ECP5DDRPHY

from liteeth.phy.ecp5rgmii import LiteEthPHYRGMII

from litex_boards.platforms import lambdaconcept_ecpix5
from litex_boards.targets.lambdaconcept_ecpix5 import _CRG

from soc.console import add_console
from soc.dram import controller_settings
from soc.etherbone import add_etherbone

from targets.board import (ROOT, TargetError, add_board_arguments, add_build_arguments, add_status_leds, print_written,
    program, soc_arguments, write_gateware)
from targets.common import BIOS_ROM_SIZE, add_config_arguments, add_system, config_from_arguments
from targets.trellis import REPORT, check_folder, check_timing, clocks, read_report, tools_folder

# Constants ----------------------------------------------------------------------------------------

SEED = 1 # Of placement; the same one gives the same bitstream.

# ECPIX5SoC ----------------------------------------------------------------------------------------

class ECPIX5SoC(SoCCore):
    """ECPIX-5 SoC

    The serial port is UARTBone, the console a crossover (``litex_term crossover``). The first RGB LED blinks green, the
    second one is blue while jobs are in the ring, the third one red from an error to the next job.
    """
    def __init__(self, config, sys_clk_freq=75e6, baudrate=115200, with_etherbone=True,
        eth_ip   = "192.168.1.50",
        mac      = 0x10e2d5000000,
        udp_port = 1234,
        protect  = False):
        platform = lambdaconcept_ecpix5.Platform(device="85F", toolchain="trellis")

        # CRG --------------------------------------------------------------------------------------
        self.crg = _CRG(platform, sys_clk_freq)

        # SoCCore ----------------------------------------------------------------------------------
        SoCCore.__init__(self, platform, sys_clk_freq,
            ident                = "Mamba-2 SSM accelerator on ECPIX-5",
            cpu_type             = "vexriscv",
            cpu_variant          = "standard",
            integrated_rom_size  = BIOS_ROM_SIZE,
            integrated_sram_size = 0x2000,
            with_uart            = False)

        # DDR3 SDRAM -------------------------------------------------------------------------------
        self.ddrphy = ECP5DDRPHY(platform.request("ddram"), sys_clk_freq=sys_clk_freq)
        self.comb += [
            self.crg.stop.eq(self.ddrphy.init.stop),
            self.crg.reset.eq(self.ddrphy.init.reset),
        ]
        self.add_sdram("sdram",
            phy                 = self.ddrphy,
            module              = MT41K256M16(sys_clk_freq, "1:2"),
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
            self.ethphy = LiteEthPHYRGMII(
                clock_pads = platform.request("eth_clocks"),
                pads       = platform.request("eth"),
                rx_delay   = 0e-9)
            add_etherbone(self, self.ethphy, mac, eth_ip, udp_port, protect, wide=True)

        # LEDs -------------------------------------------------------------------------------------
        leds = Record([("heartbeat", 1), ("running", 1), ("error", 1)])
        add_status_leds(self, leds.heartbeat, leds.running, leds.error)
        for n, lit in enumerate(({"g": leds.heartbeat}, {"b": leds.running}, {"r": leds.error}, {})):
            pads = platform.request("rgb_led", n)
            self.comb += [getattr(pads, color).eq(~lit.get(color, Constant(0, 1))) for color in "rgb"] # Active low.

# Build --------------------------------------------------------------------------------------------

def _remove(paths):
    for path in filter(os.path.exists, paths):
        os.remove(path)


def build(soc, output_dir, seed=SEED, compile_gateware=True):
    """Build all, and check that every clock meets its constraint. Returns LiteX's Builder.

    Raises
    ------
    TargetError : a tool failed, or a clock misses its constraint: then there is no bitstream.
    """
    tools      = None
    bitstreams = [os.path.join(output_dir, "gateware", soc.get_build_name() + extension) for extension in (".bit", ".svf")]
    if compile_gateware:
        _remove(bitstreams)
        check_folder(output_dir)
        tools = tools_folder()
    soc.platform.toolchain._pnr_opts += f"--report {REPORT} "
    begin   = time.monotonic()
    builder = write_gateware(soc, output_dir, compile_gateware, tools, abc9=True, seed=seed)
    print_written(builder, "lpf", f"{soc.get_build_name()}.ys")
    if compile_gateware:
        report = read_report(builder.gateware_dir)
        used   = ", ".join(f"{report['utilization'][cell]['used']} of {report['utilization'][cell]['available']} {cell}"
            for cell in ("TRELLIS_COMB", "TRELLIS_FF", "DP16KD", "MULT18X18D"))
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/2**20
        print(f"Uses {used}")
        for clock in clocks(report):
            print(f"Clock {clock.name}: {clock.achieved:.2f} MHz, {clock.constraint:.2f} MHz needed")
        print(f"Built in {(time.monotonic() - begin)/60:.0f} minutes and {memory:.1f} GiB, seed {seed}")
        try:
            check_timing(report)
        except TargetError:
            _remove(bitstreams)
            raise
    return builder

# Command Line -------------------------------------------------------------------------------------

def _parser():
    parser = argparse.ArgumentParser(description="LambdaConcept ECPIX-5 (85F) with the Mamba-2 accelerator. Without further "
        "options, writes Verilog, constraints, scripts, BIOS and firmware.")
    add_config_arguments(parser)
    group = parser.add_argument_group("board")
    add_board_arguments(group, sys_clk_freq=75e6, limits=(50e6, 100e6))
    group.add_argument("--revision", default="r02", choices=BOARDS, help="Of the board: which chip its USB cable meets "
        "(r02: FT2232, r03: FT4232; default: %(default)s).")
    group = add_build_arguments(parser, "build/ecpix5")
    group.add_argument("--seed", type=int, default=SEED, help="Seed of placement (default: %(default)s).")
    return parser

BOARDS = {"r02": "ecpix5", "r03": "ecpix5_r03"} # openFPGALoader's names.


def main():
    parser     = _parser()
    args       = parser.parse_args()
    config     = config_from_arguments(parser, args)
    output_dir = os.path.abspath(args.build_dir or os.path.join(ROOT, "build", "ecpix5"))
    try:
        soc = ECPIX5SoC(config, **soc_arguments(args))
        if args.build or not (args.load or args.flash):
            builder = build(soc, output_dir, args.seed, compile_gateware=args.build and not args.no_compile_gateware)
        else:
            builder = Builder(soc, output_dir=output_dir)
        for mode in ("load", "flash"):
            if getattr(args, mode):
                program(builder, BOARDS[args.revision], mode)
    except TargetError as error:
        print(f"ecpix5.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
