#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The recipe for other boards, examples/other_board.py, with two targets of litex-boards: a DDR3 of 128-bit ports, an SDR
memory of 16-bit ports. Elaborated as a whole; the accelerator's part simulated with the pages of that memory."""

import importlib

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ssm_bench

from core_player import random_values

from cores.ssm.config import SSMConfig

from examples.other_board import with_accelerator

from soc.accelerator import page_beats

from targets.common import BIOS_ROM_SIZE
from targets.simulation.build import ROOT

# Helpers ------------------------------------------------------------------------------------------

CONFIG = SSMConfig(lanes=8, max_headdim=20, max_d_state=24)

BOARDS = { # Beats in a page of the DRAM, bits of its controller's ports.
    "digilent_nexys_video" : (128, 128),
    "radiona_ulx3s"        : (64,   16),
}
EVERY_BOARD = pytest.mark.parametrize("name", BOARDS)


@cache
def elaborated(name):
    target = importlib.import_module(f"litex_boards.targets.{name}")
    soc    = with_accelerator(target, CONFIG)(cpu_type="vexriscv", integrated_rom_size=BIOS_ROM_SIZE,
        integrated_sram_size=0x2000)
    soc.finalize()
    return soc

# Recipe -------------------------------------------------------------------------------------------

def test_is_short():
    assert len(Path(ROOT/"examples"/"other_board.py").read_text().splitlines()) < 40


@EVERY_BOARD
def test_elaboration(name, tmp_path):
    """The target has the accelerator with its interrupt, mailbox and boot ROM, no L2 cache, the DRAM set up for tiles; and
    its Verilog can be written."""
    soc = elaborated(name)
    assert not hasattr(soc, "l2_cache") and soc.sdram.controller.settings.cmd_buffer_depth == 16
    assert {"ssm", "mailbox"} <= set(soc.csr.locs) and {"ssm", "mailbox"} <= set(soc.irq.locs)
    assert "bootrom" in soc.bus.regions and soc.constants["SSM_LANES"] == CONFIG.lanes
    ports = soc.sdram.crossbar.masters
    assert (page_beats(soc.sdram), len(ports[-1].wdata.data)) == BOARDS[name]
    text = str(soc.platform.get_verilog(soc.get_fragment(), name="top"))
    assert "module top" in text and "ssm_ssmcore" in text

# Simulation ---------------------------------------------------------------------------------------

@pytest.mark.slow
@EVERY_BOARD
def test_simulation(name, monkeypatch):
    """Random jobs, with the memory's pages."""
    monkeypatch.setattr(ssm_bench, "PAGE_BEATS", page_beats(elaborated(name).sdram))
    bench, rng = ssm_bench.SSMBench(CONFIG, "paged"), np.random.default_rng(1)
    for duty in (256, 100):
        bench.start(rng, duty)
        for _ in range(4):
            bench.run(bench.place(rng, ssm_bench.job_geometry(rng, CONFIG), 3, random_values))
        bench.check_memory()
