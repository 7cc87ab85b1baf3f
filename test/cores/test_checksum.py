#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The checksum unit, compiled, with a memory of random latency: zlib's CRC-32, and nothing read outside the memory."""

import zlib

import numpy as np
import pytest

from migen import log2_int

from litex.gen import *

from litex.soc.interconnect import csr_bus, wishbone

from litedram.common import LiteDRAMNativePort


from memory_model import MemoryModel

from cores.checksum import Checksum
from cores.memory.region import Region

from operations.config import ALIGNMENT, DATA_WIDTHS

from tools.verilated import VerilatedModule

# Bench --------------------------------------------------------------------------------------------

# The unit may use the upper half of the memory.
MEMORY_ORIGIN = 0x4000_0000
MEMORY_BYTES  = 65536
REGION_ORIGIN = MEMORY_ORIGIN + MEMORY_BYTES//2
REGION_BYTES  = MEMORY_BYTES//2

START, RESET = 1, 2
BUSY, MISALIGNED, OUT_OF_RANGE = 1, 2, 4

class Bench(LiteXModule):
    def __init__(self, bus, width):
        beats = MEMORY_BYTES//(width//8)
        if bus == "native":
            port = LiteDRAMNativePort("read", address_width=log2_int(beats), data_width=width)
        else:
            port = wishbone.Interface(data_width=width, address_width=32, addressing="word")
        self.checksum = Checksum(port, Region(REGION_ORIGIN, REGION_ORIGIN + REGION_BYTES))
        self.memory   = MemoryModel([port], beats, MEMORY_ORIGIN//(width//8), beats//2)
        self.csr      = csr_bus.Interface(data_width=32, address_width=14)
        self.banks    = csr_bus.CSRBankArray(self, lambda name, memory: 0, data_width=32, address_width=14)
        self.interconnect = csr_bus.Interconnect(self.csr, self.banks.get_buses())

class ChecksumBench:
    """The compiled bench and its driver."""
    def __init__(self, bus, width):
        self.beat = width//8
        bench  = Bench(bus, width)
        memory = bench.memory
        self.compiled = VerilatedModule(bench,
            inputs  = {"adr": bench.csr.adr, "re": bench.csr.re, "we": bench.csr.we, "dat_w": bench.csr.dat_w,
                "duty": memory.duty, "address": memory.address, "write": memory.write, "write_data": memory.write_data},
            outputs = {"dat_r": bench.csr.dat_r, "outside": memory.outside, "protocol_error": memory.protocol_error})
        self.registers = {register.name: number for number, register in enumerate(bench.checksum.get_csrs())}

    def start(self, rng, duty=256):
        """Everything as after power-up; the memory holds noise."""
        self.compiled.reset()
        self.compiled.poke(duty=duty)
        self.image = rng.bytes(REGION_BYTES)
        rows  = np.frombuffer(self.image, np.uint64).reshape(-1, self.beat//8)
        beats = len(rows) + np.arange(len(rows))
        self.compiled.run(["dat_r"], address=beats, write_data=rows, write=np.ones(len(rows)))
        self.compiled.poke(write=0)

    def write(self, name, value):
        self.compiled.poke(adr=self.registers[name], dat_w=value, we=1)
        self.compiled.step()
        self.compiled.poke(we=0)
        self.compiled.step(2)

    def read(self, name):
        self.compiled.poke(adr=self.registers[name], re=1)
        self.compiled.step()
        self.compiled.poke(re=0)
        return self.compiled.peek("dat_r")

    def begin(self, address, length):
        self.write("address", address)
        self.write("length",  length)
        self.write("control", START)

    def wait(self, cycles):
        for _ in range(cycles):
            status = self.read("status")
            if not status & BUSY:
                return status
        raise TimeoutError(f"busy after {cycles} cycles")

    def crc(self, offset, length):
        self.begin(REGION_ORIGIN + offset, length)
        assert self.wait(1000 + 100*length//self.beat + 25*length) == 0
        return self.read("crc")


BENCHES = {}

@pytest.fixture(params=[("native", width) for width in DATA_WIDTHS] + [("wishbone", 128)], ids=lambda kind: f"{kind[0]}{kind[1]}")
def bench(request):
    if request.param not in BENCHES:
        BENCHES[request.param] = ChecksumBench(*request.param)
    BENCHES[request.param].start(np.random.default_rng(1))
    return BENCHES[request.param]

# CRC ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("duty", [256, 128, 20])
def test_crc(bench, duty):
    """Random regions, and those that end where the memory ends, are zlib's bits, however the memory stalls."""
    rng = np.random.default_rng(duty)
    bench.start(rng, duty)
    for length in ALIGNMENT*np.array([1, 2, 3, *rng.integers(1, 75, 20), REGION_BYTES//ALIGNMENT]):
        for offset in (ALIGNMENT*int(rng.integers(0, (REGION_BYTES - length)//ALIGNMENT + 1)), REGION_BYTES - int(length)):
            assert bench.crc(offset, int(length)) == zlib.crc32(bench.image[offset:offset + length])
    assert not bench.compiled.peek("outside") and not bench.compiled.peek("protocol_error")


def test_a_word_a_cycle(bench):
    """But for the memory's latency. A Wishbone master takes what the bus gives."""
    bench.begin(REGION_ORIGIN, REGION_BYTES)
    bench.compiled.step(REGION_BYTES//4 + 30)
    assert bench.read("status") == 0
    assert bench.read("crc") == zlib.crc32(bench.image)

# Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("address, length, error", [
    (REGION_ORIGIN + 16,                   64,               MISALIGNED),
    (REGION_ORIGIN,                        80,               MISALIGNED),
    (REGION_ORIGIN,                        0,                MISALIGNED),
    (REGION_ORIGIN - 64,                   128,              OUT_OF_RANGE),
    (REGION_ORIGIN,                        REGION_BYTES + 64, OUT_OF_RANGE),
    (REGION_ORIGIN + REGION_BYTES - 64,    128,              OUT_OF_RANGE),
    (REGION_ORIGIN + REGION_BYTES,         64,               OUT_OF_RANGE),
    (MEMORY_ORIGIN,                        64,               OUT_OF_RANGE),
    (REGION_ORIGIN,                        2**32 - 64,       OUT_OF_RANGE),
    (2**32 - 64,                           2**32 - 64,       OUT_OF_RANGE),
    (REGION_ORIGIN + 64,                   2**32 - 64,       OUT_OF_RANGE), # Wraps to inside.
])
def test_bad_region(bench, address, length, error):
    """Nothing outside is read, and the next start forgets it."""
    bench.begin(address, length)
    assert bench.wait(10000) & error
    assert not bench.compiled.peek("outside")
    assert bench.crc(64, 128) == zlib.crc32(bench.image[64:192])


def test_reset(bench):
    """At any moment; what was under way does not reach the next CRC."""
    for cycles in range(0, 120, 7):
        bench.begin(REGION_ORIGIN, REGION_BYTES)
        bench.compiled.step(cycles)
        bench.write("control", RESET)
        assert bench.wait(200) == 0
        assert bench.crc(64, 192) == zlib.crc32(bench.image[64:256])
    assert not bench.compiled.peek("protocol_error")


def test_start_while_busy(bench):
    """Means nothing."""
    bench.begin(REGION_ORIGIN, REGION_BYTES)
    bench.write("control", START)
    assert bench.wait(10000) == 0
    assert bench.read("crc") == zlib.crc32(bench.image)
