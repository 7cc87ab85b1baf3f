#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Runs a case on the device: packs and streams the inputs, runs the jobs, streams the results back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from host.device.case import Case
from host.device.device import Device, Result, version_string
from host.device.jobs import Job, ssm_job
from host.errors import DeviceError

from operations.config import check_range
from operations.ssm import Geometry, pack_bc, pack_state, pack_x, unpack_state, unpack_y

# Constants ----------------------------------------------------------------------------------------

MODES  = ("prefill", "decode")
Report = Callable[[str, int, int], None] # Called as report(what, done, total).

# Results ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class BlockResult:
    """y (T, H, P), h (H, P, N) and a summary ready for JSON."""
    y       : np.ndarray
    h       : np.ndarray
    summary : dict = field(default_factory=dict)

# Run ----------------------------------------------------------------------------------------------

def run_block(device: Device, case: Case, mode: str = "prefill", progress: Report | None = None,
              seed: int = 0, store_every: int = 1) -> BlockResult:
    """Run a :class:`~host.device.case.Case` on a booted device.

    Parameters
    ----------
    mode     : "prefill": one job for all tokens. "decode": one job a token, as many as the ring holds submitted ahead; the
               state is kept in the device's DRAM, or on chip where the device was built to hold as many tiles.
    progress : Called as progress(what, done, total) with bytes streamed or jobs done.
    seed     : Of the first token, on a device that rounds the state stochastically; 0 .. 2**32 - 1.
    store_every : "decode" only: the state goes to DRAM at each so many-th token, and at the last one. The tokens between
               are run again on chip from the stored state, by the jobs that follow; the bits are the same.

    Returns
    -------
    BlockResult

    Raises
    ------
    DeviceError, DeviceTimeout, AllocationError, LinkError
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, is {mode!r}.")
    check_store_every(store_every, device.info.max_tokens)
    if store_every > 1 and mode != "decode":
        raise ValueError(f"store_every must be 1 with mode = {mode!r}, is {store_every}; mode = 'decode' takes others.")
    geometry = Geometry(device.info.config, case.heads, case.headdim, case.d_state, case.groups)
    verified = device.transport.statistics.verified_bytes
    records  = {
        "x"  : pack_x(geometry, case.x, case.dt, case.dA, case.D),
        "BC" : pack_bc(geometry, case.B, case.C),
    }
    y_bytes     = case.tokens*geometry.heads*geometry.y_record_bytes
    state_bytes = geometry.heads*geometry.tile_bytes
    if case.h0 is not None:
        records["h0"] = pack_state(geometry, case.h0)

    # What the host writes the device only reads: a copy of a write that the network delivers late then harms nothing.
    device.free()
    address = {name: device.allocate(len(data), f"{name} of {case.tokens} tokens") for name, data in records.items()}
    address["y"]     = device.allocate(y_bytes, f"y of {case.tokens} tokens")
    address["state"] = device.allocate(state_bytes, "the state")
    meter = _Meter(progress, sum(map(len, records.values())), "upload")
    for name, data in records.items():
        device.write(address[name], data, progress=meter)

    before  = device.counters()
    results = _run_jobs(device, list(_jobs(geometry, case, mode, address, seed, store_every)), progress)

    after   = device.counters()

    meter = _Meter(progress, y_bytes + state_bytes, "download")
    y = unpack_y(geometry,     device.read(address["y"],     y_bytes,     meter))
    h = unpack_state(geometry, device.read(address["state"], state_bytes, meter))
    cycles = sum(result.cycles for result in results)
    read, written = sum(result.bytes_read for result in results), sum(result.bytes_written for result in results)
    busy   = (after["port_cycles"] - before["port_cycles"]) % 2**64
    return BlockResult(y, h, {
        "mode"             : mode,
        "store_every"      : store_every if mode == "decode" else None,
        "tokens"           : case.tokens,
        "cycles"           : cycles,
        "cycles_per_token" : cycles/case.tokens,
        "per_token_cycles" : [result.cycles for result in results] if mode == "decode" else None,
        "lane_busy_cycles" : sum(result.busy_cycles for result in results),
        "dma_read_bytes"   : read,
        "dma_write_bytes"  : written,
        "port_cycles"      : busy,
        "dram_share"       : 8*(read + written)/device.info.data_width/busy if busy else 0.0,
        "wait_cycles"      : {name.removeprefix("wait_"): (after[name] - before[name]) % 2**64
            for name in before if name.startswith("wait_")},
        "not_finite"       : {"y": _not_finite(y), "h": _not_finite(h)},
        "clock_hz"         : device.info.clock_hz,
        "data_width"       : device.info.data_width,
        "lanes"            : device.info.lanes,
        "rounding"         : "stochastic" if geometry.config.stochastic_rounding else "nearest",
        "transport"        : device.transport.name,
        "firmware"         : version_string(device.info.firmware_version),
        "gateware"         : version_string(device.info.gateware_version),
        "bytes_streamed"   : sum(map(len, records.values())) + y_bytes + state_bytes,
        "bytes_verified"   : device.transport.statistics.verified_bytes - verified,
    })


def _not_finite(array: np.ndarray) -> int:
    """Values that are infinite or NaN."""
    return int(np.count_nonzero(~np.isfinite(array)))


def check_store_every(store_every: int, max_tokens: int) -> None:
    """Raise ValueError unless a job can run again as many tokens."""
    check_range("store_every", store_every, 1, max_tokens)


def _jobs(geometry: Geometry, case: Case, mode: str, address: dict[str, int], seed: int, store_every: int) -> Iterator[Job]:
    """The jobs of a case, in order. Each starts from the state that was stored last."""
    chunk  = case.tokens if mode == "prefill" else 1
    state  = address["state"]
    source = address.get("h0", state) # Where the stored state lies,
    stored = 0                        # and the tokens that are in it.
    keep   = mode == "decode" and store_every == 1 and geometry.heads <= geometry.config.resident_tiles # On chip.
    for first in range(0, case.tokens, chunk):
        end    = first + chunk
        store  = end == case.tokens or (end - stored >= store_every and not keep)
        yield ssm_job(geometry, end - stored,
            x           = address["x"]  + stored*geometry.heads *geometry.x_record_bytes,
            bc          = address["BC"] + stored*geometry.groups*geometry.bc_record_bytes,
            y           = address["y"]  + stored*geometry.heads *geometry.y_record_bytes,
            state_in    = source,
            state_out   = state,
            first_token = first - stored,
            zero_state  = stored == 0 and case.h0 is None,
            store       = store,
            resident    = keep and first > 0,
            seed        = seed + stored)
        if store:
            source = state
        if store or keep:
            stored = end


def _run_jobs(device: Device, jobs: Sequence[Job], progress: Report | None) -> list[Result]:
    """Submit jobs as far ahead as the ring allows; their results. A failed one stops the submission."""
    indices: list[int]    = []
    results: list[Result] = []
    ahead   = device.info.ring_entries
    try:
        while len(results) < len(jobs):
            under_way = len(indices) - len(results)
            if under_way <= ahead//2: # Half a ring at a time, so that the device need not wait for each doorbell.
                indices += device.submit_all(jobs[len(indices):len(indices) + ahead - under_way])
            results.append(device.wait(indices[len(results)]))
            _report(progress, "jobs", len(results), len(jobs))
    except DeviceError:
        device.drain()
        raise
    return results

# Progress -----------------------------------------------------------------------------------------

class _Meter:
    """Adds up the bytes of batches."""
    def __init__(self, progress: Report | None, total: int, what: str):
        self.progress = progress
        self.total    = total
        self.what     = what
        self.done     = 0

    def __call__(self, size: int) -> None:
        self.done += size
        _report(self.progress, self.what, self.done, self.total)


def _report(progress: Report | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
