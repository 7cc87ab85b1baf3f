#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A Device connected to a device in software."""

from contextlib import contextmanager

import pytest

from fake_device import EtherboneServer, FakeDevice, fake_firmware

from host.device.csr import CSRMap
from host.device.device import Device
from host.link.etherbone import Etherbone

@pytest.fixture
def firmware(tmp_path):
    path = tmp_path/"firmware.bin"
    path.write_bytes(fake_firmware())
    return str(path)


@pytest.fixture
def csr_map(tmp_path):
    """Makes the CSRMap of a fake device."""
    def make(fake):
        path = tmp_path/"csr.csv"
        path.write_text(fake.csr_csv())
        return CSRMap.from_csv(path)
    return make


@pytest.fixture
def connect(csr_map):
    """Makes a Device, with little patience, for a fake device."""
    @contextmanager
    def make(fake, patience=2, timeout=0.2, **network):
        with EtherboneServer(fake, **network) as server, \
             Etherbone(server.ip, server.port, timeout=timeout) as transport:
            yield Device(transport, csr_map(fake), patience=patience, timeout_scale=0.1)
    return make


@pytest.fixture
def booted(connect, firmware):
    with FakeDevice() as fake, connect(fake) as device:
        device.boot(firmware)
        device.fake = fake
        yield device
