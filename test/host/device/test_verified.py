#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Uploads and downloads that the device's checksums verify, over good and bad networks, to a device in software."""

import random
import zlib

import numpy as np
import pytest


from fake_device import RAM_BASE, FakeDevice

from host.device import verified
from host.device.verified import BLOCK_BYTES, TABLE_BLOCKS, ByteCounts
from host.errors import IntegrityError, VersionMismatch

from operations.protocol import DATA_OFFSET

# Helpers ------------------------------------------------------------------------------------------

BASE = RAM_BASE + DATA_OFFSET


def random_bytes(size, seed=1):
    return random.Random(seed).randbytes(size)

# Checksums ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("size, block", [(64, 4096), (4096, 4096), (100_032, 4096), (64*3000, 64), (1 << 20, 1 << 20)])
def test_checksums(booted, size, block):
    data = random_bytes(size)
    booted.fake.store(BASE + 64, data)
    crcs = booted.checksums(BASE + 64, size, block)
    assert crcs.tolist() == [zlib.crc32(data[n:n + block]) for n in range(0, size, block)]


def test_more_checksums_than_tables_hold(booted):
    size = 64*(2*TABLE_BLOCKS + 10)
    data = random_bytes(size)
    booted.fake.store(BASE, data)
    assert booted.checksums(BASE, size, 64).tolist() == [zlib.crc32(data[n:n + 64]) for n in range(0, size, 64)]


@pytest.mark.parametrize("address, size, block, message", [
    (BASE,      80,        4096, "size must be a multiple of 64, is 80."),
    (BASE + 16, 64,        4096, "address must be a multiple of 64, all bytes in the data region .*, is 0x40200010 with 64"),
    (BASE - 64, 64,        4096, "is 0x401fffc0 with 64 bytes."),
    (BASE,      0x20_0040, 4096, "is 0x40200000 with 2097216 bytes."),
    (BASE,      64,        0,    "block must be a multiple of 64 above 0, is 0."),
    (BASE,      64,        80,   "block must be a multiple of 64 above 0, is 80."),
])
def test_bad_regions(booted, address, size, block, message):
    with pytest.raises(ValueError, match=message):
        booted.checksums(address, size, block)


def test_firmware_without_checksums(booted):
    booted.info = booted.info._replace(engines={})
    with pytest.raises(VersionMismatch, match="The device computes no checksums"):
        booted.upload(BASE, bytes(64))

# Upload, Download ---------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 16, BLOCK_BYTES, BLOCK_BYTES + 16, 300_005])
def test_upload_and_download(booted, size):
    data   = random_bytes(size)
    before = booted.fake.ram.copy()
    padded = -(-size//64)*64
    sent   = []
    assert booted.upload(BASE + 64, data, sent.append) == ByteCounts(padded, padded, 0)
    assert sum(sent) == padded
    assert booted.fake.load(BASE + 64, padded) == data.ljust(padded, b"\0")
    start = (BASE + 64 - RAM_BASE)//4
    assert np.array_equal(booted.fake.ram[start + padded//4:], before[start + padded//4:])
    came = []
    assert booted.download(BASE + 64, size, came.append) == data
    assert sum(came) == padded


def test_interrupted_upload_is_resumed(booted):
    """What is there and right is not sent again, whatever order it came in."""
    data = random_bytes(100*BLOCK_BYTES)

    def interrupt(size, left=[40*BLOCK_BYTES]):
        left[0] -= size
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verified.SEGMENT_BLOCKS, before = 8, verified.SEGMENT_BLOCKS
        try:
            booted.upload(BASE, data, interrupt)
        finally:
            verified.SEGMENT_BLOCKS = before
    sent   = []
    result = booted.upload(BASE, data, sent.append)
    assert 0 < result.moved <= 61*BLOCK_BYTES and result.again == 0
    assert sum(sent) == len(data)
    assert booted.fake.load(BASE, len(data)) == data
    assert booted.upload(BASE, data).moved == 0
    assert booted.upload(BASE, data, resume=False).moved == len(data)


def test_one_wrong_bit(booted):
    data = random_bytes(50*BLOCK_BYTES)
    booted.upload(BASE, data)
    booted.fake.ram[(BASE - RAM_BASE)//4 + 7*BLOCK_BYTES//4 + 5] ^= 1 << 9
    assert booted.upload(BASE, data) == ByteCounts(len(data), BLOCK_BYTES, 0)
    assert booted.fake.load(BASE, len(data)) == data


@pytest.mark.parametrize("seed", range(3))
def test_damaged_blocks_are_sent_again(connect, firmware, seed):
    """Bits flip on the way, datagrams are lost, doubled and late: not one wrong byte."""
    data = random_bytes(200_000, seed)
    rng  = random.Random(seed)
    with FakeDevice() as fake, connect(fake, timeout=0.05, patience=10, seed=seed, loss=0.01, duplicate=0.01,
            late=0.01) as device:
        device.boot(firmware)
        write = fake.bus_write

        def damage(address, value):
            write(address, value ^ (address >= BASE and rng.random() < 1e-4) << rng.randrange(32))

        fake.bus_write = damage
        result = device.upload(BASE, data)
        assert fake.load(BASE, len(data)) == data
        assert result.again > 0
        assert device.download(BASE, len(data)) == data


def test_resumed_upload_that_is_no_multiple_of_a_block(booted):
    """What is found on the device is counted by its bytes: the last block is a short one."""
    data = random_bytes(2*BLOCK_BYTES + 64)
    booted.upload(BASE, data)
    for at, moved in ((None, 0), (2*BLOCK_BYTES, 64), (0, BLOCK_BYTES)):
        if at is not None:
            booted.fake.ram[(BASE + at - RAM_BASE)//4] ^= 1
        sent = []
        assert booted.upload(BASE, data, sent.append) == ByteCounts(len(data), moved, 0)
        assert sum(sent) == len(data)
        assert booted.fake.load(BASE, len(data)) == data


def test_repair_that_is_damaged_in_its_address(booted):
    """A block is sent again, and one of its words goes to another block, which was found right before."""
    data   = random_bytes(10*BLOCK_BYTES)
    wrong  = BASE + 7*BLOCK_BYTES + 100
    write  = booted.fake.bus_write
    writes = []

    def damage(address, value):
        if address == wrong:
            writes.append(address)
            if len(writes) == 1:
                value ^= 1 << 4
            elif len(writes) == 2:
                write(BASE + BLOCK_BYTES, ~value & 0xffff_ffff)
        write(address, value)

    booted.fake.bus_write = damage
    result = booted.upload(BASE, data, resume=False)
    assert booted.fake.load(BASE, len(data)) == data
    assert result == ByteCounts(len(data), len(data), 2*BLOCK_BYTES) and len(writes) == 2


def test_memory_that_stays_wrong(booted):
    load = booted.fake.load
    booted.fake.load = lambda address, size: bytes(size) if size == BLOCK_BYTES else load(address, size)
    with pytest.raises(IntegrityError, match="Sent 5 times, 1 blocks of 4096 bytes still differ, the first at 0x40200000"):
        booted.upload(BASE, random_bytes(BLOCK_BYTES))
    with pytest.raises(IntegrityError, match="Read 5 times, 1 blocks"):
        booted.download(BASE, BLOCK_BYTES)


def test_other_jobs_in_between(booted):
    """A transfer leaves the results of jobs submitted before it alone."""
    from host.device.device import Job
    from operations.protocol import Opcode

    indices = [booted.submit(Job(Opcode.NOP)) for _ in range(3)]
    booted.upload(BASE, random_bytes(10_000))
    for index in indices:
        assert booted.wait(index).index == index


def test_reserved(booted):
    """What was loaded is not allocated."""
    booted.reserve(1000)
    assert booted.allocate(16) == BASE + 1024
    booted.free()
    assert booted.allocate(16) == BASE + 1024
