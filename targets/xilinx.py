#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the targets of Xilinx 7-series boards share: toolchains, and the Kintex-7's clocks."""

import os
import shutil

from functools import partial

from migen import *

from litex.gen import *

from litex.soc.cores.clock import S7IDELAYCTRL, S7MMCM

from targets.board import TargetError, print_written, run, write_gateware

# Constants ----------------------------------------------------------------------------------------

TOOLCHAINS = {       # Commands, environment variables that LiteX's script needs; without them it ends in the middle.
    "vivado"  : (("vivado",), ()),
    "openxc7" : (("yosys", "nextpnr-xilinx", "fasm2frames", "xc7frames2bit"), ("CHIPDB", "PRJXRAY_DB_DIR")),
}

# CRG ----------------------------------------------------------------------------------------------

class KintexCRG(LiteXModule):
    """Clocks of a Kintex-7 board from its 200 MHz, as litex-boards has them: the system's, four times that for the DRAM's, and the delays'.

    reset: a signal that is 1 while the board's button is pressed.
    """
    def __init__(self, platform, sys_clk_freq, reset):
        self.rst       = Signal()
        self.cd_sys    = ClockDomain()
        self.cd_sys4x  = ClockDomain()
        self.cd_idelay = ClockDomain()

        # # #

        self.pll = pll = S7MMCM(speedgrade=-2)
        self.comb += pll.reset.eq(reset | self.rst)
        pll.register_clkin(platform.request("clk200"), 200e6)
        pll.create_clkout(self.cd_sys,    sys_clk_freq)
        pll.create_clkout(self.cd_sys4x,  4*sys_clk_freq)
        pll.create_clkout(self.cd_idelay, 200e6)
        platform.add_false_path_constraints(self.cd_sys.clk, pll.clkin)

        self.idelayctrl = S7IDELAYCTRL(self.cd_idelay)

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
  - Vivado (for the Arty the free edition will do): source its settings64.sh and run this command again, or run
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

def add_toolchain_argument(group):
    group.add_argument("--toolchain", choices=TOOLCHAINS, help="What builds the bitstream (default: vivado; openxc7 where "
        "only that is found).")


def run_xilinx(parser, args, board, make_soc, output_dir, data_width=None):
    """:func:`targets.board.run` with the toolchain that the options choose, or that is found; make_soc takes its name, `toolchain`."""
    toolchain = args.toolchain or ("openxc7" if missing_tools("vivado") and not missing_tools("openxc7") else "vivado")
    missing   = missing_tools(toolchain)
    return run(parser, args, board,
        # Without openXC7 there, LiteX can't write its script: Vivado's is written then.
        make_soc   = partial(make_soc, toolchain="vivado" if missing else toolchain),
        build      = partial(build, toolchain=toolchain, missing=missing),
        output_dir = output_dir,
        data_width = data_width)
