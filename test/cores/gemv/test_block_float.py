#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Block floating point, compiled, against the exact model."""

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

import exact

from cores.gemv.block_float import BlockQuantiser

from model.exact.blockfloat import to_block_float

from operations.numerics import GROUP

from tools.verilated import VerilatedModule, pack_words

# Helpers ------------------------------------------------------------------------------------------

GROUPS = 200_000//GROUP
UNITS  = {}


def unit(lanes, bits):
    if (lanes, bits) not in UNITS:
        module = BlockQuantiser(lanes, bits)
        sink, source = module.sink, module.source
        UNITS[lanes, bits] = VerilatedModule(module,
            {"sink_valid": sink.valid, "sink_data": sink.data, "source_ready": source.ready},
            {"sink_ready": sink.ready, "source_valid": source.valid, "source_data": source.data, "source_exponent": source.exponent,
                "source_finite": source.finite, "source_last": source.last})
    return UNITS[lanes, bits]


def words(rows, width):
    """Rows of unsigned numbers of `width` bits each, as the words of a port."""
    if rows.shape[1]*width <= 64:
        return sum(rows[:, n].astype(np.uint64) << np.uint64(width*n) for n in range(rows.shape[1]))
    return pack_words((sum(value << width*n for n, value in enumerate(row)) for row in rows.tolist()), width*rows.shape[1])


def check(vectors, lanes, bits, duty=256, seed=1):
    """vectors: binary16 bits, (groups, GROUP). Returns the cycles."""
    compiled = unit(lanes, bits)
    compiled.reset()
    beats    = vectors.size//lanes
    out, cycles = compiled.streams({"sink": {"data": words(vectors.reshape(beats, lanes), 16)}},
        {"source": (("data", "exponent", "finite", "last"), beats)}, limit=100*beats + 1000, duty=duty, seed=seed)
    out      = out["source"]
    q, e, finite = to_block_float(vectors.view(np.float16), bits)
    beat     = GROUP//lanes
    assert np.array_equal(out["finite"].reshape(-1, beat), np.broadcast_to(finite[:, None], (len(finite), beat)))
    assert np.array_equal(out["last"].reshape(-1, beat), np.broadcast_to(np.arange(beat) == beat - 1, (len(finite), beat)))
    exponents = out["exponent"].reshape(-1, beat).astype(int) - 13 - bits
    assert np.array_equal(exponents[finite], np.broadcast_to(e, exponents.shape)[finite])
    wanted   = words((q.astype(np.int64) & 2**bits - 1).reshape(beats, lanes), bits)
    chosen   = np.repeat(finite, beat)
    assert np.array_equal(out["data"][chosen], wanted[chosen])
    return cycles


def vectors(rng, groups):
    """Of all classes; near exponents in every second group, and no infinities in most."""
    rows = exact.operands(rng, (groups, GROUP))
    some = rng.random(groups) < 0.9
    rows[some] = np.where(rows[some] & 0x7c00 == 0x7c00, rows[some] & 0x83ff, rows[some])
    near = np.arange(groups) % 2 == 0
    base = rng.integers(0, 31, (groups, 1)).astype(int)
    rows[near] = (rows[near] & 0x83ff) | (np.clip(base + rng.integers(-14, 1, (groups, GROUP)), 0, 30)[near] << 10).astype(np.uint16)
    return rows

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lanes, bits", [(1, 14), (4, 14), (4, 8), *(pytest.param(*build, marks=pytest.mark.slow) for build in ((2, 14), (8, 14), (4, 11), (4, 12))),
    *(pytest.param(lanes, bits, marks=pytest.mark.slow) for lanes in (1, 2, 8) for bits in (8, 11, 12, 13)), pytest.param(4, 13, marks=pytest.mark.slow)])
def test_against_the_model(lanes, bits):
    check(vectors(np.random.default_rng(lanes + bits), GROUPS if bits == 14 else GROUPS//10), lanes, bits)


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_beat_a_cycle(lanes):
    groups = 100
    cycles = check(vectors(np.random.default_rng(1), groups), lanes, 14)
    assert cycles <= groups*GROUP//lanes + GROUP//lanes + 8


@pytest.mark.parametrize("sink", [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
@pytest.mark.parametrize("lanes", [1, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_stalls(lanes, sink, source):
    check(vectors(np.random.default_rng(sink + source), 40), lanes, 14, {"sink": sink, "source": source}, seed=sink*source)


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 0xffff), min_size=GROUP, max_size=GROUP), st.sampled_from([8, 14]))
def test_any_group(group, bits):
    check(np.array([group], np.uint16), 4, bits)


@pytest.mark.parametrize("bits", [8, 14])
def test_ends(bits):
    """All zeros, all the smallest, the largest, and each exponent beside the largest one."""
    rows = [np.full(GROUP, value) for value in (0, 0x8000, 1, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x7c00, 0x7e00)]
    for fraction in (0, 1, 0x1ff, 0x200, 0x201, 0x3ff):
        rows.append((np.clip(30 - np.arange(GROUP), 0, 30) << 10) + fraction)
    check(np.array(rows, np.uint16), 4, bits)


def test_refused():
    with pytest.raises(ValueError, match="lanes must be"):
        BlockQuantiser(3)
    with pytest.raises(ValueError, match="bits must be"):
        BlockQuantiser(4, 15)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_million(seed):
    check(vectors(np.random.default_rng(1000 + seed), GROUPS), 4, 14)
