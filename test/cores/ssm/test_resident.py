#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""State held on chip: the compiled core with resident tiles equals the model, whatever is loaded, kept and stored."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from core_harness import PATTERNS, CoreHarness, random_tile

from model.bitexact import ssm_block

from operations.config import SSMConfig

# Helpers ------------------------------------------------------------------------------------------

CONFIGS = {
    "lanes4"    : SSMConfig(lanes=4,  max_headdim=6,  max_d_state=24, resident_tiles=5),
    "lanes32"   : pytest.param(SSMConfig(lanes=32, max_headdim=16, max_d_state=64, resident_tiles=2), marks=pytest.mark.slow),
    "stochastic": SSMConfig(lanes=8,  max_headdim=9,  max_d_state=16, resident_tiles=16, stochastic_rounding=True),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@cache
def player(config):
    return CoreHarness(config)


def tiles_in_any_order(rng, config, headdim, d_state, count, kept):
    """Tiles from zeros, from the stream or from where they lie, stored or not; `kept`: {place: state}, kept up to date."""
    tiles, expected = [], []
    for _ in range(count):
        tokens = int(rng.integers(1, 4))
        place  = int(rng.integers(0, config.resident_tiles))
        tile   = random_tile(rng, headdim, d_state, tokens, with_h0=rng.random() < 0.7, no_store=bool(rng.random() < 0.6),
            first_token=int(rng.integers(0, tokens + 1)), tile=place)
        if place in kept and rng.random() < 0.7:
            tile.resident, tile.h0 = True, kept[place]
        y, h = ssm_block(tile.x[:, None], tile.dt[:, None], tile.dA[:, None], tile.B[:, None], tile.C[:, None],
            tile.D[None], None if tile.h0 is None else tile.h0[None], tile.seed if config.stochastic_rounding else None)
        kept[place] = h[0]
        tiles.append(tile)
        expected.append((y[tile.first_token:, 0], None if tile.no_store else h[0]))
    return tiles, expected


def check(config, headdim, d_state, tiles, expected, **options):
    ys, states, cycles = player(config).play(headdim, d_state, tiles, **options)
    for y, h, (expected_y, expected_h) in zip(ys, states, expected):
        assert np.array_equal(y.view(np.uint16), expected_y.view(np.uint16))
        assert (h is None) == (expected_h is None)
        assert h is None or np.array_equal(h.view(np.uint16), expected_h.view(np.uint16))
    player(config).check_silence()
    return cycles

# Results ------------------------------------------------------------------------------------------

@EVERY_CONFIG
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_model(config, pattern):
    """Every combination of flags and places, the same place twice in a row among them."""
    rng = np.random.default_rng(list(PATTERNS).index(pattern))
    for seed in range(3):
        headdim, d_state = int(rng.integers(1, config.max_headdim + 1)), int(rng.integers(1, config.max_d_state + 1))
        kept = {}
        for _ in range(2): # The second time with what the first one left.
            tiles, expected = tiles_in_any_order(rng, config, headdim, d_state, 12, kept)
            check(config, headdim, d_state, tiles, expected, duty=PATTERNS[pattern], seed=seed)


@EVERY_CONFIG
def test_one_place(config):
    """Tiles of one word back to back in one place: the shortest time from state read to state written."""
    rng, kept = np.random.default_rng(1), {}
    one_place = SSMConfig(**{**vars(config), "resident_tiles": 2})
    tiles, expected = tiles_in_any_order(rng, one_place, 1, 1, 80, kept)
    check(config, 1, 1, tiles, expected)

# Throughput ---------------------------------------------------------------------------------------

@EVERY_CONFIG
def test_nothing_waits(config):
    """Tiles that lie on chip and stay there, of one token: the lanes never wait, but a cycle between tiles."""
    P, N   = config.max_headdim, config.max_d_state
    rng    = np.random.default_rng(2)
    places = range(config.resident_tiles)
    tile   = random_tile(rng, P, N, 1, with_h0=False, no_store=True)
    first  = [replace(tile, tile=place) for place in places]
    again  = [replace(tile, tile=place, resident=True) for place in places]
    short, long = (player(config).play(P, N, first + rounds*again)[2] for rounds in (10, 20))
    words  = P*N//config.lanes
    inputs = 2*(2 + -(-P//8) + 2*N//8) # Two cycles a beat.
    depth  = 35                        # Two small tiles are under way at a time, from load to finish.
    assert (long - short)/(10*len(places)) <= max(words + 2, inputs + 6, (words + depth)/2)

# Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tiles", [1, -1, 257, True, 2.0])
def test_bad_number_of_tiles(tiles):
    with pytest.raises(ValueError, match="resident_tiles must be an integer from 2 to 256, is "):
        SSMConfig(resident_tiles=tiles)
