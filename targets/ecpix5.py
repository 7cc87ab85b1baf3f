#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""LambdaConcept ECPIX-5 (85F) with the accelerator, reached by Etherbone and by UARTBone. Its bitstream is built by open
tools alone."""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("ecpix5.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "migen")

import os
import resource
import sys
import time

from dataclasses import replace
from functools import partial

from migen import *

from litedram.modules import MT41K256M16
from litedram.phy import ECP5DDRPHY

from liteeth.phy.ecp5rgmii import LiteEthPHYRGMII

from litespi.modules import IS25LP256D

from litex_boards.platforms import lambdaconcept_ecpix5
from litex_boards.targets.lambdaconcept_ecpix5 import _CRG

from targets.board import BoardSoC, Defaults, TargetError, board_parser, print_written, run, supervised, write_gateware
from targets.trellis import REPORT, check_folder, check_timing, clocks, read_report, tools_folder

from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

DSP_BITS = 18
DEFAULTS = Defaults(lanes=16, model={"lanes": 8, "vector_lanes": 2}) # The DRAM gives a beat of 128 bits every other cycle.

FOLDERS = {False: BUILD/"ecpix5", True: BUILD/"ecpix5-model"} # Whether whole models are built.

SEED   = 2 # Of placement; the same one gives the same bitstream.
BOARDS = {"r02": "ecpix5", "r03": "ecpix5_r03"} # openFPGALoader's names.

# Memories of which nothing depends on what a word gives that is read while it is written: FIFOs, tile banks, the CPU's.
# The ECP5's block RAM gives anything then, and yosys would put registers and a bypass around it.
UNCHECKED_MEMORIES = ("m:storage*", "m:tile_bank*", "m:B_memory*", "m:C_memory*", "m:datagrams", "VexRiscv/m:*")

# And where there are engines of whole models: a descriptor waits for those whose words it reads, or writes over.
UNCHECKED_MEMORIES_OF_MODELS = ("m:scratchpad_bank*",)

# Wide and shallow memories for which there is block RAM to spare, but for whose LUT RAM's addresses not the wires.
BLOCK_MEMORIES = ("m:B_memory*", "m:C_memory*")

# ECPIX5SoC ----------------------------------------------------------------------------------------

class ECPIX5SoC(BoardSoC):
    """ECPIX-5 SoC

    The first RGB LED blinks green, the second one is blue while jobs are in the ring, the third one red from an error to
    the next job. `links` are :meth:`~targets.board.BoardSoC.add_links`'s.
    """
    flash_module = IS25LP256D

    def __init__(self, config, sys_clk_freq=75e6, with_etherbone=True, **links):
        platform = lambdaconcept_ecpix5.Platform(device="85F", toolchain="trellis")

        # CRG --------------------------------------------------------------------------------------
        self.crg = _CRG(platform, sys_clk_freq)

        # BoardSoC ---------------------------------------------------------------------------------
        BoardSoC.__init__(self, platform, sys_clk_freq, "ECPIX-5", config)

        # DDR3 SDRAM -------------------------------------------------------------------------------
        self.ddrphy = ECP5DDRPHY(platform.request("ddram"), sys_clk_freq=sys_clk_freq)
        self.comb += [
            self.crg.stop.eq(self.ddrphy.init.stop),
            self.crg.reset.eq(self.ddrphy.init.reset),
        ]
        self.add_dram(MT41K256M16(sys_clk_freq, "1:2"), sliced=config.program is not None)

        # Links, Accelerator -----------------------------------------------------------------------
        if with_etherbone:
            self.ethphy = LiteEthPHYRGMII(
                clock_pads = platform.request("eth_clocks"),
                pads       = platform.request("eth"),
                rx_delay   = 0e-9)
        program = config.program and replace(config.program, dsp_bits=DSP_BITS)
        self.add_links(replace(config, ssm=replace(config.ssm, dsp_bits=DSP_BITS, dsp_shift=False), program=program), wide=True, **links)

        # LEDs -------------------------------------------------------------------------------------
        leds = Record([("heartbeat", 1), ("running", 1), ("error", 1)])
        self.add_status_leds(leds.heartbeat, leds.running, leds.error)
        for n, lit in enumerate(({"g": leds.heartbeat}, {"b": leds.running}, {"r": leds.error}, {})):
            pads = platform.request("rgb_led", n)
            self.comb += [getattr(pads, color).eq(~lit.get(color, Constant(0, 1))) for color in "rgb"] # Active low.

# Build --------------------------------------------------------------------------------------------

def _remove(paths):
    for path in filter(os.path.exists, paths):
        os.remove(path)


def build(soc, output_dir, compile_gateware=True, seed=SEED):
    """Build all, and check that every clock meets its constraint. Returns LiteX's Builder.

    Raises
    ------
    TargetError : a tool failed, or a clock misses its constraint: then there is no bitstream.
    """
    tools      = None
    gateware   = os.path.join(output_dir, "gateware")
    bitstreams = [os.path.join(gateware, soc.get_build_name() + extension) for extension in (".bit", ".svf")]
    if compile_gateware:
        _remove([*bitstreams, os.path.join(gateware, REPORT)])
        check_folder(output_dir)
        tools = tools_folder()
    unchecked = UNCHECKED_MEMORIES + (UNCHECKED_MEMORIES_OF_MODELS if hasattr(soc, "program") else ())
    soc.platform.toolchain._pnr_opts   += f"--placer static --report {REPORT} "
    soc.platform.toolchain._yosys_cmds += [f"hierarchy -top {soc.get_build_name()}",
        *(f"select -assert-min 1 {memories}" for memories in unchecked), # Names that are none do nothing, unsaid.
        f"setattr -set no_rw_check 1 {' '.join(unchecked)}",
        f"setattr -set ram_style \"block\" {' '.join(BLOCK_MEMORIES)}"]
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

def main():
    parser, board, tools = board_parser("LambdaConcept ECPIX-5 (85F)", 75e6, (50e6, 100e6), "build/ecpix5, build/ecpix5-model with whole models", lanes=None,
        lanes_default=f"{DEFAULTS.lanes}, {DEFAULTS.model['lanes']} with whole models", vector_lanes_default=DEFAULTS.model["vector_lanes"])
    board.add_argument("--revision", default="r02", choices=BOARDS, help="Of the board: which chip its USB cable meets "
        "(r02: FT2232, r03: FT4232; default: %(default)s).")
    tools.add_argument("--seed", type=int, default=SEED, help="Seed of placement (default: %(default)s).")
    args = parser.parse_args()
    DEFAULTS.complete(args)
    return run(parser, args, BOARDS[args.revision],
        make_soc   = ECPIX5SoC,
        build      = partial(build, seed=args.seed),
        output_dir = str(FOLDERS[bool(args.pass_tokens)]))


if __name__ == "__main__":
    sys.exit(supervised(main, "ecpix5.py"))
