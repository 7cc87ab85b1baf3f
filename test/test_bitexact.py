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
