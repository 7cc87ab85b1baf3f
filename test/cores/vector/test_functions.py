#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""exp, softplus and SiLU, compiled, against the exact model."""

from functools import partial

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

from cores.vector.functions import FunctionUnit

from model.exact.functions import table

from operations.numerics import Function

from tools.verilated import VerilatedModule
from tools.yosys import SIMULATED, netlist

# Helpers ------------------------------------------------------------------------------------------

EXP, SOFTPLUS, SILU = Function.EXP, Function.SOFTPLUS, Function.SILU

FUNCTIONS = {EXP: "exp", SOFTPLUS: "softplus", SILU: "silu"}
ALL       = np.arange(65536)
NAN16     = 0x7e00


def compiled(transform=lambda source: source):
    module = FunctionUnit()
    sink, source = module.sink, module.source
    return VerilatedModule(module, {"sink_valid": sink.valid, "sink_function": sink.function, "sink_data": sink.data,
        "sink_last": sink.last, "source_ready": source.ready}, {"sink_ready": sink.ready, "source_valid": source.valid,
        "source_data": source.data, "source_last": source.last}, transform)


@pytest.fixture(scope="module")
def unit():
    with compiled() as module:
        yield module


def wanted(functions, data):
    """Results by the model; NaN of the number that is no function's."""
    results = np.full((4, 65536), NAN16, np.uint16)
    for number, name in FUNCTIONS.items():
        results[number] = table(name).view(np.uint16)
    return results[functions, data]


def check(unit, functions, data, duty=256, seed=1):
    """Returns the cycles."""
    functions = np.broadcast_to(functions, data.shape)
    last      = data % 7 == 0
    unit.reset()
    out, cycles = unit.streams({"sink": {"function": functions, "data": data, "last": last}},
        {"source": (("data", "last"), len(data))}, limit=200*len(data) + 1000, duty=duty, seed=seed)
    assert np.array_equal(out["source"]["last"], last)
    wrong = np.flatnonzero(out["source"]["data"] != wanted(functions, data))
    assert not len(wrong), [(int(functions[n]), hex(data[n]), hex(out["source"]["data"][n])) for n in wrong[:10]]
    return cycles


def beats(rng, count):
    """Functions and inputs, half of them of the exponents where the functions are curved."""
    data = rng.integers(0, 65536, count)
    near = rng.random(count) < 0.5
    return rng.integers(0, 4, count), np.where(near, data & 0x83ff | rng.integers(8, 21, count) << 10, data)


def check_mixed(unit):
    order = np.random.default_rng(1).permutation(3*65536)
    check(unit, order >> 16, order & 0xffff)

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("function", FUNCTIONS)
def test_all_binary16_values(unit, function):
    check(unit, function, ALL)


def test_no_function(unit):
    """NaN is what the number without a function gives."""
    check(unit, 3, ALL)


def test_mixed(unit):
    """All inputs of all functions, in random order."""
    check_mixed(unit)


def test_a_beat_a_cycle(unit):
    assert check(unit, EXP, ALL[:1000]) == 1000 + FunctionUnit.latency


def test_latency(unit):
    unit.reset()
    valid = np.arange(2*FunctionUnit.latency) == 0
    out = unit.run(["source_valid", "source_last", "source_data"], sink_valid=valid, sink_last=valid, sink_function=valid*SILU,
        sink_data=valid*0x3c00, source_ready=np.ones_like(valid))
    assert np.flatnonzero(out["source_valid"]).tolist() == [FunctionUnit.latency]
    assert np.flatnonzero(out["source_last"]).tolist() == [FunctionUnit.latency]
    assert out["source_data"][FunctionUnit.latency] == wanted(SILU, 0x3c00)


@pytest.mark.parametrize("sink", [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
def test_stalls(unit, sink, source):
    check(unit, *beats(np.random.default_rng(sink + source), 5000), {"sink": sink, "source": source}, seed=sink*source)


@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 0xffff)), min_size=1, max_size=50), st.sampled_from([20, 128, 256]))
def test_any(unit, some, duty):
    functions, data = np.array(some).T
    check(unit, functions, data, duty)


def test_special_values(unit):
    """As the table of docs/numerics.md has them."""
    for function, x, result in (
        (EXP,      0xfc00, 0x0000), (EXP,      0x7c00, 0x7c00), (EXP,      0x8000, 0x3c00),
        (EXP,      0x498b, 0x7bf7), (EXP,      0x498c, 0x7c00),
        (SOFTPLUS, 0xfc00, 0x0000), (SOFTPLUS, 0x7c00, 0x7c00), (SOFTPLUS, 0xfbff, 0x0000),
        (SILU,     0xfc00, 0x8000), (SILU,     0x7c00, 0x7c00), (SILU,     0x8000, 0x8000),
        (SILU,     0xfbff, 0x8000), (SILU,     0x0001, 0x0001),
        *((function, x, NAN16) for function in (EXP, SOFTPLUS, SILU, 3) for x in (0x7c01, 0x7e00, 0xfc01, 0xffff)),
    ):
        assert wanted(function, x) == result, (function, hex(x), hex(wanted(function, x)))
        check(unit, function, np.array([x]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_million(unit, seed):
    rng  = np.random.default_rng(1000 + seed)
    duty = {"sink": int(rng.integers(30, 257)), "source": int(rng.integers(30, 257))}
    check(unit, *beats(rng, 200_000), duty, seed=seed + 1)


@pytest.mark.slow
@pytest.mark.parametrize("family", SIMULATED)
def test_netlist(family):
    """What synthesis makes of it, but for block RAM."""
    with compiled(partial(netlist, top="top", family=family)) as unit:
        check_mixed(unit)
        check(unit, *beats(np.random.default_rng(1), 20_000), {"sink": 128, "source": 100})
