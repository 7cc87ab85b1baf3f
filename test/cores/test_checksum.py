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

from operations.config import BEAT_BYTES

from tools.verilated import VerilatedModule

# Bench --------------------------------------------------------------------------------------------

# The unit may use the upper half of the memory.
MEMORY_ORIGIN = 0x4000_0000
MEMORY_BEATS  = 4096
REGION_ORIGIN = MEMORY_ORIGIN + MEMORY_BEATS//2*BEAT_BYTES
REGION_BYTES  = MEMORY_BEATS//2*BEAT_BYTES

START, RESET = 1, 2
BUSY, MISALIGNED, OUT_OF_RANGE = 1, 2, 4

class Bench(LiteXModule):
    def __init__(self, bus):
        if bus == "native":
            port = LiteDRAMNativePort("read", address_width=log2_int(MEMORY_BEATS), data_width=128)
        else:
            port = wishbone.Interface(data_width=128, address_width=32, addressing="word")
        self.checksum = Checksum(port, REGION_ORIGIN, REGION_BYTES)
        self.memory   = MemoryModel([port], MEMORY_BEATS, MEMORY_ORIGIN//BEAT_BYTES, MEMORY_BEATS//2)
        self.csr      = csr_bus.Interface(data_width=32, address_width=14)
        self.banks    = csr_bus.CSRBankArray(self, lambda name, memory: 0, data_width=32, address_width=14)
        self.interconnect = csr_bus.Interconnect(self.csr, self.banks.get_buses())

class ChecksumBench:
    """The compiled bench and its driver."""
    def __init__(self, bus):
        bench  = Bench(bus)
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
        rows  = np.frombuffer(self.image, np.uint64).reshape(-1, 2)
        beats = MEMORY_BEATS//2 + np.arange(len(rows))
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
        assert self.wait(1000 + 100*length//BEAT_BYTES) == 0
        return self.read("crc")


BENCHES = {}

@pytest.fixture(params=["native", "wishbone"])
def bench(request):
    if request.param not in BENCHES:
        BENCHES[request.param] = ChecksumBench(request.param)
    BENCHES[request.param].start(np.random.default_rng(1))
    return BENCHES[request.param]

# CRC ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("duty", [256, 128, 20])
def test_crc(bench, duty):
    """Random regions, and those that end where the memory ends, are zlib's bits, however the memory stalls."""
    rng = np.random.default_rng(duty)
    bench.start(rng, duty)
    for length in (16, 32, 48, *16*rng.integers(1, 300, 20), REGION_BYTES):
        for offset in (16*int(rng.integers(0, (REGION_BYTES - length)//16 + 1)), REGION_BYTES - int(length)):
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
    (REGION_ORIGIN + 8,                    16,               MISALIGNED),
    (REGION_ORIGIN,                        24,               MISALIGNED),
    (REGION_ORIGIN,                        0,                MISALIGNED),
    (REGION_ORIGIN - 16,                   32,               OUT_OF_RANGE),
    (REGION_ORIGIN,                        REGION_BYTES + 16, OUT_OF_RANGE),
    (REGION_ORIGIN + REGION_BYTES - 16,    32,               OUT_OF_RANGE),
    (REGION_ORIGIN + REGION_BYTES,         16,               OUT_OF_RANGE),
    (MEMORY_ORIGIN,                        16,               OUT_OF_RANGE),
    (REGION_ORIGIN,                        2**32 - 16,       OUT_OF_RANGE),
    (2**32 - 16,                           2**32 - 16,       OUT_OF_RANGE),
    (REGION_ORIGIN + 16,                   2**32 - 16,       OUT_OF_RANGE), # Wraps to inside.
])
def test_bad_region(bench, address, length, error):
    """Nothing outside is read, and the next start forgets it."""
    bench.begin(address, length)
    assert bench.wait(10000) & error
    assert not bench.compiled.peek("outside")
    assert bench.crc(32, 64) == zlib.crc32(bench.image[32:96])


def test_reset(bench):
    """At any moment; what was under way does not reach the next CRC."""
    for cycles in range(0, 120, 7):
        bench.begin(REGION_ORIGIN, REGION_BYTES)
        bench.compiled.step(cycles)
        bench.write("control", RESET)
        assert bench.wait(200) == 0
        assert bench.crc(16, 160) == zlib.crc32(bench.image[16:176])
    assert not bench.compiled.peek("protocol_error")


def test_start_while_busy(bench):
    """Means nothing."""
    bench.begin(REGION_ORIGIN, REGION_BYTES)
    bench.write("control", START)
    assert bench.wait(10000) == 0
    assert bench.read("crc") == zlib.crc32(bench.image)
