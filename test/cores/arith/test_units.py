#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The arithmetic units of the core, compiled, against exact arithmetic.

A unit takes a vector a cycle and is compared ``latency`` cycles later, its class constant: a wrong latency fails all.
"""

from functools import cache

import numpy as np
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from migen import Module, Signal

import exact

from cores.arith.accumulator import RowAccumulator
from cores.arith.dot import PRODUCT_BITS, AlignedProduct, DotProduct
from cores.arith.exact_product import ExactProduct
from cores.arith.fp16 import Normaliser, delay
from cores.arith.fused_dot2 import FusedDot2
from cores.arith.multiplier import Multiplier
from cores.arith.rng import CounterRNG
from cores.arith.round import FINITE, Round

from model.bitexact import random_bits

from operations.config import RANDOM_BITS

from tools.verilated import VerilatedModule, pack_words, unpack_words

# Helpers ------------------------------------------------------------------------------------------

COUNT = 200_000
BITS  = st.integers(0, 0xffff)
SOME_LANES  = pytest.mark.parametrize("lanes", [4, 16, pytest.param(8, marks=pytest.mark.slow), pytest.param(32, marks=pytest.mark.slow)])
TEN_MILLION = pytest.mark.parametrize("seed", range(50)) # Times COUNT.

ALL16 = np.arange(1 << 16, dtype=np.uint16)

SPECIALS = ("nan", "positive", "negative") # Fields of SPECIAL_LAYOUT.


def play(compiled, latency, outputs, **inputs):
    """The outputs that belong to each row of the inputs; {name: rows}."""
    count  = len(next(iter(inputs.values())))
    padded = {}
    for name, rows in inputs.items():
        rows = np.asarray(rows)
        padded[name] = np.concatenate([rows, np.zeros((latency, *rows.shape[1:]), rows.dtype)])
    return {name: rows[latency:latency + count] for name, rows in compiled.run(outputs, **padded).items()}


def signed(rows, width):
    """Port values to Python integers."""
    values = rows.tolist() if rows.ndim == 1 else unpack_words(rows)
    return [value - (value >> width - 1 << width) for value in values]


def special_ports(record):
    return {field: getattr(record, field) for field in SPECIALS}


def normalised(bits):
    """The 17 bits of a normalised operand: significand * 2**(exponent - 34), 2**10 <= significand < 2**11."""
    magnitude = abs(exact.INTEGERS[bits])
    if magnitude:
        exponent = magnitude.bit_length() - 1
        fraction = (magnitude << 40 >> exponent + 30) & 0x3ff
    else:
        exponent = 61 if exact.is_zero(bits) else 62 if exact.is_infinity(bits) else 63
        fraction = 0
    return bits >> 15 << 16 | exponent << 10 | fraction


@cache
def normalised_table():
    return np.array([normalised(bits) for bits in range(1 << 16)], np.uint32)

# Normaliser ---------------------------------------------------------------------------------------

def test_normaliser_of_all_values():
    module = Normaliser()
    with VerilatedModule(module, {"sink": module.sink}, {"source": module.source}) as compiled:
        result = play(compiled, Normaliser.latency, ["source"], sink=ALL16)["source"]
    assert np.array_equal(result, normalised_table())
    # The table itself: nothing is lost.
    value  = np.where(result >> 16 & 1, -1.0, 1.0)*(1024 + (result & 0x3ff))*2.0**((result >> 10 & 63).astype(int) - 34)
    finite = (result >> 10 & 63) < 61
    assert np.array_equal(value[finite], ALL16.view(np.float16)[finite].astype(np.float64))

# ExactProduct --------------------------------------------------------------------------------------------

@cache
def scale_unit():
    module = ExactProduct()
    source = module.source
    return VerilatedModule(module, {"dt": module.dt, "x": module.x}, {"significand": source.significand,
        "exponent": source.exponent, "sign": source.sign, "zero": source.zero, "inf": source.inf, "nan": source.nan})


def check_scale(dt, x):
    out  = play(scale_unit(), ExactProduct.latency, ["significand", "exponent", "sign", "zero", "inf", "nan"], dt=dt, x=x)
    nan, inf, sign = exact.product_special(dt, x)
    zero = ~nan & (exact.is_zero(dt) | exact.is_zero(x))
    assert np.array_equal(out["nan"],  nan)
    assert np.array_equal(out["inf"],  inf)
    assert np.array_equal(out["zero"], zero)
    assert np.array_equal(out["sign"][~nan], sign[~nan])
    finite      = ~nan & ~inf
    significand = np.array(signed(out["significand"], 23))[finite]
    exponent    = out["exponent"].astype(int)[finite]
    magnitude   = np.abs(significand)
    nonzero     = ~zero[finite]
    assert not significand[~nonzero].any()
    assert (magnitude[nonzero] >= 2**20).all() and (magnitude[nonzero] < 2**22).all()
    assert (exponent[nonzero] <= 78).all()
    value = exact.INTEGERS
    for got, lsb, p, q in zip(significand.tolist(), exponent.tolist(), dt[finite].tolist(), x[finite].tolist()):
        assert got << lsb == value[p]*value[q] << 20 # In units of 2**-68.


def test_scale():
    check_scale(*exact.operands(np.random.default_rng(30), (2, COUNT)))


def test_scale_of_all_values_and_specials():
    for special in exact.SPECIALS:
        other = np.full(len(ALL16), special)
        check_scale(ALL16, other)
        check_scale(other, ALL16)


@pytest.mark.slow
@TEN_MILLION
def test_scale_ten_million(seed):
    check_scale(*exact.operands(np.random.default_rng(1000 + seed), (2, COUNT)))

# Two-Product Sum ----------------------------------------------------------------------------------

class Update(Module):
    """A FusedDot2 with random bits beside its operands."""
    def __init__(self, stochastic, dsp_bits):
        self.submodules.unit = self.unit = FusedDot2(stochastic, dsp_bits=dsp_bits)
        self.random = Signal(RANDOM_BITS)
        self.comb  += self.unit.random.eq(delay(self, self.random, FusedDot2.random_cycle))


@cache
def update_unit(stochastic, dsp_bits):
    top    = Update(stochastic, dsp_bits)
    module = top.unit
    random = {"random": top.random} if stochastic else {}
    return VerilatedModule(top, {"a": module.a, "b": module.b, "d": module.d, "mask": module.mask, **random,
        **{f"u_{name}": getattr(module.u, name) for name in ("significand", "exponent", "sign", "zero", "inf", "nan")}},
        {"source": module.source})


def run_update(h, dA, dt, x, B, mask=None, seed=0, random=None, dsp_bits=25):
    """a*b + u*d for a = h, b = dA, u = dt*x and d = B, prepared here as the unit's docstring says."""
    table = normalised_table()
    t, s  = table[dt].astype(np.int64), table[x].astype(np.int64)
    nan, inf, sign = exact.product_special(dt, x)
    zero  = ~nan & (exact.is_zero(dt) | exact.is_zero(x))
    value = ~(nan | inf | zero)
    # What means nothing is anything.
    junk        = np.random.default_rng(seed)
    significand = np.where(value, (1024 + (t & 0x3ff))*(1024 + (s & 0x3ff)), 0)
    significand = np.where(nan | inf, junk.integers(-2**22, 2**22, len(h)), np.where(sign, -significand, significand))
    exponent    = np.where(value, (t >> 10 & 63) + (s >> 10 & 63), junk.integers(0, 128, len(h)))
    mask        = np.zeros(len(h), np.uint8) if mask is None else mask
    randoms     = {} if random is None else {"random": random}
    return play(update_unit(random is not None, dsp_bits), FusedDot2.latency, ["source"], a=h, b=table[dA], d=table[B],
        mask=mask, **randoms,
        u_significand=significand, u_exponent=exponent, u_sign=sign, u_zero=zero, u_inf=inf, u_nan=nan)["source"]


def check_update(*vectors, **options):
    assert np.array_equal(run_update(*vectors, **options), exact.state_update(*vectors))


@pytest.mark.parametrize("dsp_bits", [25, 18])
def test_update(dsp_bits):
    check_update(*exact.update_vectors(np.random.default_rng(40), 2*COUNT), dsp_bits=dsp_bits)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(st.tuples(BITS, BITS, BITS, BITS, BITS), min_size=1, max_size=30))
def test_update_of_any_operands(vectors):
    check_update(*np.array(vectors, np.uint16).T.copy())


def test_update_killed():
    rng     = np.random.default_rng(41)
    vectors = exact.update_vectors(rng, 20_000)
    mask    = rng.integers(0, 2, 20_000)
    assert np.array_equal(run_update(*vectors, mask=mask), np.where(mask, 0, exact.state_update(*vectors)))


@pytest.mark.slow
@TEN_MILLION
def test_update_ten_million(seed):
    check_update(*exact.update_vectors(np.random.default_rng(1000 + seed), COUNT), seed=seed)


def check_stochastic_update(rng, count, seed=0):
    vectors = exact.update_vectors(rng, count)
    random  = exact.update_randoms(rng, *vectors)
    assert np.array_equal(run_update(*vectors, seed=seed, random=random), exact.state_update(*vectors, random))


def test_stochastic_update():
    check_stochastic_update(np.random.default_rng(42), COUNT)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(st.tuples(BITS, BITS, BITS, BITS, BITS, st.integers(0, 1023)), min_size=1, max_size=30))
def test_stochastic_update_of_any_operands(vectors):
    *vectors, random = np.array(vectors, np.uint16).T.copy()
    assert np.array_equal(run_update(*vectors, random=random), exact.state_update(*vectors, random))


@pytest.mark.slow
@TEN_MILLION
def test_stochastic_update_ten_million(seed):
    check_stochastic_update(np.random.default_rng(2000 + seed), COUNT, seed)

# Counter Hash -------------------------------------------------------------------------------------

@SOME_LANES
def test_counter_hash(lanes):
    """Any sequence of keys, rows and columns gives the model's bits, whatever the lanes."""
    rows, columns, count = 64, 128//lanes, 20_000
    module = CounterRNG(lanes, rows, columns)
    rng    = np.random.default_rng(95)
    keys   = rng.integers(0, 2**32, 20)
    bits   = random_bits(keys, rows, 128)
    pick, row, column = rng.integers(0, 20, count), rng.integers(0, rows, count), rng.integers(0, columns, count)
    with VerilatedModule(module, {"key": module.key, "row": module.row, "column": module.column},
        {"source": module.source}) as compiled:
        out = play(compiled, CounterRNG.latency, ["source"], key=keys[pick], row=row, column=column)["source"]
    words    = out.tolist() if out.ndim == 1 else unpack_words(out)
    expected = bits.reshape(20, rows, columns, lanes)[pick, row, column].tolist()
    assert words == [sum(value << RANDOM_BITS*lane for lane, value in enumerate(lane_values)) for lane_values in expected]

# Single Operations --------------------------------------------------------------------------------

def canonical(half):
    bits = half.view(np.uint16).copy()
    bits[np.isnan(half)] = exact.NAN16
    return bits


ONE, MINUS_ZERO = np.uint16(0x3c00), np.uint16(0x8000) # x - 0 is x, for either zero.


@pytest.mark.parametrize("name, wire, operation", [
    ("h*dA",   lambda p, q, one, zero: (p,   q,    one, one, zero), np.multiply),
    ("dA*h",   lambda p, q, one, zero: (q,   p,    one, one, zero), np.multiply),
    ("dt*x",   lambda p, q, one, zero: (zero, one, p,   q,   one),  np.multiply),
    ("dt*B",   lambda p, q, one, zero: (zero, one, p,   one, q),    np.multiply),
    ("B*dt",   lambda p, q, one, zero: (zero, one, q,   one, p),    np.multiply),
    ("h + B",  lambda p, q, one, zero: (p,   one,  one, one, q),    np.add),
    ("dA + dt",lambda p, q, one, zero: (one,   p,  q,   one, one),  np.add),
    ("dt + h", lambda p, q, one, zero: (q,   one,  p,   one, one),  np.add),
])
def test_single_operation_is_numpys(name, wire, operation):
    """All 65,536 values with each of the specials: numpy.float16 rounds a single operation correctly."""
    p = np.tile(ALL16, len(exact.SPECIALS))
    q = np.repeat(exact.SPECIALS, len(ALL16))
    with np.errstate(all="ignore"):
        expected = canonical(operation(p.view(np.float16), q.view(np.float16)))
    vectors = [np.broadcast_to(operand, p.shape) for operand in wire(p, q, ONE, MINUS_ZERO)]
    assert np.array_equal(run_update(*vectors), expected)

# Multiplier ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("a_bits, b_bits, dsp", [(2, 1, False), (12, 11, False), (24, 14, False), (12, 11, True)])
def test_multiplier(a_bits, b_bits, dsp):
    module  = Multiplier(a_bits, b_bits, dsp)
    rng     = np.random.default_rng(55)
    top     = 1 << a_bits - 1
    a       = np.concatenate([[-top, -top, top - 1, top - 1, 0], rng.integers(-top, top, COUNT)])
    b       = np.concatenate([[0, (1 << b_bits) - 1]*2, [0], rng.integers(0, 1 << b_bits, COUNT)])
    with VerilatedModule(module, {"a": module.a, "b": module.b}, {"source": module.source}) as compiled:
        out = play(compiled, module.latency, ["source"], a=a % (1 << a_bits), b=b)["source"]
    assert np.array_equal(out, (-a*b if module.negated else a*b) % (1 << a_bits + b_bits))

# Aligned Product ----------------------------------------------------------------------------------

@cache
def product_unit(dsp, dsp_shift=False, dsp_bits=25):
    module = AlignedProduct(dsp=dsp, dsp_shift=dsp_shift, dsp_bits=dsp_bits)
    return module.latency, VerilatedModule(module, {"a": module.a, "b": module.b, "mask": module.mask},
        {"source": module.source, **special_ports(module.special)})


def check_product(a, b, mask, *options):
    latency, compiled = product_unit(*options or (True,))
    out      = play(compiled, latency, ["source", *SPECIALS], a=a, b=b, mask=mask)
    specials = [part & (mask == 0) for part in exact.dot_specials(a[:, None], b[:, None])]
    for name, expected in zip(SPECIALS, specials):
        assert np.array_equal(out[name], expected)
    finite = ~np.any(specials, axis=0)
    value  = exact.INTEGERS
    assert signed(out["source"][finite], PRODUCT_BITS) == [0 if k else value[p]*value[q]
        for p, q, k in zip(a[finite].tolist(), b[finite].tolist(), mask[finite].tolist())]


@pytest.mark.parametrize("options", [(True,), (False,), (True, True), (True, False, 18)],
    ids=["dsp", "luts", "dsp-shift", "dsp-18"])
def test_product(options):
    rng  = np.random.default_rng(50)
    a, b = exact.operands(rng, (2, COUNT))
    check_product(a, b, (rng.random(COUNT) < 0.1).astype(np.uint8), *options)


def test_product_of_all_values_and_specials():
    mask = np.zeros(len(ALL16), np.uint8)
    for special in exact.SPECIALS:
        other = np.full(len(ALL16), special)
        check_product(ALL16, other, mask)
        check_product(other, ALL16, mask)


@pytest.mark.slow
@TEN_MILLION
def test_product_ten_million(seed):
    a, b = exact.operands(np.random.default_rng(1000 + seed), (2, COUNT))
    check_product(a, b, np.zeros(COUNT, np.uint8))

# Dot Product --------------------------------------------------------------------------------------

@cache
def dot_unit(lanes):
    module = DotProduct(lanes)
    ports  = {f"{name}{lane}": getattr(module, name)[lane] for name in ("a", "b") for lane in range(lanes)}
    return module.latency, len(module.source), VerilatedModule(module, {**ports, "mask": module.mask},
        {"source": module.source, **special_ports(module.special)})


def check_dot(a, b, mask=None):
    count, lanes = a.shape
    latency, width, compiled = dot_unit(lanes)
    ports = {f"{name}{lane}": rows[:, lane] for name, rows in (("a", a), ("b", b)) for lane in range(lanes)}
    if mask is None:
        mask = np.zeros((count, lanes), bool)
    out = play(compiled, latency, ["source", *SPECIALS], **ports, mask=mask @ (1 << np.arange(lanes)))
    a   = np.where(mask, np.uint16(0), a)
    b   = np.where(mask, np.uint16(0), b)
    specials = exact.dot_specials(a, b)
    for name, expected in zip(SPECIALS, specials):
        assert np.array_equal(out[name], expected)
    finite = ~np.any(specials, axis=0)
    assert signed(out["source"][finite], width) == exact.dot_integers(a[finite], b[finite])


@SOME_LANES
def test_dot(lanes):
    rng = np.random.default_rng(60 + lanes)
    for _ in range(4):
        check_dot(*exact.dot_vectors(rng, COUNT//4, lanes), mask=rng.random((COUNT//4, lanes)) < 0.02)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(st.lists(BITS, min_size=8, max_size=8), min_size=1, max_size=20))
def test_dot_of_any_operands(vectors):
    operands = np.array(vectors, np.uint16)
    check_dot(operands[:, :4].copy(), operands[:, 4:].copy())


@SOME_LANES
def test_dot_at_its_widest(lanes):
    largest = np.full((2, lanes), 0x7bff, np.uint16)
    check_dot(largest, np.array([[0x7bff]*lanes, [0xfbff]*lanes], np.uint16))


@pytest.mark.slow
@TEN_MILLION
@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_dot_ten_million(lanes, seed):
    rng = np.random.default_rng(1000 + seed)
    for _ in range(4):
        check_dot(*exact.dot_vectors(rng, COUNT//4, lanes))

# Row Accumulator ----------------------------------------------------------------------------------

ROWS, TERMS, SUM_BITS = 5, 33, 84


@cache
def accumulator_unit():
    module = RowAccumulator(ROWS, TERMS, SUM_BITS)
    ports  = {name: getattr(module, name) for name in ("valid", "row", "first", "last", "sum", "skip")}
    for record in ("sum", "skip"):
        for field in SPECIALS:
            ports[f"{record}_{field}"] = getattr(getattr(module, f"{record}_special"), field)
    return module.width, VerilatedModule(module, ports, {"source_valid": module.source_valid, "source": module.source,
        **special_ports(module.special)})


def check_accumulator(rng, count):
    width, compiled = accumulator_unit()
    valid, first, last = (rng.random(count) < share for share in (0.8, 0.2, 0.2))
    row        = np.where(rng.random(count) < 0.3, 2, rng.integers(0, ROWS, count))
    valid[:ROWS], first[:ROWS], row[:ROWS] = True, True, np.arange(ROWS) # Every row begins once.
    bits       = rng.bytes(22*count)
    sums       = [int.from_bytes(bits[22*n:22*n + 11], "little") % 2**82 - 2**81 for n in range(count)]
    skips      = [int.from_bytes(bits[22*n + 11:22*n + 22], "little") % 2**PRODUCT_BITS - 2**(PRODUCT_BITS - 1)
        for n in range(count)]
    specials   = {f"{name}_{field}": (rng.random(count) < 0.02).astype(np.uint8)
        for name in ("sum", "skip") for field in SPECIALS}
    out = play(compiled, RowAccumulator.latency, ["source_valid", "source", *SPECIALS],
        valid=valid, row=row, first=first, last=last,
        sum=pack_words(sums, SUM_BITS), skip=pack_words(skips, PRODUCT_BITS), **specials)
    assert np.array_equal(out["source_valid"], valid & last)
    sum_flags  = np.stack([specials[f"sum_{field}"]  for field in SPECIALS], 1)
    skip_flags = np.stack([specials[f"skip_{field}"] for field in SPECIALS], 1)
    got_flags  = np.stack([out[field] for field in SPECIALS], 1)
    totals, flags, expected, expected_flags, where = {}, {}, [], [], []
    for n in np.flatnonzero(valid).tolist():
        r = int(row[n])
        totals[r] = (skips[n] if first[n] else totals[r]) + sums[n]
        flags[r]  = (skip_flags[n] if first[n] else flags[r]) | sum_flags[n]
        if last[n]:
            where.append(n)
            expected.append(totals[r])
            expected_flags.append(flags[r])
    # Sums of any length, so modulo.
    assert [value % 2**width for value in expected] == unpack_words(out["source"][where])
    assert np.array_equal(got_flags[where], expected_flags)


def test_accumulator():
    check_accumulator(np.random.default_rng(70), COUNT)


def test_accumulator_at_its_widest():
    """All terms at their largest, of either sign."""
    width, compiled = accumulator_unit()
    largest = exact.INTEGERS[0x7bff]**2
    for sign in (1, -1):
        out = play(compiled, RowAccumulator.latency, ["source"],
            valid=[1]*4, row=[1]*4, first=[1, 0, 0, 0], last=[0, 0, 0, 1],
            sum=pack_words([sign*8*largest]*4, SUM_BITS), skip=pack_words([sign*largest]*4, PRODUCT_BITS),
            **{f"{name}_{field}": [0]*4 for name in ("sum", "skip") for field in SPECIALS})
        assert signed(out["source"], width)[-1] == sign*TERMS*largest


@pytest.mark.slow
@TEN_MILLION
def test_accumulator_ten_million(seed):
    check_accumulator(np.random.default_rng(1000 + seed), COUNT)

# Round --------------------------------------------------------------------------------------------

class Rounding(Module):
    """A Round with random bits beside its sink."""
    def __init__(self, width, random_bits):
        self.submodules.unit = self.unit = Round(width, random_bits)
        self.random = Signal(RANDOM_BITS)
        if random_bits:
            self.comb += self.unit.random.eq(delay(self, self.random, Round.random_cycle))


@cache
def round_unit(width, stochastic):
    top    = Rounding(width, RANDOM_BITS if stochastic else 0)
    module = top.unit
    random = {"random": top.random} if stochastic else {}
    return module.scale, VerilatedModule(top, {**random, **{name: getattr(module, name)
        for name in ("sink", "carry", "exponent", "special", "sign")}}, {"source": module.source})


def round_vectors(rng, count, width):
    """Magnitudes of all lengths, some with few bits, some all ones, some a tie or beside one; and an exponent."""
    data       = rng.bytes(16*count)
    length     = rng.integers(0, width + 1, count).tolist()
    kind       = rng.integers(0, 4, count).tolist()
    offset     = rng.integers(-1, 2, count).tolist()
    magnitudes = []
    for n in range(count):
        size  = length[n]
        value = int.from_bytes(data[16*n:16*n + 16], "little") & (1 << size) - 1
        if size:
            value |= 1 << size - 1
        below = max(size - 11 - (value & 15)*(value >> 4 & 1), 0) # The lsb of a normal, or of a subnormal, result.
        if kind[n] == 1:
            value = value >> below << below
        elif kind[n] == 2:
            value = (1 << size) - 1
        elif kind[n] == 3 and below:
            value = (value >> below << below) + (1 << below - 1) + offset[n]*(below > 1)
        magnitudes.append(value)
    # Exponent fields, of a leading bit width - 1, around those of results; the whole range now and then.
    top      = width - np.array(length)
    exponent = top + rng.integers(-14, 33, count)
    exponent = np.where(rng.random(count) < 0.05, rng.integers(-256, 256, count), np.clip(exponent, -256, 255))
    return magnitudes, exponent


def check_round(rng, count, width, stochastic=False):
    magnitudes, field = round_vectors(rng, count, width)
    scale, compiled   = round_unit(width, stochastic)
    exponent          = np.maximum(field - 14 - width - scale, -256)
    negative, carry   = rng.integers(0, 2, (2, count)).tolist()
    sign    = rng.integers(0, 2, count)
    special = np.where(rng.random(count) < 0.05, rng.integers(1, 4, count), FINITE)
    values  = [-magnitude if minus else magnitude for magnitude, minus in zip(magnitudes, negative)]
    carry   = [one and value > 1 - (1 << width) for one, value in zip(carry, values)]
    sink    = pack_words([value - one for value, one in zip(values, carry)], width + 1)
    lsbs    = (-exponent - scale).tolist()
    randoms = [None]*count
    ports   = {}
    if stochastic:
        deciding = np.array([exact.deciding_random(value, lsb) for value, lsb in zip(values, lsbs)])
        random   = np.where(rng.random(count) < 0.5, rng.integers(0, 1024, count),
            np.clip(deciding + rng.integers(-1, 1, count), 0, 1023))
        randoms, ports = random.tolist(), {"random": random}
    out     = play(compiled, Round.latency, ["source"],
        sink=sink, carry=carry, exponent=exponent, special=special, sign=sign, **ports)["source"]
    rounded = [exact.round16(-value if negate else value, lsb, random=random)
        for value, negate, lsb, random in zip(values, sign.tolist(), lsbs, randoms)]
    assert np.array_equal(out, np.choose(special, # FINITE, ZERO, INFINITE, NAN.
        [rounded, sign << 15, exact.INFINITY16 | sign << 15, np.full(count, exact.NAN16)]))


@pytest.mark.parametrize("width, count", [(7, 50_000), (12, 50_000), (16, 50_000), (29, 50_000), (60, COUNT),
    (91, COUNT)])
def test_round(width, count):
    check_round(np.random.default_rng(90 + width), count, width)


@pytest.mark.parametrize("width, count", [(7, 50_000), (12, 50_000), (29, 50_000), (59, COUNT)])
def test_stochastic_round(width, count):
    check_round(np.random.default_rng(190 + width), count, width, stochastic=True)


@pytest.mark.slow
@TEN_MILLION
def test_stochastic_round_ten_million(seed):
    check_round(np.random.default_rng(2000 + seed), COUNT, 59, stochastic=True)


@pytest.mark.slow
@TEN_MILLION
@pytest.mark.parametrize("width", [60, 91])
def test_round_ten_million(width, seed):
    check_round(np.random.default_rng(1000 + seed), COUNT, width)
