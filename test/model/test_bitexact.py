#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The bit-accurate model against exact arithmetic."""

import numpy as np
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

import exact

from model import bitexact

# Helpers ------------------------------------------------------------------------------------------

COUNT = 200_000
BITS  = st.integers(0, 0xffff)


def halves(*arrays):
    return [np.asarray(array, np.uint16).view(np.float16) for array in arrays]


def check_state_update(*vectors):
    model = bitexact.state_update(*halves(*vectors)).view(np.uint16)
    assert np.array_equal(model, exact.state_update(*vectors))


def check_dot_skip(a, b):
    h, C, D, x = a[:, 1:], b[:, 1:], a[:, 0], b[:, 0]
    model = bitexact.dot_skip(*halves(h.copy(), C.copy(), D.copy(), x.copy())).view(np.uint16)
    assert np.array_equal(model, exact.dot_skip(h, C, D, x))

# State Update -------------------------------------------------------------------------------------

def test_state_update():
    check_state_update(*exact.update_vectors(np.random.default_rng(10), COUNT))


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.lists(st.tuples(BITS, BITS, BITS, BITS, BITS), min_size=1, max_size=20))
def test_state_update_of_any_operands(vectors):
    check_state_update(*np.array(vectors, np.uint16).T.copy())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_state_update_ten_million(seed):
    check_state_update(*exact.update_vectors(np.random.default_rng(1000 + seed), COUNT))

# Stochastic Rounding ------------------------------------------------------------------------------

def check_stochastic_update(rng, count):
    vectors = exact.update_vectors(rng, count)
    random  = exact.update_randoms(rng, *vectors)
    model   = bitexact.state_update(*halves(*vectors), random).view(np.uint16)
    assert np.array_equal(model, exact.state_update(*vectors, random))


def test_stochastic_update():
    check_stochastic_update(np.random.default_rng(11), COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_stochastic_update_ten_million(seed):
    check_stochastic_update(np.random.default_rng(2000 + seed), COUNT)


def test_random_bits_of_one_element():
    """The hash as its docstring has it, word by word."""
    rotate = lambda value, left: (value << left | value >> 24 - left) & 0xffffff
    def expected(seed, p, n):
        x, y = seed & 0xffffff, seed >> 24 | p << 8
        for number in range(1, 9):
            if number == 5:
                x ^= n//4*0x9e3779 & 0xffffff
            x = (rotate(x, 16) + y & 0xffffff) ^ (number*0x9e3779 & 0xffffff)
            y = rotate(y, 3) ^ x
        return ((x | y << 24) >> 12*(n % 4) & 0xfff) >> 2
    for seed in (0, 1, 0xffffffff, 0x12345678):
        bits = bitexact.random_bits(seed, 5, 11)
        assert bits.shape == (5, 11)
        assert all(bits[p, n] == expected(seed, p, n) for p in range(5) for n in range(11))


def test_random_bits_look_random():
    """Even over their range, and no two of token, row and column correlated: five sigma, of fixed bits."""
    tokens, rows, columns = 2048, 8, 32
    bits  = bitexact.random_bits(np.arange(tokens) + 12345, rows, columns)
    count = np.bincount(bits.ravel(), minlength=1024)
    mean  = bits.size/1024
    assert abs((((count - mean)**2)/mean).sum() - 1023) < 5*np.sqrt(2*1023)
    z = (bits - 511.5)/(1024/np.sqrt(12))
    for lag in (1, 2, 3, 4, 8, 64, 256):
        assert np.abs((z[lag:]*z[:-lag]).mean(0)).max()*np.sqrt(tokens - lag) < 5
    for axis in (1, 2):
        one = np.moveaxis(z, axis, -1).reshape(-1, z.shape[axis])
        off = one.T @ one/len(one) - np.eye(one.shape[1])*(one*one).mean(0)
        assert np.abs(off).max()*np.sqrt(len(one)) < 5
    assert np.abs(z.mean(0)).max()*np.sqrt(tokens) < 5


def test_block_stochastic():
    """Each head's and each token's seed; tokens run again from a stored state get the same bits."""
    rng  = np.random.default_rng(21)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float16)
    case = dict(x=draw(4, 3, 5), dt=draw(4, 3), dA=draw(4, 3), B=draw(4, 1, 6), C=draw(4, 1, 6), D=draw(3))
    y, h = bitexact.ssm_block(**case, h0=draw(3, 5, 6)*0, seed=2**32 - 2)
    first = {name: value[:2] if name != "D" else value for name, value in case.items()}
    rest  = {name: value[2:] if name != "D" else value for name, value in case.items()}
    y_first, half = bitexact.ssm_block(**first, seed=2**32 - 2)
    y_rest,  last = bitexact.ssm_block(**rest, h0=half, seed=0)
    assert np.array_equal(np.concatenate([y_first, y_rest]), y) and np.array_equal(last, h)
    head = bitexact.state_update(half[2], case["dA"][2, 2], case["dt"][2, 2], case["x"][2, 2][:, None],
        case["B"][2, 0], bitexact.random_bits(2*0x9e3779b9, 5, 6))
    _, third = bitexact.ssm_step(half, *(case[name][2] for name in ("x", "dt", "dA", "B", "C")), case["D"], seed=0)
    assert np.array_equal(head, third[2])
    assert not np.array_equal(bitexact.ssm_block(**case, seed=7)[1], h)

# Dot Product and Skip -----------------------------------------------------------------------------

@pytest.mark.parametrize("terms, count", [(1, 50_000), (2, 50_000), (8, 50_000), (16, 30_000), (128, 15_000),
    (513, 5_000)])
def test_dot_skip(terms, count):
    check_dot_skip(*exact.dot_vectors(np.random.default_rng(terms), count, terms + 1))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(1, 9).flatmap(lambda terms: st.lists(st.tuples(
    st.lists(BITS, min_size=terms + 1, max_size=terms + 1), st.lists(BITS, min_size=terms + 1, max_size=terms + 1)),
    min_size=1, max_size=10)))
def test_dot_skip_of_any_operands(vectors):
    check_dot_skip(*np.array(vectors, np.uint16).transpose(1, 0, 2).copy())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_dot_skip_ten_million(seed):
    check_dot_skip(*exact.dot_vectors(np.random.default_rng(1000 + seed), COUNT, 9))

# Block --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("with_h0", [False, True])
def test_block(with_h0):
    """Groups, tokens and heads are put together as the equations say: y and h of each token, one by one."""
    T, H, P, N, G = 3, 4, 3, 5, 2
    rng   = np.random.default_rng(20)
    draw  = lambda *shape: rng.standard_normal(shape).astype(np.float16)
    x, dt, dA, B, C, D = draw(T, H, P), draw(T, H), draw(T, H), draw(T, G, N), draw(T, G, N), draw(H)
    h0    = draw(H, P, N) if with_h0 else None
    y, h  = bitexact.ssm_block(x, dt, dA, B, C, D, h0)
    state = np.zeros((H, P, N), np.uint16) if h0 is None else h0.view(np.uint16).copy()
    one   = lambda value: np.array([value]).view(np.uint16)
    for t in range(T):
        for head in range(H):
            group = head//(H//G)
            for p in range(P):
                for n in range(N):
                    state[head, p, n] = exact.state_update(one(state[head, p, n]), one(dA[t, head]), one(dt[t, head]),
                        one(x[t, head, p]), one(B[t, group, n]))[0]
                expected = exact.dot_skip(state[head, p][None], C[t, group][None].view(np.uint16), one(D[head]),
                    one(x[t, head, p]))
                assert y[t, head, p].view(np.uint16) == expected[0]
    assert np.array_equal(h.view(np.uint16), state)
