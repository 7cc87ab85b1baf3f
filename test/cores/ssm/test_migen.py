#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM core in Migen's simulator: the same bits as the model, and so as the compiled core."""

import numpy as np
import pytest

from migen import passive, run_simulation

from core_harness import model, random_tile

from cores.ssm.core import SSMCore

from operations import ssm as layout
from operations.config import SSMConfig
from operations.ssm import Geometry

# Constants ----------------------------------------------------------------------------------------

BEAT_BYTES = 16

# Helpers ------------------------------------------------------------------------------------------

def beats(data):
    return [int.from_bytes(data[n:n + BEAT_BYTES], "little") for n in range(0, len(data), BEAT_BYTES)]


def words(values, size):
    """Words of four elements, padded to `size`."""
    return np.pad(values, (0, size - len(values))).view(np.uint64).tolist()


def feed(rng, endpoint, rows):
    """Offers rows of {field: value}, with pauses."""
    for row in rows:
        while rng.random() < 0.3:
            yield
        for name, value in row.items():
            yield getattr(endpoint, name).eq(value)
        yield endpoint.valid.eq(1)
        yield
        while not (yield endpoint.ready):
            yield
        yield endpoint.valid.eq(0)


@passive
def drain(rng, endpoint, out):
    """Takes (data, last), with pauses."""
    while True:
        yield endpoint.ready.eq(rng.random() < 0.7)
        yield
        if (yield endpoint.ready) and (yield endpoint.valid):
            out.append(((yield endpoint.data), (yield endpoint.last)))


def wait(out, counts, cycles):
    for _ in range(cycles):
        if list(map(len, out)) == counts:
            return
        yield
    pytest.fail(f"{cycles} cycles were not enough: {list(map(len, out))} of {counts} beats.")

# Core ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stochastic", [False, True])
def test_core_in_migens_simulator(stochastic):
    config   = SSMConfig(lanes=4, max_headdim=8, max_d_state=16, stochastic_rounding=stochastic)
    geometry = Geometry(config, 1, 5, 11)
    rng      = np.random.default_rng(1)
    tiles    = [random_tile(rng, 5, 11, 2), random_tile(rng, 5, 11, 3, with_h0=False, first_token=1)]
    core     = SSMCore(config)
    commands, states, scalars, xs, bcs = [], [], [], [], []
    for tile in tiles:
        seed = {"seed": tile.seed} if stochastic else {}
        commands.append({"tokens": len(tile.x), "first_token": tile.first_token, "zero_state": tile.h0 is None,
            "no_store": 0, **seed})
        if tile.h0 is not None:
            states += beats(layout.pack_state(geometry, tile.h0[None]))[:geometry.tile_words*4//8]
        for x, dt, dA, B, C in zip(tile.x, tile.dt, tile.dA, tile.B, tile.C):
            scalars.append({name: int(value.view(np.uint16)) for name, value in (("dt", dt), ("dA", dA), ("D", tile.D))})
            xs  += words(x, geometry.headdim_padded)
            bcs += words(B, geometry.d_state_padded) + words(C, geometry.d_state_padded)
    y_out, state_out = [], []
    y_beats, tile_beats = geometry.headdim_padded//8, geometry.tile_words*4//8

    def main():
        yield core.headdim.eq(geometry.headdim)
        yield core.d_state.eq(geometry.d_state)
        for _ in range(4):
            yield
        yield from feed(rng, core.command, commands)
        yield from wait((y_out, state_out), [4*y_beats, 2*tile_beats], 5000)

    run_simulation(core, [main(), feed(rng, core.state_sink, [{"data": data} for data in states]),
        feed(rng, core.scalars_sink, scalars), feed(rng, core.x_sink, [{"data": data} for data in xs]),
        feed(rng, core.bc_sink, [{"data": data} for data in bcs]),
        drain(rng, core.y_source, y_out), drain(rng, core.state_source, state_out)])

    def taken(out, count, size):
        """`count` records of the stream, and whether last ends each."""
        assert [last for _, last in out] == ([0]*(size - 1) + [1])*count
        data = b"".join(beat.to_bytes(BEAT_BYTES, "little") for beat, _ in out)
        return [data[n*size*BEAT_BYTES:(n + 1)*size*BEAT_BYTES] for n in range(count)]

    expected = [model(tile, config) for tile in tiles]
    y        = np.concatenate([y[tile.first_token:] for tile, (y, _) in zip(tiles, expected)])
    records  = b"".join(taken(y_out, 4, y_beats))
    assert np.frombuffer(records, np.float16).reshape(len(y), -1)[:, :geometry.headdim].tobytes() == y.tobytes()
    for data, (_, h) in zip(taken(state_out, 2, tile_beats), expected):
        assert layout.unpack_state(geometry, data.ljust(geometry.tile_bytes, b"\0"))[0].tobytes() == h.tobytes()
