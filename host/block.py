#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Runs a case on the device: packs and streams the inputs, runs the jobs, streams the results back."""

from dataclasses import dataclass, field

from cores.ssm.config import BEAT_BYTES, Geometry
from cores.ssm.layout import pack_bc, pack_state, pack_x, unpack_state, unpack_y

from host.device import Job, version_string
from host.errors import DeviceError

from soc.protocol import JobFlag, Opcode

# Constants ----------------------------------------------------------------------------------------

MODES = ("prefill", "decode")

# Results ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class BlockResult:
    """y (T, H, P), h (H, P, N) and a summary ready for JSON."""
    y       : object
    h       : object
    summary : dict = field(default_factory=dict)

# Run ----------------------------------------------------------------------------------------------

def run_block(device, case, mode="prefill", progress=None, seed=0):
    """Run a :class:`~host.case.Case` on a booted device.

    Parameters
    ----------
    mode     : "prefill": one job for all tokens. "decode": one job a token, the state kept in the device's DRAM; as
               many jobs as the ring holds are submitted ahead.
    progress : Called as progress(what, done, total) with bytes streamed or jobs done.
    seed     : Of the first token, on a device that rounds the state stochastically; 0 .. 2**32 - 1.

    Returns
    -------
    BlockResult

    Raises
    ------
    DeviceError, DeviceTimeout, AllocationError, LinkError
    """
    if mode not in MODES:
        raise ValueError(f"mode = {mode!r} is not allowed: one of {', '.join(MODES)} is.")
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

    results = _run_jobs(device, list(_jobs(geometry, case, mode, address, seed)), progress)

    meter = _Meter(progress, y_bytes + state_bytes, "download")
    y = unpack_y(geometry,     device.read(address["y"],     y_bytes,     meter))
    h = unpack_state(geometry, device.read(address["state"], state_bytes, meter))
    cycles = sum(result.cycles for result in results)
    return BlockResult(y, h, {
        "mode"             : mode,
        "tokens"           : case.tokens,
        "cycles"           : cycles,
        "cycles_per_token" : cycles/case.tokens,
        "per_token_cycles" : [result.cycles for result in results] if mode == "decode" else None,
        "lane_busy_cycles" : sum(result.lane_busy for result in results),
        "dma_read_bytes"   : BEAT_BYTES*sum(result.read_beats  for result in results),
        "dma_write_bytes"  : BEAT_BYTES*sum(result.write_beats for result in results),
        "clock_hz"         : device.info.clock_hz,
        "lanes"            : device.info.lanes,
        "rounding"         : "stochastic" if geometry.config.stochastic_rounding else "nearest",
        "transport"        : device.transport.name,
        "firmware"         : version_string(device.info.firmware_version),
        "gateware"         : version_string(device.info.gateware_version),
        "bytes_streamed"   : sum(map(len, records.values())) + y_bytes + state_bytes,
        "bytes_verified"   : device.transport.statistics.verified_bytes - verified,
    })


def _jobs(geometry, case, mode, address, seed):
    """The jobs of a case, in order. From the second one on they take the state the one before has left."""
    tokens = case.tokens if mode == "prefill" else 1
    state  = address["state"]
    for first in range(0, case.tokens, tokens):
        yield Job(Opcode.SSM,
            flags      = JobFlag.ZERO_STATE if first == 0 and case.h0 is None else 0,
            heads      = geometry.heads,
            headdim    = geometry.headdim,
            d_state    = geometry.d_state,
            groups     = geometry.groups,
            tokens     = tokens,
            x_address  = address["x"]  + first*geometry.heads *geometry.x_record_bytes,
            bc_address = address["BC"] + first*geometry.groups*geometry.bc_record_bytes,
            y_address  = address["y"]  + first*geometry.heads *geometry.y_record_bytes,
            state_in   = address.get("h0", state) if first == 0 else state,
            state_out  = state,
            seed       = (seed + first) % 2**32,
        )


def _run_jobs(device, jobs, progress):
    """Submit jobs as far ahead as the ring allows; their results. A failed one stops the submission."""
    indices = []
    results = []
    ahead   = device.info.ring_entries
    try:
        for job in jobs:
            if len(indices) - len(results) == ahead:
                results.append(device.wait(indices[len(results)]))
                _report(progress, "jobs", len(results), len(jobs))
            indices.append(device.submit(job))
        while len(results) < len(jobs):
            results.append(device.wait(indices[len(results)]))
            _report(progress, "jobs", len(results), len(jobs))
    except DeviceError:
        device.drain()
        raise
    return results

# Progress -----------------------------------------------------------------------------------------

class _Meter:
    """Adds up the bytes of bursts."""
    def __init__(self, progress, total, what):
        self.progress = progress
        self.total    = total
        self.what     = what
        self.done     = 0

    def __call__(self, size):
        self.done += size
        _report(self.progress, self.what, self.done, self.total)


def _report(progress, what, done, total):
    if progress is not None:
        progress(what, done, total)
