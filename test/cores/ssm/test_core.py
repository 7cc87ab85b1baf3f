#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM core, compiled: bit for bit the model, whatever geometry, tiles and stalls; and its throughput."""

from functools import cache

import numpy as np
import pytest

import exact

from core_harness import PATTERNS, CoreHarness, random_tile

from cores.ssm.core import SSMCore
from cores.ssm.datapath import Datapath

from operations.config import BC_SLOTS, DATA_WIDTHS, LANES, SSMConfig

# Helpers ------------------------------------------------------------------------------------------

# Smallest and largest sizes, sizes that are no multiple of a beat.
CONFIGS = {
    "lanes4"      : SSMConfig(lanes=4),
    "lanes8"      : SSMConfig(lanes=8, dsp_shift=True),
    "lanes16"     : SSMConfig(lanes=16),
    "lanes32"     : pytest.param(SSMConfig(lanes=32), marks=pytest.mark.slow),
    "lanes64"     : pytest.param(SSMConfig(lanes=64), marks=pytest.mark.slow),
    "one_word"    : pytest.param(SSMConfig(lanes=8,  max_headdim=1,   max_d_state=8), marks=pytest.mark.slow),
    "uneven"      : SSMConfig(lanes=8,  max_headdim=20,  max_d_state=24),
    "long_rows"   : pytest.param(SSMConfig(lanes=4,  max_headdim=20,  max_d_state=512), marks=pytest.mark.slow),
    "dsp18"       : SSMConfig(lanes=8,  max_headdim=20,  max_d_state=24, dsp_bits=18),
    "no_dsp_shift": pytest.param(SSMConfig(lanes=8,  max_headdim=20,  max_d_state=24), marks=pytest.mark.slow),
    "stochastic"  : SSMConfig(lanes=8,  max_headdim=20,  max_d_state=56, stochastic_rounding=True),
    "stochastic32": pytest.param(SSMConfig(lanes=32, stochastic_rounding=True), marks=pytest.mark.slow),
    "unpipelined" : SSMConfig(lanes=4,  max_headdim=9,   max_d_state=24, pipelined=False),
    "many_rows"   : pytest.param(SSMConfig(lanes=4, max_headdim=256, max_d_state=8), marks=pytest.mark.slow),
    "small"       : pytest.param(SSMConfig(lanes=4, max_headdim=3, max_d_state=8), marks=pytest.mark.slow),
    "one_column32": pytest.param(SSMConfig(lanes=32, max_headdim=3, max_d_state=32), marks=pytest.mark.slow),
    "largest"     : pytest.param(SSMConfig(lanes=8, max_headdim=256, max_d_state=512), marks=pytest.mark.slow),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
WIDER        = pytest.mark.parametrize("width", DATA_WIDTHS[1:])
EVERY_LANES  = pytest.mark.parametrize("lanes", [4, 16, *(pytest.param(lanes, marks=pytest.mark.slow) for lanes in LANES if lanes not in (4, 16))])


def built(name):
    """The configuration of this name, slow or not."""
    return getattr(CONFIGS[name], "values", [CONFIGS[name]])[0]


@cache
def player(config, width=128):
    return CoreHarness(config, width)


def random_geometry(rng, config, most_elements=4096):
    """P and N: often tiny, sometimes a maximum."""
    def size(largest):
        return int(rng.choice([1, largest, rng.integers(1, largest + 1), rng.integers(1, min(largest, 9) + 1)]))
    while True:
        headdim, d_state = size(config.max_headdim), size(config.max_d_state)
        if headdim*d_state <= most_elements:
            return headdim, d_state


def random_tiles(rng, headdim, d_state, count):
    tiles = []
    for number in range(count):
        tokens = int(rng.choice([1, 1, 2, 4, 5]))
        same   = number > 0 and len(tiles[-1].x) <= BC_SLOTS and rng.random() < 0.5
        if same:
            tokens = len(tiles[-1].x)
        tiles.append(random_tile(rng, headdim, d_state, tokens, with_h0=rng.random() < 0.6,
            first_token=int(rng.choice([0, 0, tokens, rng.integers(0, tokens + 1)])), no_store=rng.random() < 0.3,
            same_bc=bool(same)))
        if same:
            tiles[-1].B, tiles[-1].C = tiles[-2].B, tiles[-2].C
    return tiles


def steady_cycles(core, headdim, d_state, tiles, tokens):
    """Cycles a token once the core is under way: what twice the tiles take more."""
    rng   = np.random.default_rng(0)
    tile  = random_tile(rng, headdim, d_state, tokens)
    short = core.check(headdim, d_state, [tile]*tiles)
    long  = core.check(headdim, d_state, [tile]*2*tiles)
    return (long - short)/(tiles*tokens)

# Results ------------------------------------------------------------------------------------------

@EVERY_CONFIG
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_model(config, pattern):
    """Tiles with every combination of flags, several geometries one after the other."""
    rng = np.random.default_rng(list(PATTERNS).index(pattern))
    for seed in range(4):
        headdim, d_state = random_geometry(rng, config)
        player(config).check(headdim, d_state, random_tiles(rng, headdim, d_state, 5), duty=PATTERNS[pattern],
            seed=seed)


# Records that end within a beat, or with it; words of a beat, or several beats a word.
WIDE = {
    "lanes4"   : SSMConfig(lanes=4,  max_headdim=20, max_d_state=40),
    "lanes16"  : pytest.param(SSMConfig(lanes=16, max_headdim=20, max_d_state=48), marks=pytest.mark.slow),
    "lanes32"  : pytest.param(SSMConfig(lanes=32, max_headdim=9,  max_d_state=64), marks=pytest.mark.slow),
    "resident" : SSMConfig(lanes=8,  max_headdim=20, max_d_state=24, resident_tiles=3),
}

@WIDER
@pytest.mark.parametrize("config", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_model_at_every_width(config, width, pattern):
    """The same whatever the width of the head tiles' beats; the tests above are at 128 bits."""
    rng = np.random.default_rng(list(PATTERNS).index(pattern) + width)
    for seed in range(4):
        headdim, d_state = random_geometry(rng, config)
        player(config, width).check(headdim, d_state, random_tiles(rng, headdim, d_state, 5), duty=PATTERNS[pattern], seed=seed)


@EVERY_CONFIG
def test_largest_geometry(config):
    rng = np.random.default_rng(2)
    player(config).check(config.max_headdim, config.max_d_state,
        random_tiles(rng, config.max_headdim, config.max_d_state, 4), duty=200)


@EVERY_CONFIG
@pytest.mark.parametrize("duty", [256, 100])
def test_tiny_tiles(config, duty):
    """Tiles of one word and one token, back to back: the shortest time from state read to state written."""
    rng = np.random.default_rng(3)
    player(config).check(1, 1, [random_tile(rng, 1, 1, 1) for _ in range(60)], duty=duty)
    player(config).check(1, 1, random_tiles(rng, 1, 1, 60), duty=duty)


@EVERY_CONFIG
def test_short_tokens(config):
    """Tokens about as long as the pipeline, at full rate: no slot and no bank may be used before it is free."""
    rng = np.random.default_rng(9)
    for words in range(1, 41):
        for columns in range(1, 4):
            headdim, d_state = words//columns, columns*config.d_state_multiple
            if words % columns == 0 and headdim <= config.max_headdim and d_state <= config.max_d_state:
                for tokens in (1, 2, 5):
                    tiles = [random_tile(rng, headdim, d_state, tokens) for _ in range(3)]
                    player(config).check(headdim, d_state, tiles)


@EVERY_LANES
def test_all_values(lanes):
    """Operands of all classes; NaNs and infinities included, so one token at a time."""
    rng    = np.random.default_rng(4)
    values = lambda rng, *shape: exact.operands(rng, shape).view(np.float16)
    plain  = lambda rng, *shape: rng.integers(0, 0x7c00, shape, np.uint16).view(np.float16)
    for draw in (values, plain):
        tiles = [random_tile(rng, 40, 24, 1, values=draw) for _ in range(10)]
        player(built(f"lanes{lanes}")).check(40, 24, tiles)


@EVERY_LANES
def test_padding_lanes(lanes):
    """Lanes beyond d_state are stored as +0 and add nothing, whatever was in them."""
    core = player(built(f"lanes{lanes}"))
    rng  = np.random.default_rng(5)
    for d_state in (1, lanes - 1, lanes + 1, min(2*lanes + 3, 128)):
        # A full-width tile leaves NaNs in the lanes' places and in the inputs' slots.
        noise = random_tile(rng, 3, 128, 2, values=lambda rng, *shape: np.full(shape, np.nan, np.float16))
        core.check(3, 128, [noise, noise])
        core.check(3, d_state, [random_tile(rng, 3, d_state, 3) for _ in range(3)])


@pytest.mark.slow
def test_lanes_do_not_change_results():
    """The same tiles through all cores."""
    rng     = np.random.default_rng(6)
    tiles   = random_tiles(rng, 17, 100, 5)
    results = [player(built(f"lanes{lanes}")).play(17, 100, tiles) for lanes in LANES]
    for ys, states, _ in results[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(ys, results[0][0]))
        assert all(a is b or a.tobytes() == b.tobytes() for a, b in zip(states, results[0][1]))


def test_many_tokens():
    """A chunk longer than any buffer, y of its last token only."""
    rng = np.random.default_rng(7)
    for first_token in (0, 299, 300):
        tile = random_tile(rng, 5, 16, 300, first_token=first_token)
        player(built("lanes8")).check(5, 16, [tile, tile], duty=200)


@pytest.mark.slow
@EVERY_CONFIG
@pytest.mark.parametrize("seed", range(20))
def test_equals_model_at_length(config, seed):
    rng = np.random.default_rng(1000 + seed)
    for _ in range(20):
        headdim, d_state = random_geometry(rng, config)
        duty = {name: int(rng.choice([256, 256, 128, 16])) for name in CoreHarness.STREAMS}
        player(config).check(headdim, d_state, random_tiles(rng, headdim, d_state, 12), duty=duty, seed=seed)

# Throughput ---------------------------------------------------------------------------------------

@EVERY_LANES
def test_throughput(lanes):
    """Mamba-2's tiles, chunks of eight tokens: the lanes take a vector nearly every cycle."""
    bound = 64*128//lanes
    assert bound <= steady_cycles(player(built(f"lanes{lanes}")), 64, 128, 12, 8) <= 1.03*bound


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_throughput_of_one_token(lanes):
    """A token a tile: the tiles are swapped at a beat a cycle while the lanes work, so DRAM's bound is reached too."""
    bound = max(64*128//lanes, 64*128//8)
    assert steady_cycles(player(built(f"lanes{lanes}")), 64, 128, 12, 1) <= 1.03*bound


@EVERY_LANES
def test_shortest_token(lanes):
    """12 cycles from a token to the next one of the same tile, or as long as its B and C take at a word a cycle:
    there are two slots, and a slot is in use for 20 cycles and its vectors before it is filled again."""
    config = built(f"lanes{lanes}")
    words  = 2*config.d_state_multiple//4
    used   = 20 + config.d_state_multiple//lanes
    rng    = np.random.default_rng(8)
    short, long = (player(config).check(1, 1, [random_tile(rng, 1, 1, tokens)]) for tokens in (100, 200))
    assert (long - short)/100 == max(12, words, (used + words)/2)


def test_shortest_token_is_the_docstrings():
    assert "at least 12" in SSMCore.__doc__ and Datapath.new_state_cycle - Datapath.state_cycle + 2 == 12
