#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Exact arithmetic on binary16, and vectors that are hard on it: what the bit-accurate model and the units must equal.

A finite binary16 is an integer times 2**-24, so products and sums are Python integers times 2**-48 or 2**-72, and the
one rounding is done by :func:`round16` on such an integer. Nothing here goes through floating point.
"""

import numpy as np

# Constants ----------------------------------------------------------------------------------------

NAN16, INFINITY16, ONE16 = 0x7e00, 0x7c00, 0x3c00

# Zeros, ones, ends and neighbours of the subnormal and normal ranges, infinities, quiet and signalling NaNs.
SPECIALS = np.array([bits | sign for sign in (0, 0x8000) for bits in (
    0x0000, 0x0001, 0x0002, 0x03fe, 0x03ff, 0x0400, 0x0401, 0x07ff, 0x3800, 0x3bff, 0x3c00, 0x3c01, 0x4000, 0x7bfe,
    0x7bff, 0x7c00, 0x7c01, 0x7dff, 0x7e00, 0x7fff)], np.uint16)


def _integer(bits):
    """A binary16 in units of 2**-24; 0 where it is not finite."""
    field, fraction = bits >> 10 & 31, bits & 0x3ff
    value = 0 if field == 31 else fraction if field == 0 else (1024 + fraction) << (field - 1)
    return -value if bits >> 15 else value


INTEGERS = [_integer(bits) for bits in range(1 << 16)]

# Rounding -----------------------------------------------------------------------------------------

def round16(integer, scale, zero_sign=0, random=None):
    """RN16(integer * 2**-scale), its bits: nearest, ties to even. `zero_sign`: sign of an integer that is 0.

    With `random` (0 .. 1023) rounded stochastically: floor(magnitude/ulp + (random + 1/2)/1024).
    """
    if not integer:
        return zero_sign << 15
    magnitude = abs(integer)
    # Bits below the lsb of the result: those beyond eleven, but never an lsb below 2**-24.
    drop = max(magnitude.bit_length() - 11, scale - 24)
    if drop > 0:
        kept, rest, half = magnitude >> drop, magnitude & (1 << drop) - 1, 1 << drop - 1
        if random is not None:
            kept += (rest << 11) + (2*random + 1 << drop) >= 1 << drop + 11
        else:
            kept += rest > half or (rest == half and kept & 1)
    else:
        kept = magnitude << -drop
    # An lsb of 2**-24 is that of exponent fields 0 and 1; a carry runs into the field.
    bits = min((drop - scale + 24 << 10) + kept, INFINITY16)
    return bits | 0x8000 if integer < 0 else bits



def round32(integer, scale):
    """RN32(integer * 2**-scale), its bits: nearest, ties to even."""
    magnitude = abs(integer)
    drop      = max(magnitude.bit_length() - 24, scale - 149)
    if drop > 0:
        kept, rest, half = magnitude >> drop, magnitude & (1 << drop) - 1, 1 << drop - 1
        kept += rest > half or (rest == half and kept & 1)
    else:
        kept = magnitude << -drop
    bits = min((drop - scale + 149 << 23) + kept, 0x7f800000) if kept else 0
    return bits | 0x80000000 if integer < 0 else bits


def deciding_random(integer, scale):
    """The smallest `random` with which :func:`round16` rounds integer * 2**-scale away from zero; 1024: none does."""
    drop = max(abs(integer).bit_length() - 11, scale - 24, 0)
    rest = abs(integer) & (1 << drop) - 1
    # rest/2**drop + (random + 1/2)/2**10 >= 1.
    return max(-(((rest << 11) - (1 << drop + 11) + (1 << drop)) >> drop + 1), 0)

# Special Values -----------------------------------------------------------------------------------

def is_zero(bits):
    return bits & 0x7fff == 0


def is_infinity(bits):
    return bits & 0x7fff == INFINITY16


def is_nan(bits):
    return bits & 0x7fff > INFINITY16


def product_special(*operands):
    """(nan, inf, sign) of products of arrays of binary16 bits, booleans: inf*0 is NaN."""
    any_inf = np.any([is_infinity(bits) for bits in operands], axis=0)
    nan     = np.any([is_nan(bits) for bits in operands], axis=0)
    nan    |= any_inf & np.any([is_zero(bits) for bits in operands], axis=0)
    return nan, any_inf & ~nan, np.bitwise_xor.reduce(operands) >> 15 != 0


def sum_special(nan, positive, negative, otherwise):
    """Bits of sums that hold a NaN, a positive, a negative infinity; `otherwise` where they hold none of them."""
    return np.select([nan | (positive & negative), positive, negative], [NAN16, INFINITY16, INFINITY16 | 0x8000],
        otherwise).astype(np.uint16)

# Operations ---------------------------------------------------------------------------------------

def state_update(h, dA, dt, x, B, random=None):
    """RN16(dA*h + dt*x*B) of arrays (count,) of binary16 bits. See :mod:`model.bitexact` for the special values."""
    value, rounded = INTEGERS, []
    randoms = [None]*len(h) if random is None else random.tolist()
    for a, b, c, d, e, r in zip(*(array.tolist() for array in (h, dA, dt, x, B)), randoms):
        decay = value[a]*value[b]
        total = (decay << 24) + value[c]*value[d]*value[e]
        # Two products of zero make -0 when both are negative; what cancels makes +0.
        rounded.append(round16(total, 72, random=r) if total else 0 if decay else (a ^ b) & (c ^ d ^ e) & 0x8000)
    (nan, inf, sign), (nan2, inf2, sign2) = product_special(h, dA), product_special(dt, x, B)
    return sum_special(nan | nan2, (inf & ~sign) | (inf2 & ~sign2), (inf & sign) | (inf2 & sign2), rounded)


def update_randoms(rng, h, dA, dt, x, B):
    """Random bits for :func:`state_update`, of each second vector those that just round up, or just do not."""
    value   = INTEGERS
    randoms = rng.integers(0, 1024, len(h))
    near    = rng.integers(-1, 1, len(h)).tolist()
    for n in range(0, len(h), 2):
        decay  = value[h[n]]*value[dA[n]] << 24
        random = deciding_random(decay + value[dt[n]]*value[x[n]]*value[B[n]], 72) + near[n]
        randoms[n] = min(max(random, 0), 1023)
    return randoms


def dot_integers(a, b):
    """sum(a*b) over the last axis of arrays (count, lanes) of binary16 bits, in units of 2**-48; finite values only."""
    value = INTEGERS
    return [sum([value[p]*value[q] for p, q in zip(*row)]) for row in zip(a.tolist(), b.tolist())]


def dot_specials(a, b):
    """(nan, positive, negative) of each row's products: whether one is NaN, an infinity of either sign. Booleans."""
    nan, inf, sign = product_special(a, b)
    return nan.any(-1), (inf & ~sign).any(-1), (inf & sign).any(-1)


def dot_skip(h, C, D, x):
    """RN16(sum(h*C) + D*x) of arrays (count, N), (count, N), (count,), (count,) of binary16 bits."""
    a = np.concatenate([h, D[:, None]], axis=1)
    b = np.concatenate([C, x[:, None]], axis=1)
    return sum_special(*dot_specials(a, b), [round16(total, 48) for total in dot_integers(a, b)])

# Vectors ------------------------------------------------------------------------------------------

def operands(rng, shape):
    """Binary16 bits of all classes: any bits, specials, subnormals, powers of two and their neighbours, few fraction
    bits, the ends of the exponent range, values near 1."""
    count  = int(np.prod(shape))
    any16  = rng.integers(0, 1 << 16, count, np.uint16)
    sign   = any16 & 0x8000
    finite = sign | rng.integers(0, INFINITY16, count, np.uint16)
    near   = np.clip((finite & 0x7c00).astype(np.int32) + rng.integers(-1, 2, count), 0, INFINITY16).astype(np.uint16)
    return np.choose(rng.integers(0, 8, count), [
        any16,
        SPECIALS[any16 % len(SPECIALS)],
        sign | any16 & 0x03ff,
        sign | near,
        finite & ~((np.uint16(1) << rng.integers(0, 11, count, np.uint16)) - np.uint16(1)),
        sign | np.where(any16 & 1, INFINITY16 - 1 - (any16 >> 1 & 0x7ff), any16 >> 1 & 0x7ff),
        sign | 0x3000 + (any16 & 0x1fff),
        finite,
    ]).astype(np.uint16).reshape(shape)


def power(exponent):
    """Bits of 2**exponent, clipped to what binary16 holds."""
    exponent = np.clip(exponent, -24, 15)
    return np.where(exponent < -14, 1 << np.clip(exponent + 24, 0, 10), exponent + 15 << 10).astype(np.uint16)


def nudge(rng, bits, most=2):
    """Finite values moved by up to `most` units in the last place."""
    magnitude = (bits & 0x7fff).astype(np.int32) + rng.integers(-most, most + 1, bits.shape)
    return (bits & 0x8000 | np.clip(magnitude, 0, INFINITY16 - 1)).astype(np.uint16)


def split(rng, exponent):
    """Three binary16 powers of two whose product is 2**exponent, as near as they reach."""
    first  = np.clip(exponent + rng.integers(-20, 21, exponent.shape), -24, 15)
    rest   = exponent - first
    second = np.clip(rest - rest//2 + rng.integers(-3, 4, exponent.shape), -24, 15)
    return power(first), power(second), power(rest - second)


def update_vectors(rng, count):
    """h, dA, dt, x, B for :func:`state_update`: bits, arrays (count,)."""
    h, dA, dt, x, B = operands(rng, (5, count))
    kind   = rng.integers(0, 8, count)
    finite = rng.integers(0, INFINITY16, count, np.uint16) | rng.integers(0, 2, count, np.uint16) << 15
    field  = np.maximum((finite >> 10 & 31).astype(np.int32), 1)
    small  = split(rng, field - 15 - 11 + rng.integers(-1, 2, count))         # About half a unit in h's last place.
    tiny   = split(rng, field - 15 - rng.integers(12, 48, count))             # Far below it.
    sign   = rng.integers(0, 2, count, np.uint16) << 15
    exact  = np.where(rng.integers(0, 2, count), ONE16, nudge(rng, np.full(count, ONE16, np.uint16)))

    # Cancellation: dt*x*B is dA*h negated, or nearly.
    pick = kind == 1
    dt[pick], x[pick], B[pick] = dA[pick], h[pick] ^ 0x8000, exact[pick]
    pick = kind == 2
    h[pick], dA[pick] = finite[pick], ONE16
    dt[pick], x[pick], B[pick] = nudge(rng, finite)[pick], ONE16 | 0x8000, exact[pick]
    # Ties, and just beside: h plus half a unit in its last place; the halves of an odd significand times 1.5.
    pick = kind == 3
    h[pick], dA[pick] = finite[pick], ONE16
    dt[pick], x[pick], B[pick] = (small[0] | sign)[pick], small[1][pick], small[2][pick]
    pick = kind == 4
    h[pick], dA[pick] = finite[pick], ONE16
    dt[pick], x[pick], B[pick] = (small[0] | sign)[pick], small[1][pick], nudge(rng, small[2])[pick]
    pick = kind == 5
    h[pick], dA[pick] = (finite | 1)[pick], (0x3e00 - (rng.integers(0, 16, count, np.uint16) << 10))[pick]
    dt[pick], x[pick], B[pick] = (tiny[0] | sign)[pick], tiny[1][pick], tiny[2][pick]
    # The end of the range: the largest value plus half a unit in its last place.
    pick = kind == 6
    end  = split(rng, np.full(count, 4))
    h[pick], dA[pick] = nudge(rng, 0x7bff | sign)[pick], ONE16
    dt[pick], x[pick], B[pick] = (end[0] | sign)[pick], end[1][pick], nudge(rng, end[2])[pick]
    return h, dA, dt, x, B


def dot_vectors(rng, count, lanes):
    """Two arrays (count, lanes) for a dot product: bits."""
    def some(share):
        """All bits in about `share` of the lanes, only the signs in the others."""
        return np.where(rng.random((count, lanes)) < share, 0xffff, 0x8000).astype(np.uint16)

    sign   = rng.integers(0, 2, (2, count, lanes), np.uint16) << 15
    finite = rng.integers(0, INFINITY16, (2, count, lanes), np.uint16) | sign
    kind   = rng.integers(0, 12, count)
    rows   = np.arange(count)
    lane   = rng.integers(0, lanes, count)
    a, b   = finite

    # Any operands, in few lanes: infinities and NaNs everywhere would hide the rest.
    pick = kind < 2
    any_a, any_b = operands(rng, (2, count, lanes))
    a = np.where(pick[:, None], any_a & some(2/lanes), a)
    b = np.where(pick[:, None] & (a & 0x7fff != 0), any_b, b)
    # Few lanes, so that far exponents meet.
    pick = (kind >= 2) & (kind < 4)
    a[pick] &= some(2/lanes)[pick]
    # Cancellation in pairs, exact or by a unit in the last place.
    pick = (kind >= 4) & (kind < 7)
    half = lanes//2
    a[pick, half:2*half] = a[pick, :half]
    b[pick, half:2*half] = nudge(rng, b[:, :half], 1)[pick] ^ 0x8000
    a[pick, 2*half:]     = 0
    # Ties, and just beside: an odd significand times 1.5 in one lane, products far below in few others.
    pick = (kind >= 7) & (kind < 11)
    low  = rng.integers(0, 0x0c00, (2, count, lanes), np.uint16) | sign
    a[pick] = (low[0] & some(1/lanes))[pick]
    b[pick] = low[1][pick]
    rows, lane = rows[pick], lane[pick]
    a[rows, lane] = np.maximum(finite[0][rows, lane] & 0x7fff, 0x2c01) | 1
    b[rows, lane] = 0x3e00 | sign[1][rows, lane]
    # The end of the range.
    pick = kind == 11
    a[pick] = (nudge(rng, 0x7bff | sign[0]) & some(2/lanes))[pick]
    b[pick] = (0x3c00 | sign[1])[pick]
    return a, b
