#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Draws in integers: the right shares, and the same ones each time."""

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

from model.exact.head import best
from model.exact.sampling import HIGH, LOW, draw, fixed, inverse_of, sample, weights, top_p_of

# Weights ------------------------------------------------------------------------------------------

@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=64), st.sampled_from([0.1, 0.7, 1.0, 1.3, 10.0]))
def test_weights_are_those_of_softmax(values, temperature):
    logits = np.sort(np.array(values, np.float32))[::-1].astype(np.float64)
    got    = np.array(weights(logits, inverse_of(temperature)), np.float64)
    wanted = np.exp((logits - logits[0])/temperature)
    assert got[0] == 2**31
    # Logits in steps of 2**-16, over the temperature; then t in such steps; the smallest weight is 1.
    assert np.allclose(got/2**31, wanted, rtol=3e-5*(1 + 1/temperature) + 2e-5*40, atol=2**-31)


def test_exponent_is_seamless():
    """No step where one table, or the integer part, takes over: weights fall, and never rise."""
    steps  = np.arange(0, 2**21, 7)
    falls  = [HIGH[t >> 8 & 255]*LOW[t & 255] + 2**30 >> 31 + (t >> 16) for t in steps.tolist()]
    assert all(a >= b for a, b in zip(falls, falls[1:]))
    assert np.allclose(np.array(falls)/2**31, 2.0**(-steps/2**16), rtol=1e-8, atol=2**-31)


def test_far_logits():
    assert weights([3e38, 0.0, -3e38, -np.inf], inverse_of(1.0)) == [2**31, 0, 0, 0]
    assert weights([np.inf, np.inf, 0.0], inverse_of(1.0)) == [2**31, 2**31, 0]
    assert fixed(np.float32(-np.inf)) == -2**47 and fixed(np.float32(1.5/2**16)) == 2

# Draws --------------------------------------------------------------------------------------------

def test_draws_are_even():
    """Mean, variance and bits of many; those of neighbours in seed and place have nothing in common."""
    draws = np.array([draw(seed, place) for seed in range(50) for place in range(400)], np.float64)/2**48
    assert abs(draws.mean() - 0.5) < 0.01 and abs(draws.var() - 1/12) < 0.002
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[:-400], draws[400:])[0, 1]) < 0.03
    assert len(np.unique(draws)) == len(draws)


def test_all_bits_of_seed_and_place_count():
    one = draw(0x12345678, 0x9abcdef0)
    assert len({one, *(draw(0x12345678 ^ 1 << n, 0x9abcdef0) for n in range(32)),
        *(draw(0x12345678, 0x9abcdef0 ^ 1 << n) for n in range(32))}) == 65


def test_shares():
    logits = np.log(np.array([0.1, 0.5, 0.15, 0.25], np.float32))
    tokens, values = best(logits)
    counts = np.bincount([sample(tokens, values, inverse_of(1.0), 64, 7, place) for place in range(5_000)], minlength=4)/5_000
    assert np.allclose(counts, [0.1, 0.5, 0.15, 0.25], atol=0.025)
    counts = np.bincount([sample(tokens, values, inverse_of(1.0), 2, 7, place) for place in range(5_000)], minlength=4)/5_000
    assert np.allclose(counts, [0, 2/3, 0, 1/3], atol=0.025)
    for share, wanted in ((0.45, [0, 1, 0, 0]), (0.7, [0, 2/3, 0, 1/3]), (0.76, [0, 5/9, 1/6, 5/18]), (1, [0.1, 0.5, 0.15, 0.25])):
        counts = np.bincount([sample(tokens, values, inverse_of(1.0), 64, 7, place, top_p_of(share)) for place in range(5_000)], minlength=4)/5_000
        assert np.allclose(counts, wanted, atol=0.025)
    assert (top_p_of(1), top_p_of(0.5), top_p_of(1e-9)) == (0, 2**15, 1)
    for share in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="^top_p must be above 0, and at most 1, is "):
            top_p_of(share)


def test_greedy_and_cold():
    tokens, values = best(np.array([1, 3, 2], np.float32))
    assert sample(tokens, values, 0, 64, 1, 1) == 1
    assert all(sample(tokens, values, inverse_of(0.001), 64, 1, place) == 1 for place in range(100))
    assert all(sample(tokens, values, inverse_of(2.0), 1, 1, place) == 1 for place in range(100))


def test_refused():
    tokens, values = best(np.array([1, np.nan], np.float32))
    assert sample(tokens, values, inverse_of(1.0), 64, 0, 0) == 0
    for name, arguments in (("inverse", (2**32, 1, 0, 0)), ("top_k", (1, 65, 0, 0)), ("seed", (1, 1, -1, 0)), ("place", (1, 1, 0, 2**32))):
        with pytest.raises(ValueError, match=name):
            sample(tokens, values, *arguments)
    for temperature in (0, -1, 1e-6, 1e6, float("nan")):
        with pytest.raises(ValueError, match="temperature must be from"):
            inverse_of(temperature)
    with pytest.raises(ValueError, match="best logit"):
        sample([0], np.array([np.nan], np.float32), 1, 1, 0, 0)
