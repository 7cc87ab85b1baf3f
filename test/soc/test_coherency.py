#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Coherency between host, CPU and accelerator: the rules of docs/architecture.md, and what happens without them."""

import os

from contextlib import contextmanager

import pytest

from litex.build.sim import SimPlatform

from litex.soc.integration.soc_core import SoCCore

from litedram.modules import MT41K128M16
from litedram.phy.model import SDRAMPHYModel

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.csr import CSRMap
from host.device.device import Device, Job
from host.errors import DeviceError

from operations.config import SystemConfig
from operations.protocol import RING_ENTRIES, Error, Opcode

from soc.accelerator import add_ssm

from tools.firmware.build import build as build_firmware
from tools.simulation.runner import Simulation

# Constants ----------------------------------------------------------------------------------------

SMALL = dict(heads=1, headdim=1, d_state=1, groups=1, tokens=1, x_address=0, bc_address=0, y_address=0, state_in=0, state_out=0)

# Data Cache ---------------------------------------------------------------------------------------

@contextmanager
def booted_device(*defines):
    """A device in the simulation, running a firmware built with macros defined."""
    with Simulation(SystemConfig()) as simulation:
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, timeout_scale=SIM_TIMEOUT_SCALE)
            build_dir = os.path.dirname(simulation.csr_csv)
            device.boot(build_firmware(build_dir, defines) if defines else simulation.firmware)
            yield device


def run_jobs(device):
    """More jobs than the ring holds, of two kinds in turn so that no slot sees the same job twice in a row."""
    for n in range(3*RING_ENTRIES):
        if n % 3:
            device.run(Job(Opcode.NOP))
        else:
            with pytest.raises(DeviceError) as caught:
                device.run(Job(Opcode.SSM, **SMALL | dict(headdim=1000 + n)))
            assert caught.value.error  == Error.BAD_HEADDIM
            assert caught.value.detail == 1000 + n


def test_data_cache():
    """The CPU sees each job that the host writes into a slot of the ring it has read before."""
    with booted_device() as device:
        run_jobs(device)


def test_data_cache_without_invalidation():
    """The same firmware without the invalidation of its data cache takes an old job for the new one."""
    with booted_device("FIRMWARE_NO_INVALIDATE") as device:
        with pytest.raises(DeviceError, match="its ring entry reports job"):
            run_jobs(device)

# L2 Cache -----------------------------------------------------------------------------------------

def soc_with_l2(l2_size):
    platform = SimPlatform("SIM", [])
    soc      = SoCCore(platform, 100e6, cpu_type="vexriscv", uart_name="stub", integrated_rom_size=0x8000)
    module   = MT41K128M16(100e6, "1:4")
    soc.sdrphy = SDRAMPHYModel(module, data_width=16, clk_freq=100e6)
    soc.add_sdram("sdram", phy=soc.sdrphy, module=module, l2_cache_size=l2_size)
    return soc


def test_l2_cache_is_refused():
    """The accelerator's ports would go round it."""
    with pytest.raises(ValueError, match="l2_cache_size must be 0, is 8192"):
        add_ssm(soc_with_l2(8192), SystemConfig())


def test_no_l2_cache_is_accepted():
    soc = soc_with_l2(0)
    add_ssm(soc, SystemConfig())
    assert soc.ssm and "ssm" in soc.irq.locs
