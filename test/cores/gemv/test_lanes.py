#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Matrices past vectors, compiled, against the exact model."""

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

import exact

from cores.gemv.lanes import GEMVLanes

from model.exact.blockfloat import to_block_float
from model.exact.linear import Linear
from model.exact.tape import block_rows, pack_matrix

from operations.numerics import GROUP

from tools.verilated import stream_module, words_of

# Helpers ------------------------------------------------------------------------------------------

WORDS = 512
UNITS = {}


def unit(width, tokens, bits=14, packed=True, load_lanes=4):
    key = width, tokens, bits, packed, load_lanes
    if key not in UNITS:
        module = GEMVLanes(width, tokens, load_lanes, WORDS, bits, packed)
        UNITS[key] = stream_module(module, (
            ("load",    module.load,    ("data", "exponent", "token", "place"), False),
            ("command", module.command, ("narrow", "wide", "groups", "blocks", "base", "tokens"), False),
            ("tape",    module.tape,    ("data",), False),
            ("source",  module.source,  ("data", "last"), True)))
    return UNITS[key]


def words(bytes_):
    """Rows of bytes as the words of a port."""
    rows = np.zeros((len(bytes_), words_of(8*bytes_.shape[1])*8), np.uint8)
    rows[:, :bytes_.shape[1]] = bytes_
    return rows.view(np.uint64)


def load(compiled, x, base, bits, lanes):
    """The beats that bring vectors, float16 (tokens, n), to `base`."""
    q, e, finite = to_block_float(x, bits)
    fields = np.where(np.isfinite(x).reshape(len(x), -1, GROUP).all(-1), e + 13 + bits, 31)
    beats  = q.reshape(-1, lanes).astype(np.int64) & 2**bits - 1
    data   = np.zeros((len(beats), words_of(bits*lanes)), object)
    for n in range(lanes):
        data[:, 0] += beats[:, n].astype(object) << bits*n
    if data.shape[1] > 1:
        data[:, 1] = data[:, 0] >> 64
        data[:, 0] &= 2**64 - 1
    count  = x.shape[1]//lanes
    compiled.streams({"load": {"data": data.astype(np.uint64), "exponent": np.repeat(fields.reshape(-1), GROUP//lanes),
        "token": np.repeat(np.arange(len(x)), count), "place": np.tile(base*16//lanes + np.arange(count), len(x))}}, {}, 10*len(beats) + 10)
    compiled.step(4)


def check(matrices, width, tokens, bits=14, duty=256, seed=1, packed=True, load_lanes=4):
    """matrices: [(integers, scales, narrow, wide, x, base, count)], the vectors x of all at places of their own. Returns the
    cycles and the beats of the tape."""
    compiled = unit(width, tokens, bits, packed, load_lanes)
    compiled.reset()
    lanes    = width//128
    tape, commands, wanted, lasts = [], [], [], []
    for integers, scales, narrow, wide, x, base, count in matrices:
        load(compiled, x, base, bits, load_lanes)
        block  = block_rows(narrow, width)
        blocks = -(-len(integers)//block)
        tape.append(pack_matrix(integers, scales, narrow, width))
        commands.append((narrow, wide, integers.shape[1]//GROUP - 1, blocks - 1, base, count - 1))
        y      = Linear(integers, scales)(x[:count], np.float32 if wide else np.float16, bits)
        y      = y.view(np.uint32 if wide else np.uint16)
        padded = np.pad(y.T, ((0, blocks*block - len(integers)), (0, 0)))
        if len(padded) > len(integers): # Rows of zeros: +0, or NaN.
            nan = ~np.isfinite(x[:count]).all(-1)
            padded[len(integers):] = np.where(nan, 0x7fc00000 if wide else 0x7e00, 0)
        wanted.append(padded.reshape(-1, lanes, count).transpose(0, 2, 1).reshape(-1, lanes))
        lasts += [0]*(len(wanted[-1]) - 1) + [1]
    tape   = np.concatenate(tape)
    wanted = np.concatenate(wanted).astype(np.uint32)
    names  = ("narrow", "wide", "groups", "blocks", "base", "tokens")
    out, cycles = compiled.streams({"tape": {"data": words(tape)},
        "command": {name: np.array([command[n] for command in commands]) for n, name in enumerate(names)}},
        {"source": (("data", "last"), len(wanted))}, limit=100*len(tape) + 100*len(wanted) + 1000, duty=duty, seed=seed)
    found = out["source"]["data"].reshape(len(wanted), -1).view(np.uint32)[:, :lanes]
    wrong = np.argwhere(found != wanted)
    assert not len(wrong), (len(wrong), wrong[0], hex(found[tuple(wrong[0])]), hex(wanted[tuple(wrong[0])]))
    assert np.array_equal(out["source"]["last"], lasts)
    return cycles, len(tape)


def matrix(rng, rows, columns, narrow, tokens, wide=False, base=0, count=None, plain=False):
    """Of all classes of numbers; `plain`: without infinities and NaN."""
    limits   = (-8, 8) if narrow else (-128, 128)
    integers = rng.integers(*limits, (rows, columns)).astype(np.int8)
    some     = rng.random((rows, columns//GROUP)) < 0.05
    ends     = rng.choice([limits[0], limits[1] - 1], (rows, columns//GROUP, GROUP))
    integers = np.where(some[..., None], ends, integers.reshape(ends.shape)).reshape(rows, columns).astype(np.int8)
    scales   = exact.operands(rng, (rows, columns//GROUP))
    scales   = np.where(scales & 0x7c00 == 0x7c00, scales & 0x83ff, scales).astype(np.uint16).view(np.float16)
    x        = exact.operands(rng, (tokens, columns))
    keep     = rng.random(tokens) < (1 if plain else 0.9)
    x        = np.where(keep[:, None] & (x & 0x7c00 == 0x7c00), x & 0x83ff, x).astype(np.uint16).view(np.float16)
    if rng.random() < 0.5: # Of near exponents, so that sums are neither one term's nor without any cancelling.
        x      = (rng.standard_normal(x.shape)*2.0**rng.integers(-12, 8)).astype(np.float16)
        scales = (rng.standard_normal(scales.shape)*2.0**rng.integers(-12, 0)).astype(np.float16)
    return integers, scales, narrow, wide, x, base, count or tokens


def matrices(rng, beats, width, tokens, most=512):
    """Random matrices whose tapes have so many beats in all, or as many as there is room for their vectors."""
    result, base = [], 0
    blocks       = 12 if beats <= 5000 else 100
    while beats > 0:
        narrow  = bool(rng.integers(2))
        columns = GROUP*int(rng.integers(1, most//GROUP + 1))
        rows    = int(rng.integers(1, blocks*block_rows(narrow, width)))
        rows    = min(rows, 1 + beats*width//(4 if narrow else 8)//columns)
        if base + columns//16 > WORDS:
            break
        result.append(matrix(rng, rows, columns, narrow, tokens, bool(rng.integers(2)), base, int(rng.integers(1, tokens + 1))))
        base   += columns//16
        beats  -= rows*columns*(4 if narrow else 8)//width
    return result

# Tests --------------------------------------------------------------------------------------------

BUILDS = [(128, 4), (256, 4)]
REST   = [(128, 1), (512, 2), (128, 2), (128, 8), (256, 1), (256, 2), (256, 8), (512, 1), (512, 4), (512, 8)]


@pytest.mark.parametrize("width, tokens", BUILDS + [pytest.param(*build, marks=pytest.mark.slow) for build in REST])
def test_against_the_model(width, tokens):
    """200,000 beats of weights by R = 4 and 128 bits, and 20,000 by others."""
    rng   = np.random.default_rng(width + tokens)
    beats = 0
    while beats < (200_000 if (width, tokens) == (128, 4) else 20_000):
        beats += check(matrices(rng, 20_000, width, tokens), width, tokens, seed=beats)[1]


@pytest.mark.parametrize("bits, packed, load_lanes", [(8, True, 1), (12, False, 8),
    pytest.param(11, True, 2, marks=pytest.mark.slow), (14, False, 4)])
def test_builds(bits, packed, load_lanes):
    """Mantissas of other widths, multipliers that are too narrow for two products, and vectors that come otherwise."""
    rng = np.random.default_rng(bits)
    check(matrices(rng, 5000, 128, 2), 128, 2, bits, packed=packed, load_lanes=load_lanes)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("width, tokens", [(128, 1), (128, 4), (512, 2), pytest.param(128, 8, marks=pytest.mark.slow)])
def test_a_beat_a_cycle(width, tokens, narrow):
    """Matrices one after the other, with as few columns as may be, and as the models have."""
    rng = np.random.default_rng(1)
    for columns in (max(128, 32*tokens), 768):
        several = [matrix(rng, 8*block_rows(kind, width), columns, kind, tokens, wide, base=columns//16*n)
            for n, (kind, wide) in enumerate([(narrow, False), (not narrow, True), (narrow, True), (narrow, False)])]
        cycles, beats = check(several, width, tokens)
        assert cycles <= beats + GEMVLanes.latency + 2*tokens


@pytest.mark.parametrize("narrow", [False, True])
def test_latency(narrow):
    cycles, beats = check([matrix(np.random.default_rng(1), 1, GROUP, narrow, 1)], 128, 1)
    assert cycles == beats + GEMVLanes.latency + narrow # The row that is zeros is a cycle later.


@pytest.mark.parametrize("tape",   [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
def test_stalls(tape, source):
    rng = np.random.default_rng(tape + source)
    for most in (64, 512):
        check(matrices(rng, 1500, 128, 4, most), 128, 4, duty={"tape": tape, "source": source, "command": tape}, seed=tape*source)


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.booleans(), st.booleans(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_any_matrix(data, narrow, wide, rows, groups, count):
    limits   = (-8, 7) if narrow else (-128, 127)
    integers = data.draw(arrays(np.int8, (rows, GROUP*groups), elements=st.integers(*limits), fill=st.integers(*limits)))
    scales   = data.draw(arrays(np.uint16, (rows, groups), elements=st.integers(0, 0xffff).filter(lambda bits: bits & 0x7c00 != 0x7c00)))
    x        = data.draw(arrays(np.uint16, (4, GROUP*groups), elements=st.integers(0, 0xffff)))
    check([(integers, scales.view(np.float16), narrow, wide, x.view(np.float16), 0, count)], 128, 4)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("wide",   [False, True])
def test_ends(narrow, wide):
    """The largest of everything, of either sign, the smallest, and sums that cancel but for the smallest."""
    low, high = (-8, 7) if narrow else (-128, 127)
    columns   = 32*256
    rows      = []
    for value in (low, high):
        rows += [np.full(columns, value), np.where(np.arange(columns) % 2, value, -value - (value == low))]
    integers  = np.array(rows).astype(np.int8)
    for scale in (65504, 2.0**-24, -65504):
        scales = np.full((len(rows), columns//GROUP), scale, np.float16)
        x      = np.array([np.full(columns, 65504), np.full(columns, 2.0**-24), np.full(columns, -65504), np.zeros(columns)], np.float16)
        x[1, 0] = x[3, 5] = -2.0**-24
        check([(integers, scales, narrow, wide, x, 0, 4)], 128, 4)


def test_refused():
    with pytest.raises(ValueError, match="width must be one of 128, 256, 512, is 64."):
        GEMVLanes(64)
    with pytest.raises(ValueError, match="tokens must be one of 1, 2, 4, 8, is 3."):
        GEMVLanes(128, 3)
    with pytest.raises(ValueError, match="bits must be an integer from 8 to 14, is 15."):
        GEMVLanes(bits=15)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_million(seed):
    rng   = np.random.default_rng(1000 + seed)
    beats = 0
    while beats < 200_000:
        beats += check(matrices(rng, 20_000, 128, 4), 128, 4, duty=int(rng.choice([256, 230])), seed=beats + seed)[1]
