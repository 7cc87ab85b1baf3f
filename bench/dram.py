#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures how LiteDRAM is set up for streams of head tiles: build/bench/dram.json and dram.html.

LiteDRAM with the Arty's memory, compiled alone. A block's state is read, is written, and is read while it is written a tile
behind, as in decoding. From what soc/dram.py and soc/accelerator.py choose one thing is changed at a time.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("dram.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import json
import sys

from dataclasses import dataclass, field

from migen import *
from tqdm import tqdm

from litex.gen import *

from litex.soc.interconnect import csr_bus

from litedram.core import LiteDRAMCore
from litedram.core.controller import ControllerSettings
from litedram.modules import MT41K128M16
from litedram.phy.model import SDRAMPHYModel

from cores.memory.dma import DMAReader, DMAWriter
from cores.memory.interleaved import InterleavedReader, InterleavedWriter
from cores.memory.region import Region

from soc.accelerator import page_beats
from soc.dram import controller_settings, refresh_in_time

from tools.page import BLUE, ORANGE, figure, heading, page, paragraph, pyplot, table
from tools.paths import BUILD
from tools.verilated import VerilatedModule

# Constants ----------------------------------------------------------------------------------------

OUTPUT     = BUILD/"bench"
COMMAND    = "python bench/dram.py"
CLOCK      = 100e6
TILE_BEATS = 64*128*2//16
BEATS      = 24*TILE_BEATS # The state of a block.
LIMIT      = 20*BEATS
BASE       = 0x0040_0000//16

# Traffic ------------------------------------------------------------------------------------------

class Traffic(LiteXModule):
    """LiteDRAM, and masters that read and write `BEATS` beats, the writer where the reader read, a tile behind it.

    ``done`` when all beats asked for by ``read`` and ``write`` (one or both) have been moved.
    """
    def __init__(self, settings, ports, refresh_in_time=refresh_in_time):
        self.read  = Signal()
        self.write = Signal()
        self.done  = Signal()

        # # #

        # LiteDRAM. --------------------------------------------------------------------------------
        module   = refresh_in_time(MT41K128M16(CLOCK, "1:4"))
        self.phy = SDRAMPHYModel(module, data_width=16, clk_freq=CLOCK)
        self.submodules.sdram = sdram = LiteDRAMCore(self.phy, module.geom_settings, module.timing_settings, CLOCK,
            controller_settings=settings)
        self.csr          = csr_bus.Interface(data_width=32, address_width=14)
        self.banks        = csr_bus.CSRBankArray(self, lambda name, memory: 0, data_width=32, address_width=14)
        self.interconnect = csr_bus.Interconnect(self.csr, self.banks.get_buses())

        # Masters. ---------------------------------------------------------------------------------
        get_ports = lambda: [sdram.crossbar.get_port(data_width=128) for _ in range(ports)]
        region    = Region(0, 256*1024*1024)
        if ports == 1:
            self.reader = reader = DMAReader(get_ports()[0], region)
            self.writer = writer = DMAWriter(get_ports()[0], region)
        else:
            self.reader = reader = InterleavedReader(get_ports(), region, page_beats(sdram, 128))
            self.writer = writer = InterleavedWriter(get_ports(), region, page_beats(sdram, 128))

        # Beats. -----------------------------------------------------------------------------------
        # The tile bank that lies between the reader and the writer, as far as time goes: who is how far.
        asked, came, written = (Signal(max=BEATS + 1) for _ in range(3))
        self.comb += [
            reader.sink.valid.eq(self.read & (asked != BEATS) & (~self.write | (asked < written + 2*TILE_BEATS))),
            reader.sink.address.eq((BASE + asked) << 4),
            reader.source.ready.eq(1),
            writer.sink.valid.eq(self.write & (written != BEATS) &
                (~self.read | (came == BEATS) | (came >= written + TILE_BEATS))),
            writer.sink.address.eq((BASE + written) << 4),
            writer.sink.data.eq(written),
            self.done.eq((~self.read | (came == BEATS)) & (~self.write | ((written == BEATS) & writer.idle))),
        ]
        self.sync += [
            If(reader.sink.valid & reader.sink.ready, asked.eq(asked + 1)),
            If(reader.source.valid,                   came.eq(came + 1)),
            If(writer.sink.valid & writer.sink.ready, written.eq(written + 1)),
        ]

# Measuring ----------------------------------------------------------------------------------------

@dataclass
class Setup:
    """What is changed from the choice, and the cycles it takes: to read, to write, and to do both."""
    name    : str
    changes : dict = field(default_factory=dict)
    ports   : int  = 2
    refresh : object = refresh_in_time # What makes a module's refresh as long as it is.
    cycles  : dict = field(default_factory=dict)


WORK = {"read": (1, 0), "write": (0, 1), "both": (1, 1)}


def as_it_is(module):
    return module


def setups():
    chosen = {name: getattr(controller_settings(), name) for name in
        ("cmd_buffer_depth", "read_time", "write_time", "refresh_postponing", "with_auto_precharge")}
    default = {name: getattr(ControllerSettings(), name) for name in chosen}
    rows = [
        Setup("chosen"),
        Setup("LiteDRAM's defaults, one read port and one write port", default, 1, as_it_is),
        Setup("LiteDRAM's defaults", default, refresh=as_it_is),
        Setup("tRFC as LiteDRAM has it", refresh=as_it_is),
        Setup("one read port and one write port", ports=1),
        Setup("four read ports and four write ports", ports=4),
    ]
    rows += [Setup(f"{name} = {default[name]}", {name: default[name]}) for name in chosen
        if name not in ("read_time", "write_time")]
    rows += [Setup(f"read_time = write_time = {time}", {"read_time": time, "write_time": time}) for time in (32, 128, 255)]
    rows += [Setup(f"cmd_buffer_depth = {depth}", {"cmd_buffer_depth": depth}) for depth in (4, 32)]
    rows += [Setup(f"bank_byte_alignment = {size}", {"bank_byte_alignment": size}) for size in (0x4000,)]
    return rows


def measure(setup):
    """Fill in the cycles of a setup."""
    settings = controller_settings()
    for name, value in setup.changes.items():
        setattr(settings, name, value)
    traffic = Traffic(settings, setup.ports, setup.refresh)
    with VerilatedModule(traffic, {"read": traffic.read, "write": traffic.write}, {"done": traffic.done}) as compiled:
        for name, (read, write) in WORK.items():
            compiled.reset()
            compiled.poke(read=read, write=write)
            cycles = 0
            while not compiled.peek("done"):
                if cycles > LIMIT:
                    raise TimeoutError(f"{setup.name}, {name}: not done after {cycles} cycles.")
                compiled.step(16)
                cycles += 16
            setup.cycles[name] = cycles
    return setup

# Results ------------------------------------------------------------------------------------------

def bound(work):
    return BEATS*sum(WORK[work])


def entries(rows):
    return [{"name": f"dram_{work}, {row.name}", "value": row.cycles[work], "unit": "cycles", "bound": bound(work),
        "ratio": row.cycles[work]/bound(work), "config": f"{row.ports} read ports, {row.ports} write ports, MT41K128M16, 16 bits, 1:4",
        "command": COMMAND} for row in rows for work in WORK]


def plot(rows):
    drawing, axis = pyplot.subplots(figsize=(9.5, 0.34*len(rows) + 0.8))
    share = [100*bound("both")/row.cycles["both"] for row in rows[::-1]]
    axis.barh([row.name for row in rows[::-1]], share, color=[ORANGE if row is rows[0] else BLUE for row in rows[::-1]])
    for number, value in enumerate(share):
        axis.text(value, number, f" {value:.0f} %", va="center", fontsize=8)
    axis.set(xlabel="share of the DRAM's 16 bytes a cycle, state read and written", xlim=(0, 105))
    axis.grid(axis="y", visible=False)
    return figure(drawing)


def dram_page(rows):
    cells = [[row.name, *(f"{row.cycles[work]}" for work in WORK), f"{row.cycles['both']/bound('both'):.3f}"] for row in rows]
    return page("LiteDRAM set up for head tiles", "".join((
        paragraph(f"Written by {COMMAND}. Cycles to move the state of a Mamba-2 130M block, {BEATS} beats of 16 bytes, simulated "
            "(Verilator): LiteDRAM with the Arty's memory, alone."),
        plot(rows),
        heading("Cycles"),
        table(["what is changed", *WORK, "both, to its bound"], cells),
    )))

# Main ---------------------------------------------------------------------------------------------

def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = [measure(setup) for setup in tqdm(setups(), unit="setup", disable=None)]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT/"dram.json").write_text(json.dumps(entries(rows), indent=4) + "\n")
    (OUTPUT/"dram.html").write_text(dram_page(rows))
    print(f"{'what is changed':<42}{'read':>8}{'write':>8}{'both':>8}{'to bound':>10}")
    for row in rows:
        print(f"{row.name:<42}" + "".join(f"{row.cycles[work]:>8}" for work in WORK) +
            f"{row.cycles['both']/bound('both'):>10.3f}")
    print(f"{OUTPUT/'dram.json'}, {OUTPUT/'dram.html'}")


if __name__ == "__main__":
    sys.exit(main())
