#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM block in memory: the sizes of a block, its records, and how tensors are packed into them.

Tensors are ``numpy.float16``; records are ``bytes``.
"""

from dataclasses import dataclass

import numpy as np

from operations.config import ALIGNMENT, BC_SLOTS, ELEMENT_BYTES, SSMConfig, ceil_multiple, check_range

# Constants ----------------------------------------------------------------------------------------

ROW_ELEMENTS    = 8 # x and y are padded to a multiple of this many elements.
SCALAR_ELEMENTS = 8 # In front of x: dt, dA, D and zeros.

CAPABILITIES = { # Of the CSR ssm_capabilities: {name: (lowest bit, bits)}; its queue_depth is a logarithm.
    "lanes"       : (0,   8),
    "max_headdim" : (8,  10),
    "max_d_state" : (18, 10),
}

# Descriptors --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class TileField:
    """A field of a head tile's descriptor: its width in bits, and what it says. The gateware's layouts, its CSRs and the comments of
    the stand-alone Verilog all come from these."""
    name : str
    bits : int
    text : str


ADDRESS_FIELDS = tuple(TileField(name, 32, f"Address {what}, a multiple of {ALIGNMENT}.") for name, what in (
    ("x",         "of token 0's x record"),
    ("bc",        "of token 0's BC record"),
    ("y",         "of the first y record that is written, which is that of token first_token"),
    ("state_in",  "the tile is loaded from"),
    ("state_out", "the tile is stored to"),
))


def command_fields(config: SSMConfig) -> tuple[TileField, ...]:
    """What the core of a build is told of a head tile."""
    fields = [
        TileField("tokens",      16, "Tokens T to run, 1 or more."),
        TileField("first_token", 16, "y is given from this token on, 0 to T."),
        TileField("zero_state",   1, "Start from a state of zeros; nothing is loaded."),
        TileField("no_store",     1, "Do not store the new state."),
        TileField("same_bc",      1, f"B and C are those of the tile before, of as many tokens, {BC_SLOTS} at most; they do not come "
            "again."),
    ]
    if config.resident_tiles:
        fields += [
            TileField("resident", 1, "Take the state as it lies on chip; nothing is loaded."),
            TileField("tile", max((config.resident_tiles - 1).bit_length(), 1), "Where on chip the state lies, or comes to lie."),
        ]
    if config.stochastic_rounding:
        fields += [TileField("seed", 32, "Of stochastic rounding; token t takes seed + t.")]
    return tuple(fields)

# Helpers ------------------------------------------------------------------------------------------

def record_bytes(elements: int) -> int:
    """Bytes of a record of so many elements, with what is not used at its end."""
    return ceil_multiple(elements*ELEMENT_BYTES, ALIGNMENT)


def empty_records(shape: tuple[int, ...], size: int) -> np.ndarray:
    """Records of `size` bytes, as zeros: float16, the last axis being the elements."""
    return np.zeros((*shape, size//ELEMENT_BYTES), "<f2")

def unpack_capabilities(word: int) -> dict[str, int]:
    """{name: value} from the CSR ssm_capabilities."""
    return {name: word >> offset & (1 << size) - 1 for name, (offset, size) in CAPABILITIES.items()}

# Geometry -----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Geometry:
    """What a job sets at run time: the sizes of a block and, from them, of its records in DRAM.

    All records begin at a multiple of ALIGNMENT bytes, and what is left of the last of these is not used. Elements are
    binary16, little endian.

    ============ =========== ================================================================
    record       how many    content, in order
    ============ =========== ================================================================
    head tile    H           state of a head: word k*P + p holds h[p][k*L .. k*L + L - 1]
    x record     T*H         dt, dA, D, 5 zeros; then x[0 .. P-1] padded with zeros
    BC record    T*G         B[0 .. N-1] padded with zeros; then C likewise
    y record     T*H         y[0 .. P-1] padded with zeros
    ============ =========== ================================================================

    Raises
    ------
    ValueError : names the size, its value and what is allowed.
    """
    config  : SSMConfig
    heads   : int
    headdim : int
    d_state : int
    groups  : int = 1

    def __post_init__(self) -> None:
        check_range("heads",   self.heads,   1, self.config.max_heads)
        check_range("headdim", self.headdim, 1, self.config.max_headdim)
        check_range("d_state", self.d_state, 1, self.config.max_d_state)
        check_range("groups",  self.groups,  1, self.config.max_groups)
        if self.heads % self.groups:
            raise ValueError(f"groups must be a divisor of heads = {self.heads}, is {self.groups}.")

    @property
    def headdim_padded(self) -> int:
        return ceil_multiple(self.headdim, ROW_ELEMENTS)

    @property
    def d_state_padded(self) -> int:
        return ceil_multiple(self.d_state, self.config.d_state_multiple)

    @property
    def tile_words(self) -> int:
        return self.headdim*self.d_state_padded//self.config.lanes

    @property
    def tile_bytes(self) -> int:
        return record_bytes(self.headdim*self.d_state_padded)

    @property
    def x_record_bytes(self) -> int:
        return record_bytes(SCALAR_ELEMENTS + self.headdim_padded)

    @property
    def bc_record_bytes(self) -> int:
        return record_bytes(2*self.d_state_padded)

    @property
    def y_record_bytes(self) -> int:
        return record_bytes(self.headdim_padded)

# Inputs -------------------------------------------------------------------------------------------

def pack_x(geometry: Geometry, x: np.ndarray, dt: np.ndarray, dA: np.ndarray, D: np.ndarray) -> bytes:
    """x records of T tokens. x: (T, H, P), dt and dA: (T, H), D: (H,)."""
    records = empty_records((x.shape[0], geometry.heads), geometry.x_record_bytes)
    records[:, :, 0] = dt
    records[:, :, 1] = dA
    records[:, :, 2] = D
    records[:, :, SCALAR_ELEMENTS:SCALAR_ELEMENTS + geometry.headdim] = x
    return records.tobytes()


def pack_bc(geometry: Geometry, B: np.ndarray, C: np.ndarray) -> bytes:
    """BC records of T tokens. B and C: (T, G, N)."""
    records = empty_records((B.shape[0], geometry.groups), geometry.bc_record_bytes)
    records[:, :, :geometry.d_state] = B
    records[:, :, geometry.d_state_padded:geometry.d_state_padded + geometry.d_state] = C
    return records.tobytes()

def unpack_x(geometry: Geometry, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of :func:`pack_x`: x (T, H, P), dt, dA and D (T, H)."""
    records = np.frombuffer(data, "<f2").reshape(-1, geometry.heads, geometry.x_record_bytes//ELEMENT_BYTES)
    dt, dA, D = (records[:, :, n].copy() for n in range(3))
    return records[:, :, SCALAR_ELEMENTS:SCALAR_ELEMENTS + geometry.headdim].copy(), dt, dA, D


def unpack_bc(geometry: Geometry, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`pack_bc`: B and C (T, G, N)."""
    records = np.frombuffer(data, "<f2").reshape(-1, geometry.groups, geometry.bc_record_bytes//ELEMENT_BYTES)
    padded  = geometry.d_state_padded
    return records[:, :, :geometry.d_state].copy(), records[:, :, padded:padded + geometry.d_state].copy()

# State --------------------------------------------------------------------------------------------

def pack_state(geometry: Geometry, h: np.ndarray) -> bytes:
    """Head tiles. h: (H, P, N)."""
    lanes  = geometry.config.lanes
    padded = np.zeros((geometry.heads, geometry.headdim, geometry.d_state_padded), "<f2")
    padded[:, :, :geometry.d_state] = h
    words  = padded.reshape(geometry.heads, geometry.headdim, -1, lanes).transpose(0, 2, 1, 3)
    tiles  = empty_records((geometry.heads,), geometry.tile_bytes)
    tiles[:, :padded[0].size] = words.reshape(geometry.heads, -1)
    return tiles.tobytes()


def unpack_state(geometry: Geometry, data: bytes) -> np.ndarray:
    """The inverse of :func:`pack_state`: (H, P, N)."""
    lanes = geometry.config.lanes
    tiles = np.frombuffer(data, "<f2").reshape(geometry.heads, -1)[:, :geometry.headdim*geometry.d_state_padded]
    words = tiles.reshape(geometry.heads, -1, geometry.headdim, lanes)
    rows  = words.transpose(0, 2, 1, 3).reshape(geometry.heads, geometry.headdim, geometry.d_state_padded)
    return rows[:, :, :geometry.d_state].copy()

# Outputs ------------------------------------------------------------------------------------------

def pack_y(geometry: Geometry, y: np.ndarray) -> bytes:
    """y records of T tokens. y: (T, H, P)."""
    records = empty_records((y.shape[0], geometry.heads), geometry.y_record_bytes)
    records[:, :, :geometry.headdim] = y
    return records.tobytes()


def unpack_y(geometry: Geometry, data: bytes) -> np.ndarray:
    """The inverse of :func:`pack_y`: (T, H, P)."""
    records = np.frombuffer(data, "<f2").reshape(-1, geometry.heads, geometry.y_record_bytes//ELEMENT_BYTES)
    return records[:, :, :geometry.headdim].copy()
