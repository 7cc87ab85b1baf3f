#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The netlist is the design: what synthesis makes of the core, simulated against the bit-accurate model."""

from functools import partial

import numpy as np
import pytest

from core_player import CorePlayer, random_tile

from cores.ssm.config import SSMConfig
from cores.yosys import SIMULATED, netlist

from firmware.vectors import selftest_vectors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# Small tiles: without block RAM, of which yosys has no model, they are LUT RAM.
CONFIGS = {
    "lanes4"     : SSMConfig(lanes=4, max_headdim=8, max_d_state=16),
    "stochastic" : SSMConfig(lanes=4, max_headdim=8, max_d_state=16, stochastic_rounding=True),
}

# Netlist ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("family", SIMULATED)
def test_equals_model(family, config):
    """Tiles of the self-test's sizes, special values among them, then larger ones with and without stalls."""
    rng = np.random.default_rng(1)
    with CorePlayer(config, transform=partial(netlist, top="top", family=family)) as player:
        for vector in selftest_vectors(config):
            geometry = vector.geometry
            player.check(geometry.headdim, geometry.d_state, [random_tile(rng, geometry.headdim, geometry.d_state,
                vector.tokens, with_h0=not vector.zero_state) for _ in range(geometry.heads)])
        for duty in (256, 100):
            tiles = [random_tile(rng, 8, 13, 5, with_h0=n % 2 == 0, no_store=n == 2) for n in range(6)]
            player.check(8, 13, tiles, duty=duty)
