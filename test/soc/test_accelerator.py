#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""In which SoCs the accelerator may be: what docs/architecture.md lists as supported, and how the rest is refused."""

import re

from dataclasses import replace

import pytest

from litex.build.generic_platform import Pins, Subsignal
from litex.build.sim import SimPlatform

from litex.soc.integration.soc_core import SoCCore

from litedram.modules import MT41K128M16
from litedram.phy.model import SDRAMPHYModel

from cores.console import Console

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.csr import CSRMap
from host.device.device import Device, Job

from operations.config import CPU_VARIANTS, SystemConfig
from operations.protocol import DATA_OFFSET, Opcode

from soc.accelerator import add_accelerator, add_ssm

from tools.paths import ROOT
from tools.simulation.runner import Simulation

# SoCs ---------------------------------------------------------------------------------------------

CONFIG = SystemConfig.of(4, max_headdim=4, max_d_state=8)


def soc_with(dram_bits=None, l2_size=0, main_ram=2*DATA_OFFSET, **options):
    """A SoC without link; with a LiteDRAM on so many bits of DDR3, or with `main_ram` bytes on its bus."""
    options = {"cpu_type": "vexriscv", "uart_name": "stub", "integrated_rom_size": 0x8000} | options
    if dram_bits is None:
        options["integrated_main_ram_size"] = main_ram
    soc = SoCCore(SimPlatform("SIM", []), 100e6, **options)
    soc.uartbone = None # As far as the accelerator is concerned there is a link.
    if dram_bits is not None:
        module     = MT41K128M16(100e6, "1:4")
        soc.sdrphy = SDRAMPHYModel(module, data_width=dram_bits, clk_freq=100e6)
        soc.add_sdram("sdram", phy=soc.sdrphy, module=module, l2_cache_size=l2_size)
    return soc

# Supported ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    *[{"cpu_variant": variant} for variant in CPU_VARIANTS],
    {"cpu_variant": "standard+debug"},
    {"dram_bits": 16},
    {"dram_bits": 8},
], ids=str)
def test_supported(options):
    soc = soc_with(**options)
    add_accelerator(soc, CONFIG)
    soc.finalize()
    assert {"ssm", "mailbox", "checksum"} <= set(soc.csr.locs) and {"ssm", "mailbox"} <= set(soc.irq.locs)
    assert {"main_ram", "bootrom"} <= set(soc.bus.regions)


def test_adds_what_is_missing():
    """A link and a console, where there are none; and neither where there are."""
    soc = soc_with(with_uart=False)
    del soc.uartbone
    soc.platform.add_extension([("serial", 0, Subsignal("tx", Pins(1)), Subsignal("rx", Pins(1)))])
    add_accelerator(soc, CONFIG)
    assert isinstance(soc.uart, Console) and "uartbone" in soc.bus.masters
    soc = soc_with()
    add_accelerator(soc, CONFIG)
    assert not isinstance(soc.uart, Console) and "uartbone" not in soc.bus.masters


def run_selftest(build_dir, **changes):
    """The simulated SoC, as it is built now and with changes of its configuration, runs the firmware's vectors."""
    with Simulation(replace(SystemConfig.of(4), **changes), build_dir=build_dir) as simulation:
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, SIM_TIMEOUT_SCALE)
            device.boot(simulation.firmware)
            assert device.run(Job(Opcode.SELFTEST)).units > 0


@pytest.mark.slow
@pytest.mark.parametrize("variant", [variant for variant in CPU_VARIANTS if variant not in ("lite", "standard")])
def test_cpu_variant(variant, tmp_path):
    """The firmware runs on it; lite and standard are those of the other tests."""
    run_selftest(tmp_path, cpu_variant=variant)


@pytest.mark.slow
def test_narrow_dram(monkeypatch, tmp_path):
    """8 bits of DDR3, ports of 64 bits, through LiteDRAM's converter."""
    def phy(module, data_width, clk_freq):
        return SDRAMPHYModel(module, data_width=8, clk_freq=clk_freq)
    monkeypatch.setattr("targets.simulation.soc.SDRAMPHYModel", phy)
    run_selftest(tmp_path)

# Refused ------------------------------------------------------------------------------------------

REFUSED = [
    ({"cpu_type": None},                            "cpu_type must be vexriscv, is None."),
    ({"cpu_variant": "minimal"},                    "cpu_variant must be lite or standard or imac or full or linux, is minimal."),
    ({"csr_data_width": 8},                         "csr_data_width must be 32, is 8."),
    ({"csr_ordering": "little"},                    "csr_ordering must be big, is little."),
    ({"bus_standard": "axi-lite"},                  "bus_standard must be wishbone, is axi-lite."),
    ({"bus_standard": "axi"},                       "bus_standard must be wishbone, is axi."),
    ({"bus_data_width": 64},                        "bus_data_width must be 32, is 64."),
    ({"bus_address_width": 64},                     "bus_address_width must be 32, is 64."),
    ({"dram_bits": 128},                            "data_width of LiteDRAM's ports must be at most 512, is 1024."),
    ({"dram_bits": 16, "l2_size": 8192},            "l2_cache_size must be 0, is 8192: the accelerator's ports go round it."),
    ({"main_ram": 0},                               "a SoC must have the region main_ram, this one has none: add the memory "
                                                    "before the accelerator."),
]

@pytest.mark.parametrize("options, message", REFUSED, ids=lambda value: str(value) if isinstance(value, dict) else "")
@pytest.mark.parametrize("add", [add_accelerator, add_ssm])
def test_refused(add, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        add(soc_with(**options), CONFIG)


def test_second_accelerator_is_refused():
    soc = soc_with()
    add_accelerator(soc, CONFIG)
    for add in (add_accelerator, add_ssm):
        with pytest.raises(ValueError, match="^a SoC must have one accelerator, this one has one already.$"):
            add(soc, CONFIG)


def test_small_memory_is_refused():
    with pytest.raises(ValueError, match=f"^main_ram must have more than {DATA_OFFSET} bytes, .*, has {DATA_OFFSET}.$"):
        add_accelerator(soc_with(main_ram=DATA_OFFSET), CONFIG)


def test_no_link_is_refused():
    soc = soc_with()
    del soc.uartbone
    with pytest.raises(ValueError, match="^a SoC must have a link to the host, this one has none, and no free serial port: "):
        add_accelerator(soc, CONFIG)


def test_documented():
    """The table of docs/architecture.md names what is checked."""
    text = (ROOT/"docs"/"architecture.md").read_text()
    for word in (*CPU_VARIANTS, "csr_data_width", "csr_ordering", "bus_standard", "l2_cache_size"):
        assert f"`{word}`" in text.split("## Which SoCs")[1].split("\n## ")[0], word
