#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Transfers that are verified end to end: the device computes the CRC-32 of each block where it lies in its DRAM.

    upload    which blocks differ? --> send them --> which still differ? --> send those again ...
    download  read; meanwhile the device computes the CRCs; read again the blocks that differ

The link only has to bring most of the blocks. While a segment is under way, the device checks the one before.
"""

import zlib

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from host.device.jobs import Job
from host.errors import IntegrityError, VersionMismatch
from host.link.transport import Meter

from operations.config import ALIGNMENT, ceil_multiple
from operations.operations import Engine, Opcode
from operations.protocol import TABLE_OFFSET, TABLE_SIZE

if TYPE_CHECKING: # Which itself imports this file.
    from host.device.device import Device

# Constants ----------------------------------------------------------------------------------------

BLOCK_BYTES    = 4096 # What is sent again where a bit is wrong. Its CRC costs 0.1 % of the link's bytes.
SEGMENT_BLOCKS = 256  # Blocks that are sent, or read, in one go.
ATTEMPTS       = 5    # Times that a block is sent, or read, before the link is given up.
TABLES         = 2    # Tables on the device: one is read while the next is written.
TABLE_BLOCKS   = TABLE_SIZE//TABLES//ALIGNMENT*ALIGNMENT//4

# Byte Counts --------------------------------------------------------------------------------------

@dataclass
class ByteCounts:
    """What a transfer took, in bytes."""
    size  : int = 0 # Asked for.
    moved : int = 0 # Sent or read the first time; of an upload, what is not here was right on the device before.
    again : int = 0 # Sent or read again.

    def __add__(self, other: "ByteCounts") -> "ByteCounts":
        return ByteCounts(self.size + other.size, self.moved + other.moved, self.again + other.again)

# Checksums ----------------------------------------------------------------------------------------

class _Checks:
    """Checksums under way, in order: :meth:`start` some blocks, :meth:`result` of the oldest ones."""
    def __init__(self, device: "Device", address: int, size: int, block: int):
        self.device, self.address, self.size, self.block = device, address, size, block
        self.started   = 0
        self.under_way: list[tuple[int, int, int, int]] = [] # Job, first block, blocks, table.

    @property
    def full(self) -> bool:
        return len(self.under_way) == TABLES

    def start(self, first: int, count: int) -> None:
        """Have the device compute the CRCs of `count` blocks, TABLE_BLOCKS at most."""
        table  = self.device.ram + TABLE_OFFSET + self.started%TABLES*TABLE_SIZE//TABLES
        offset = first*self.block
        index  = self.device.submit(Job(Opcode.CHECKSUM,
            region       = self.address + offset,
            region_bytes = min(count*self.block, self.size - offset),
            block_bytes  = self.block,
            table        = table))
        self.under_way.append((index, first, count, table))
        self.started += 1

    def result(self) -> tuple[int, np.ndarray]:
        """(first block, CRCs) of the blocks started first."""
        index, first, count, table = self.under_way.pop(0)
        self.device.wait(index)
        return first, self.device.transport.read_words(table, count)


def _check(device: "Device", address: int, size: int, block: int) -> None:
    if Engine.CHECKSUM not in device.info.engines:
        raise VersionMismatch("The device computes no checksums: load gateware and firmware that belong to this host.")
    if block <= 0 or block % ALIGNMENT:
        raise ValueError(f"block must be a multiple of {ALIGNMENT} above 0, is {block}.")
    base, end = device.info.data_base, device.info.data_base + device.info.data_size
    if address % ALIGNMENT or not base <= address <= end - ceil_multiple(size, ALIGNMENT):
        raise ValueError(f"address must be a multiple of {ALIGNMENT}, all bytes in the data region 0x{base:x} to 0x{end:x}, is "
            f"0x{address:x} with {size} bytes.")


def checksums(device: "Device", address: int, size: int, block: int = BLOCK_BYTES) -> np.ndarray:
    """CRC-32 (zlib's) of each block of a part of the data region, as the device computes it: a numpy.uint32 array.

    Parameters
    ----------
    address, size : in bytes, multiples of ALIGNMENT.
    block         : bytes of a block, likewise; the last one may be shorter.
    """
    if size % ALIGNMENT:
        raise ValueError(f"size must be a multiple of {ALIGNMENT}, is {size}.")
    _check(device, address, size, block)
    blocks = -(-size//block)
    result = np.zeros(blocks, np.uint32)
    checks = _Checks(device, address, size, block)
    for first in range(0, blocks, TABLE_BLOCKS):
        if checks.full:
            _store(result, checks)
        checks.start(first, min(TABLE_BLOCKS, blocks - first))
    while checks.under_way:
        _store(result, checks)
    return result


def _store(result: np.ndarray, checks: _Checks) -> None:
    first, crcs = checks.result()
    result[first:first + len(crcs)] = crcs


def block_checksums(data: bytes | bytearray | memoryview, block: int = BLOCK_BYTES) -> np.ndarray:
    """The same of bytes that the host has."""
    return np.array([zlib.crc32(data[n:n + block]) for n in range(0, len(data), block)], np.uint32)


def _runs(mask: np.ndarray, limit: int = SEGMENT_BLOCKS) -> Iterator[tuple[int, int]]:
    """(first, count) of the runs of True, cut into pieces of `limit`."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
        for first in range(start, end, limit):
            yield first, min(limit, end - first)


def _move(checks: _Checks, wrong: np.ndarray, good: Callable[[int, int], np.ndarray], move: Callable[[int, int], None]) -> None:
    """Call `move(first, count)` for the blocks that are `wrong`, and mark those whose CRCs are then as `good` says."""
    def settle() -> None:
        first, crcs = checks.result()
        wrong[first:first + len(crcs)] = crcs != good(first, len(crcs))

    for first, count in list(_runs(wrong)):
        move(first, count)
        if checks.full:
            settle()
        checks.start(first, count)
    while checks.under_way:
        settle()


def _finish(address: int, wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        block = address + int(np.flatnonzero(wrong)[0])*BLOCK_BYTES
        raise IntegrityError(f"{what} {ATTEMPTS} times, {int(wrong.sum())} blocks of {BLOCK_BYTES} bytes still differ, the "
            f"first at 0x{block:08x}: check the cable, the network and the device's memory.")

def _troubles(device: "Device") -> tuple[int, int]:
    """Changes when something on the link went wrong."""
    statistics = device.transport.statistics
    return statistics.timeouts, statistics.rewrites

# Upload -------------------------------------------------------------------------------------------

def upload(device: "Device", address: int, data: bytes | memoryview, progress: Meter | None = None,
           resume: bool = True) -> ByteCounts:
    """Write `data` to the data region, verified by CRCs that the device computes, without reading it back.

    Parameters
    ----------
    address  : a multiple of ALIGNMENT.
    data     : bytes; what is missing of the last ALIGNMENT ones is written as zeros.
    progress : called with a number of bytes as they are sent, or found on the device; they add up to len(data), padded.
    resume   : ask first which blocks are there and right, as after an interrupted upload, and do not send those.

    Returns
    -------
    :class:`ByteCounts`.

    Raises
    ------
    IntegrityError : some blocks are still wrong after ATTEMPTS.
    """
    progress = progress or (lambda size: None)
    if len(data) % ALIGNMENT: # Else it is not copied: it may be a whole model.
        data = bytes(data).ljust(ceil_multiple(len(data), ALIGNMENT), b"\0")
    _check(device, address, len(data), BLOCK_BYTES)
    result = ByteCounts(len(data))
    if not data:
        return result
    crcs   = block_checksums(data)
    wrong  = np.ones(len(crcs), bool)
    if resume:
        wrong = checksums(device, address, len(data)) != crcs
        sizes = np.full(len(crcs), BLOCK_BYTES)
        sizes[-1] = len(data) - (len(crcs) - 1)*BLOCK_BYTES
        if there := int(sizes[~wrong].sum()):
            progress(there)

    def send(first: int, count: int) -> None:
        part = bytes(data[first*BLOCK_BYTES:(first + count)*BLOCK_BYTES])
        device.transport.load_bytes(address + first*BLOCK_BYTES, part, None if attempt else progress)
        if attempt:
            result.again += len(part)
        else:
            result.moved += len(part)

    checks   = _Checks(device, address, len(data), BLOCK_BYTES)
    troubles = _troubles(device)
    for attempt in range(ATTEMPTS):
        _move(checks, wrong, lambda first, count: crcs[first:first + count], send)
        if result.again or _troubles(device) != troubles: # What was damaged in its address has written somewhere else.
            troubles = _troubles(device)
            wrong    = checksums(device, address, len(data)) != crcs
        if not wrong.any():
            break
    _finish(address, wrong, "Sent")
    return result

# Download -----------------------------------------------------------------------------------------

def download(device: "Device", address: int, size: int, progress: Meter | None = None) -> bytes:
    """`size` bytes of the data region from `address` on, a multiple of ALIGNMENT, verified by CRCs that the device computes.

    Raises
    ------
    IntegrityError : some blocks still differ after ATTEMPTS; also when the device writes them meanwhile.
    """
    padded = ceil_multiple(size, ALIGNMENT)
    _check(device, address, padded, BLOCK_BYTES)
    if not size:
        return b""
    data   = bytearray(padded)
    wrong  = np.ones(-(-padded//BLOCK_BYTES), bool)
    checks = _Checks(device, address, padded, BLOCK_BYTES)

    def receive(first: int, count: int) -> None:
        start = first*BLOCK_BYTES
        end   = min(start + count*BLOCK_BYTES, padded)
        data[start:end] = device.read(address + start, end - start, None if attempt else progress)

    def crcs(first: int, count: int) -> np.ndarray:
        return block_checksums(data[first*BLOCK_BYTES:(first + count)*BLOCK_BYTES])

    for attempt in range(ATTEMPTS):
        if not wrong.any():
            break
        _move(checks, wrong, crcs, receive)
    _finish(address, wrong, "Read")
    return bytes(data[:size])
