#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py bench``: how fast a device's link and its DRAM are."""

import argparse
import statistics
import time

from typing import Any

import numpy as np

from host.connect import open_device
from host.device.jobs import Job
from host.progress import Progress

from operations.config import ALIGNMENT
from operations.operations import Opcode
from operations.protocol import TABLE_OFFSET

from tools.files import save_json

# Constants ----------------------------------------------------------------------------------------

SEED        = 7
BENCH_BYTES = {True: 128*1024, False: 16*1024*1024} # In the simulation, and on a board.
ROUND_TRIPS = 32

# Benchmark ----------------------------------------------------------------------------------------

def bench(args: argparse.Namespace) -> None:
    """Measure link and DRAM."""
    with open_device(args, args.log) as device, Progress() as progress:
        size    = args.size or BENCH_BYTES[args.transport == "sim"]
        data    = np.random.default_rng(SEED).bytes(size)
        address = device.allocate(size, "the benchmark")
        summary: dict[str, Any] = {"transport": device.transport.name, "bytes": size, "clock_hz": device.info.clock_hz}
        for what, move in (
            ("write", lambda: device.upload(address, data, progress.meter("write", size), resume=False)),
            ("read",  lambda: device.download(address, size, progress.meter("read", size)))):
            begin   = time.perf_counter(), device.cycles()
            move()
            seconds, cycles = time.perf_counter() - begin[0], device.cycles() - begin[1]
            summary |= {f"{what}_bytes_per_second": size/seconds, f"{what}_cycles": cycles}
        trips = []
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            device.read(address, 4)
            trips.append(time.perf_counter() - start)
        region = size//ALIGNMENT*ALIGNMENT
        cycles = device.run(Job(Opcode.CHECKSUM, region=address, region_bytes=region, block_bytes=region,
            table=device.ram + TABLE_OFFSET)).cycles
        summary |= {"round_trip_seconds": statistics.median(trips), "dram_read_cycles": cycles,
            "data_width": device.info.data_width,
            "dram_read_share": 8*region/device.info.data_width/cycles}
    save_json(args.json, summary)
    print(f"{size} bytes by {summary['transport']}, checked by CRCs that the device computes")
    for what in ("write", "read"):
        cycles = summary[f"{what}_cycles"]
        print(f"  {what:<10} {summary[f'{what}_bytes_per_second']/1e6:.3f} MB/s by the clock on the wall; {cycles} of the "
            f"device's cycles, {size/cycles*summary['clock_hz']/1e6:.2f} MB/s at {summary['clock_hz']/1e6:g} MHz")
    print(f"  round trip {1e3*summary['round_trip_seconds']:.2f} ms, median of {ROUND_TRIPS}")
    print(f"  DRAM       {region} bytes read by the device in {summary['dram_read_cycles']} cycles, "
        f"{summary['dram_read_share']:.0%} of a beat of {summary['data_width']//8} bytes a cycle")


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=size_argument, metavar="BYTES",
        help=f"Bytes to move (default: {BENCH_BYTES[True]} in the simulation, {BENCH_BYTES[False]} on a board).")


def size_argument(text: str) -> int:
    """A number of bytes, for argparse."""
    if not text.isdecimal() or not 4096 <= int(text) <= 2**27 or int(text) % ALIGNMENT:
        raise argparse.ArgumentTypeError(f"must be a multiple of {ALIGNMENT} from 4096 to {2**27}, is {text!r}.")
    return int(text)
