#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Matrices past vectors, compiled, against the exact model."""

import numpy as np
import pytest

import exact

from cores.gemv.lanes import GEMVLanes

from model.exact.blockfloat import to_block_float
from model.exact.linear import Linear
from model.exact.tape import block_rows, pack_matrix

from operations.numerics import GROUP

from tools.verilated import VerilatedModule, stream_ports, words_of

# Helpers ------------------------------------------------------------------------------------------

WORDS = 512
UNITS = {}


def unit(width, tokens, bits=14, packed=True, load_lanes=4):
    key = width, tokens, bits, packed, load_lanes
    if key not in UNITS:
        module = GEMVLanes(width, tokens, load_lanes, WORDS, bits, packed)
        inputs, outputs = {}, {}
        for prefix, endpoint, payloads, drives in (
            ("load",    module.load,    ("data", "exponent", "token", "place"), False),
            ("command", module.command, ("narrow", "wide", "groups", "blocks", "base", "tokens"), False),
            ("tape",    module.tape,    ("data",), False),
            ("source",  module.source,  ("data", "last"), True)):
            more = stream_ports(prefix, endpoint, payloads, drives)
            inputs.update(more[0])
            outputs.update(more[1])
        UNITS[key] = VerilatedModule(module, inputs, outputs)
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
    """Random matrices whose tapes have so many beats in all."""
    result, base = [], 0
    while beats > 0:
        narrow  = bool(rng.integers(2))
        columns = GROUP*int(rng.integers(1, most//GROUP + 1))
        rows    = int(rng.integers(1, 12*block_rows(narrow, width)))
        rows    = min(rows, 1 + beats*width//(4 if narrow else 8)//columns)
        if base + columns//16 > WORDS:
            break
        result.append(matrix(rng, rows, columns, narrow, tokens, bool(rng.integers(2)), base, int(rng.integers(1, tokens + 1))))
        base   += columns//16
        beats  -= rows*columns*(4 if narrow else 8)//width
    return result

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tokens", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [128, 256, 512])
def test_against_the_model(width, tokens):
    rng = np.random.default_rng(width + tokens)
    for n in range(4):
        check(matrices(rng, 5000, width, tokens), width, tokens, seed=n)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("width, tokens", [(128, 1), (128, 4), (256, 8), (512, 2)])
def test_a_beat_a_cycle(width, tokens, narrow):
    """Matrices one after the other, with as few columns as may be, and as the models have."""
    rng = np.random.default_rng(1)
    for columns in (max(128, 32*tokens), 768):
        several = [matrix(rng, 8*block_rows(kind, width), columns, kind, tokens, wide, base=96*n if columns > 256 else 16*n)
            for n, (kind, wide) in enumerate([(narrow, False), (not narrow, True), (narrow, True), (narrow, False)])]
        cycles, beats = check(several, width, tokens)
        assert cycles <= beats + GEMVLanes.latency + 2*tokens
