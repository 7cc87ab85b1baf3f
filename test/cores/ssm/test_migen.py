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
from operations.config import BEAT_BYTES, SSMConfig
from operations.ssm import Geometry

# Helpers ------------------------------------------------------------------------------------------

def beats(data):
    return [int.from_bytes(data[n:n + BEAT_BYTES], "little") for n in range(0, len(data), BEAT_BYTES)]


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
    commands, states, inputs = [], [], []
    for tile in tiles:
        seed = {"seed": tile.seed} if stochastic else {}
        commands.append({"tokens": len(tile.x), "first_token": tile.first_token, "zero_state": tile.h0 is None,
            "no_store": 0, **seed})
        if tile.h0 is not None:
            states += beats(layout.pack_state(geometry, tile.h0[None]))
        for t in range(len(tile.x)):
            token   = slice(t, t + 1)
            inputs += beats(layout.pack_x(geometry, tile.x[token, None], tile.dt[token, None], tile.dA[token, None],
                tile.D[None]))
            inputs += beats(layout.pack_bc(geometry, tile.B[token, None], tile.C[token, None]))
    y_out, state_out = [], []
    y_beats, tile_beats = geometry.y_record_bytes//BEAT_BYTES, geometry.tile_bytes//BEAT_BYTES

    def main():
        yield core.headdim.eq(geometry.headdim)
        yield core.d_state.eq(geometry.d_state)
        for _ in range(4):
            yield
        yield from feed(rng, core.command, commands)
        yield from wait((y_out, state_out), [4*y_beats, 2*tile_beats], 5000)

    run_simulation(core, [main(), feed(rng, core.state_sink, [{"data": data} for data in states]),
        feed(rng, core.input_sink, [{"data": data} for data in inputs]),
        drain(rng, core.y_source, y_out), drain(rng, core.state_source, state_out)])

    def taken(out, count, size):
        """`count` records of the stream, and whether last ends each."""
        assert [last for _, last in out] == ([0]*(size - 1) + [1])*count
        data = b"".join(beat.to_bytes(BEAT_BYTES, "little") for beat, _ in out)
        return [data[n*size*BEAT_BYTES:(n + 1)*size*BEAT_BYTES] for n in range(count)]

    expected = [model(tile, config) for tile in tiles]
    y        = np.concatenate([y[tile.first_token:] for tile, (y, _) in zip(tiles, expected)])
    records  = b"".join(taken(y_out, 4, y_beats))
    assert layout.unpack_y(geometry, records)[:, 0].tobytes() == y.tobytes()
    for data, (_, h) in zip(taken(state_out, 2, tile_beats), expected):
        assert layout.unpack_state(geometry, data)[0].tobytes() == h.tobytes()
