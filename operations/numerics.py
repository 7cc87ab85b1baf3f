#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Numbers of the whole model's arithmetic that exact models and gateware share; docs/numerics.md has the formulas."""

from enum import IntEnum

# Block Floating Point -----------------------------------------------------------------------------

GROUP         = 32 # Elements that share an exponent, and weights that share a scale.
MANTISSA_BITS = 14 # m, sign included, unless built otherwise.

# Norm ---------------------------------------------------------------------------------------------

UNIT_BITS  = 48 # The sum of squares is in units of 2**-48.
RSQRT_BITS = 17 # Significant bits of the reciprocal square root.

# Tape ---------------------------------------------------------------------------------------------

LANE_BITS = 128 # Of a beat, for each lane: COLUMNS bytes, or the scales of 8 groups.
COLUMNS   = 16  # Of a beat, in each lane.

# Vector Unit --------------------------------------------------------------------------------------

VECTOR_TERMS = 16 # Products that a result may be the sum of.


class Function(IntEnum):
    """What may become of a result."""
    EXP      = 0
    SOFTPLUS = 1
    SILU     = 2
    NONE     = 3

# Head ---------------------------------------------------------------------------------------------

CANDIDATES = 64 # Of the best logits, that the device keeps.
