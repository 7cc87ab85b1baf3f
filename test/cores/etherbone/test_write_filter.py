#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The filter of Etherbone's writes: by itself, and in the simulated SoC built with --protect."""

import time

import numpy as np
import pytest

from litex.gen import *

from litex.soc.interconnect import wishbone

from cores.etherbone.write_filter import WriteFilter

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.csr import CSRMap
from host.device.device import Device, Job
from host.errors import IntegrityError
from host.link.etherbone import Etherbone
from host.link.uartbone import UARTBone

from operations.config import SystemConfig
from operations.protocol import (DATA_OFFSET, FIRMWARE_OFFSET, INFO_OFFSET, JOB_BYTES, MANIFEST_OFFSET, MANIFEST_SIZE,
    RING_ENTRIES, RING_OFFSET, STAMP_OFFSET, TABLE_OFFSET, Opcode)

from soc.etherbone import writable_windows

from targets.simulation.soc import SimSoC

from tools.simulation.runner import Simulation, network_permitted
from tools.verilated import VerilatedModule

# Filter -------------------------------------------------------------------------------------------

WINDOWS = [(0x4010_0000, 0x800), (0x4020_0000, 0x1_0000), (0xf000_1004, 4)]

class FilterBench(LiteXModule):
    def __init__(self):
        self.master = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        self.filter = WriteFilter(self.master, WINDOWS)


@pytest.fixture(scope="module")
def write_filter():
    bench = FilterBench()
    bus   = bench.filter.bus
    return VerilatedModule(bench,
        inputs  = {"cyc": bench.master.cyc, "stb": bench.master.stb, "we": bench.master.we, "adr": bench.master.adr,
            "bus_ack": bus.ack},
        outputs = {"ack": bench.master.ack, "bus_cyc": bus.cyc, "bus_stb": bus.stb, "bus_adr": bus.adr,
            "refused": bench.filter._refused.status})


@pytest.mark.parametrize("origin, size", WINDOWS)
def test_write_filter(write_filter, origin, size):
    """First and last word of a window, and their neighbours. Reads go anywhere."""
    for address, inside in ((origin, True), (origin + size - 4, True), (origin - 4, False), (origin + size, False)):
        for we in (0, 1):
            write_filter.poke(cyc=1, stb=1, we=we, adr=address//4, bus_ack=0)
            passed = inside or not we
            assert (write_filter.peek("bus_cyc"), write_filter.peek("bus_stb")) == (passed, passed)
            assert write_filter.peek("ack") == (not passed) # A stopped write does not wait for a bus that is not asked.
            write_filter.poke(bus_ack=1)
            assert write_filter.peek("ack") == 1
            before = write_filter.peek("refused")
            write_filter.step()
            assert write_filter.peek("refused") - before == (not passed)
    write_filter.poke(cyc=0, stb=0, bus_ack=0)
    assert not write_filter.peek("ack")


def test_write_filter_window_is_checked():
    with pytest.raises(ValueError, match="a window must be of whole words, is 0x4 bytes at 0x2."):
        WriteFilter(wishbone.Interface(), [(2, 4)])

def test_writable_windows():
    """Ring, manifest and the data region, which ends where main RAM does, and the registers to run jobs by; nothing else."""
    soc     = SimSoC(SystemConfig.of(4))
    ram     = soc.bus.regions["main_ram"]
    windows = writable_windows(soc)
    assert windows[:3] == [(ram.origin + RING_OFFSET, RING_ENTRIES*JOB_BYTES), (ram.origin + MANIFEST_OFFSET, MANIFEST_SIZE),
        (ram.origin + DATA_OFFSET, ram.size - DATA_OFFSET)]
    assert sum(windows[2]) == ram.origin + ram.size == 0x5000_0000
    assert [size for _, size in windows[3:]] == [4]*3
    soc.finalize()
    assert [address for address, _ in windows[3:]] == [address_of(soc, *register) for register in
        (("mailbox", "doorbell"), ("mailbox", "latch"), ("ssm", "counters_latch"))]


def address_of(soc, module, register):
    """Of a register of a finalized SoC."""
    region = soc.csr.regions[module]
    return region.origin + 4*[csr.name for csr in region.obj].index(register)

# Simulated SoC ------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.skipif(not network_permitted(), reason="network namespaces and TAP devices are not permitted here")
def test_protected_from_etherbone():
    """Data, ring, manifest and doorbell can be written; firmware, info block, tables, boot address and the rest cannot."""
    with Simulation(SystemConfig(), "etherbone", protect=True) as simulation, \
            Etherbone(sock=simulation.open_socket(), timeout=2.0, alive=simulation.alive) as link:
        csr = CSRMap.from_csv(simulation.csr_csv)
        ram, size = csr.memories["main_ram"]
        addresses = {name: address for name, (address, _) in csr.registers.items()}

        def writable(address):
            before = int(link.read_words(address, 1)[0])
            link.write_words(address, [before ^ 1], readback=False)
            after = int(link.read_words(address, 1)[0])
            link.write_words(address, [before], readback=False)
            assert after in (before, before ^ 1)
            return after != before

        inside  = [DATA_OFFSET, size - 4, RING_OFFSET, RING_OFFSET + RING_ENTRIES*JOB_BYTES - 4, MANIFEST_OFFSET,
            MANIFEST_OFFSET + MANIFEST_SIZE - 4]
        outside = [FIRMWARE_OFFSET, INFO_OFFSET, STAMP_OFFSET, RING_OFFSET - 4, RING_OFFSET + RING_ENTRIES*JOB_BYTES,
            TABLE_OFFSET, MANIFEST_OFFSET - 4]
        assert [writable(ram + offset) for offset in inside]  == [True]*len(inside)
        assert [writable(ram + offset) for offset in outside] == [False]*len(outside)
        assert writable(addresses["mailbox_doorbell"])
        for name in ("mailbox_boot", "mailbox_completed", "ctrl_scratch", "ssm_tile_x", "ssm_headdim", "checksum_address"):
            assert not writable(addresses[name]), name
        assert int(link.read_words(addresses["etherbone_filter_refused"], 1)[0]) == 2*(len(outside) + 6)
        with pytest.raises(IntegrityError):
            link.write_words(ram + FIRMWARE_OFFSET, np.arange(64))


@pytest.mark.slow
@pytest.mark.skipif(not network_permitted(), reason="network namespaces and TAP devices are not permitted here")
def test_protected_soc_after_a_late_doorbell():
    """No firmware can be loaded by Etherbone: the one that runs must be usable again. It comes from the flash here."""
    with Simulation(SystemConfig(), "etherbone", protect=True, with_flash_boot=True) as simulation:
        deadline = time.monotonic() + 60
        while "firmware: ready" not in simulation.console():
            assert time.monotonic() < deadline and simulation.alive(), simulation.console()
            time.sleep(0.05)
        csr = CSRMap.from_csv(simulation.csr_csv)
        for late in (0, 1, 3):
            with simulated_transport(simulation, csr) as link:
                device = Device(link, csr, SIM_TIMEOUT_SCALE)
                assert device.boot() is False
                for _ in range(4):
                    device.run(Job(Opcode.NOP))
                device.write_csr("mailbox_doorbell", device.read_csr("mailbox_completed") - late)


@pytest.mark.slow
def test_protected_soc_by_uartbone():
    """A firmware is loaded by UARTBone, which is not filtered."""
    with Simulation(SystemConfig(), "uart", protect=True) as simulation, \
            UARTBone("socket://{}:{}".format(*simulation.endpoint), timeout=2.0, alive=simulation.alive) as link:
        device = Device(link, CSRMap.from_csv(simulation.csr_csv), timeout_scale=300)
        assert device.boot(simulation.firmware)
        device.run(Job(Opcode.NOP))
