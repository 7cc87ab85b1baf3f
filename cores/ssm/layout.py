#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Packs tensors into the records the core's DMA reads, and unpacks those it writes.

The records are described in :class:`cores.ssm.config.Geometry`. Tensors are ``numpy.float16``; records are ``bytes``.
"""

import numpy as np

from cores.ssm.config import BEAT_ELEMENTS

# Inputs -------------------------------------------------------------------------------------------

def pack_x(geometry, x, dt, dA, D):
    """x records of T tokens. x: (T, H, P), dt and dA: (T, H), D: (H,)."""
    tokens  = x.shape[0]
    records = np.zeros((tokens, geometry.heads, BEAT_ELEMENTS + geometry.headdim_padded), "<f2")
    records[:, :, 0] = dt
    records[:, :, 1] = dA
    records[:, :, 2] = D
    records[:, :, BEAT_ELEMENTS:BEAT_ELEMENTS + geometry.headdim] = x
    return records.tobytes()


def pack_bc(geometry, B, C):
    """BC records of T tokens. B and C: (T, G, N)."""
    tokens  = B.shape[0]
    records = np.zeros((tokens, geometry.groups, 2, geometry.d_state_padded), "<f2")
    records[:, :, 0, :geometry.d_state] = B
    records[:, :, 1, :geometry.d_state] = C
    return records.tobytes()

# State --------------------------------------------------------------------------------------------

def pack_state(geometry, h):
    """Head tiles. h: (H, P, N)."""
    lanes  = geometry.config.lanes
    padded = np.zeros((geometry.heads, geometry.headdim, geometry.d_state_padded), "<f2")
    padded[:, :, :geometry.d_state] = h
    words  = padded.reshape(geometry.heads, geometry.headdim, -1, lanes)
    return words.transpose(0, 2, 1, 3).tobytes()


def unpack_state(geometry, data):
    """The inverse of :func:`pack_state`: (H, P, N)."""
    lanes = geometry.config.lanes
    words = np.frombuffer(data, "<f2").reshape(geometry.heads, -1, geometry.headdim, lanes)
    rows  = words.transpose(0, 2, 1, 3).reshape(geometry.heads, geometry.headdim, geometry.d_state_padded)
    return rows[:, :, :geometry.d_state].copy()

# Outputs ------------------------------------------------------------------------------------------

def unpack_y(geometry, data):
    """y of T tokens from their records: (T, H, P)."""
    records = np.frombuffer(data, "<f2").reshape(-1, geometry.heads, geometry.headdim_padded)
    return records[:, :, :geometry.headdim].copy()
