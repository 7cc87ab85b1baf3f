#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Configuration, geometry and the layout of the records."""

import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from operations import ssm as layout
from operations.config import ALIGNMENT, LANES, UNITS, SSMConfig
from operations.program import Unit
from operations.ssm import Geometry

# Helpers ------------------------------------------------------------------------------------------

def tensor(*shape):
    """Different values everywhere, all exact in binary16."""
    return (np.arange(np.prod(shape)) % 2039 - 1000).astype(np.float16).reshape(shape)


def halves(data):
    return np.frombuffer(data, "<f2")


GEOMETRIES = [Geometry(SSMConfig(lanes=lanes), *sizes) for lanes in LANES
    for sizes in ((24, 64, 128, 1), (4, 5, 7, 2), (3, 8, 33, 3), (1, 1, 1, 1))]

# SSMConfig ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, value, rule", [
    ("lanes",       5,     "one of 4, 8, 16, 32, 64"),
    ("lanes",       128,   "one of 4, 8, 16, 32, 64"),
    ("lanes",       None,  "one of 4, 8, 16, 32, 64"),
    ("max_headdim", 0,     "an integer from 1 to 256"),
    ("max_headdim", 257,   "an integer from 1 to 256"),
    ("max_headdim", 8.0,   "an integer from 1 to 256"),
    ("max_headdim", True,  "an integer from 1 to 256"),
    ("max_d_state", 0,     "an integer from 1 to 512"),
    ("max_d_state", 528,   "an integer from 1 to 512"),
    ("max_d_state", 24,    "a multiple of 16"),
    ("max_heads",   0,     "an integer from 1 to 65535"),
    ("max_groups",  65536, "an integer from 1 to 65535"),
    ("max_tokens",  -1,    "an integer from 1 to 65535"),
    ("queue_depth", 1,     "one of 2, 4, 8, 16, 32"),
    ("queue_depth", 12,    "one of 2, 4, 8, 16, 32"),
    ("dsp_bits",    24,    "one of 18, 25"),
    ("lanes",       16.0,  "one of 4, 8, 16, 32, 64"),
    ("resident_tiles", False, "an integer from 2 to 256"),
    ("pipelined",   1,     "True or False"),
    ("dsp_shift",   1,     "True or False"),
])
def test_config_raises(name, value, rule):
    with pytest.raises(ValueError, match="^" + re.escape(f"{name} must be {rule}, is {value!r}.") + "$"):
        SSMConfig(**{name: value})


@pytest.mark.parametrize("lanes, multiple", [(4, 8), (8, 8), (16, 16), (32, 32)])
def test_d_state_multiple(lanes, multiple):
    assert SSMConfig(lanes=lanes).d_state_multiple == multiple
    assert SSMConfig(lanes=lanes, max_d_state=multiple).max_tile_words == 64*multiple//lanes
    with pytest.raises(ValueError, match=f"max_d_state must be a multiple of {multiple}, is {multiple + 4}."):
        SSMConfig(lanes=lanes, max_d_state=multiple + 4)


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        SSMConfig().lanes = 8

# Geometry -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("sizes, message", [
    ((0, 64, 128, 1),   "heads must be an integer from 1 to 256, is 0."),
    ((257, 64, 128, 1), "heads must be an integer from 1 to 256, is 257."),
    ((24, 65, 128, 1),  "headdim must be an integer from 1 to 64, is 65."),
    ((24, 0, 128, 1),   "headdim must be an integer from 1 to 64, is 0."),
    ((24, 64, 129, 1),  "d_state must be an integer from 1 to 128, is 129."),
    ((24, 64, 128, 0),  "groups must be an integer from 1 to 64, is 0."),
    ((24, 64, 128, 5),  "groups must be a divisor of heads = 24, is 5."),
])
def test_geometry_raises(sizes, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        Geometry(SSMConfig(), *sizes)


def test_sizes():
    geometry = Geometry(SSMConfig(lanes=16), 4, 5, 17, 2)
    assert (geometry.headdim_padded, geometry.d_state_padded) == (8, 32)
    assert (geometry.tile_words, geometry.tile_bytes) == (10, 320)
    assert (geometry.x_record_bytes, geometry.bc_record_bytes, geometry.y_record_bytes) == (64, 128, 64)

# Layout -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_state_round_trip(geometry):
    h    = tensor(geometry.heads, geometry.headdim, geometry.d_state)
    data = layout.pack_state(geometry, h)
    assert len(data) == geometry.heads*geometry.tile_bytes
    assert np.array_equal(layout.unpack_state(geometry, data), h)
    # As the table says: word k*P + p of a tile holds h[p][k*L .. k*L + L - 1], padded with zeros.
    lanes = geometry.config.lanes
    tiles = halves(data).reshape(geometry.heads, -1)
    words = tiles[:, :geometry.tile_words*lanes].reshape(geometry.heads, geometry.tile_words, lanes)
    for head, p, n in np.random.default_rng(1).integers(0, h.shape, (50, 3)):
        assert words[head, n//lanes*geometry.headdim + p, n % lanes] == h[head, p, n]
    assert np.count_nonzero(tiles) == np.count_nonzero(h)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_x_records(geometry):
    x       = tensor(3, geometry.heads, geometry.headdim)
    dt, dA  = tensor(3, geometry.heads), tensor(3, geometry.heads) + 1
    D       = tensor(geometry.heads) + 2
    data    = layout.pack_x(geometry, x, dt, dA, D)
    records = halves(data).reshape(3, geometry.heads, -1)
    assert len(data) == 3*geometry.heads*geometry.x_record_bytes and geometry.x_record_bytes % ALIGNMENT == 0
    assert np.array_equal(records[:, :, 0], dt) and np.array_equal(records[:, :, 1], dA)
    assert (records[:, :, 2] == D).all() and not records[:, :, 3:8].any()
    assert np.array_equal(records[:, :, 8:8 + geometry.headdim], x) and not records[:, :, 8 + geometry.headdim:].any()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bc_records(geometry):
    B, C    = tensor(3, geometry.groups, geometry.d_state), tensor(3, geometry.groups, geometry.d_state) + 1
    data    = layout.pack_bc(geometry, B, C)
    records = halves(data).reshape(3, geometry.groups, -1)
    start   = geometry.d_state_padded # Of C.
    assert len(data) == 3*geometry.groups*geometry.bc_record_bytes and geometry.bc_record_bytes % ALIGNMENT == 0
    assert np.array_equal(records[:, :, :geometry.d_state], B)
    assert np.array_equal(records[:, :, start:start + geometry.d_state], C)
    assert np.count_nonzero(records) == np.count_nonzero(B) + np.count_nonzero(C)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_y_records(geometry):
    y       = tensor(3, geometry.heads, geometry.headdim)
    records = np.full((3, geometry.heads, geometry.y_record_bytes//2), np.nan, np.float16)
    records[:, :, :geometry.headdim] = y
    assert records.nbytes == 3*geometry.heads*geometry.y_record_bytes
    assert np.array_equal(layout.unpack_y(geometry, records.tobytes()), y)


def test_units():
    assert list(UNITS) == [unit.name for unit in Unit]
