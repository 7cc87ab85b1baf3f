#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The Genesys 2 target: constraints as LiteX's own target has them, and ports of 256 bits."""

from litex_boards.targets.digilent_genesys2 import BaseSoC

from constraints import assert_same_constraints

from operations.config import ProgramConfig, SystemConfig

from targets.common import BIOS_ROM_SIZE
from targets.genesys2 import Genesys2SoC

# Tests --------------------------------------------------------------------------------------------

def test_as_litex_has_it(tmp_path):
    config = SystemConfig.of(4)
    options = {"cpu_type": "vexriscv", "cpu_variant": config.cpu_variant, "integrated_rom_size": BIOS_ROM_SIZE, "integrated_sram_size": 0x2000}
    assert_same_constraints(tmp_path, {"litex": BaseSoC(with_etherbone=True, l2_size=0, **options), "here": Genesys2SoC(config)}, "digilent_genesys2")


def test_whole_model():
    """By default; of a GiB, in beats of 32 bytes."""
    soc = Genesys2SoC(SystemConfig.of(32, program=ProgramConfig(4)))
    assert soc.constants["MEMORY_DATA_WIDTH"] == 256 and soc.bus.regions["main_ram"].size == 2**30
    assert all(hasattr(soc, name) for name in ("ssm", "program", "checksum", "mailbox"))
