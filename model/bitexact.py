#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Bit-accurate model of the SSM core, in NumPy. It is the specification: the gateware equals it bit for bit.

For a head, at each token (dt, dA, D are scalars of the head; x is one of P elements; B, C and the state h have N)::

    h[n] = RN16(dA*h[n] + dt*x*B[n])                 state update: exact products, exact sum, one rounding
    y    = RN16(sum over n of h[n]*C[n] + D*x)       reduction and skip: exact products, exact sum, one rounding

RN16 rounds to the nearest IEEE-754 binary16, ties to even, with subnormals and overflow to infinity. No other rounding
exists, so the result depends neither on the number of lanes nor on the order of the sum.

With stochastic rounding (``SSMConfig.stochastic_rounding``) the state is rounded to one of its two neighbours, with a
probability that is the nearness to it, so that errors do not add up over many tokens::

    |h| = floor(v/ulp + (r + 1/2)/2**10)*ulp         v: the exact magnitude, ulp: its unit in the last place, 2**-24 or more
    r   = hash(seed + head*SEED_STRIDE + token, p, n)  0 .. 2**10 - 1, see random_bits

Special values follow IEEE-754: 0*inf is NaN, a sum of +inf and -inf is NaN, every NaN result is the canonical
0x7E00. An exact sum of zero is +0 (for the state update -0 when both products are -0); a non-zero sum that rounds to
zero keeps its sign.

The model computes in float64 without error: products of two or three binary16 values are exact in its 53 bits; sums
are kept as two float64 numbers, and the last addition is rounded to odd, which makes the rounding to binary16 after it
the only one (S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
odd", IEEE Transactions on Computers 57(4), 2008).
"""

import numpy as np

from model.exact.rounding import rounded

from operations.config import HASH_CONSTANT, HASH_LANES, HASH_ROUNDS, HASH_WORD_BITS, RANDOM_BITS, SEED_STRIDE

# Helpers ------------------------------------------------------------------------------------------

def _round_to_odd(a, b):
    """a + b in float64, rounded to odd: inexact sums get an odd last bit. a, b: finite float64."""
    s     = a + b
    t     = s - a
    error = (a - (s - t)) + (b - t)
    bits  = s.view(np.int64)
    # An even, inexact sum moves to its neighbour on the error's side. Bit patterns order magnitudes, so that is one up
    # where the error points away from zero and one down where it points to it.
    step  = np.where((error > 0) == (s > 0), 1, -1)
    odd   = np.where((error != 0) & ((bits & 1) == 0), bits + step, bits)
    return odd.view(np.float64)

# Random Bits --------------------------------------------------------------------------------------

def hash_rounds(x, y, first):
    """HASH_ROUNDS rounds of SPECK48 with constants for keys. x, y: uint32 arrays of 24-bit words."""
    mask = np.uint32(2**HASH_WORD_BITS - 1)
    for n in range(first, first + HASH_ROUNDS):
        x = ((x >> 8 | x << 16) + y & mask) ^ np.uint32((n + 1)*HASH_CONSTANT & mask)
        y = ((y << 3 | y >> 21) & mask) ^ x
    return x, y


def random_bits(seed, headdim, d_state):
    """The random bits of a token's state, the core's counter hash.

    seed: of the token, an integer or an array of any shape, modulo 2**32. Returns uint32 (..., P, N), 0 .. 2**10 - 1.
    """
    key  = np.asarray(np.asarray(seed, np.int64) % 2**32, np.uint32)[..., None]
    row  = np.arange(headdim, dtype=np.uint32)
    mask = np.uint32(2**HASH_WORD_BITS - 1)
    x, y = np.broadcast_arrays(key & mask, key >> HASH_WORD_BITS | row << 32 - HASH_WORD_BITS)
    x, y = hash_rounds(x, y, 0)
    group = np.arange(-(-d_state//HASH_LANES), dtype=np.uint32)
    x     = x[..., None] ^ (group*np.uint32(HASH_CONSTANT) & mask)
    x, y  = hash_rounds(x, y[..., None], HASH_ROUNDS)
    half  = HASH_WORD_BITS//2
    words = np.stack([x & 2**half - 1, x >> half, y & 2**half - 1, y >> half], axis=-1) >> half - RANDOM_BITS
    return words.reshape(*words.shape[:-2], -1)[..., :d_state]

# Units --------------------------------------------------------------------------------------------

def _round_stochastically(value, random):
    """float64, itself exact or rounded to odd, to float16, by random bits 0 .. 2**RANDOM_BITS - 1."""
    rest        = RANDOM_BITS + 1
    magnitude   = np.abs(value)
    _, exponent = np.frexp(magnitude)
    ulp         = np.maximum(exponent - 11, -24) # Its exponent.
    units       = np.floor(np.ldexp(magnitude, rest - ulp)).astype(np.int64) + 2*random.astype(np.int64) + 1 >> rest
    return np.copysign(np.ldexp(units.astype(np.float64), ulp), value)


def state_update(h, dA, dt, x, B, random=None):
    """RN16(dA*h + dt*x*B), the core's two-product sum. All float16, broadcast together; returns float16.

    With `random`, of :func:`random_bits`, it is rounded stochastically.
    """
    h, dA, dt, x, B = (np.asarray(value, np.float16).astype(np.float64) for value in (h, dA, dt, x, B))
    with np.errstate(invalid="ignore"):
        decay  = np.atleast_1d(dA*h)
        inject = np.atleast_1d((dt*x)*B)
        total  = decay + inject
    decay, inject = np.broadcast_arrays(decay, inject)
    finite = np.isfinite(total)
    exact  = finite & (total != 0) # Also keeps IEEE's sign of a zero.
    total[exact] = _round_to_odd(decay[exact], inject[exact])
    if random is not None:
        total[exact] = _round_stochastically(total[exact], np.broadcast_to(random, total.shape)[exact])
    return rounded(total)


def dot_skip(h, C, D, x):
    """RN16(sum(h*C) + D*x), the core's reduction over the last axis and the skip.

    h: (..., N), C: broadcastable to h, D and x: broadcastable to h without its last axis. float16, N <= 4095.
    """
    h, C, D, x = (np.asarray(value, np.float16).astype(np.float64) for value in (h, C, D, x))
    with np.errstate(invalid="ignore"):
        products = h*C
        skip     = np.broadcast_to(D*x, products.shape[:-1])
        special  = ~(np.isfinite(products).all(-1) & np.isfinite(skip))
        # Products are multiples of 2**-48 below 2**32. Their parts above and below 2**-8 sum without error.
        high = np.trunc(products*2.0**8)
        low  = products - high*2.0**-8
        skip_high = np.trunc(skip*2.0**8)
        skip_low  = skip - skip_high*2.0**-8
        high = (high.sum(-1) + skip_high)*2.0**-8
        low  = low.sum(-1) + skip_low
        # What the sum of the values that are not finite is: an infinity, or NaN.
        extreme = np.where(np.isfinite(products), 0.0, products).sum(-1) + np.where(np.isfinite(skip), 0.0, skip)
    high, low, special, extreme = map(np.atleast_1d, (high, low, special, extreme))
    total = np.where(special, extreme, 0.0)
    total[~special] = _round_to_odd(high[~special], low[~special])
    return rounded(total + 0.0) # An exact zero is +0.

# Block --------------------------------------------------------------------------------------------

def ssm_step(h, x, dt, dA, B, C, D, seed=None):
    """One token. h: (H, P, N), x: (H, P), dt, dA and D: (H,), B and C: (G, N). Returns y (H, P) and the new h.

    seed: None, the state is rounded to nearest even; or an integer of this token, it is rounded stochastically.
    """
    per_head = h.shape[0]//B.shape[0]
    B = np.repeat(B, per_head, axis=0)[:, None, :]
    C = np.repeat(C, per_head, axis=0)[:, None, :]
    random = None if seed is None else random_bits(seed + np.arange(len(h))*SEED_STRIDE, *h.shape[1:])
    h = state_update(h, dA[:, None, None], dt[:, None, None], x[:, :, None], B, random)
    y = dot_skip(h, C, D[:, None], x)
    return y, h


def ssm_block(x, dt, dA, B, C, D, h0=None, seed=None):
    """T tokens, one after the other. All float16.

    x: (T, H, P), dt and dA: (T, H), B and C: (T, G, N), D: (H,), h0: (H, P, N) or None for zeros.
    seed: None, the state is rounded to nearest even; or an integer, stochastically: token t takes seed + t.
    Returns y (T, H, P) and the last state (H, P, N).
    """
    tokens, heads, headdim = x.shape
    h = np.zeros((heads, headdim, B.shape[2]), np.float16) if h0 is None else h0.copy()
    y = np.empty((tokens, heads, headdim), np.float16)
    for t in range(tokens):
        y[t], h = ssm_step(h, x[t], dt[t], dA[t], B[t], C[t], D, None if seed is None else seed + t)
    return y, h
