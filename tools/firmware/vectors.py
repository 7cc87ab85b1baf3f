#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Generates the vectors of the firmware's self-test from the bit-accurate model, packed for the lanes of a build."""

from dataclasses import dataclass

import numpy as np

from model.bitexact import ssm_block

from operations.config import ALIGNMENT, UNITS, ProgramConfig, SSMConfig, ceil_multiple
from operations.ssm import Geometry, pack_bc, pack_state, pack_x, pack_y

from tools.firmware.model_vectors import model_lines, model_vector

# Constants ----------------------------------------------------------------------------------------

SEED = 2

# Zeros, the smallest and largest subnormals, the smallest normal, the largest numbers, infinities, NaN.
SPECIALS = np.array([0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00],
    np.uint16).view(np.float16)

# Vector -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Vector:
    """A run of the block: its sizes, its inputs and the expected results as they lie in DRAM."""
    geometry   : Geometry
    tokens     : int
    zero_state : bool
    x          : bytes
    bc         : bytes
    state_in   : bytes
    y          : bytes
    state_out  : bytes


def _vector(config: SSMConfig, heads: int, headdim: int, d_state: int, groups: int, tokens: int, zero_state: bool,
            specials: bool, seed: int) -> Vector:
    geometry = Geometry(config,
        heads   = min(heads,   config.max_heads),
        headdim = min(headdim, config.max_headdim),
        d_state = min(d_state, config.max_d_state),
        groups  = min(groups,  config.max_groups, config.max_heads))
    H, P, N, G, T = geometry.heads, geometry.headdim, geometry.d_state, geometry.groups, min(tokens, config.max_tokens)
    random = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray:
        result = random.standard_normal(shape).astype(np.float16)
        if specials:
            chosen = random.random(shape) < 0.05
            result[chosen] = random.choice(SPECIALS, chosen.sum())
        return result

    x, B, C, h0 = values(T, H, P), values(T, G, N), values(T, G, N), values(H, P, N)
    dt = random.uniform(0.001, 0.1, (T, H)).astype(np.float16)
    dA = random.uniform(0.5,   1.0, (T, H)).astype(np.float16)
    D  = random.standard_normal(H).astype(np.float16)
    y, h = ssm_block(x, dt, dA, B, C, D, None if zero_state else h0, 0 if config.stochastic_rounding else None)
    return Vector(geometry, T, zero_state,
        x         = pack_x(geometry, x, dt, dA, D),
        bc        = pack_bc(geometry, B, C),
        state_in  = b"" if zero_state else pack_state(geometry, h0),
        y         = pack_y(geometry, y),
        state_out = pack_state(geometry, h))


def selftest_vectors(config: SSMConfig) -> list[Vector]:
    """The vectors for an :class:`~operations.config.SSMConfig`: several heads and tokens with special values; one
    token from zeros; two groups."""
    unit = config.d_state_multiple
    return [
        _vector(config, heads=2, headdim=3, d_state=unit,   groups=1, tokens=2, zero_state=False, specials=True,
            seed=SEED),
        _vector(config, heads=1, headdim=8, d_state=2*unit, groups=1, tokens=1, zero_state=True,  specials=False,
            seed=SEED + 1),
        _vector(config, heads=2, headdim=1, d_state=unit,   groups=2, tokens=3, zero_state=False, specials=False,
            seed=SEED + 2),
    ]

# C Header -----------------------------------------------------------------------------------------

def vectors_header(config: SSMConfig, program: ProgramConfig | None = None, data_width: int = 128) -> str:
    """The text of ``vectors.h``. program: of the build; with all units, a model has its vector as well.

    Raises
    ------
    ValueError : the build has the units for whole models, and is too small for any.
    """
    vectors = selftest_vectors(config)
    arrays, entries = [], []
    for index, vector in enumerate(vectors):
        words = {}
        for name in ("x", "bc", "state_in", "y", "state_out"):
            data = np.frombuffer(getattr(vector, name), "<u4")
            if not len(data):
                words[name] = "{0, 0}"
                continue
            array = f"vector{index}_{name}"
            rows  = (", ".join(f"0x{word:08x}" for word in data[k:k + 8]) for k in range(0, len(data), 8))
            arrays += [f"static const uint32_t {array}[] = {{", *(f"\t{row}," for row in rows), "};", ""]
            words[name] = f"{{{array}, sizeof({array})}}"
        geometry = vector.geometry
        entries += [
            f"\t{{{geometry.heads}, {geometry.headdim}, {geometry.d_state}, {geometry.groups}, {vector.tokens}, "
            f"{'JOB_ZERO_STATE' if vector.zero_state else '0'},",
            f"\t\t{', '.join(words.values())}}},",
        ]
    scratch = max(len(vector.x + vector.bc + vector.state_in + vector.y + vector.state_out) for vector in vectors)
    model   = model_vector(config, program, data_width) if program and set(UNITS) <= set(program.units) else None
    scratch = max(scratch, ceil_multiple(model.size, ALIGNMENT) if model else 0)
    return "\n".join([
        "/* Generated by tools/firmware/vectors.py: do not edit. */",
        "#ifndef VECTORS_H",
        "#define VECTORS_H",
        "",
        f"#define SELFTEST_LANES         {config.lanes}u",
        f"#define SELFTEST_SCRATCH_BYTES {scratch}u",
        "",
        *arrays,
        "static const struct vector vectors[] = {",
        *entries,
        "};",
        "",
        *(model_lines(model) if model else []),
        "#endif",
        "",
    ])
