#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The firmware's opcode CHECKSUM, compiled for the host against a fake SoC."""

import struct
import zlib

import numpy as np
import pytest


from native import build as native
from native.device import DATA_BASE, RAM_BASE, RAM_END, Device

from operations.config import ALIGNMENT, SSMConfig
from operations.protocol import TABLE_OFFSET, TABLE_SIZE, Error, JobFlag, Opcode, Status

# Fixtures -----------------------------------------------------------------------------------------

TABLE      = RAM_BASE + TABLE_OFFSET
TABLE_END  = TABLE + TABLE_SIZE
DATA_BYTES = RAM_END - DATA_BASE


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    device = Device(native.build(str(tmp_path_factory.mktemp("native")), SSMConfig()))
    yield device
    device.close()


@pytest.fixture
def device(driver):
    driver.power_up()
    return driver

# Helpers ------------------------------------------------------------------------------------------

def checksum(device, region=DATA_BASE, region_bytes=4096, block_bytes=1024, table=TABLE, **words):
    return device.run(opcode=Opcode.CHECKSUM, region=region, region_bytes=region_bytes, block_bytes=block_bytes,
        table=table, **words)


def assert_fails(result, error, detail):
    assert (Error(result["error"]), result["error_detail"], Status(result["status"])) == (error, detail, Status.FAILED)

# Checksums ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(8))
def test_table(device, seed):
    """Each block's CRC-32, the last block being shorter; the rest of the tables is left alone."""
    rng    = np.random.default_rng(seed)
    size   = ALIGNMENT*int(rng.integers(1, 500))
    block  = ALIGNMENT*int(rng.integers(1, 80))
    blocks = -(-size//block)
    region = DATA_BASE + ALIGNMENT*int(rng.integers(0, (DATA_BYTES - size)//ALIGNMENT + 1))
    table  = TABLE + ALIGNMENT*int(rng.integers(0, (TABLE_SIZE - 4*blocks)//ALIGNMENT + 1))
    data   = rng.bytes(size)
    device.write(region, data)
    before = rng.bytes(TABLE_SIZE)
    device.write(TABLE, before)
    result = checksum(device, region, size, block, table)
    assert (Error(result["error"]), Status(result["status"])) == (Error.NONE, Status.DONE)
    crcs   = struct.pack(f"<{blocks}I", *(zlib.crc32(data[n:n + block]) for n in range(0, size, block)))
    offset = table - TABLE
    assert device.read(TABLE, TABLE_SIZE) == before[:offset] + crcs + before[offset + len(crcs):]
    assert device.read(region, size) == data
    assert (result["units"], result["bytes_read_low"]) == (blocks, size)
    assert 0 < result["busy_cycles_low"] < result["cycles_low"]


def test_exact_fit(device):
    """A region may end with the data region, a table with the tables; a block may be larger than the region."""
    assert checksum(device, RAM_END - 4*ALIGNMENT, 4*ALIGNMENT, ALIGNMENT, TABLE_END - ALIGNMENT)["status"] == Status.DONE
    assert checksum(device, DATA_BASE, DATA_BYTES, 2**32 - ALIGNMENT)["status"]    == Status.DONE


def test_behind_a_run(device):
    """In the order rung for, with jobs of other kinds."""
    for index in range(4):
        device.post(index, opcode=(Opcode.CHECKSUM, Opcode.NOP)[index % 2], **({} if index % 2 else
            dict(region=DATA_BASE, region_bytes=256, block_bytes=64, table=TABLE + 64*index)))
    device.ring(4)
    for index in range(4):
        device.poll()
        assert device.result(index)["status"] == Status.DONE
    assert device.read(TABLE, 16) == device.read(TABLE + 128, 16) == struct.pack("<I", zlib.crc32(bytes(64)))*4

# Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("error, word, value", [
    (Error.BAD_SIZE,      "region_bytes", 0),
    (Error.BAD_SIZE,      "region_bytes", 4095),
    (Error.BAD_SIZE,      "block_bytes",  0),
    (Error.BAD_SIZE,      "block_bytes",  ALIGNMENT//2),
    (Error.BAD_ALIGNMENT, "region",       DATA_BASE + ALIGNMENT//2),
    (Error.BAD_ALIGNMENT, "table",        TABLE + ALIGNMENT//2),
    (Error.BAD_FLAGS,     "flags",        JobFlag.ZERO_STATE),
    *((Error.BAD_ADDRESS, "region", address) for address in (0, TABLE, DATA_BASE - ALIGNMENT, RAM_END - 4096 + ALIGNMENT, RAM_END,
        2**32 - ALIGNMENT)),
    *((Error.BAD_ADDRESS, "table",  address) for address in (0, TABLE - ALIGNMENT, TABLE_END, DATA_BASE, 2**32 - ALIGNMENT)),
])
def test_bad_word(device, error, word, value):
    """Refused; nothing is written, and the next job runs."""
    assert_fails(checksum(device, **{word: value}), error, value)
    assert device.read(TABLE, TABLE_SIZE) == bytes(TABLE_SIZE)
    assert checksum(device)["status"] == Status.DONE


@pytest.mark.parametrize("size, block, table, error, detail", [
    (ALIGNMENT*(TABLE_SIZE//4 + 16), ALIGNMENT, TABLE,                 Error.BAD_ADDRESS, TABLE), # More blocks than they hold.
    (17*ALIGNMENT,                   ALIGNMENT, TABLE_END - ALIGNMENT, Error.BAD_ADDRESS, TABLE_END - ALIGNMENT),
    (2**32 - ALIGNMENT,              ALIGNMENT, TABLE,                 Error.BAD_ADDRESS, DATA_BASE),
])
def test_too_many_blocks(device, size, block, table, error, detail):
    assert_fails(checksum(device, DATA_BASE, size, block, table), error, detail)
    assert device.read(TABLE, TABLE_SIZE) == bytes(TABLE_SIZE)


def test_unit_that_hangs(device):
    """A time-out of the firmware's own; the unit is reset, and works again."""
    device.set(hang=1, access_cycles=1000)
    assert_fails(checksum(device), Error.TIMEOUT, 1)
    device.set(hang=0)
    assert checksum(device)["status"] == Status.DONE


def test_unit_that_stays_busy(device):
    """A reset that does not end fails this job and the next, in bounded time."""
    device.set(hang=1, stuck=1, access_cycles=1000)
    for _ in range(2):
        assert_fails(checksum(device), Error.TIMEOUT, 1)


def test_time_out_of_the_job(device):
    assert_fails(checksum(device, region_bytes=DATA_BYTES, block_bytes=DATA_BYTES, timeout=1000), Error.TIMEOUT, 1)
    assert checksum(device)["status"] == Status.DONE


def test_reboot_request_ends_it(device):
    device.set(hang=1)
    device.csr("mailbox_boot", 2**32 - 1)
    assert_fails(checksum(device), Error.TIMEOUT, 1)


@pytest.mark.parametrize("errors", [2, 4])
def test_unit_that_refuses(device, errors):
    """It was built for another memory than the firmware."""
    device.set(checksum_errors=errors)
    assert_fails(checksum(device), Error.GATEWARE, errors)
    assert checksum(device)["status"] == Status.DONE
