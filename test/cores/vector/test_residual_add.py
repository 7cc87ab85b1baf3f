#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The residual stream, compiled, against the exact model."""

import numpy as np
import pytest

from hypothesis import HealthCheck, given, settings, strategies as st

import exact

from cores.vector.residual_add import ResidualAdd

from model.exact.elementwise import add_residual
from model.exact.rounding import rounded

from tools.verilated import VerilatedModule, stream_ports

# Helpers ------------------------------------------------------------------------------------------

COUNT = 200_000
UNIT  = []


def unit():
    if not UNIT:
        module = ResidualAdd()
        sink, source = (stream_ports("sink", module.sink, ("residual", "integer", "scale", "wide"), False),
            stream_ports("source", module.source, ("data",), True))
        UNIT.append(VerilatedModule(module, {**sink[0], **source[0]}, {**sink[1], **source[1]}))
    return UNIT[0]


def check(residual, integer, scale, wide, duty=256, seed=1):
    """float32, int8, float16, bool. Returns the cycles."""
    compiled = unit()
    compiled.reset()
    with np.errstate(invalid="ignore", over="ignore"):
        total = residual.astype(np.float64) + integer*scale.astype(np.float64)
    wanted = np.where(wide, rounded(total, np.float32).view(np.uint32), rounded(total).view(np.uint16))
    out, cycles = compiled.streams({"sink": {"residual": residual.view(np.uint32), "integer": integer.view(np.uint8),
        "scale": scale.view(np.uint16), "wide": wide}}, {"source": (("data",), len(residual))}, 100*len(residual) + 100, duty, seed)
    wrong = np.flatnonzero(out["source"]["data"] != wanted)
    assert not len(wrong), [(residual[n], integer[n], scale[n], wide[n], hex(out["source"]["data"][n]), hex(wanted[n])) for n in wrong[:3]]
    return cycles


def vectors(rng, count):
    """Residuals are multiples of 2**-24: sums of a few numbers of a few bits."""
    with np.errstate(over="ignore"):
        residual = (rng.integers(-2**24, 2**24, count)*2.0**rng.integers(-24, 2, count)).astype(np.float32)
    kind     = rng.integers(0, 16, count)
    residual = np.where(kind == 0, rng.choice(np.array([0, -0.0, np.inf, -np.inf, np.nan, 2.0**-24, -2.0**-24], np.float32), count), residual)
    scale    = exact.operands(rng, count).view(np.float16)
    with np.errstate(over="ignore", invalid="ignore"): # Some sums cancel, some rest on a half.
        near  = residual.astype(np.float16)
        scale = np.where((kind & 3 == 1) & np.isfinite(near), -near, scale)
    integer  = np.where(kind & 4, 1, rng.integers(-128, 128, count)).astype(np.int8)
    return residual, integer, scale, rng.random(count) < 0.5

# Tests --------------------------------------------------------------------------------------------

def test_against_the_model():
    check(*vectors(np.random.default_rng(1), COUNT))


def test_operators():
    """As the model has them: the sum, the rounding, and a row of the embedding."""
    rng      = np.random.default_rng(2)
    residual = vectors(rng, 1000)[0]
    delta    = exact.operands(rng, 1000).view(np.float16)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(add_residual(residual, delta).view(np.uint32),
            rounded(residual.astype(np.float64) + delta.astype(np.float64), np.float32).view(np.uint32))
    one, yes = np.ones(1000, np.int8), np.ones(1000, bool)
    check(residual, one, delta, yes)
    check(residual, one, np.full(1000, -0.0, np.float16), ~yes) # Its sum is the residual, rounded.
    assert np.array_equal(rounded(residual.astype(np.float64) - 0.0).view(np.uint16), rounded(residual).view(np.uint16))
    integers = rng.integers(-128, 128, 1000).astype(np.int8)
    finite   = np.where(np.isfinite(delta), delta, np.float16(0))
    assert np.array_equal((integers*finite.astype(np.float32)).view(np.uint32),
        rounded(integers*finite.astype(np.float64) - 0.0, np.float32).view(np.uint32))
    check(np.full(1000, -0.0, np.float32), integers, finite, yes)


def test_latency():
    assert check(*vectors(np.random.default_rng(3), 10)) == 10 + ResidualAdd.latency


@pytest.mark.parametrize("sink", [20, 128, 256])
@pytest.mark.parametrize("source", [20, 128, 256])
def test_stalls(sink, source):
    check(*vectors(np.random.default_rng(sink + source), 2000), {"sink": sink, "source": source}, sink*source)


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(-2**24, 2**24), st.integers(-24, 1), st.integers(-128, 127), st.integers(0, 0xffff), st.booleans())
def test_any(integer, power, q, scale, wide):
    check(np.array([integer*2.0**power], np.float32), np.array([q], np.int8), np.array([scale], np.uint16).view(np.float16), np.array([wide]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_ten_million(seed):
    check(*vectors(np.random.default_rng(1000 + seed), COUNT))
