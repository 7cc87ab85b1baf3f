#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The KC705 target: constraints as LiteX's own target has them, and ports of 512 bits."""

import sys

from types import ModuleType

from constraints import assert_same_constraints

from operations.config import ProgramConfig, SystemConfig

from targets.common import BIOS_ROM_SIZE
from targets.kc705 import KC705SoC

# Tests --------------------------------------------------------------------------------------------

def test_as_litex_has_it(tmp_path, monkeypatch):
    for name, member in (("litepcie", None), ("litepcie.phy", None), ("litepcie.phy.s7pciephy", "S7PCIEPHY"),
            ("litepcie.software", "generate_litepcie_software")): # Which LiteX's target imports, and uses for PCIe alone.
        module = ModuleType(name)
        if member is not None:
            setattr(module, member, None)
        monkeypatch.setitem(sys.modules, name, module)
    from litex_boards.targets.xilinx_kc705 import BaseSoC
    config  = SystemConfig.of(4)
    options = {"cpu_type": "vexriscv", "cpu_variant": config.cpu_variant, "integrated_rom_size": BIOS_ROM_SIZE, "integrated_sram_size": 0x2000}
    assert_same_constraints(tmp_path, {"litex": BaseSoC(sys_clk_freq=100e6, with_ethernet=True, l2_size=0, **options), "here": KC705SoC(config)},
        "xilinx_kc705")


def test_whole_model():
    """By default; in beats of 64 bytes."""
    soc = KC705SoC(SystemConfig.of(64, program=ProgramConfig(4)))
    assert soc.constants["MEMORY_DATA_WIDTH"] == 512 and soc.bus.regions["main_ram"].size == 2**30
    assert all(hasattr(soc, name) for name in ("ssm", "program", "checksum", "mailbox"))
