#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py selftest`` and ``bench``: whether a device works, and how fast its link and its DRAM are."""

import argparse
import statistics
import time

import numpy as np

from cores.ssm.config import BEAT_BYTES, ceil_multiple

from host.block import run_block
from host.case import Case
from host.connect import open_device
from host.device import Job, version_string
from host.errors import SelfTestFailed
from host.files import save_json
from host.progress import Progress
from host.verified import BLOCK_BYTES, Checksum, block_checksums

from model.bitexact import ssm_block

from soc.protocol import TABLE_OFFSET, Opcode

# Constants ----------------------------------------------------------------------------------------

SEED         = 7
PLACES       = 8           # Of the data region that the DRAM test writes, from its start to its end.
TEST_BYTES   = {True: 64*1024, False: 4*1024*1024}  # Of DRAM and link, in the simulation and on a board.
BENCH_BYTES  = {True: 128*1024, False: 16*1024*1024}
ROUND_TRIPS  = 32

# Self-Test ----------------------------------------------------------------------------------------

def test_firmware(device, size, progress):
    """The firmware's vectors through the core."""
    result = device.run(Job(Opcode.SELFTEST))
    return f"{result.tiles} head tiles in {result.cycles} cycles"


def test_link(device, size, progress):
    """Words written, each read back by the host."""
    data    = np.random.default_rng(SEED).bytes(size//4)
    address = device.allocate(len(data), "the link test")
    meter   = progress.meter("link", 2*len(data))
    device.write(address, data, progress=meter)
    if device.read(address, len(data), meter) != data:
        raise SelfTestFailed(f"link: {len(data)} bytes at 0x{address:08x} read back differently.")
    statistics = device.transport.statistics
    return f"{len(data)} bytes, {statistics.timeouts} time-outs, {statistics.rewrites} written again"


def test_dram(device, size, progress):
    """Random data, then its complement, in places from the start of the data region to its end; all are then checked."""
    step   = ceil_multiple(size//PLACES, BLOCK_BYTES)
    base   = ceil_multiple(device.allocate(0), BLOCK_BYTES)
    end    = device.info.data_base + device.info.data_size
    places = [base + (end - base - step)//(PLACES - 1)//BLOCK_BYTES*BLOCK_BYTES*n for n in range(PLACES)]
    data   = [np.frombuffer(np.random.default_rng(SEED + n).bytes(step), np.uint8) for n in range(PLACES)]
    meter  = progress.meter("DRAM", 2*step*PLACES)
    for mask in (0, 0xff):
        for place, content in zip(places, data):
            device.upload(place, (content ^ mask).tobytes(), meter, resume=False)
        for place, content in zip(places, data): # An address line that is stuck shows only when all are written.
            if not np.array_equal(device.checksums(place, step, step), block_checksums((content ^ mask).tobytes(), step)):
                raise SelfTestFailed(f"DRAM: {step} bytes at 0x{place:08x} changed when other places were written.")
    return f"{2*step*PLACES} bytes in {PLACES} places"


def test_core(device, size, progress):
    """A case of several heads and tokens, against the bit-accurate model."""
    random = np.random.default_rng(SEED)
    draw   = lambda *shape: random.standard_normal(shape).astype(np.float16)
    config = device.info.config
    P, N   = min(24, config.max_headdim), min(32, config.max_d_state)
    case   = Case(x=draw(3, 4, P), dt=abs(draw(3, 4)), dA=np.exp(-abs(draw(3, 4))), B=draw(3, 2, N), C=draw(3, 2, N), D=draw(4),
        h0=draw(4, P, N))
    expected = ssm_block(case.x, case.dt, case.dA, case.B, case.C, case.D, case.h0, 0 if config.stochastic_rounding else None)
    for mode in ("prefill", "decode"):
        result = run_block(device, case, mode)
        for name, got, wanted in (("y", result.y, expected[0]), ("h", result.h, expected[1])):
            differ = int((got.view(np.uint16) != wanted.view(np.uint16)).sum())
            if differ:
                raise SelfTestFailed(f"core: {differ} of {got.size} values of {name} differ from the bit-accurate model, {mode}.")
    return "y and state of 3 tokens, bit for bit"


TESTS = {"firmware": test_firmware, "link": test_link, "DRAM": test_dram, "core": test_core}


def selftest(args):
    """Test firmware, link, DRAM and core."""
    results = {}
    with open_device(args, args.log) as device, Progress() as progress:
        size = min(TEST_BYTES[args.transport == "sim"], device.info.data_size//2)
        for name, test in TESTS.items():
            results[name] = test(device, size, progress)
            progress.close()
            print(f"{name:<10} passed: {results[name]}", flush=True)
        summary = {
            "passed"    : True,
            "tests"     : results,
            "lanes"     : device.info.lanes,
            "transport" : device.transport.name,
            "firmware"  : version_string(device.info.firmware_version),
        }
    save_json(args.json, summary)

# Benchmark ----------------------------------------------------------------------------------------

def bench(args):
    """Measure link and DRAM."""
    with open_device(args, args.log) as device, Progress() as progress:
        size    = args.size or BENCH_BYTES[args.transport == "sim"]
        data    = np.random.default_rng(SEED).bytes(size)
        address = device.allocate(size, "the benchmark")
        summary = {"transport": device.transport.name, "bytes": size, "clock_hz": device.info.clock_hz}
        for what, move in (
            ("write", lambda: device.upload(address, data, progress.meter("write", size), resume=False)),
            ("read",  lambda: device.download(address, size, progress.meter("read", size)))):
            start   = time.perf_counter(), device.cycles()
            move()
            seconds, cycles = time.perf_counter() - start[0], device.cycles() - start[1]
            summary |= {f"{what}_bytes_per_second": size/seconds, f"{what}_cycles": cycles}
        trips = []
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            device.read(address, 4)
            trips.append(time.perf_counter() - start)
        region = size//BEAT_BYTES*BEAT_BYTES
        cycles = device.run(Checksum(address, region, region, device.ram + TABLE_OFFSET)).cycles
        summary |= {"round_trip_seconds": statistics.median(trips), "dram_read_cycles": cycles,
            "dram_read_share": region/BEAT_BYTES/cycles}
    save_json(args.json, summary)
    print(f"{size} bytes by {summary['transport']}, checked by CRCs that the device computes")
    for what in ("write", "read"):
        cycles = summary[f"{what}_cycles"]
        print(f"  {what:<10} {summary[f'{what}_bytes_per_second']/1e6:.3f} MB/s by the clock on the wall; {cycles} of the "
            f"device's cycles, {size/cycles*summary['clock_hz']/1e6:.2f} MB/s at {summary['clock_hz']/1e6:g} MHz")
    print(f"  round trip {1e3*summary['round_trip_seconds']:.2f} ms, median of {ROUND_TRIPS}")
    print(f"  DRAM       {region} bytes read by the device in {summary['dram_read_cycles']} cycles, "
        f"{summary['dram_read_share']:.0%} of a beat of {BEAT_BYTES} bytes a cycle")


def add_bench_arguments(parser):
    parser.add_argument("--size", type=size_argument, metavar="BYTES",
        help=f"Bytes to move (default: {BENCH_BYTES[True]} in the simulation, {BENCH_BYTES[False]} on a board).")


def size_argument(text):
    """A number of bytes, for argparse."""
    if not text.isdecimal() or not 4096 <= int(text) <= 2**27 or int(text) % BEAT_BYTES:
        raise argparse.ArgumentTypeError(f"must be a multiple of {BEAT_BYTES} from 4096 to {2**27}, is {text!r}.")
    return int(text)
