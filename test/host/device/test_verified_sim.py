#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Verified transfers and the manifest on the simulated SoC: gateware, firmware and host together."""

import random
import zlib

import pytest

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.csr import CSRMap
from host.device.device import Device, Job
from host.device.manifest import Manifest, adopt, load
from host.device.verified import BLOCK_BYTES
from host.errors import DeviceError

from operations.config import ALIGNMENT, SystemConfig
from operations.protocol import TABLE_OFFSET, Error, Opcode

from tools.simulation.runner import Simulation

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def device():
    with Simulation(SystemConfig()) as simulation:
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, timeout_scale=SIM_TIMEOUT_SCALE)
            device.boot(simulation.firmware)
            yield device

# Transfers ----------------------------------------------------------------------------------------

def transfer(device, seed):
    """New data to and from the device. A wrong bit is found, and only its block is sent again."""
    base = device.info.data_base + 0x10_0000
    data = random.Random(seed).randbytes(5*BLOCK_BYTES + 2*ALIGNMENT)
    assert device.upload(base, data).moved == len(data)
    assert device.read(base, len(data)) == data
    assert device.download(base, len(data)) == data
    assert device.checksums(base, len(data), 640).tolist() == [zlib.crc32(data[n:n + 640]) for n in range(0, len(data), 640)]
    wrong = base + 3*BLOCK_BYTES + 8
    device.write(wrong, bytes(byte ^ 0x10 for byte in device.read(wrong, 4)))
    assert device.upload(base, data).moved == BLOCK_BYTES
    assert device.read(base, len(data)) == data


def test_upload_and_download(device):
    transfer(device, 1)


def test_whole_data_region(device):
    """The unit reads all of DRAM that the firmware lets it, and nothing above."""
    info = device.info
    with pytest.raises(DeviceError) as caught:
        device.run(Job(Opcode.CHECKSUM, region=info.data_base, region_bytes=info.data_size + ALIGNMENT, block_bytes=4096,
            table=device.ram + TABLE_OFFSET))
    assert (caught.value.error, caught.value.detail) == (Error.BAD_ADDRESS, info.data_base)
    end  = info.data_base + info.data_size - 4096
    data = random.Random(2).randbytes(4096)
    device.write(end, data)
    assert device.checksums(end, 4096).tolist() == [zlib.crc32(data)]


def test_between_other_jobs(device):
    for seed in (2, 3):
        device.run(Job(Opcode.SELFTEST))
        transfer(device, seed)


def test_time_out(device):
    """A unit that is stopped in mid-region computes the next one rightly."""
    base = device.info.data_base
    with pytest.raises(DeviceError) as caught:
        device.run(Job(Opcode.CHECKSUM, region=base, region_bytes=0x10_0000, block_bytes=0x10_0000,
            table=device.ram + TABLE_OFFSET, timeout=1000))
    assert caught.value.error == Error.TIMEOUT
    transfer(device, 5)


def test_manifest(device):
    data     = {"weights": random.Random(3).randbytes(20_000), "norm": bytes(range(100))}
    manifest = Manifest.of({"lanes": device.info.lanes}, data)
    assert load(device, manifest, data).moved == manifest.size
    assert load(device, manifest, data).moved == 0
    assert adopt(device).same_content(manifest)
