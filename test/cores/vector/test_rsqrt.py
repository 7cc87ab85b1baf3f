#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The reciprocal square root, compiled, against the exact model."""

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

import exact

from cores.vector.rsqrt import COUNT_BITS, VALUE_BITS, Rsqrt

from model.exact.functions import rsqrt

from operations.numerics import UNIT_BITS

from tools.verilated import VerilatedModule, pack_words

# Helpers ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def unit():
    module = Rsqrt()
    sink, source = module.sink, module.source
    with VerilatedModule(module, {"sink_valid": sink.valid, "sink_count": sink.count, "sink_value": sink.value,
            "source_ready": source.ready}, {"sink_ready": sink.ready, "source_valid": source.valid,
            "source_significand": source.significand, "source_exponent": source.exponent}) as compiled:
        yield compiled


def check(unit, pairs, duty=256):
    unit.reset()
    counts, values = zip(*pairs)
    out, cycles = unit.streams({"sink": {"count": np.array(counts, np.uint64), "value": pack_words(values, VALUE_BITS)}},
        {"source": (("significand", "exponent"), len(pairs))}, limit=3000*len(pairs), duty=duty)
    got = list(zip(out["source"]["significand"].tolist(), (out["source"]["exponent"].astype(np.int64) + 128 & 255) - 128))
    assert got == [rsqrt(count << UNIT_BITS, value) for count, value in pairs]
    return cycles


def pairs(rng, count):
    """Counts and values of all lengths; some are squares, or next to one."""
    result = []
    for n in range(count):
        length = int(rng.integers(1, VALUE_BITS + 1))
        value  = int.from_bytes(rng.bytes(13), "little") >> 104 - length | 1 << length - 1
        if n % 4 == 0:
            value = 1 << length - 1
        many = int(rng.integers(1, 2**COUNT_BITS)) >> int(rng.integers(0, COUNT_BITS)) or 1
        if n % 8 == 1:
            value = min(max((many << UNIT_BITS)//int(rng.integers(1, 2**20))**2 + int(rng.integers(-1, 2)), 1), 2**VALUE_BITS - 1)
        result.append((many, value))
    return result

# Tests --------------------------------------------------------------------------------------------

def test_against_the_model(unit):
    check(unit, pairs(np.random.default_rng(1), 20_000))


def test_all_binary16_values(unit):
    """Of a norm of one element, and of 768."""
    for count in (1, 768):
        check(unit, [(count, exact.INTEGERS[bits]**2) for bits in range(1, 0x7c00, 3)])


@pytest.mark.parametrize("duty", [20, 128])
def test_stalls(unit, duty):
    check(unit, pairs(np.random.default_rng(duty), 300), duty)


def test_cycles(unit):
    assert check(unit, [(1, 1)]) <= 190
    assert check(unit, [(2**COUNT_BITS - 1, 2**VALUE_BITS - 1)]) <= 75


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(1, 2**COUNT_BITS - 1), st.integers(1, 2**VALUE_BITS - 1)), min_size=1, max_size=10))
def test_any(unit, some):
    check(unit, some)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_million(unit, seed):
    check(unit, pairs(np.random.default_rng(1000 + seed), 100_000))
