#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The firmware's choice of a token is that of model/exact/sampling.py, whatever the candidates are."""

import subprocess

import numpy as np
import pytest


from native import build as native

from model.exact.head import best
from model.exact.sampling import HIGH, LOW, inverse_of, sample

from operations.config import ProgramConfig, SSMConfig
from operations.numerics import CANDIDATES

from tools.firmware.sampling import sampling_header

# Constants ----------------------------------------------------------------------------------------

CASES = 20_000

# Around every turn of the way to a fixed-point number: ties, what rounds to 0, what is cut off, and what is no number.
EDGES = np.concatenate([np.array([0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000, 0xffffffff, 0x80000000, 0xff800000],
    np.uint32), *(np.arange(-3, 4, dtype=np.int64).astype(np.uint32) + np.uint32(exponent << 23 | middle)
    for exponent in (108, 109, 110, 111, 117, 127, 132, 133, 134, 135, 156, 157, 158) for middle in (0, 0x400000, 0x7ffffe))])

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def chooser(tmp_path_factory):
    """chooser(cases): the firmware's choices. A case: (count, inverse, top_p, seed, place, float32 logits)."""
    program = native.build(str(tmp_path_factory.mktemp("native")), SSMConfig(), "choose.c", program=ProgramConfig())

    def choose(cases):
        words = []
        for *head, logits in cases:
            words += [np.array(head, np.uint32), np.stack([np.arange(len(logits), dtype=np.uint32), logits.view(np.uint32)], 1).ravel()]
        done = subprocess.run([program], input=np.concatenate(words).tobytes(), capture_output=True, check=True)
        return np.frombuffer(done.stdout, np.uint32).tolist()

    return choose

# Helpers ------------------------------------------------------------------------------------------

def logits_of(rng, count):
    """float32 logits, best first, of which the first one is finite."""
    kind = rng.integers(6)
    if kind == 0:
        values = rng.standard_normal(count)*rng.choice([0.01, 1, 5, 100])
    elif kind == 1: # Ties.
        values = rng.integers(-3, 4, count)/rng.choice([1, 2, 2**15, 2**16, 2**17])
    elif kind == 2: # Any bits.
        values = rng.integers(0, 2**32, count, np.uint32).view(np.float32)
    elif kind == 3:
        values = rng.choice(EDGES, count).view(np.float32)
    elif kind == 4: # All nearly equal.
        values = 1e4 + rng.integers(0, 4, count)*2.0**-10
    else:
        values = np.ldexp(rng.standard_normal(count), rng.integers(-30, 35))
    with np.errstate(over="ignore"):
        values = best(values.astype(np.float32), count)[1]
    values = values[np.isfinite(values).argmax():] if np.isfinite(values).any() else np.ones(1, np.float32)
    return np.ascontiguousarray(values)


def inverse(rng):
    kind = rng.integers(4)
    if kind == 0:
        return inverse_of(rng.choice([0.1, 0.6, 0.7, 0.8, 1.0, 1.5, 5.0]))
    if kind == 1:
        return int(rng.choice([0, 1, 2, 2**16, 2**31, 2**32 - 1]))
    return int(rng.integers(1, 2**int(rng.integers(1, 33))))

# Choices ------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_same_choices(chooser):
    rng   = np.random.default_rng(11)
    cases = []
    for _ in range(CASES):
        logits = logits_of(rng, int(rng.integers(1, CANDIDATES + 1)))
        cases.append((int(rng.integers(1, len(logits) + 1)), inverse(rng), int(rng.integers(2**16))*int(rng.integers(2)), int(rng.integers(2**32)),
            int(rng.integers(2**32)), logits))
    wanted = [sample(np.arange(len(logits)), logits, scale, count, seed, place, top_p) for count, scale, top_p, seed, place, logits in cases]
    given  = [(count, scale, top_p, seed, place, logits[:count]) for count, scale, top_p, seed, place, logits in cases]
    assert chooser(given) == wanted
    assert len(set(wanted)) > CANDIDATES*3//4 # Not only the first ones.


def test_each_bit_of_seed_and_place(chooser):
    logits = np.zeros(CANDIDATES, np.float32)
    places = [(0x12345678 ^ 1 << n, 0x9abcdef0) for n in range(32)] + [(0x12345678, 0x9abcdef0 ^ 1 << n) for n in range(32)]
    assert chooser([(CANDIDATES, 1, 0, seed, place, logits) for seed, place in places]) \
        == [sample(np.arange(CANDIDATES), logits, 1, CANDIDATES, seed, place) for seed, place in places]


def test_whatever_is_in_memory(chooser):
    """Candidates that no engine writes, in no order: one of them is chosen."""
    rng   = np.random.default_rng(12)
    cases = [(CANDIDATES, inverse(rng), place << 5 & 0xffff, 1, place, rng.integers(0, 2**32, CANDIDATES, np.uint32).view(np.float32)) for place in range(2000)]
    assert set(chooser(cases)) <= set(range(CANDIDATES))


def test_tables():
    text = sampling_header()
    assert text.count("0x") == len(HIGH) + len(LOW) + 1
    assert f"0x{HIGH[1]:08x}, 0x{HIGH[2]:08x}" in text and f"0x{LOW[254]:08x}, 0x{LOW[255]:08x}" in text
