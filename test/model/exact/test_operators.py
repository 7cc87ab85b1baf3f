#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Norm, convolution, operators element by element and the candidates, against integers."""

import numpy as np
import pytest

import exact

from model.exact.conv import conv1d
from model.exact.elementwise import add, add_residual, decay, gate, multiply, time_step
from model.exact.functions import exp, rsqrt, silu, softplus
from model.exact.head import best
from model.exact.norm import eps_units, rms_norm

# Helpers ------------------------------------------------------------------------------------------

COUNT = 20_000


def halves(bits):
    return np.asarray(bits, np.uint16).view(np.float16)


def finite_bits(rng, shape, below=0x7c00):
    return rng.integers(0, below, shape, np.uint16) | rng.integers(0, 2, shape, np.uint16) << 15

# Element by Element -------------------------------------------------------------------------------

def test_add():
    rng  = np.random.default_rng(1)
    one  = np.full(COUNT, exact.ONE16, np.uint16)
    a, b = exact.operands(rng, (2, COUNT))
    zero = np.zeros(COUNT, np.uint16)
    assert np.array_equal(add(halves(a), halves(b)).view(np.uint16), exact.state_update(a, one, b, one, one))
    assert np.array_equal(add(halves(a), halves(a ^ 0x8000)).view(np.uint16), exact.state_update(a, one, a ^ 0x8000, one, one))
    assert np.array_equal(add(halves(a), halves(zero)).view(np.uint16), exact.state_update(a, one, zero, one, one))


def test_multiply():
    rng  = np.random.default_rng(2)
    a, b = exact.operands(rng, (2, COUNT))
    got  = multiply(halves(a), halves(b)).view(np.uint16)
    for p, q, bits in zip(a.tolist(), b.tolist(), got.tolist()):
        nan, inf, sign = exact.product_special(np.array([p]), np.array([q]))
        want = 0x7e00 if nan[0] else 0x7c00 | int(sign[0]) << 15 if inf[0] else exact.round16(
            exact.INTEGERS[p]*exact.INTEGERS[q], 48, zero_sign=(p ^ q) >> 15)
        assert bits == want


def test_add_residual():
    residual = np.array([1.0, 2.0**24, -2.0**24, 3e38, np.inf, np.nan], np.float32)
    delta    = np.array([2.0**-24, 1.0, -3.0, 65504, -np.inf, 1], np.float16)
    assert add_residual(residual, delta).view(np.uint32).tolist() == [
        0x3f800000, 0x4b800000, 0xcb800002, np.float32(3e38).view(np.uint32), 0x7fc00000, 0x7fc00000]


def test_compositions():
    """Each rounds where it says."""
    rng  = np.random.default_rng(3)
    a, b = halves(finite_bits(rng, (2, 1000), 0x4800))
    assert gate(a, b).tobytes()  == multiply(a, silu(b)).tobytes()
    assert decay(a, b).tobytes() == exp(multiply(a, b)).tobytes()
    dt = time_step(a, b, (0.0, float("inf")))
    assert dt.tobytes() == softplus(add(a, b)).tobytes()
    clamped = time_step(a, b, (0.001, 0.1))
    assert clamped.min() == np.float16(0.001) and clamped.max() == np.float16(0.1)
    inside  = (dt > np.float16(0.001)) & (dt < np.float16(0.1))
    assert inside.any() and (clamped[inside] == dt[inside]).all()
    assert np.isnan(time_step(np.float16([np.nan]), np.float16([0]), (0.001, 0.1)))

# Norm ---------------------------------------------------------------------------------------------

def norm_by_integers(u, weight, eps):
    """Bits of RMSNorm of a list of finite bits."""
    squares = sum(exact.INTEGERS[bits]**2 for bits in u)
    s, e    = rsqrt(len(u) << 48, squares + eps_units(len(u), eps))
    return [exact.round16(exact.INTEGERS[a]*exact.INTEGERS[b]*s << 64, 48 - e + 64, zero_sign=(a ^ b) >> 15)
        for a, b in zip(u, weight)]


@pytest.mark.parametrize("below", [0x0400, 0x3c00, 0x5800, 0x7c00])
@pytest.mark.parametrize("size", [1, 32, 160])
def test_norm(below, size):
    rng    = np.random.default_rng(size)
    u      = finite_bits(rng, (20, size), below)
    u[0]   = 0
    u[1]   = 0x8000
    weight = finite_bits(rng, size)
    got    = rms_norm(halves(u), halves(weight), 1e-5).view(np.uint16)
    for row in range(20):
        assert got[row].tolist() == norm_by_integers(u[row].tolist(), weight.tolist(), 1e-5)


def test_norm_of_groups():
    rng    = np.random.default_rng(4)
    u      = halves(finite_bits(rng, (3, 64), 0x4400))
    weight = halves(finite_bits(rng, 64, 0x4400))
    parts  = [rms_norm(u[:, part], weight[part], 1e-5) for part in (slice(0, 32), slice(32, 64))]
    assert rms_norm(u, weight, 1e-5, 2).tobytes() == np.concatenate(parts, -1).tobytes()
    u[1, 40] = np.inf
    result   = rms_norm(u, weight, 1e-5, 2)
    assert np.isfinite(result[1, :32]).all() and (result[1, 32:].view(np.uint16) == 0x7e00).all()
    assert np.isfinite(result[[0, 2]]).all()


def test_norm_of_zeros_without_room_for_eps():
    assert eps_units(1, 1e-30) == 1
    assert not rms_norm(np.zeros((1, 8), np.float16), np.ones(8, np.float16), 1e-30).any()

# Convolution --------------------------------------------------------------------------------------

def test_convolution():
    rng    = np.random.default_rng(6)
    x      = exact.operands(rng, (300, 20))
    weight = finite_bits(rng, (20, 4))
    bias   = finite_bits(rng, 20)
    window = finite_bits(rng, (3, 20))
    y, after = conv1d(halves(x), halves(weight), halves(bias), halves(window))
    past   = np.concatenate([window, x])
    a      = np.stack([past[k:k + 300] for k in range(4)] + [np.full_like(x, exact.ONE16)], -1).reshape(-1, 5)
    b      = np.broadcast_to(np.concatenate([weight, bias[:, None]], -1), (300, 20, 5)).reshape(-1, 5)
    want   = exact.sum_special(*exact.dot_specials(a, b), [exact.round16(total, 48) for total in exact.dot_integers(a, b)])
    assert np.array_equal(y.view(np.uint16).reshape(-1), want)
    assert np.array_equal(after.view(np.uint16), past[-3:])


def test_convolution_in_pieces():
    rng    = np.random.default_rng(7)
    x      = rng.standard_normal((9, 5)).astype(np.float16)
    weight = rng.standard_normal((5, 4)).astype(np.float16)
    bias   = rng.standard_normal(5).astype(np.float16)
    whole, last = conv1d(x, weight, bias, np.zeros((3, 5), np.float16))
    window, pieces = np.zeros((3, 5), np.float16), []
    for first, end in ((0, 1), (1, 3), (3, 9)):
        y, window = conv1d(x[first:end], weight, bias, window)
        pieces.append(y)
    assert np.concatenate(pieces).tobytes() == whole.tobytes() and window.tobytes() == last.tobytes()

# Candidates ---------------------------------------------------------------------------------------

def test_best():
    logits = np.array([1, 3, -0.0, np.nan, 3, 0.0, -np.inf, 2], np.float32)
    tokens, values = best(logits, 8)
    assert tokens.tolist() == [1, 4, 7, 0, 2, 5, 6, 3]
    assert values[:3].tolist() == [3, 3, 2] and np.isnan(values[-1])
    assert best(logits, 3)[0].tolist() == [1, 4, 7]
    assert len(best(logits)[0]) == 8
