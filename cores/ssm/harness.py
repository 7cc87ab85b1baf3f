#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Plays head tiles, and whole cases tile by tile, through the compiled SSM core alone: no bus, no DRAM."""

from dataclasses import dataclass

import numpy as np

from cores.ssm.core import SSMCore
from cores.ssm.layouts import command_layout

from operations.config import ELEMENT_BYTES, SEED_STRIDE
from operations.ssm import ROW_ELEMENTS, Geometry, pack_state, unpack_state

from tools.verilated import VerilatedModule, stream_ports

# Tile ---------------------------------------------------------------------------------------------

@dataclass
class Tile:
    """A head tile and its tokens: float16 x (T, P), dt and dA (T,), B and C (T, N), D, and h0 (P, N) or None."""
    x  : np.ndarray
    dt : np.ndarray
    dA : np.ndarray
    B  : np.ndarray
    C  : np.ndarray
    D  : np.float16
    h0 : np.ndarray = None
    first_token : int  = 0     # y is emitted from this token on.
    no_store    : bool = False # The new state does not leave the core.
    seed        : int  = 0     # Of stochastic rounding.
    same_bc     : bool = False # B and C are those of the tile before, and do not go in again.
    resident    : bool = False # The state is taken as it lies on chip, at
    tile        : int  = 0     # this place.


def case_tiles(x, dt, dA, B, C, D, h0=None, seed=0):
    """The head tiles of a case. float16, shapes and seed as in :func:`model.bitexact.ssm_block`."""
    heads = x.shape[1]
    group = np.arange(heads)//(heads//B.shape[1])
    return [Tile(x[:, n], dt[:, n], dA[:, n], B[:, group[n]], C[:, group[n]], D[n], None if h0 is None else h0[n],
        seed=(seed + n*SEED_STRIDE) % 2**32) for n in range(heads)]

# Core Player --------------------------------------------------------------------------------------

class CoreHarness:
    """The compiled core of a configuration (cached, see :mod:`tools.verilated`); plays any number of tiles and cases.

    Parameters
    ----------
    config     : :class:`operations.config.SSMConfig`.
    data_width : of head tiles' beats.
    options    : of :class:`tools.verilated.VerilatedModule`.
    """
    STREAMS = { # Name: payloads, whether the core drives it.
        "state_sink"   : (("data",),           False),
        "scalars_sink" : (("dt", "dA", "D"),   False),
        "x_sink"       : (("data",),           False),
        "bc_sink"      : (("data",),           False),
        "state_source" : (("data", "last"),    True),
        "y_source"     : (("data", "last"),    True),
    }

    def __init__(self, config, data_width=128, **options):
        self.config     = config
        self.data_width = data_width
        core    = SSMCore(config, data_width)
        inputs  = {"headdim": core.headdim, "d_state": core.d_state}
        outputs = {}
        command = (tuple(name for name, _ in command_layout(config)), False)
        for name, (payloads, drives) in {"command": command, **self.STREAMS}.items():
            driven, read = stream_ports(name, getattr(core, name), payloads, drives)
            inputs.update(driven)
            outputs.update(read)
        self.compiled = VerilatedModule(core, inputs, outputs, **options)

    def close(self):
        self.compiled.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def play(self, headdim, d_state, tiles, duty=256, seed=1):
        """Run tiles, one right after the other.

        ``duty`` and ``seed`` are of the streams' idle cycles, see :meth:`tools.verilated.VerilatedModule.streams`.

        Returns
        -------
        ([y (T - first_token, P)], [h (P, N) or None], cycles) : cycles from the first beat offered to the last taken.

        Raises
        ------
        ValueError   : names a size, its value and what is allowed.
        TimeoutError : The core does not answer.
        RuntimeError : The core breaks a rule of its streams.
        """
        geometry = Geometry(self.config, 1, headdim, d_state)
        width    = self.data_width//8
        padded   = geometry.headdim_padded
        states   = [tile.h0 for tile in tiles if tile.h0 is not None and not tile.resident]
        new_bc   = [tile for tile in tiles if not tile.same_bc]
        B, C     = (np.concatenate([getattr(tile, name) for tile in new_bc]) if new_bc else np.zeros((0, d_state), np.float16)
            for name in ("B", "C"))
        scalars  = {name: np.concatenate([np.broadcast_to(getattr(tile, name), len(tile.x)) for tile in tiles]).view(np.uint16)
            for name in ("dt", "dA", "D")}
        stored     = [tile for tile in tiles if not tile.no_store]
        y_counts   = [len(tile.x) - tile.first_token for tile in tiles]
        y_rows     = padded//ROW_ELEMENTS
        tile_beats = -(-geometry.headdim*geometry.d_state_padded*ELEMENT_BYTES//width)
        work       = sum(len(tile.x) for tile in tiles)*(geometry.tile_words + 200) + len(tiles)*2*tile_beats + 1000

        self.compiled.poke(headdim=headdim, d_state=d_state)
        self.compiled.step(3)
        options = (["seed"] if self.config.stochastic_rounding else []) + \
            (["resident", "tile"] if self.config.resident_tiles else [])
        out, cycles = self.compiled.streams(
            sinks = {
                "command": {
                    "tokens"     : [len(tile.x)      for tile in tiles],
                    "first_token": [tile.first_token for tile in tiles],
                    "zero_state" : [tile.h0 is None  for tile in tiles],
                    "no_store"   : [tile.no_store    for tile in tiles],
                    "same_bc"    : [tile.same_bc     for tile in tiles],
                    **{name: [getattr(tile, name) for tile in tiles] for name in options},
                },
                "state_sink"  : {"data": self._tile_beats(geometry, states, tile_beats)},
                "scalars_sink": scalars,
                "x_sink"      : {"data": _words([tile.x for tile in tiles], padded)},
                "bc_sink"     : {"data": _words([np.concatenate([_padded(B, geometry.d_state_padded),
                    _padded(C, geometry.d_state_padded)], axis=1)], 2*geometry.d_state_padded)},
            },
            sources = {
                "state_source": (self.STREAMS["state_source"][0], len(stored)*tile_beats),
                "y_source"    : (self.STREAMS["y_source"][0],     sum(y_counts)*y_rows),
            },
            limit = 100*work, duty = duty, seed = seed)
        for name, beats in (("state_source", tile_beats), ("y_source", y_rows)):
            if not np.array_equal(out[name]["last"], np.arange(len(out[name]["last"])) % beats == beats - 1):
                raise RuntimeError(f"{name} does not set last at every {beats}th beat, and only there.")

        y = out["y_source"]["data"].view(np.float16).reshape(-1, padded)[:, :headdim]
        h = iter(out["state_source"]["data"].view(np.uint8).reshape(len(stored), tile_beats*width))
        return (np.split(y, np.cumsum(y_counts)[:-1]),
            [None if tile.no_store else self._state(geometry, next(h)) for tile in tiles], cycles)

    def _tile_beats(self, geometry, states, beats):
        """Head tiles, one behind the other, each from a beat on."""
        rows = [np.frombuffer(pack_state(geometry, h[None]), np.uint8) for h in states]
        size = beats*self.data_width//8
        data = b"".join(row[:size].tobytes().ljust(size, b"\0") for row in rows)
        return np.frombuffer(data, np.uint64).reshape(-1, self.data_width//64)

    def _state(self, geometry, data):
        return unpack_state(geometry, data.tobytes().ljust(geometry.tile_bytes, b"\0")[:geometry.tile_bytes])[0]

    def play_case(self, x, dt, dA, B, C, D, h0=None, rounding_seed=0, **options):
        """Run a case, head by head: y (T, H, P), h (H, P, N) and cycles. Otherwise as :meth:`play`."""
        tiles        = case_tiles(x, dt, dA, B, C, D, h0, rounding_seed)
        y, h, cycles = self.play(x.shape[2], B.shape[2], tiles, **options)
        return np.stack(y, axis=1), np.stack(h), cycles

# Helpers ------------------------------------------------------------------------------------------

def _padded(array, size):
    return np.pad(array, ((0, 0), (0, size - array.shape[1])))


def _words(arrays, size):
    """Rows of each array, padded to `size` elements, in words of 64 bits."""
    return np.concatenate([_padded(array, size) for array in arrays]).astype("<f2").view(np.uint64).ravel()
