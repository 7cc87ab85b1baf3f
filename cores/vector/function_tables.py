#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The tables of :mod:`cores.vector.functions`: exp, softplus and SiLU in segments, a quadratic each, with coefficients by
which every input rounds right.

A quadratic is not fitted to the function but to its results: for each input they say between which bounds the value must lie
before it is rounded. Coefficients are integers, all arithmetic is exact, and so the tables are the same everywhere.
"""

import functools

from typing import NamedTuple

import numpy as np

from cores.arith.fp16 import INFINITY16

from model.exact.functions import table

# Constants ----------------------------------------------------------------------------------------

NAMES = ("exp", "softplus", "silu") # In the order of their numbers.

SEGMENTS      = 512 # That there is room for.
QUARTERS      = 4   # A binade's parts, each with a number of segments of its own.
SHIFT_BITS    = 3
POSITION_BITS = 10  # Of u.

# Fraction bits: of c0 and c1, of c2. Widths: c1 and c2 are signed; their 36 bits are the width of a block RAM.
FRACTION,      SQUARE_FRACTION = 9, 7
C0_BITS, C1_BITS,      C2_BITS = 12 + FRACTION, 21, 15

# By how much c2*u is shifted down to be added to c1; bits below the point of the value.
SQUARE_SHIFT = POSITION_BITS + SQUARE_FRACTION - FRACTION
VALUE_POINT  = POSITION_BITS + FRACTION

# Fit ----------------------------------------------------------------------------------------------

def bounds(results):
    """(exponent, least, greatest): between which bounds values must lie, in units of 2**-VALUE_POINT, to round to `results`.

    results: bits of non-negative binary16, (segments, inputs). How values round: :class:`cores.vector.functions.FunctionUnit`.
    """
    half     = 1 << VALUE_POINT - 1
    exponent = np.maximum((results.min(1) >> 10) - 1, 0)
    result   = results - (exponent[:, None] << 10) # The value rounded, up to 2048; each one above is worth 2.
    least    = np.where(result <= 2048, 2*result - 1, 4*result - 4098)*half
    greatest = np.where(result <  2048, 2*result + 1, 4*result - 4094)*half - 1
    overflow = (results == INFINITY16) & (exponent[:, None] == 29)
    return exponent, np.maximum(least, 0), np.where(overflow, 8192*half - 1, np.minimum(greatest, 8192*half - 1))


def fit(results, shift):
    """Coefficients by which all values of all segments lie within their bounds: rows of c0, c1, c2, exponent; None: not found.

    results: as above, of 2**shift segments a binade. From the least squares of the middles between the bounds the search goes,
    by shorter and shorter steps, to where c0 has the most room: but for floors a concave function of c1 and c2, which is 0 or
    more where there is a c0.
    """
    exponent, least, greatest = bounds(results)
    if (least > greatest).any():
        return None
    inputs = results.shape[1]
    u      = (np.arange(inputs) << shift) - 2**(POSITION_BITS - 1)
    limits = np.array([[2**(C1_BITS - 1) - 1], [2**(C2_BITS - 1) - 1]])

    def room(rows, c1, c2):
        """Least and greatest c0 for coefficients (rows, tries)."""
        products = (c1[..., None] + (c2[..., None]*u >> SQUARE_SHIFT))*u
        return (-((products - least[rows, None]).min(-1) >> POSITION_BITS),
            (greatest[rows, None] - products).min(-1) >> POSITION_BITS)

    # Least squares: 2*u and 4*u**2 less their means are orthogonal. None for what may be constant.
    middle = np.minimum((least + greatest)//2, least + 2**VALUE_POINT)
    middle = np.where((least.max(1) <= greatest.min(1))[:, None], 0, middle - middle[:, :1])
    line   = 2*u - u[0] - u[-1]
    square = line*line - (line*line).sum()//inputs
    scaled = lambda value, scale, norm: np.array([int(v)*scale//int(norm) for v in value])
    found  = np.array([
        scaled((middle*line).sum(1),   2,                 (line*line).sum()),
        scaled((middle*square).sum(1), 4 << SQUARE_SHIFT, (square*square).sum())])
    found  = np.clip(found, -limits, limits)

    beside = np.mgrid[-2:3, -2:3].reshape(2, 1, -1)
    c0     = np.array(room(slice(None), *found[:, :, None]))[:, :, 0]
    for step in 2**np.arange(FRACTION + 2, -1, -1):
        for _ in range(10):
            rows = np.flatnonzero(c0[1] < c0[0])
            if not len(rows):
                break
            tries = found[:, rows, None] + beside*np.array([step, max(step >> FRACTION - SQUARE_FRACTION, 1)]).reshape(2, 1, 1)
            tries = np.clip(tries, -limits[..., None], limits[..., None])
            rooms = np.array(room(rows, *tries))
            best  = (np.arange(len(rows)), (rooms[1] - rooms[0]).argmax(1))
            wider = rooms[1][best] - rooms[0][best] > c0[1, rows] - c0[0, rows]
            if not wider.any():
                break
            for kept, new in ((c0, rooms), (found, tries)):
                kept[:, rows[wider]] = new[:, best[0][wider], best[1][wider]]
    return np.stack([c0.sum(0) >> 1, *found, exponent], 1) if (c0[1] >= c0[0]).all() else None

# Tables -------------------------------------------------------------------------------------------

def segments(results, halvings=0):
    """[(shift, rows of coefficients)] of a binade, or a half or a quarter of it: 2**shift segments a binade, as few as do."""
    rows  = fit(results[None], halvings)
    shift = halvings
    if rows is None and 2**halvings < QUARTERS:
        halves = results.reshape(2, -1)
        return segments(halves[0], halvings + 1) + segments(halves[1], halvings + 1)
    while rows is None:
        shift += 1
        rows = fit(results.reshape(2**shift//QUARTERS, -1), shift)
    return [(shift, rows)]


class Tables(NamedTuple):
    base     : np.ndarray # By the function's number and the input's upper 8 bits. A segment's number is this
    shift    : np.ndarray # and as many upper bits of the fraction as this says, added up modulo SEGMENTS.
    c0       : np.ndarray # By the segment's number.
    c1       : np.ndarray
    c2       : np.ndarray
    exponent : np.ndarray
    segments : int        # That are taken.


@functools.cache
def tables():
    """The tables of all functions; it takes a second or two. Segments that are equal are kept once."""
    base, shift = np.zeros((2, 256*QUARTERS), np.int64)
    rows, place = [], {}
    for number, name in enumerate(NAMES):
        bits = table(name).view(np.uint16).astype(np.int64) & 0x7fff
        for binade, results in enumerate(bits.reshape(64, 1024)):
            if binade % 32 == 31:
                results = np.repeat(results[:1], 1024) # Of infinity; the unit sees NaN by itself.
            quarter = QUARTERS*(64*number + binade)
            for upper_bits, some in segments(results):
                first = place.setdefault(some.tobytes(), len(rows))
                if first == len(rows):
                    rows += some.tolist()
                before = (quarter % QUARTERS << upper_bits)//QUARTERS # Segments of this length in the quarters before.
                these  = slice(quarter, quarter + max(QUARTERS >> upper_bits, 1))
                base[these], shift[these] = (first - before) % SEGMENTS, upper_bits
                quarter = these.stop
    if len(rows) > SEGMENTS:
        raise ValueError(f"segments must be no more than {SEGMENTS}, are {len(rows)}.")
    columns = np.zeros((4, SEGMENTS), np.int64)
    columns[:, :len(rows)] = np.transpose(rows)
    return Tables(base, shift, *columns, len(rows))
