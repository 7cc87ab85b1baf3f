#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Boot from flash: the image and what is written where, the boards' gateware, and the real BIOS in the simulation. What the
build writes is in test_arty.py."""

import os
import struct
import subprocess
import sys
import time
import zlib

from contextlib import contextmanager

import pytest

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.csr import CSRMap
from host.device.device import Device, Job

from operations.config import SystemConfig
from operations.protocol import FIRMWARE_OFFSET, FIRMWARE_SIZE, Opcode

from soc.boot import BOOTROM_ORIGIN

from targets.arty import ArtySoC
from targets.board import TargetError, program
from targets.ecpix5 import ECPIX5SoC

from tools.errors import UsageError
from tools.firmware.flash import FLASH_OFFSET, flash_image, write_flash_image
from tools.paths import ROOT
from tools.simulation.runner import Simulation, network_permitted

# Image --------------------------------------------------------------------------------------------

@pytest.fixture
def build_dir(tmp_path):
    """A folder with as much of a build as is written to a flash."""
    for folder in ("firmware", "gateware"):
        (tmp_path/folder).mkdir()
    (tmp_path/"firmware"/"firmware.bin").write_bytes(bytes(range(256))*40 + b"end")
    (tmp_path/"gateware"/"top.bin").write_bytes(bytes(1000))
    return tmp_path


def test_image(build_dir):
    """Length, CRC-32 and firmware, little endian as the CPU."""
    write_flash_image(build_dir)
    firmware    = (build_dir/"firmware"/"firmware.bin").read_bytes()
    length, crc = struct.unpack("<2I", (image := open(flash_image(build_dir), "rb").read())[:8])
    assert (length, crc, image[8:]) == (len(firmware), zlib.crc32(firmware), firmware)


def test_where_it_lies():
    """Beyond the bitstreams, in whole sectors of 256 KiB, within three bytes of address; and the BIOS copies to the start of
    main RAM."""
    assert FLASH_OFFSET > 30_606_304/8 # Bits of the a7-100, the largest one.
    assert FLASH_OFFSET % 2**18 == 0 and FLASH_OFFSET + 8 + FIRMWARE_SIZE <= 2**24
    assert FIRMWARE_OFFSET == 0

# Build --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("board", (ArtySoC, ECPIX5SoC))
def test_gateware(board):
    """One line and the plain read command; what keeps the flash from it is driven high; nothing can write."""
    soc = board(SystemConfig.of(4), with_flash_boot=True)
    soc.finalize()
    region = soc.bus.regions["spiflash"]
    assert soc.constants["FLASH_BOOT_ADDRESS"] == region.origin + FLASH_OFFSET
    assert region.size == board.flash_module.total_size and region.cached
    assert not hasattr(soc.spiflash_core, "master") and not soc.spiflash_core.get_csrs()
    text = str(soc.platform.get_verilog(soc.get_fragment(), name="top"))
    for name in ("wp", "hold"):
        assert f"assign spiflash_{name} = 1'd1;" in text
    assert ("USRMCLK" in text) == (board is ECPIX5SoC) # There the clock's pin is not a pin of the user's.

# Flash --------------------------------------------------------------------------------------------

class Builder:
    """As much of LiteX's as `program` needs."""
    def __init__(self, build_dir):
        self.bitstream = os.path.join(build_dir, "gateware", "top.bin")

    def get_bitstream_filename(self, mode):
        return self.bitstream


def test_flash(monkeypatch, build_dir):
    """openFPGALoader writes the image, then the bitstream, with which the FPGA starts."""
    monkeypatch.setenv("PATH", f"{build_dir}{os.pathsep}{os.environ['PATH']}")
    (build_dir/"openFPGALoader").write_text(f'#!/bin/sh\necho "$@" >> {build_dir/"calls"}\n')
    (build_dir/"openFPGALoader").chmod(0o755)
    write_flash_image(build_dir)
    program(Builder(build_dir), "arty_a7_35t", "flash", flash_image(build_dir))
    assert (build_dir/"calls").read_text().splitlines() == ["--Version",
        f"--board arty_a7_35t --write-flash --bitstream {flash_image(build_dir)} --offset {FLASH_OFFSET}",
        f"--board arty_a7_35t --write-flash --bitstream {build_dir/'gateware'/'top.bin'}"]


def test_what_can_not_be_flashed(build_dir):
    with pytest.raises(TargetError, match="there is no image of the firmware to flash: .*firmware.fbi does not exist"):
        program(Builder(build_dir), "arty_a7_35t", "flash", flash_image(build_dir))
    write_flash_image(build_dir)
    os.truncate(build_dir/"gateware"/"top.bin", FLASH_OFFSET + 1)
    with pytest.raises(TargetError, match="must be of at most 4194304 bytes, .*top.bin is of 4194305."):
        program(Builder(build_dir), "arty_a7_35t", "flash", flash_image(build_dir))

# Simulation ---------------------------------------------------------------------------------------

def simulation(transport="uart", **options):
    """Without a host, Etherbone that can't load a firmware is of use too."""
    return Simulation(SystemConfig(), transport, protect=True, with_flash_boot=True, **options)


@contextmanager
def connected(simulation):
    csr = CSRMap.from_csv(simulation.csr_csv)
    with simulated_transport(simulation, csr) as transport:
        yield Device(transport, csr, SIM_TIMEOUT_SCALE)


def wait_for(simulation, text):
    deadline = time.monotonic() + 60
    while text not in simulation.console():
        assert time.monotonic() < deadline and simulation.alive(), simulation.console()
        time.sleep(0.05)


@pytest.mark.slow # The first one builds a model.
@pytest.mark.parametrize("transport", ("uart", pytest.param("etherbone", marks=pytest.mark.skipif(not network_permitted(),
    reason="network namespaces and TAP devices are not permitted here"))))
def test_boots_without_a_host(transport):
    """The BIOS starts the firmware; the host uses it as it is, and by UARTBone can load another one in its place."""
    with simulation(transport) as running:
        wait_for(running, "firmware: ready")
        assert "Executing booted program at 0x40000000" in running.console()
        with connected(running) as device:
            assert not device.boot() and device.info.boot_count == 1
            device.run(Job(Opcode.SELFTEST))
            if transport == "uart":
                assert device.boot(running.firmware) and device.info.boot_count == 2
                device.run(Job(Opcode.SELFTEST))
                assert not device.boot(running.firmware)


@pytest.mark.slow
@pytest.mark.skipif(not network_permitted(), reason="network namespaces and TAP devices are not permitted here")
def test_printed_command_works_as_typed():
    """Of a SoC by whose Etherbone no firmware can be loaded: the command does not name one."""
    with subprocess.Popen([sys.executable, ROOT/"targets"/"sim.py", "--protect", "--with-flash-boot"], stdout=subprocess.PIPE,
            text=True) as process:
        try:
            command = next(line.partition(":")[2] for line in process.stdout if "Ask it" in line)
            done    = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
            assert (done.returncode, done.stderr) == (0, "")
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("image, message", (
    pytest.param(b"",                                            "Invalid image length 0xffffffff",    id="erased"),
    pytest.param(struct.pack("<2I", 64, 0x12345678) + bytes(64), "CRC failed (expected 12345678, got", id="wrong_crc"),
))
def test_without_a_valid_image_the_host_boots(tmp_path, image, message):
    (tmp_path/"image").write_bytes(image)
    with simulation(flash_image=tmp_path/"image") as running:
        wait_for(running, f"Executing booted program at 0x{BOOTROM_ORIGIN:08x}")
        assert message in running.console()
        with connected(running) as device:
            with pytest.raises(UsageError, match="No firmware answers on the device"):
                device.boot()
            assert device.boot(running.firmware)
            device.run(Job(Opcode.SELFTEST))
