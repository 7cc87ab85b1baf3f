#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Numbers of the whole model's arithmetic that exact models and gateware share; docs/numerics.md has the formulas."""

# Block Floating Point -----------------------------------------------------------------------------

GROUP         = 32 # Elements that share an exponent, and weights that share a scale.
MANTISSA_BITS = 14 # m, sign included, unless built otherwise.

# Norm ---------------------------------------------------------------------------------------------

UNIT_BITS  = 48 # The sum of squares is in units of 2**-48.
RSQRT_BITS = 17 # Significant bits of the reciprocal square root.

# Vector Unit --------------------------------------------------------------------------------------

VECTOR_TERMS = 16 # Products that a result may be the sum of.
