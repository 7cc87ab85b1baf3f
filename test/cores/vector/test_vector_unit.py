#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The vector unit, compiled, against the exact model."""

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

import exact

from cores.vector.vector_unit import VectorOperation, VectorUnit

from model.exact.conv import conv1d
from model.exact.elementwise import add, decay, gate, multiply, product_sum, time_step
from model.exact.functions import exp, silu, softplus
from model.exact.norm import eps_units, rms_norm

from operations.numerics import VECTOR_TERMS, Function

from tools.verilated import stream_module

# Helpers ------------------------------------------------------------------------------------------

FIELDS    = ("operation", "beats", "terms", "ones", "bias", "function", "clip", "low", "high", "size", "eps")
EXP, SOFTPLUS, SILU, NO_FUNCTION = Function

FUNCTIONS = {EXP: exp, SOFTPLUS: softplus, SILU: silu, NO_FUNCTION: lambda x: x}
UNITS     = {}


def unit(lanes):
    if lanes not in UNITS:
        module = VectorUnit(lanes)
        UNITS[lanes] = stream_module(module, (("command", module.command, FIELDS, False), ("sink", module.sink, ("a", "b"), False),
                ("source", module.source, ("data", "last"), True)))
    return UNITS[lanes]


def words(array, lanes):
    """Beats of `lanes` elements of 16 bits as the words of a port. array: (beats, lanes)."""
    rows = np.zeros((len(array), max(lanes, 4)), np.uint16)
    rows[:, :lanes] = array.view(np.uint16)
    return rows.view(np.uint64)


class Operator:
    """A command, its operands, float16 (beats, lanes), and what it gives, float16 (results, lanes)."""
    def __init__(self, operation, a, b, result, **fields):
        self.a, self.b, self.result = a, b, result
        self.fields = {**dict.fromkeys(FIELDS, 0), "function": NO_FUNCTION, "operation": operation, **fields}


def total(a, b=None, function=NO_FUNCTION, clip=None, bias=False):
    """A SUM. a, b: float16 (results, terms, lanes); b None: ones; bias: the last a is 1."""
    given  = a
    if bias:
        a = np.concatenate([a[:, :-1], np.ones_like(a[:, :1])], 1)
    rest   = {} if clip is None else {"clip": 1, "low": int(np.float16(clip[0]).view(np.uint16)), "high": int(np.float16(clip[1]).view(np.uint16))}
    result = product_sum(a.transpose(0, 2, 1), np.float16(1) if b is None else b.transpose(0, 2, 1))
    result = FUNCTIONS[function](result)
    if clip is not None:
        result = np.where(np.isnan(result) | np.signbit(result), result, np.clip(result, *map(np.float16, clip)))
    return Operator(VectorOperation.SUM, given.reshape(-1, a.shape[2]), (given if b is None else b).reshape(-1, a.shape[2]), result,
        beats=len(a) - 1, terms=a.shape[1] - 1, ones=int(b is None), bias=int(bias), function=function, **rest)


def norm(u, weight, eps, lanes):
    """RMSNorm: two operators. u, weight: float16 (n,)."""
    rows   = u.reshape(-1, lanes)
    result = rms_norm(u[None], weight, eps)[0].reshape(-1, lanes)
    return [Operator(VectorOperation.SQUARES, rows, rows, result[:0], beats=len(rows) - 1, size=len(u), eps=eps_units(len(u), eps)),
        Operator(VectorOperation.SCALE, rows, weight.reshape(-1, lanes), result, beats=len(rows) - 1)]


def check(operators, lanes, duty=256, seed=1):
    """Returns the cycles."""
    compiled = unit(lanes)
    compiled.reset()
    a, b     = (np.concatenate([getattr(operator, name) for operator in operators]) for name in "ab")
    wanted   = np.concatenate([operator.result for operator in operators])
    last     = np.concatenate([np.arange(len(operator.result)) == len(operator.result) - 1 for operator in operators])
    out, cycles = compiled.streams({
        "command": {name: np.array([operator.fields[name] for operator in operators]) for name in FIELDS},
        "sink": {"a": words(a, lanes), "b": words(b, lanes)}}, {"source": (("data", "last"), len(wanted))},
        limit=100*len(a) + 100*lanes*len(wanted) + 1000*len(operators), duty=duty, seed=seed)
    found = out["source"]["data"].reshape(len(wanted), -1).view(np.uint16)[:, :lanes]
    wrong = np.argwhere(found != words(wanted, lanes).view(np.uint16)[:, :lanes])
    assert not len(wrong), (len(wrong), wrong[0], hex(found[tuple(wrong[0])]), wanted[tuple(wrong[0])])
    assert np.array_equal(out["source"]["last"], last)
    return cycles


def operands(rng, shape):
    return exact.operands(rng, shape).view(np.float16)


def sums(rng, results, terms, lanes):
    """Operands of sums that cancel, of all classes in some."""
    a, b = operands(rng, (results, terms, lanes)), operands(rng, (results, terms, lanes))
    some = rng.random(results) < 0.7
    a[some], b[some] = ((rng.standard_normal((some.sum(), terms, lanes))*2.0**rng.integers(-8, 8, (some.sum(), terms, lanes))).astype(np.float16)
        for _ in range(2))
    if terms > 1:
        turned = rng.random(results) < 0.3
        a[turned, 1], b[turned, 1] = -a[turned, 0], b[turned, 0]
    return a, b


def vector(rng, size):
    """For a norm: of near exponents, or of all, seldom with infinities or NaN."""
    if rng.random() < 0.5:
        return (rng.standard_normal(size)*2.0**rng.integers(-24, 14)).astype(np.float16)
    bits = exact.operands(rng, size)
    return (np.where(bits & 0x7c00 == 0x7c00, bits & 0x83ff, bits).astype(np.uint16) if rng.random() < 0.9 else bits).view(np.float16)


def finite(rng, size):
    bits = exact.operands(rng, size)
    return np.where(bits & 0x7c00 == 0x7c00, bits & 0x83ff, bits).astype(np.uint16).view(np.float16)


def operators(rng, lanes, elements):
    """Operators of all kinds, of so many results in all."""
    result = []
    while elements > 0:
        kind, results = rng.integers(5), int(rng.integers(1, 100))
        terms = int(rng.choice([1, 2, 5, VECTOR_TERMS]))
        if kind == 0:
            size = lanes*results
            result += norm(vector(rng, size), finite(rng, size), float(rng.choice([1e-5, 1e-12, 1.0, 1e-15])), lanes)
        else:
            a, b = sums(rng, results, terms, lanes)
            result.append(total(a, None if kind == 1 else b, int(rng.integers(4)) if kind < 4 else NO_FUNCTION,
                [(0, np.inf), (0.001, 0.1), (1, 1)][rng.integers(3)] if rng.random() < 0.3 and kind < 4 else None, rng.random() < 0.3))
            if result[-1].fields["function"] == NO_FUNCTION and result[-1].fields["clip"]:
                result.pop() # There is no clip without a function.
        elements -= results*lanes
    return result

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lanes", [1, 4, pytest.param(2, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_against_the_model(lanes):
    rng = np.random.default_rng(lanes)
    for n in range(10):
        check(operators(rng, lanes, 20_000 if lanes == 4 else 2_000), lanes, seed=n)


@pytest.mark.parametrize("lanes", [1, 4])
def test_operators_of_the_model(lanes):
    """What a layer has, as the exact model has it."""
    rng     = np.random.default_rng(1)
    rows    = lambda array: np.asarray(array, np.float16).reshape(-1, lanes)
    x, z, y = ((rng.standard_normal(64)*4).astype(np.float16) for _ in range(3))
    one     = lambda *arrays: np.stack([rows(array) for array in arrays], 1)
    # The convolution, with the SiLU behind it.
    weight, bias, window = ((rng.standard_normal(shape)).astype(np.float16) for shape in ((64, 4), (64,), (3, 64)))
    wanted   = silu(conv1d(x[None], weight, bias, window)[0][0])
    conv     = total(one(*window, x, x), one(*weight.T, bias), SILU, bias=True)
    assert np.array_equal(conv.result.reshape(-1), wanted)
    # The time step and the decay.
    limits   = (0.001, 0.1)
    dt       = total(one(x, bias), None, SOFTPLUS, limits)
    assert np.array_equal(dt.result.reshape(-1), time_step(x, bias, limits))
    dA       = total(one(dt.result), one(-np.abs(z)), EXP)
    assert np.array_equal(dA.result.reshape(-1), decay(time_step(x, bias, limits), -np.abs(z)))
    # The gate and the norm.
    gated    = [total(one(z), None, SILU), total(one(y), one(silu(z)))]
    assert np.array_equal(gated[1].result.reshape(-1), gate(y, z))
    plus     = total(one(y, z))
    assert np.array_equal(plus.result.reshape(-1), add(y, z)) and np.array_equal(gated[1].result.reshape(-1), multiply(y, silu(z)))
    check([conv, dt, dA, *gated, plus, *norm(gate(y, z), bias, 1e-5, lanes)], lanes)


@pytest.mark.parametrize("lanes", [1, 4])
def test_throughput(lanes):
    """A term a cycle, an element a cycle through a function, and what a command costs."""
    rng     = np.random.default_rng(1)
    results = 1000//lanes
    a, b    = sums(rng, results, 5, lanes)
    assert check([total(a, b)], lanes) <= 5*results + 16
    assert check([total(a[:, :1], b[:, :1])], lanes) <= results + 16
    assert check([total(a[:, :1], b[:, :1], SILU)], lanes) <= lanes*results + 30
    assert check(norm(vector(rng, 768), finite(rng, 768), 1e-5, lanes), lanes) <= 2*768//lanes + 230


@pytest.mark.parametrize("sink",   [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
def test_stalls(sink, source):
    rng = np.random.default_rng(sink + source)
    check(operators(rng, 4, 2000), 4, {"sink": sink, "source": source, "command": sink}, sink*source)


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 0xffff), st.integers(0, 0xffff)), min_size=4, max_size=32), st.sampled_from([1, 2, 4]), st.booleans(),
    st.sampled_from([EXP, SOFTPLUS, SILU, NO_FUNCTION]))
def test_any_sum(pairs, terms, ones, function):
    bits = np.array(pairs[:len(pairs)//terms*terms], np.uint16).reshape(-1, terms, 1, 2)
    a, b = (np.ascontiguousarray(bits[..., n]).view(np.float16) for n in range(2))
    check([total(a, None if ones else b, function)], 1)


@pytest.mark.parametrize("value", [0x0000, 0x8000, 0x0001, 0x03ff, 0x7bff, 0xfbff, 0x7c00, 0x7e00])
def test_norm_of_equals(value):
    """Zeros, the smallest, the largest, an infinity, a NaN."""
    for size in (4, 768):
        check(norm(np.full(size, value, np.uint16).view(np.float16), np.full(size, 1.5, np.float16), 1e-5, 4), 4)


def test_refused():
    with pytest.raises(ValueError, match="lanes must be one of 1, 2, 4, 8, is 3."):
        VectorUnit(3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_million(seed):
    rng = np.random.default_rng(1000 + seed)
    for n in range(10):
        check(operators(rng, 4, 20_000), 4, int(rng.choice([256, 200])), seed=n)
