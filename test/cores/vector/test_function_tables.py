#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The tables of the functions: their figures, and that they are always the same. test_functions.py has their results."""

import hashlib

import numpy as np

from cores.vector.function_tables import C0_BITS, C1_BITS, C2_BITS, SEGMENTS, SHIFT_BITS, bounds, fit, tables

from tools.paths import ROOT

# Tests --------------------------------------------------------------------------------------------

def test_widths():
    t = tables()
    assert 0 <= t.base.min() and t.base.max() < SEGMENTS
    assert 0 <= t.shift.min() and t.shift.max() < 2**SHIFT_BITS
    assert 0 <= t.c0.min() and t.c0.max() < 2**C0_BITS
    assert abs(t.c1).max() < 2**(C1_BITS - 1) and abs(t.c2).max() < 2**(C2_BITS - 1)
    assert 0 <= t.exponent.min() and t.exponent.max() <= 30
    assert C1_BITS + C2_BITS == 36


def test_docs():
    text = " ".join((ROOT/"docs"/"numerics.md").read_text().split())
    t    = tables()
    assert f"ends with {t.segments} segments, in {SEGMENTS} words of {C1_BITS + C2_BITS} bits" in text
    assert f"{SEGMENTS} of {C0_BITS + 5} (c0, exponent), behind {len(t.base)} of {9 + SHIFT_BITS} that say" in text
    assert SEGMENTS == 2**9
    assert f"down to a {2**t.shift.max()}th of the binade" in text
    assert f"c0 has {C0_BITS} bits, c1 {C1_BITS} and c2 {C2_BITS}" in text


def test_always_the_same():
    """They come from the results, by integers alone."""
    words = b"".join(column.astype("<i8").tobytes() for column in tables()[:-1])
    assert hashlib.sha256(words).hexdigest()[:16] == "d2f959eabdb01122"


def test_bounds():
    """Values at the bounds round to the result, those beside them to another one."""
    results  = np.array([[0, 1, 0x3ff, 0x400, 0x7fe, 0x7ff, 0x800, 0x801, 0xbff], [0x7800] + 7*[0x7bff] + [0x7c00]])
    exponent, least, greatest = bounds(results)

    def rounded(value):
        halves = value >> 18
        bits   = np.where(halves < 4096, halves + 1 >> 1, (halves >> 1) + 1 >> 1) + np.where(halves < 4096, 0, 1024)
        bits   = bits + 1024*exponent[:, None]
        return np.where((exponent[:, None] == 29) & (halves >= 4096), 0x7c00, bits)

    assert exponent.tolist() == [0, 29]
    assert np.array_equal(rounded(least), results) and np.array_equal(rounded(greatest), results)
    below = least > 0
    assert (rounded(least - 1) != results)[below].all()
    above = greatest < 2**31 - 1
    assert (rounded(greatest + 1) != results)[above].all()


def test_not_every_result_has_a_quadratic():
    assert fit(np.array([[0x3c00, 0x3800]*8]), 6) is None
    assert fit(np.array([[0x3c00, 0x0000]*8]), 6) is None
