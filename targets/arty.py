#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Digilent Arty A7 with the accelerator, reached by Etherbone and by UARTBone."""

import argparse
import ipaddress
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import environment # First: the others need it.

from migen import *

from litex.build.openfpgaloader import OpenFPGALoader

from litex.soc.integration.builder import Builder
from litex.soc.integration.soc_core import SoCCore

from litedram.modules import MT41K128M16
from litedram.phy import s7ddrphy

from liteeth.phy.mii import LiteEthPHYMII

from litex_boards.platforms import digilent_arty
from litex_boards.targets.digilent_arty import _CRG

from firmware.build import build as build_firmware

from soc.console import add_console
from soc.dram import controller_settings
from soc.etherbone import add_etherbone

from targets.common import (BIOS_ROM_SIZE, add_config_arguments, add_protect_argument, add_system,
    config_from_arguments)

# Constants ----------------------------------------------------------------------------------------

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

VARIANTS = {         # Lanes by default, openFPGALoader's name.
    "a7-35"  : (8,  "arty_a7_35t"),
    "a7-100" : (32, "arty_a7_100t"),
}

# ArtySoC ------------------------------------------------------------------------------------------

class ArtySoC(SoCCore):
    """Arty SoC

    The serial port is UARTBone, the console a crossover (``litex_term crossover``). LED 0 blinks, LED 1 is on while
    jobs are in the ring.
    """
    def __init__(self, config, variant="a7-35", sys_clk_freq=100e6, baudrate=115200, with_etherbone=True,
        eth_ip      = "192.168.1.50",
        mac_address = 0x10e2d5000000,
        udp_port    = 1234,
        protect     = False):
        platform = digilent_arty.Platform(variant=variant, toolchain="vivado")

        # CRG --------------------------------------------------------------------------------------
        self.crg = _CRG(platform, sys_clk_freq)

        # SoCCore ----------------------------------------------------------------------------------
        SoCCore.__init__(self, platform, sys_clk_freq,
            ident                = f"Mamba-2 SSM accelerator on Arty {variant}",
            cpu_type             = "vexriscv",
            cpu_variant          = "standard",
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
            add_etherbone(self, self.ethphy, mac_address, eth_ip, udp_port, protect)

        # LEDs -------------------------------------------------------------------------------------
        heartbeat = Signal(max=int(sys_clk_freq))
        self.sync += If(heartbeat == 0, heartbeat.eq(int(sys_clk_freq) - 1)).Else(heartbeat.eq(heartbeat - 1))
        leds = platform.request_all("user_led")
        self.comb += [
            leds[0].eq(heartbeat < int(sys_clk_freq)//2),
            leds[1].eq(self.mailbox.doorbell.storage != self.mailbox.completed.storage),
        ]

# Build --------------------------------------------------------------------------------------------

def write_gateware(soc, output_dir, compile_gateware):
    """Write Verilog, constraints, scripts, BIOS and firmware, and by Vivado the bitstream. Returns LiteX's Builder."""
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{path}" # LiteX calls meson.
    try:
        builder = Builder(soc, output_dir=output_dir, compile_gateware=compile_gateware, bios_console="lite")
        builder.build()
    finally:
        os.environ["PATH"] = path
    build_firmware(output_dir)
    return builder

# Messages -----------------------------------------------------------------------------------------

def _print_written(builder):
    name = builder.soc.get_build_name()
    print(f"Written to {builder.output_dir}:")
    print(f"  Verilog, memory contents: gateware/{name}.v, *.init")
    print(f"  Constraints:              gateware/{name}.xdc")
    print(f"  Vivado's script:          gateware/{name}.tcl, started by build_{name}.sh")
    print(f"  BIOS, firmware:           software/bios/bios.bin, firmware/firmware.bin")
    print(f"  Registers:                csr.csv")

_NO_VIVADO = """\
arty.py: no bitstream: Vivado is not on the PATH. Everything it needs is in
  {gateware_dir}
Alternatives:
  - Vivado (the free edition covers this part): source its settings64.sh and run this command again, or run
    bash build_{name}.sh in that folder on a machine that has it.
  - openXC7 (https://github.com/openXC7): open tools (yosys, nextpnr-xilinx) that take the same Verilog and pins.
  - The simulation needs neither board nor Vivado: python targets/sim.py"""

# Command Line -------------------------------------------------------------------------------------

def _ip_address(text):
    return str(ipaddress.IPv4Address(text))


def _mac_address(text):
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts) or int(parts[0], 16) & 1:
        raise ValueError(text)
    return int("".join(parts), 16)

_ip_address.__name__, _mac_address.__name__ = "IP address", "MAC address" # As argparse's messages call them.


def _parser():
    parser = argparse.ArgumentParser(description="Digilent Arty A7 with the Mamba-2 accelerator. Without further "
        "options, writes Verilog, constraints, scripts, BIOS and firmware.")
    add_config_arguments(parser, lanes=None,
        lanes_default=", ".join(f"{lanes} on the {variant}" for variant, (lanes, _) in VARIANTS.items()))
    group = parser.add_argument_group("board")
    group.add_argument("--variant", default="a7-35", choices=VARIANTS, help="Board (default: %(default)s).")
    group.add_argument("--sys-clk-freq", default=100e6, type=float, metavar="HZ",
        help="System clock; the DRAM runs at 8 transfers a cycle (default: 100e6).")
    group.add_argument("--baudrate", default=115200, type=int,
        help="Baud rate of UARTBone (default: %(default)s).")
    group.add_argument("--with-etherbone", default=True, action=argparse.BooleanOptionalAction,
        help="Etherbone beside UARTBone (default: with).")
    group.add_argument("--eth-ip", default="192.168.1.50", type=_ip_address, metavar="ADDRESS",
        help="IP address of the board (default: %(default)s).")
    group.add_argument("--mac", default="10:e2:d5:00:00:00", type=_mac_address, metavar="ADDRESS",
        help="MAC address of the board (default: %(default)s).")
    group.add_argument("--udp-port", default=1234, type=int, metavar="PORT",
        help="UDP port of Etherbone (default: %(default)s).")
    add_protect_argument(group)
    group = parser.add_argument_group("build")
    group.add_argument("--build", action="store_true", help="Build the bitstream, by Vivado.")
    group.add_argument("--load",  action="store_true", help="Load the bitstream into the FPGA, by openFPGALoader.")
    group.add_argument("--flash", action="store_true", help="Write the bitstream to the flash, by openFPGALoader.")
    group.add_argument("--no-compile-gateware", action="store_true", help="With --build: all but the bitstream.")
    group.add_argument("--build-dir", metavar="DIR", help="Folder to write to (default: build/arty/VARIANT).")
    return parser


def _program(builder, board, mode):
    """Load or flash the bitstream; returns whether that was possible."""
    bitstream = builder.get_bitstream_filename(mode="sram" if mode == "load" else "flash")
    if not os.path.exists(bitstream):
        print(f"arty.py: there is no bitstream to {mode}: {bitstream} does not exist; --build makes it.",
            file=sys.stderr)
        return False
    if shutil.which("openFPGALoader") is None:
        print("arty.py: openFPGALoader is not on the PATH: install the Debian package openfpgaloader.", file=sys.stderr)
        return False
    programmer = OpenFPGALoader(board)
    if mode == "load":
        programmer.load_bitstream(bitstream)
    else:
        programmer.flash(0, bitstream)
    return True


def main():
    parser = _parser()
    args   = parser.parse_args()
    lanes, board = VARIANTS[args.variant]
    args.lanes   = args.lanes or lanes
    config     = config_from_arguments(parser, args)
    output_dir = os.path.abspath(args.build_dir or os.path.join(ROOT, "build", "arty", args.variant))
    soc = ArtySoC(config, args.variant, args.sys_clk_freq, args.baudrate, args.with_etherbone, args.eth_ip, args.mac,
        args.udp_port, args.protect)

    if args.build or not (args.load or args.flash):
        bitstream  = args.build and not args.no_compile_gateware
        has_vivado = shutil.which("vivado") is not None or "LITEX_ENV_VIVADO" in os.environ
        builder    = write_gateware(soc, output_dir, compile_gateware=bitstream and has_vivado)
        _print_written(builder)
        if bitstream and not has_vivado:
            print(_NO_VIVADO.format(gateware_dir=builder.gateware_dir, name=soc.get_build_name()), file=sys.stderr)
            return 1
    else:
        builder = Builder(soc, output_dir=output_dir)
    for mode in ("load", "flash"):
        if getattr(args, mode) and not _program(builder, board, mode):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
