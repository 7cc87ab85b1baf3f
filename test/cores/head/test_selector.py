#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The head's candidates, compiled, against the exact model."""

import functools

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

from cores.head.selector import BestSelector

from model.exact.head import best

from operations.numerics import CANDIDATES

from tools.verilated import VerilatedModule, stream_ports

# Helpers ------------------------------------------------------------------------------------------

VOCABULARY = 50_288
FIELDS     = ("token_number", "logit", "vector", "last")
SPECIALS   = np.array([0, 0x80000000, 1, 0x80000001, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
    0x7f800001, 0xffffffff, 0x3f800000, 0xbf800000], np.uint32)


@functools.cache
def unit(tokens, count=CANDIDATES, together=1):
    module = BestSelector(tokens, count, together)
    sink   = stream_ports("sink", module.sink, ("data", "last"), False)
    source = stream_ports("source", module.source, FIELDS, True)
    return VerilatedModule(module, {"tokens": module.tokens, "vocabulary": module.vocabulary, **sink[0], **source[0]},
        {**sink[1], **source[1]})


def candidates(bits, count=CANDIDATES):
    """The model's, as rows of FIELDS. bits: binary32, (rows, vectors)."""
    wanted = []
    for n in range(bits.shape[1]):
        column     = np.ascontiguousarray(bits[:, n])
        numbers, _ = best(column.view(np.float32), count)
        wanted.append(np.stack([numbers, column[numbers], np.full(len(numbers), n), np.zeros(len(numbers))], axis=1))
    wanted = np.concatenate(wanted).astype(np.uint64)
    wanted[-1, -1] = 1
    return wanted


def play(compiled, logits, wanted, limit, duty=256, seed=1):
    """Vocabularies, each of which may come while candidates of the one before go. Returns the cycles."""
    data = np.concatenate([bits.ravel() for bits in logits])
    last = np.zeros(len(data), bool)
    last[np.cumsum([bits.size for bits in logits]) - 1] = True
    out, cycles = compiled.streams({"sink": {"data": data, "last": last}}, {"source": (FIELDS, len(wanted))}, limit, duty, seed)
    found = np.stack([out["source"][name] for name in FIELDS], axis=1)
    wrong = np.flatnonzero((found != wanted).any(axis=1))
    assert not len(wrong), (wrong[0], found[wrong[0]], wanted[wrong[0]])
    return cycles


def check(*logits, tokens=None, count=CANDIDATES, beyond=0, together=1, duty=256, seed=1):
    """Vocabularies one after the other. logits: binary32 bits, (rows, vectors), the last `beyond` rows beyond the vocabulary.
    tokens, together: vectors, and rows that come together, for which it is built. Returns the cycles of each."""
    tokens   = tokens or logits[0].shape[1]
    compiled = unit(tokens, count, together)
    compiled.reset()
    result   = []
    for bits in logits:
        rows, vectors = bits.shape
        compiled.poke(tokens=vectors - 1, vocabulary=rows - beyond)
        wanted = candidates(bits[:rows - beyond], count)
        bits   = bits.reshape(-1, together, vectors).transpose(0, 2, 1)
        result.append(play(compiled, [bits], wanted, (count + 50)*bits.size + 100*len(wanted) + 10_000, duty, seed))
    return result


def normal(rng, shape):
    return rng.normal(0, 4, shape).astype(np.float32).view(np.uint32)


def mixed(rng, shape, kinds):
    """Logits of which many are equal, and some special."""
    values = (rng.integers(-kinds, kinds, shape)/8).astype(np.float32).view(np.uint32)
    signed = np.where(values == 0, rng.choice(SPECIALS[:2], shape), values)
    return np.where(rng.random(shape) < 0.1, rng.choice(SPECIALS, shape), signed).astype(np.uint32)


def column(values, vectors=1):
    return np.repeat(np.asarray(values, np.float32).view(np.uint32)[:, None], vectors, axis=1)

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tokens", [1, 4, pytest.param(2, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_against_the_model(tokens):
    rng = np.random.default_rng(tokens)
    check(*(mixed(rng, (3000, tokens), kinds) for kinds in (1, 20, 1000)), normal(rng, (8000, tokens)),
        rng.integers(0, 2**32, (2000, tokens), dtype=np.uint32))


@pytest.mark.parametrize("together", [4, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("vectors", [1, 3, 4])
def test_rows_together(vectors, together):
    """As several lanes give them, with rows beyond the vocabulary at the end."""
    rng = np.random.default_rng(vectors + together)
    check(mixed(rng, (3000, vectors), 100), normal(rng, (2000, vectors)), mixed(rng, (40, vectors), 5), tokens=4, together=together,
        beyond=together - 1)


@pytest.mark.parametrize("tokens, most", [(1, 58_500), (4, 233_000)])
def test_a_vocabulary(tokens, most):
    """In random order: the filter passes a logit a cycle but for the first few thousand rows."""
    cycles, = check(normal(np.random.default_rng(3), (VOCABULARY, tokens)))
    assert VOCABULARY*tokens < cycles < most


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_fewer_vectors(vectors):
    rng = np.random.default_rng(vectors)
    check(mixed(rng, (500, vectors), 100), mixed(rng, (70, 4), 100), mixed(rng, (300, vectors), 5), tokens=4)


@pytest.mark.parametrize("tokens", [1, 4])
def test_orders(tokens):
    """Descending, all equal: nothing is inserted after the first ones. Ascending: everything, from end to end."""
    ramp = np.arange(-1000, 1000)
    down, same, up = check(*(column(values, tokens) for values in (ramp[::-1], np.full(2000, 2.5), ramp)))
    assert down == same < (2000 + 2000 - 64 + 3*64)*tokens
    assert 67*2000*tokens < up < (68*2000 + 3*64)*tokens + 10


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 62, 63, 64, 65, 66])
def test_few_rows(rows, tokens):
    rng = np.random.default_rng(rows)
    for beyond in (0, 1, 5):
        check(mixed(rng, (rows + beyond, tokens), 3), mixed(rng, (rows + beyond, tokens), 100), beyond=beyond)


@pytest.mark.parametrize("beyond", [1, 3, 1000])
def test_rows_beyond_the_vocabulary(beyond):
    """They would all be the best."""
    logits = normal(np.random.default_rng(beyond), (1000 + beyond, 2))
    logits[1000:] = 0x7f800000
    check(logits, logits, beyond=beyond)


@pytest.mark.parametrize("sink", [20, 256])
@pytest.mark.parametrize("source", [20, 256])
def test_one_right_after_the_other(sink, source):
    """The next vocabulary waits at the sink while the candidates go."""
    rng      = np.random.default_rng(sink + source)
    logits   = [mixed(rng, (200, 4), 100) for _ in range(10)]
    compiled = unit(4)
    compiled.reset()
    compiled.poke(tokens=3, vocabulary=200)
    play(compiled, logits, np.concatenate([candidates(bits) for bits in logits]), 1_000_000, {"sink": sink, "source": source})


@pytest.mark.parametrize("count", [1, 5, 100])
def test_counts(count):
    rng = np.random.default_rng(count)
    check(mixed(rng, (2000, 2), 100), mixed(rng, (count, 2), 100), mixed(rng, (500, 2), 2), count=count)


@pytest.mark.parametrize("sink", [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
@pytest.mark.parametrize("tokens", [1, 4])
def test_stalls(sink, source, tokens):
    rng = np.random.default_rng(sink + source)
    check(mixed(rng, (300, tokens), 30), normal(rng, (600, tokens)), duty={"sink": sink, "source": source}, seed=sink*source)


LOGITS = st.one_of(st.sampled_from([int(value) for value in SPECIALS]), st.integers(0, 2**32 - 1),
    st.integers(0x3f800000, 0x3f800003))


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(LOGITS, LOGITS), min_size=1, max_size=30), st.integers(0, 2))
def test_any_logits(logits, beyond):
    bits = np.array(logits, np.uint32)
    check(bits, bits[::-1], count=5, beyond=min(beyond, len(bits) - 1))


def test_pairs():
    """Each special logit against each other one, in a list of one."""
    a, b = np.meshgrid(SPECIALS, SPECIALS)
    check(*np.stack([a.ravel(), b.ravel()], axis=1).reshape(-1, 2, 1), tokens=2, count=1)


def test_latency():
    """A lone logit: to the FIFO 3 cycles, an insertion of 4, a candidate of 3, and the one in which it goes."""
    assert check(column([1])) == [3 + 4 + 3 + 1]


def test_refused():
    with pytest.raises(ValueError, match="tokens must be one of 1, 2, 4, 8, is 3."):
        BestSelector(3)
    with pytest.raises(ValueError, match="count must be an integer from 1 to 256, is 0."):
        BestSelector(1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_million(seed):
    rng = np.random.default_rng(1000 + seed)
    check(normal(rng, (VOCABULARY//2, 4)), mixed(rng, (VOCABULARY//2, 4), 10_000))
