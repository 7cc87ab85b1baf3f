#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The netlist is the design: what synthesis makes of the core, simulated against the bit-accurate model."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from core_harness import CoreHarness, Tile, random_tile

from operations.config import SEED_STRIDE, SSMConfig
from operations.ssm import SCALAR_ELEMENTS, unpack_state, unpack_y

from tools.firmware.vectors import selftest_vectors
from tools.yosys import SIMULATED, netlist

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# Small tiles: without block RAM, of which yosys has no model, they are LUT RAM.
CONFIGS = {
    "lanes4"     : SSMConfig(lanes=4, max_headdim=8, max_d_state=16),
    "stochastic" : SSMConfig(lanes=4, max_headdim=8, max_d_state=16, stochastic_rounding=True),
}

DSP_BITS = {"xilinx": 25, "ecp5": 18}

# Vectors ------------------------------------------------------------------------------------------

def vector_tiles(vector):
    """The head tiles of a vector of the firmware's self-test, and what is to come of each: [(tile, y, state)]."""
    geometry = vector.geometry
    heads    = range(geometry.heads)
    x  = np.frombuffer(vector.x,  "<f2").reshape(vector.tokens, geometry.heads, -1)
    bc = np.frombuffer(vector.bc, "<f2").reshape(vector.tokens, geometry.groups, -1)
    bc = bc[..., :2*geometry.d_state_padded].reshape(vector.tokens, geometry.groups, 2, -1)[..., :geometry.d_state]
    y  = unpack_y(geometry, vector.y)
    h0, h = (unpack_state(geometry, data) if data else [None]*geometry.heads for data in (vector.state_in, vector.state_out))
    group = [head*geometry.groups//geometry.heads for head in heads]
    return [(Tile(x[:, n, SCALAR_ELEMENTS:SCALAR_ELEMENTS + geometry.headdim], x[:, n, 0], x[:, n, 1], bc[:, group[n], 0],
        bc[:, group[n], 1], x[0, n, 2], h0[n], seed=n*SEED_STRIDE % 2**32), y[:, n], h[n]) for n in heads]

# Netlist ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("family", SIMULATED)
def test_equals_model(family, config):
    """The vectors of the self-test, special values among them; then larger tiles with and without stalls."""
    rng    = np.random.default_rng(1)
    config = replace(config, dsp_bits=DSP_BITS[family])
    with CoreHarness(config, transform=partial(netlist, top="top", family=family)) as player:
        for vector in selftest_vectors(config):
            tiles, ys, states  = zip(*vector_tiles(vector))
            got_ys, got_states, _ = player.play(vector.geometry.headdim, vector.geometry.d_state, list(tiles))
            for got, expected in zip((*got_ys, *got_states), (*ys, *states)):
                assert np.array_equal(got.view(np.uint16), expected.view(np.uint16))
        for duty in (256, 100):
            tiles = [random_tile(rng, 8, 13, 5, with_h0=n % 2 == 0, no_store=n == 2) for n in range(6)]
            player.check(8, 13, tiles, duty=duty)
