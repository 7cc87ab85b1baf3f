#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Memory masters: whatever addresses they are given, no command leaves their region. For ever, by induction.

All masters of the accelerator are made of these two (a test holds it)."""

import re

import pytest

from litedram.common import LiteDRAMNativePort
from litex.soc.interconnect import wishbone

from cores.memory.dma import DMAReader, DMAWriter
from cores.memory.region import Region

from tools.formal import Proof, check, induct, mutant
from tools.paths import ROOT

# Helpers ------------------------------------------------------------------------------------------

REGIONS = { # One that is a power of two, and one that is not, in the middle of its memory.
    "aligned" : Region(0x4100_0000, 0x4200_0000, origin=0x4000_0000),
    "any"     : Region(0x4012_3440, 0x4034_5640, origin=0x4000_0040),
}
DEPTH  = 4
SOURCE = ROOT/"cores"/"memory"/"dma.py"


def native():
    return LiteDRAMNativePort("both", address_width=22, data_width=128)


def reader(region, kind=DMAReader, port=native):
    """Proof of a reader."""
    target = port()
    dut    = kind(target, region, DEPTH)
    proof  = Proof(dut)
    proof.free_all([dut.sink.valid, dut.sink.address, dut.source.ready, dut.flush])
    return proof, dut, target


def writer(region, kind=DMAWriter, port=native, masked=False):
    target = port()
    dut    = kind(target, region, DEPTH, masked)
    proof  = Proof(dut)
    proof.free_all([dut.sink.valid, dut.sink.address, dut.sink.last, dut.sink.data])
    held = dut.buffer.source # What a register says of the address beside it.
    proof.must("inside_is_right", ~held.valid | (held.inside == region.contains(held.address)))
    return proof, dut, target


def stays_inside(proof, target, region):
    """The assertion, for either kind of port; what answers is free."""
    if isinstance(target, LiteDRAMNativePort):
        proof.free_all([target.cmd.ready, target.wdata.ready, target.rdata.valid])
        first, end = (region.base - region.origin) >> 4, (region.limit - region.origin) >> 4
        asks, address = target.cmd.valid, target.cmd.addr
    else:
        proof.free_all([target.ack, target.err, target.dat_r])
        first, end = region.base >> 4, region.limit >> 4
        asks, address = target.cyc & target.stb, target.adr
    proof.must("inside", ~asks | ((address >= first) & (address < end)))
    return proof


def bus():
    return wishbone.Interface(data_width=128, adr_width=28)

# Tests --------------------------------------------------------------------------------------------

def test_masters_are_these():
    """Nothing else in cores/ gives commands to a port of a memory; the arbiter passes on those of its users."""
    drives = re.compile(r"(cmd\.valid|\bstb)\.eq\(")
    assert {str(path.relative_to(ROOT)) for path in (ROOT/"cores").rglob("*.py") if drives.search(path.read_text())} == \
        {"cores/memory/dma.py", "cores/common/wishbone_slice.py", "cores/etherbone/write_filter.py"} # The others: of buses.


@pytest.mark.slow
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("make", [reader, writer])
@pytest.mark.parametrize("port", [native, bus])
def test_no_command_outside(make, region, port):
    def proof():
        result, _, target = make(REGIONS[region], port=port)
        return stays_inside(result, target, REGIONS[region])
    found = check(proof(), 6), induct(proof(), 2) # Not in the assert: pytest gives what is made there names that Verilog has not.
    assert found == (None, None)


@pytest.mark.slow
@pytest.mark.parametrize("make, change", [
    (reader, {"port.cmd.addr.eq(Mux(inside, local, region.base - region.origin >> shift))": "port.cmd.addr.eq(local)"}),
    (writer, {"port.cmd.valid.eq(sink.valid & inside & room)": "port.cmd.valid.eq(sink.valid & room)"}),
    (writer, {"buffer.sink.inside.eq(region.contains(self.sink.address))": "buffer.sink.inside.eq(region.contains(sink.address))"}),
])
def test_mutants(make, change):
    """The proof notices what is broken."""
    kind   = mutant(SOURCE, change)["DMAReader" if make is reader else "DMAWriter"]
    region = REGIONS["any"]
    proof, _, target = make(region, kind)
    assert check(stays_inside(proof, target, region), 6) in ("inside", "inside_is_right")


@pytest.mark.slow
def test_mutant_of_a_region():
    """A limit that is one beat too far."""
    Mutant = mutant(ROOT/"cores"/"memory"/"region.py", {"(address < self.limit)": "(address <= self.limit)"})["Region"]
    wrong  = Mutant(0x4012_3440, 0x4034_5640, origin=0x4000_0040)
    proof, _, target = reader(wrong)
    assert check(stays_inside(proof, target, wrong), 6) == "inside"
