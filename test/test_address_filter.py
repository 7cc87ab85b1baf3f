#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The filter of unmapped addresses by itself; on the simulated SoC it is in test_link_sim.py."""

from types import SimpleNamespace

import pytest

from litex.gen import *

from litex.soc.integration.soc import SoCRegion
from litex.soc.interconnect import wishbone

from cores.compiled import Compiled

from soc.address_filter import AddressFilter

# Helpers ------------------------------------------------------------------------------------------

REGIONS = {"ram": (0x4000_0000, 0x1000_0000), "rom": (0, 0x2_0000), "csr": (0xf000_0000, 0x1_0000)}
LINKER  = (0x6000_0000, 0x1000) # A region without a slave.


class FilterBench(LiteXModule):
    def __init__(self):
        regions     = {name: SoCRegion(origin=origin, size=size) for name, (origin, size) in (REGIONS | {"linker": LINKER}).items()}
        bus         = SimpleNamespace(data_width=32, address_width=32, regions=regions, slaves={})
        self.master = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        self.filter = AddressFilter(self.master, bus)
        bus.slaves.update(dict.fromkeys(REGIONS)) # As LiteX adds that of the CSRs: when the SoC is finalized.


@pytest.fixture(scope="module")
def address_filter():
    bench  = FilterBench()
    source = bench.filter.source
    return Compiled(bench,
        inputs  = {"cyc": bench.master.cyc, "stb": bench.master.stb, "we": bench.master.we, "adr": bench.master.adr,
            "bus_ack": source.ack, "bus_err": source.err, "bus_dat_r": source.dat_r},
        outputs = {"ack": bench.master.ack, "err": bench.master.err, "dat_r": bench.master.dat_r, "bus_cyc": source.cyc,
            "bus_stb": source.stb, "bus_we": source.we, "bus_adr": source.adr})

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("we", [0, 1])
@pytest.mark.parametrize("origin, size", [*REGIONS.values(), LINKER])
def test_address_filter(address_filter, origin, size, we):
    """First and last word of a region go on to the bus, their neighbours do not, nor does a region that has no slave."""
    for address, inside in ((origin, True), (origin + size - 4, True), ((origin - 4) % 2**32, False), (origin + size, False)):
        passed = inside and (origin, size) != LINKER
        address_filter.poke(cyc=1, stb=1, we=we, adr=address//4, bus_ack=0, bus_err=0, bus_dat_r=0x1234)
        assert (address_filter.peek("bus_cyc"), address_filter.peek("bus_stb")) == (passed, passed)
        assert address_filter.peek("ack") == (not passed) # Nothing is waited for.
        if passed:
            assert (address_filter.peek("bus_adr"), address_filter.peek("bus_we")) == (address//4, we)
        address_filter.poke(bus_ack=1, bus_err=1)
        assert (address_filter.peek("ack"), address_filter.peek("err")) == (1, passed)
        assert address_filter.peek("dat_r") == (0x1234 if passed else 0xffff_ffff)
    address_filter.poke(cyc=0, stb=0, bus_ack=0)
    assert not address_filter.peek("ack")
