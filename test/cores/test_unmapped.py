#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Unmapped addresses on LiteX's bus with a few slaves; on the simulated SoC they are in test_link_sim.py."""

import pytest

from litex.gen import *

from litex.soc.integration.soc import SoCBusHandler, SoCRegion
from litex.soc.interconnect import wishbone

from soc.accelerator import add_unmapped

from tools.verilated import VerilatedModule

# Helpers ------------------------------------------------------------------------------------------

REGIONS = {"ram": (0x4000_0000, 0x1000_0000), "rom": (0, 0x2_0000), "csr": (0xf000_0000, 0x1_0000)}
LINKER  = (0x6000_0000, 0x1000) # A region without a slave.


class BusBench(LiteXModule):
    """Slaves that acknowledge in the cycle after, and read as their own origin."""
    def __init__(self):
        self.bus    = bus = SoCBusHandler()
        self.master = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        self.second = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        bus.add_master("master", self.master)
        bus.add_master("second", self.second)
        bus.add_region("linker", SoCRegion(origin=LINKER[0], size=LINKER[1], linker=True))
        add_unmapped(self)
        for name, (origin, size) in REGIONS.items(): # More may come after it.
            slave = wishbone.Interface(data_width=32, address_width=32, addressing="word")
            bus.add_slave(name, slave, SoCRegion(origin=origin, size=size))
            self.comb += slave.dat_r.eq(origin)
            self.sync += slave.ack.eq(slave.cyc & slave.stb & ~slave.ack)

    def add_module(self, name, module):
        setattr(self, name, module)


@pytest.fixture(scope="module")
def bench():
    bench = BusBench()
    return VerilatedModule(bench,
        inputs  = {"cyc": bench.master.cyc, "stb": bench.master.stb, "we": bench.master.we, "adr": bench.master.adr},
        outputs = {"ack": bench.master.ack, "err": bench.master.err, "dat_r": bench.master.dat_r})

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("we", [0, 1])
@pytest.mark.parametrize("origin, size", [*REGIONS.values(), LINKER])
def test_unmapped(bench, origin, size, we):
    """First and last word of a region are its slave's, their neighbours nobody's, nor is a region that has no slave."""
    for address, inside in ((origin, True), (origin + size - 4, True), ((origin - 4) % 2**32, False), (origin + size, False)):
        mapped = inside and (origin, size) != LINKER
        bench.poke(cyc=1, stb=1, we=we, adr=address//4)
        for cycle in range(8):
            if bench.peek("ack"):
                break
            bench.step()
        assert 1 <= cycle <= 4, "no answer in four cycles"
        assert bench.peek("dat_r") == (origin if mapped else 0) and not bench.peek("err")
        bench.step()
        bench.poke(cyc=0, stb=0)
        bench.step(2)
        assert not bench.peek("ack")
