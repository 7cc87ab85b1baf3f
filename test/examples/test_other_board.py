#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The recipe for other boards, examples/other_board.py, with targets of litex-boards: as a command, down to csr.csv and
firmware; the accelerator's part simulated with the pages of a DDR3 of 128-bit ports and of an SDR memory of 16-bit ports."""

import importlib
import re
import subprocess
import sys

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ssm_harness

from core_harness import random_values


from examples.other_board import with_accelerator

from host.device.csr import CSRMap

from operations.config import SystemConfig

from soc.accelerator import page_beats
from soc.dram import controller_settings

from targets.common import BIOS_ROM_SIZE

from tools.paths import ROOT

# Helpers ------------------------------------------------------------------------------------------

CONFIG = SystemConfig.of(8, max_headdim=20, max_d_state=24)

BOARDS = { # Beats in a page of the DRAM, bits of its controller's ports.
    "digilent_nexys_video" : (128, 128),
    "radiona_ulx3s"        : (64,   16),
}
EVERY_BOARD = pytest.mark.parametrize("name", BOARDS)

OTHERS = ("digilent_arty", "digilent_nexys4ddr", "lambdaconcept_ecpix5", "numato_mimas_a7", "qmtech_wukong", "terasic_de0nano",
    "terasic_de10lite", "muselab_icesugar_pro", "sipeed_tang_primer_20k", "lattice_versa_ecp5")


@cache
def elaborated(name):
    target = importlib.import_module(f"litex_boards.targets.{name}")
    soc    = with_accelerator(target.BaseSoC, CONFIG)(cpu_type="vexriscv", integrated_rom_size=BIOS_ROM_SIZE,
        integrated_sram_size=0x2000)
    soc.finalize()
    return soc


def recipe(folder, *arguments):
    """What the command does in a folder: its exit code and what it says."""
    done = subprocess.run([sys.executable, ROOT/"examples"/"other_board.py", *arguments], cwd=folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return done.returncode, done.stderr

# Recipe -------------------------------------------------------------------------------------------

def test_is_short():
    assert len(Path(ROOT/"examples"/"other_board.py").read_text().splitlines()) < 48


@pytest.mark.parametrize("name", [*BOARDS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_command(name, tmp_path):
    """All but the bitstream, as docs/boards.md says."""
    code, said = recipe(tmp_path, name, "--build", "--no-compile-gateware")
    assert code == 0, said
    build   = tmp_path/"build"/name
    csr     = CSRMap.from_csv(build/"csr.csv")
    modules = {register.split("_")[0] for register in csr.registers}
    assert {"mailbox", "ssm", "checksum", "uart"} <= modules
    assert csr.constants["ssm_lanes"] == 16 and "main_ram" in csr.memories and "bootrom" in csr.memories
    assert (build/"firmware"/"firmware.bin").stat().st_size > 1000
    text = (build/"gateware"/f"{name}.v").read_text()
    assert f"module {name}" in text and "uartbone" in text and "inputbuffer" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["radiona_ulx3s", "digilent_nexys_video"])
def test_whole_models(name, tmp_path):
    """With --pass-tokens the engines of whole models are there, and firmware that runs them."""
    code, said = recipe(tmp_path, name, "--build", "--no-compile-gateware", "--lanes", "8", "--pass-tokens", "2")
    assert code == 0, said
    build = tmp_path/"build"/name
    csr   = CSRMap.from_csv(build/"csr.csv")
    assert (csr.constants["ssm_lanes"], csr.constants["program_pass_tokens"]) == (8, 2) and "program_start" in csr.registers
    assert "gemvengine" in (build/"gateware"/f"{name}.v").read_text()
    assert (build/"firmware"/"firmware.bin").stat().st_size > 20_000


@EVERY_BOARD
def test_elaboration(name):
    """The accelerator has its interrupts, and the DRAM is set up for it."""
    soc = elaborated(name)
    assert not hasattr(soc, "l2_cache") and soc.sdram.controller.settings.cmd_buffer_depth == 16
    assert soc.sdram.controller.settings.read_time == controller_settings().read_time
    assert {"ssm", "mailbox"} <= set(soc.irq.locs) and soc.constants["SSM_LANES"] == CONFIG.ssm.lanes
    ports = soc.sdram.crossbar.masters
    assert (page_beats(soc.sdram, soc.ssm.core.data_width), len(ports[-1].wdata.data)) == BOARDS[name]


@pytest.mark.parametrize("name, width", [("digilent_genesys2", 256), ("enclustra_mercury_kx2", 512)])
def test_wide_ports(name, width):
    """Ports of LiteDRAM that are wider than 128 bits are used as they are."""
    soc = elaborated(name)
    assert soc.sdram.crossbar.controller.data_width == soc.ssm.core.data_width == soc.constants["MEMORY_DATA_WIDTH"] == width
    assert len(soc.ssm.y_writer.sink.data) == width


@pytest.mark.parametrize("arguments, exit_code, message", [
    (("nosuch_board",),                             2, "target must be the name of one of litex_boards.targets, is 'nosuch_board'."),
    (("../x",),                                     2, "target must be the name of one of litex_boards.targets, is '../x'."),
    (("sqrl_acorn",),                               1, "No module named 'litepcie'"),
    (("radiona_ulx3s", "--cpu-variant", "minimal"), 2, "cpu_variant must be lite or standard or .*, is minimal."),
    (("radiona_ulx3s", "--csr-ordering", "little"), 2, "csr_ordering must be big, is little."),
    (("radiona_ulx3s", "--lanes", "5"),             2, "argument --lanes: invalid choice: 5"),
    (("radiona_ulx3s", "--vector-lanes", "2"),      2, "--vector-lanes must be left out without --pass-tokens, is 2."),
    (("qmtech_xc7a35t",),                           2, "must have a link to the host, this one has none, and no free serial"),
    (("radiona_ulx3s",),                            1, "soc.h does not exist: build the SoC's software first"),
])
def test_error(arguments, exit_code, message, tmp_path):
    code, said = recipe(tmp_path, *arguments)
    assert code == exit_code and re.search(f"^other_board.py: error: .*{message}", said.splitlines()[-1]), said


@pytest.mark.parametrize("arguments, text", [((), "python examples/other_board.py"), (("--help",), "python examples/other_board.py"),
    (("radiona_ulx3s", "--help"), "--sdram-rate")])
def test_help(arguments, text, tmp_path):
    done = subprocess.run([sys.executable, ROOT/"examples"/"other_board.py", *arguments], cwd=tmp_path, capture_output=True,
        text=True)
    assert done.returncode == 0 and text in done.stdout and not (tmp_path/"build").exists()

# Simulation ---------------------------------------------------------------------------------------

@pytest.mark.slow
@EVERY_BOARD
def test_simulation(name, monkeypatch):
    """Random jobs, with the memory's pages."""
    monkeypatch.setattr(ssm_harness, "PAGE_BEATS", page_beats(elaborated(name).sdram, 128))
    bench, rng = ssm_harness.SSMHarness(CONFIG.ssm, "paged"), np.random.default_rng(1)
    for duty in (256, 100):
        bench.start(rng, duty)
        for _ in range(4):
            bench.run(bench.place(rng, ssm_harness.job_geometry(rng, CONFIG.ssm), 3, random_values))
        bench.check_memory()
