#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Which candidate is the next token: in integers alone, so that firmware without floating point draws the same one.

::

    L[i] = RN(logit[i]*2**16)                      an integer, cut off at +-2**47
    s[i] = (L[0] - L[i])*inverse >> 16             inverse = RN(2**16/temperature): so s is in units of 2**-16
    t[i] = s[i]*94548 >> 16                        94548 = RN(2**16*log2(e)): e**-s = 2**-t
    w[i] = (HIGH[t >> 8 & 255]*LOW[t & 255] + 2**30) >> (31 + (t >> 16))      0 where t >> 16 is above 31
    HIGH[n] = RN(2**31*2**(-n/2**8)),  LOW[n] = RN(2**31*2**(-n/2**16))

With top_p, a fraction of 16 bits, the first candidates alone count whose weights together are at least ``sum(w)*top_p >> 16``, and one at least.

The draw is a number r of 48 bits, a hash of seed and place (the core's, see docs/numerics.md); chosen is the first candidate whose
weight, with those before it, exceeds ``r*sum(w) >> 48``.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from model.bitexact import hash_rounds

from operations.config import HASH_CONSTANT, HASH_ROUNDS, HASH_WORD_BITS, check_range
from operations.numerics import CANDIDATES

# Constants ----------------------------------------------------------------------------------------

FRACTION  = 16    # Bits of logits, and of the exponent, below the point.
LOG2_E    = 94548 # log2(e), with as many.
LOGIT_MAX = 2**47
HIGH      = [round(2**31*2**(-n/2**8))  for n in range(256)]
LOW       = [round(2**31*2**(-n/2**16)) for n in range(256)]

# Draws --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Draws:
    """How tokens are drawn: what :func:`sample` takes of a whole text."""
    inverse : int = 0
    top_k   : int = CANDIDATES
    seed    : int = 0
    top_p   : int = 0

    @classmethod
    def of(cls, temperature, top_k, seed, top_p=1.0):
        """As people say it; temperature 0: the best token is taken. Raises ValueError as :func:`inverse_of` and :func:`top_p_of`, and where
        `top_k` or `seed` is not what a job can say."""
        check_range("top_k", top_k, 1, CANDIDATES)
        check_range("seed", seed, 0, 2**32 - 1)
        return cls(inverse_of(temperature) if temperature else 0, top_k, seed, top_p_of(top_p))

    @property
    def top(self):
        """The word of jobs."""
        return self.top_k | self.top_p << FRACTION


def inverse_of(temperature):
    """1/temperature, with 16 bits below the point. Raises ValueError unless it fits 32 bits, and is not 0."""
    inverse = round(2**FRACTION/temperature) if temperature > 0 else 0
    if not 1 <= inverse < 2**32:
        raise ValueError(f"temperature must be from 0.0000153 to 131071, is {temperature:g}.")
    return inverse


def top_p_of(share):
    """A share of the weights, with 16 bits below the point; 0: all. Raises ValueError unless it is above 0, and at most 1."""
    if not 0 < share <= 1:
        raise ValueError(f"top_p must be above 0, and at most 1, is {share:g}.")
    return max(round(share*2**FRACTION), 1) % 2**FRACTION


def draw(seed, place):
    """48 random bits. seed, place: 32 bits each."""
    word = 2**HASH_WORD_BITS - 1
    x, y = np.uint32(seed & word), np.uint32(seed >> HASH_WORD_BITS | (place & 0xffff) << 8)
    x, y = hash_rounds(np.array([x]), np.array([y]), 0)
    x, y = hash_rounds(x ^ np.uint32((place >> 16)*HASH_CONSTANT & word), y, HASH_ROUNDS)
    return int(y[0]) << HASH_WORD_BITS | int(x[0])

# Weights ------------------------------------------------------------------------------------------

def fixed(logit):
    """L of a float32 logit, not NaN."""
    if abs(logit) >= LOGIT_MAX >> FRACTION:
        return LOGIT_MAX if logit > 0 else -LOGIT_MAX
    return round(float(logit)*2**FRACTION) # Exact, to even.


def weights(logits, inverse):
    """[w] of logits, best first."""
    best   = fixed(logits[0])
    result = []
    for logit in logits:
        t = ((best - fixed(logit))*inverse >> FRACTION)*LOG2_E >> FRACTION
        result.append((HIGH[t >> 8 & 255]*LOW[t & 255] + 2**30) >> (31 + (t >> 16)) if t >> 16 < 32 else 0)
    return result


def sample(tokens, logits, inverse, top_k, seed, place, top_p=0):
    """The next token.

    Parameters
    ----------
    tokens, logits : the candidates, best first, as of :func:`model.exact.head.best`.
    inverse        : :func:`inverse_of` the temperature; 0: the best one is taken.
    top_k          : of so many, 1 to CANDIDATES.
    seed, place    : of the draw; the place of the token in its text. 32 bits each.
    top_p          : :func:`top_p_of` the weights' share; 0: all.

    Raises
    ------
    ValueError : a number is out of range, or the best logit is NaN.
    """
    check_range("inverse", inverse, 0, 2**32 - 1)
    check_range("top_k",   top_k,   1, CANDIDATES)
    check_range("seed",    seed,    0, 2**32 - 1)
    check_range("place",   place,   0, 2**32 - 1)
    check_range("top_p",   top_p,   0, 2**FRACTION - 1)
    if np.isnan(logits[0]):
        raise ValueError("the best logit must be a number, is NaN.")
    if not inverse:
        return int(tokens[0])
    chosen = weights([logit for logit in logits[:top_k] if not np.isnan(logit)], inverse)
    if top_p:
        least  = sum(chosen)*top_p >> FRACTION
        chosen = chosen[:next(count for count, total in enumerate(accumulate(chosen), 1) if total >= least)]
    left   = draw(seed, place)*sum(chosen) >> 48
    for token, weight in zip(tokens, chosen):
        if left < weight:
            return int(token)
        left -= weight
    raise AssertionError("weights are not what they add up to.")
