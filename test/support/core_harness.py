#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Random head tiles, and the compiled SSM core compared on them with the bit-accurate model."""

import numpy as np

from cores.ssm import harness as player
from cores.ssm.harness import Tile

from model.bitexact import ssm_block

# Constants ----------------------------------------------------------------------------------------

# Of 256 cycles, in how many a stream moves if it can.
PATTERNS = {
    "full"         : 256,
    "half"         : 128,
    "sparse"       : 24,
    "slow_command" : {"command": 1},
    "slow_state_in": {"state_sink": 24},
    "slow_inputs"  : {"x_sink": 16},
    "slow_state"   : {"state_source": 24},
    "slow_y"       : {"y_source": 8},
    "slow_out"     : {"y_source": 16, "state_source": 32},
    "slow_in"      : {"x_sink": 48, "state_sink": 48},
}

# Tiles --------------------------------------------------------------------------------------------

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
        draw(1)[0], draw(headdim, d_state) if with_h0 else None, seed=int(rng.integers(2**32)), **options)


def model(tile, config):
    """y (T, P) and the new state (P, N) of a tile."""
    y, h = ssm_block(tile.x[:, None], tile.dt[:, None], tile.dA[:, None], tile.B[:, None], tile.C[:, None],
        tile.D[None], None if tile.h0 is None else tile.h0[None], tile.seed if config.stochastic_rounding else None)
    return y[:, 0], h[0]

# Core Player --------------------------------------------------------------------------------------

class CoreHarness(player.CoreHarness):
    """The player of cores/ssm, with the model at its side."""
    def check(self, headdim, d_state, tiles, **options):
        """Plays tiles and compares with the model, bit for bit. Returns the cycles."""
        ys, states, cycles = self.play(headdim, d_state, tiles, **options)
        for tile, y, h in zip(tiles, ys, states):
            expected_y, expected_h = model(tile, self.config)
            assert np.array_equal(y.view(np.uint16), expected_y[tile.first_token:].view(np.uint16))
            assert (h is None) == tile.no_store
            assert h is None or np.array_equal(h.view(np.uint16), expected_h.view(np.uint16))
        self.check_silence()
        return cycles

    def check_silence(self):
        """No beat beyond those asked for."""
        valids = ["state_source_valid", "y_source_valid"]
        out    = self.compiled.run(valids, state_source_ready=[1]*100, y_source_ready=[1]*100)
        assert not any(out[name].any() for name in valids)
        self.compiled.poke(state_source_ready=0, y_source_ready=0)
