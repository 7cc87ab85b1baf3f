#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Head tiles through the compiled SSM core, and what the bit-accurate model makes of them."""

from dataclasses import dataclass

import numpy as np

from cores.compiled import Compiled, stream_ports
from cores.ssm import layout
from cores.ssm.config import BEAT_BYTES, Geometry
from cores.ssm.core import SSMCore

from model.bitexact import ssm_block

# Tile ---------------------------------------------------------------------------------------------

@dataclass
class Tile:
    """A head tile and its tokens: binary16 x (T, P), dt and dA (T,), B and C (T, N), D, and h0 (P, N) or None."""
    x  : np.ndarray
    dt : np.ndarray
    dA : np.ndarray
    B  : np.ndarray
    C  : np.ndarray
    D  : np.float16
    h0 : np.ndarray
    first_token : int = 0
    no_store    : bool = False

    def model(self):
        """y (T, P) and the new state (P, N)."""
        y, h = ssm_block(self.x[:, None], self.dt[:, None], self.dA[:, None], self.B[:, None], self.C[:, None],
            self.D[None], None if self.h0 is None else self.h0[None])
        return y[:, 0], h[0]


def random_values(rng, *shape):
    """Near 1, with some subnormals and the odd infinity, NaN and zero among them."""
    values = rng.standard_normal(shape).astype(np.float16)
    chance = rng.random(shape)
    values = np.where(chance < 0.02, values*np.float16(2.0**-18), values)
    return np.where(chance > 0.9995, rng.choice(np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float16), shape),
        values).astype(np.float16)


def random_tile(rng, headdim, d_state, tokens, with_h0=True, values=random_values, **options):
    draw = lambda *shape: values(rng, *shape)
    return Tile(draw(tokens, headdim), draw(tokens), draw(tokens), draw(tokens, d_state), draw(tokens, d_state),
        draw(1)[0], draw(headdim, d_state) if with_h0 else None, **options)

# Core Player --------------------------------------------------------------------------------------

def beats(data):
    return np.frombuffer(data, np.uint64).reshape(-1, 2)


class CorePlayer:
    """The core of a configuration, compiled."""
    STREAMS = ("command", "state_sink", "input_sink", "state_source", "y_source")

    def __init__(self, config):
        self.config = config
        core   = SSMCore(config)
        inputs = {"headdim": core.headdim, "d_state": core.d_state}
        outputs = {}
        for name, payloads, drives in (
            ("command",      ("tokens", "first_token", "zero_state", "no_store"), False),
            ("state_sink",   ("data",),        False),
            ("input_sink",   ("data",),        False),
            ("state_source", ("data", "last"), True),
            ("y_source",     ("data", "last"), True)):
            driven, read = stream_ports(name, getattr(core, name), payloads, drives)
            inputs.update(driven)
            outputs.update(read)
        self.compiled = Compiled(core, inputs, outputs)

    def play(self, headdim, d_state, tiles, duty=256, seed=1):
        """Runs tiles one after the other. Returns ([y (T - first_token, P)], [h (P, N) or None], cycles)."""
        geometry = Geometry(self.config, 1, headdim, d_state)
        inputs, states = [], []
        for tile in tiles:
            x_records  = layout.pack_x(geometry, tile.x[:, None], tile.dt[:, None], tile.dA[:, None], tile.D[None])
            bc_records = layout.pack_bc(geometry, tile.B[:, None], tile.C[:, None])
            records    = [np.frombuffer(data, np.uint8).reshape(len(tile.x), -1) for data in (x_records, bc_records)]
            inputs.append(np.concatenate(records, axis=1).tobytes())
            if tile.h0 is not None:
                states.append(layout.pack_state(geometry, tile.h0[None]))
        stored     = [tile for tile in tiles if not tile.no_store]
        y_counts   = [len(tile.x) - tile.first_token for tile in tiles]
        y_beats    = geometry.y_record_bytes//BEAT_BYTES
        tile_beats = geometry.tile_bytes//BEAT_BYTES
        work       = sum(len(tile.x) for tile in tiles)*(geometry.tile_words + 200) + len(tiles)*2*tile_beats + 1000
        self.compiled.poke(headdim=headdim, d_state=d_state)
        self.compiled.step(3)
        out, cycles = self.compiled.streams(
            sinks = {
                "command": {
                    "tokens"     : [len(tile.x)        for tile in tiles],
                    "first_token": [tile.first_token   for tile in tiles],
                    "zero_state" : [tile.h0 is None    for tile in tiles],
                    "no_store"   : [tile.no_store      for tile in tiles],
                },
                "state_sink": {"data": beats(b"".join(states))},
                "input_sink": {"data": beats(b"".join(inputs))},
            },
            sources = {
                "state_source": (("data", "last"), len(stored)*tile_beats),
                "y_source"    : (("data", "last"), sum(y_counts)*y_beats),
            },
            limit = 100*work, duty = duty, seed = seed)
        self._check_ends(out["state_source"]["last"], tile_beats)
        self._check_ends(out["y_source"]["last"], y_beats)
        self._check_silence()

        y = layout.unpack_y(geometry, out["y_source"]["data"].tobytes())[:, 0]
        h = iter(out["state_source"]["data"].reshape(len(stored), 2*tile_beats))
        return (np.split(y, np.cumsum(y_counts)[:-1]),
            [None if tile.no_store else layout.unpack_state(geometry, next(h).tobytes())[0] for tile in tiles], cycles)

    def check(self, headdim, d_state, tiles, **options):
        """Plays tiles and compares with the model, bit for bit. Returns the cycles."""
        ys, states, cycles = self.play(headdim, d_state, tiles, **options)
        for tile, y, h in zip(tiles, ys, states):
            expected_y, expected_h = tile.model()
            assert np.array_equal(y.view(np.uint16), expected_y[tile.first_token:].view(np.uint16))
            assert h is None or np.array_equal(h.view(np.uint16), expected_h.view(np.uint16))
        return cycles

    @staticmethod
    def _check_ends(last, length):
        assert np.array_equal(last, np.arange(len(last)) % length == length - 1)

    def _check_silence(self):
        """No beat beyond those asked for."""
        valids = ["state_source_valid", "y_source_valid"]
        out    = self.compiled.run(valids, state_source_ready=[1]*100, y_source_ready=[1]*100)
        assert not any(out[name].any() for name in valids)
        self.compiled.poke(state_source_ready=0, y_source_ready=0)
