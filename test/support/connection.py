#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A fake device, and the host's one on it."""

from fake_device import EtherboneServer, FakeDevice, fake_firmware

from host.device.csr import CSRMap
from host.device.device import Device
from host.device.model import ModelOnDevice, device_image
from host.link.etherbone import Etherbone

from operations.config import ProgramConfig, SSMConfig

# Connection ---------------------------------------------------------------------------------------

class Connection:
    """A fake device, and a Device that is booted on it, with little patience."""
    def __init__(self, folder, program=ProgramConfig(pass_tokens=4), config=SSMConfig(), patience=5, ram_size=0x100_0000, **options):
        (folder/"firmware.bin").write_bytes(fake_firmware())
        self.firmware = str(folder/"firmware.bin")
        self.fake     = FakeDevice(config, program=program, ram_size=ram_size, **options)
        (folder/"csr.csv").write_text(self.fake.csr_csv())
        self.csr      = CSRMap.from_csv(folder/"csr.csv")
        self.patience = patience

    def __enter__(self):
        self.fake.__enter__()
        self.server    = EtherboneServer(self.fake).__enter__()
        self.transport = Etherbone(self.server.ip, self.server.port, timeout=0.2).__enter__()
        return self.connect()

    def connect(self):
        device = Device(self.transport, self.csr, patience=self.patience, timeout_scale=1e-3)
        device.boot(self.firmware)
        device.fake, device.again = self.fake, self.connect
        return device

    def __exit__(self, *exception):
        self.transport.__exit__(*exception)
        self.server.__exit__(*exception)
        self.fake.hang = None
        self.fake.__exit__(*exception)


def loaded(device, model, **options):
    result = ModelOnDevice(device, device_image(device, model), **options)
    result.load()
    return result
