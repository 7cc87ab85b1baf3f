#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Memory masters and arbiters with LiteDRAM itself, compiled, at each width of its ports."""

import pytest

from migen import *

from litex.gen import *

from litex.soc.interconnect import csr_bus

from litedram.core import LiteDRAMCore
from litedram.modules import MT41K64M16
from litedram.phy.model import SDRAMPHYModel

from cores.memory.arbiter import Arbiter
from cores.memory.dma import DMAReader
from cores.memory.interleaved import InterleavedReader, InterleavedWriter
from cores.memory.region import Region

from operations.config import DATA_WIDTHS

from soc.accelerator import page_beats
from soc.dram import controller_settings

from tools.verilated import VerilatedModule

# Constants ----------------------------------------------------------------------------------------

CLOCK = 100e6
BEATS = 1000 # Several pages.
BASE  = 0x1_0000

# Module -------------------------------------------------------------------------------------------

class Check(LiteXModule):
    """Writes a pattern by two ports in turn; then reads it back by two in turn, and at once by a user more of one of them.

    ``wrong`` counts beats that came back otherwise.
    """
    def __init__(self, width):
        self.done  = Signal()
        self.wrong = Signal(32)

        # # #

        module   = MT41K64M16(CLOCK, "1:4")
        self.phy = SDRAMPHYModel(module, data_width=width//8, clk_freq=CLOCK)
        self.submodules.sdram = sdram = LiteDRAMCore(self.phy, module.geom_settings, module.timing_settings, CLOCK,
            controller_settings=controller_settings())
        self.csr          = csr_bus.Interface(data_width=32, address_width=14)
        self.banks        = csr_bus.CSRBankArray(self, lambda name, memory: 0, data_width=32, address_width=14)
        self.interconnect = csr_bus.Interconnect(self.csr, self.banks.get_buses())

        page     = page_beats(sdram, width)
        region   = Region(0, 2**27)
        arbiters = [Arbiter(sdram.crossbar.get_port(mode=mode, data_width=width)) for mode in ("read", "read", "write", "write")]
        self.submodules += arbiters
        ports    = [arbiter.get_port() for arbiter in arbiters]
        self.writer = writer = InterleavedWriter(ports[2:], region, page)
        self.reader = reader = InterleavedReader(ports[:2], region, page)
        self.other  = other  = DMAReader(arbiters[0].get_port(), region)
        shift   = log2_int(width//8)
        pattern = lambda n: Cat(*[(n + word)*0x9e3779b1 & 0xffff_ffff for word in range(width//32)])

        written, ended = Signal(max=BEATS + 1), Signal()
        self.comb += [
            writer.sink.valid.eq(written != BEATS),
            writer.sink.last.eq(written == BEATS - 1),
            writer.sink.address.eq((written << shift) + BASE),
            writer.sink.data.eq(pattern(written)),
        ]
        self.sync += [
            If(writer.sink.valid & writer.sink.ready, written.eq(written + 1)),
            If(writer.done, ended.eq(1)),
        ]
        ends = []
        for master in (reader, other):
            asked, came = Signal(max=BEATS + 1), Signal(max=BEATS + 1)
            self.comb += [
                master.sink.valid.eq(ended & (asked != BEATS)),
                master.sink.address.eq((asked << shift) + BASE),
                master.source.ready.eq(1),
            ]
            self.sync += [
                If(master.sink.valid & master.sink.ready, asked.eq(asked + 1)),
                If(master.source.valid,
                    came.eq(came + 1),
                    If(master.source.data != pattern(came), self.wrong.eq(self.wrong + 1)),
                )
            ]
            ends.append(came == BEATS)
        self.comb += self.done.eq(ends[0] & ends[1])

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", DATA_WIDTHS)
def test_what_is_written_is_read(width):
    check = Check(width)
    with VerilatedModule(check, {"idle": Signal(name="idle")}, {"done": check.done, "wrong": check.wrong}) as compiled:
        for _ in range(200):
            compiled.step(100)
            if compiled.peek("done"):
                break
        assert compiled.peek("done") and compiled.peek("wrong") == 0
