#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The Arty target: both variants are written completely, as LiteX's own target has them; what is missing here is said."""

import os
import re
import shutil
import struct
import subprocess
import sys
import zlib

from types import SimpleNamespace

import pytest

from litex_boards.targets.digilent_arty import BaseSoC

from constraints import assert_same_constraints

from operations.config import SystemConfig

from targets.arty import VARIANTS, ArtySoC
from targets.common import BIOS_ROM_SIZE

from tools.paths import ROOT

# Helpers ------------------------------------------------------------------------------------------

def run(*options):
    return subprocess.run([sys.executable, str(ROOT/"targets"/"arty.py"), *options], capture_output=True, text=True)


needs_no_vivado = pytest.mark.skipif(shutil.which("vivado") is not None or "LITEX_ENV_VIVADO" in os.environ,
    reason="Vivado is here: this would build a bitstream")

# Build --------------------------------------------------------------------------------------------

@needs_no_vivado
@pytest.mark.parametrize("variant, part, lanes, tokens, options, returncode", (
    ("a7-35",  "xc7a35ticsg324-1L", 8,  0, ["--build"],                                                            1),
    ("a7-100", "xc7a100tcsg324-1",  16, 4, ["--build", "--no-compile-gateware", "--protect", "--with-flash-boot"], 0),
))
def test_everything_but_the_bitstream_is_written(tmp_path, variant, part, lanes, tokens, options, returncode):
    result = run("--variant", variant, "--build-dir", str(tmp_path), "--eth-ip", "10.0.0.9", *options)
    assert result.returncode == returncode, result.stderr
    if returncode:
        for words in ("vivado needs vivado, not found on the PATH", str(tmp_path/"gateware"), "openXC7", "targets/sim.py"):
            assert words in result.stderr

    gateware = tmp_path/"gateware"
    verilog  = (gateware/"digilent_arty.v").read_text()
    assert "module digilent_arty" in verilog and "module VexRiscv" not in verilog
    for name in ("rom", "bootrom"): # With contents.
        assert len((gateware/f"digilent_arty_{name}.init").read_text().split()) > 8
    assert "set_property LOC E3 [get_ports {clk100}]" in (xdc := (gateware/"digilent_arty.xdc").read_text())
    assert re.search(r"create_clock -name clk100 -period 10\.0", xdc)
    assert xdc.count("IOSTANDARD SSTL135 [") >= 40 and "INTERNAL_VREF 0.675" in xdc
    assert part in (gateware/"digilent_arty.tcl").read_text()
    assert (gateware/"build_digilent_arty.sh").exists()

    csr_csv = (tmp_path/"csr.csv").read_text()
    assert f"constant,ssm_lanes,{lanes}," in csr_csv
    assert (f"constant,program_pass_tokens,{tokens}," if tokens else "csr_base,checksum,") in csr_csv and bool(tokens) == ("csr_base,program," in csr_csv)
    assert "memory_region,main_ram,0x40000000,268435456" in csr_csv
    for register in ("mailbox_boot", "mailbox_doorbell", "ssm_tile_push", "checksum_crc", "etherbone_buffer_dropped",
            "uart_xover_rxtx"):
        assert f"csr_register,{register}," in csr_csv
    assert ("csr_register,etherbone_filter_refused," in csr_csv) == ("--protect" in options)
    assert (tmp_path/"software"/"bios"/"bios.bin").stat().st_size < 0x20000

    firmware = (tmp_path/"firmware"/"firmware.bin").read_bytes()
    image    = tmp_path/"firmware"/"firmware.fbi"
    header   = (tmp_path/"software"/"include"/"generated"/"soc.h").read_text()
    assert len(firmware) > 0 and "#define ROM_BOOT_ADDRESS" in header
    if "--with-flash-boot" in options: # Length, CRC-32, firmware.
        assert image.read_bytes() == struct.pack("<2I", len(firmware), zlib.crc32(firmware)) + firmware
        assert "#define FLASH_BOOT_ADDRESS" in header and "firmware/firmware.fbi, at 0x400000" in result.stdout
    else:
        assert not image.exists() and "FLASH_BOOT_ADDRESS" not in header


@pytest.mark.parametrize("variant, given, wanted", (
    ("a7-35",  {},                 (8,  None, 0)),
    ("a7-35",  {"pass_tokens": 1}, (4,  1,    1)),
    ("a7-100", {},                 (16, None, 4)),
    ("a7-100", {"pass_tokens": 0}, (32, None, 0)),
    ("a7-100", {"lanes": 8, "pass_tokens": 1, "vector_lanes": 2}, (8, 2, 1)),
))
def test_defaults(variant, given, wanted):
    args = SimpleNamespace(**dict.fromkeys(("lanes", "vector_lanes", "pass_tokens", "tape_depth")) | given)
    VARIANTS[variant].complete(args)
    assert (args.lanes, args.vector_lanes, args.pass_tokens) == wanted
    assert args.tape_depth == (1024 if variant == "a7-100" and args.pass_tokens else None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_as_litex_has_it(tmp_path, variant):
    """Vivado is given the same pins, I/O standards, clocks, false paths and commands as by LiteX's own target for the Arty
    with the same features, LEDs included."""
    config  = SystemConfig.of(4)
    options = {"cpu_type": "vexriscv", "cpu_variant": config.cpu_variant, "integrated_rom_size": BIOS_ROM_SIZE,
        "integrated_sram_size": 0x2000}
    socs    = {
        "litex" : BaseSoC(variant, with_etherbone=True, l2_size=0, **options),
        "here"  : ArtySoC(config, variant),
    }
    assert_same_constraints(tmp_path, socs, "digilent_arty")


def test_toolchain_openxc7():
    """Its platform is another one; without its tools, nothing is left half done."""
    soc = ArtySoC(SystemConfig.of(4), toolchain="openxc7")
    assert type(soc.platform.toolchain).__name__ == "XilinxYosysNextpnrToolchain"

# Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, message", (
    (["--variant", "a7-50"],             "invalid choice: 'a7-50'"),
    (["--eth-ip", "192.168.1"],          "must be an IPv4 address, is '192.168.1'."),
    (["--mac", "11:22:33:44:55:66"],     "must be the MAC address of one device, such as 10:e2:d5:00:00:00, is '11:22:33:"),
    (["--sys-clk-freq", "1e9"],          "must be from 50e6 to 125e6, is '1e9'."),
    (["--sys-clk-freq", "fast"],         "must be from 50e6 to 125e6, is 'fast'."),
    (["--udp-port", "70000"],            "argument --udp-port: must be an integer from 1 to 65535, is '70000'."),
    (["--baudrate", "0"],                "argument --baudrate: must be an integer from 1 to 12000000, is '0'."),
    (["--resident-tiles", "1"],          "resident_tiles must be an integer from 2 to 256, is 1."),
    (["--max-headdim", "0"],             "max_headdim must be an integer from 1 to 256, is 0."),
))
def test_command_line_errors(options, message):
    result = run(*options)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ("--load", "--flash"))
def test_without_a_bitstream_nothing_is_loaded(tmp_path, option):
    result = run(option, "--build-dir", str(tmp_path))
    assert result.returncode == 1
    assert f"there is no bitstream to {option[2:]}" in result.stderr and "--build makes it" in result.stderr
