#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Matrices on the tape."""

import numpy as np
import pytest

from model.exact.tape import block_rows, pack_matrix, tape_beats, unpack_matrix

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", [128, 256, 512])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("rows, columns", [(1, 32), (3, 64), (8, 768), (24, 96), (17, 1536)])
def test_there_and_back(rows, columns, narrow, width):
    rng      = np.random.default_rng(rows)
    integers = rng.integers(*((-8, 8) if narrow else (-128, 128)), (rows, columns)).astype(np.int8)
    scales   = rng.standard_normal((rows, columns//32)).astype(np.float16)
    tape     = pack_matrix(integers, scales, narrow, width)
    assert tape.shape == (tape_beats(rows, columns, narrow, width), width//8) and tape.dtype == np.uint8
    back     = unpack_matrix(tape, rows, columns, narrow, width)
    assert np.array_equal(back[0], integers) and np.array_equal(back[1], scales)


def test_bytes():
    """As the description has them."""
    integers = np.arange(-64, 64).astype(np.int8).reshape(2, 64)
    scales   = np.arange(4).astype(np.float16).reshape(2, 2)
    tape     = pack_matrix(integers, scales, False, 128)
    assert np.array_equal(tape[0].view(np.float16), [0, 1, 2, 3, 0, 0, 0, 0])
    assert np.array_equal(tape[1:].view(np.int8).reshape(-1), integers.reshape(-1))
    tape     = pack_matrix(integers % 16 - 8, scales, True, 128)
    assert np.array_equal(tape[0].view(np.float16), [0, 2, 1, 3, 0, 0, 0, 0])
    assert np.array_equal(tape[1].view(np.int8) >> 4, np.arange(16) - 8) and np.array_equal(tape[1] & 15, np.arange(16))
    tape     = pack_matrix(integers, scales, False, 256)
    assert np.array_equal(tape[1].view(np.int8), np.concatenate([integers[0, :16], integers[1, :16]]))


def test_refused():
    assert block_rows(True, 512) == 8
    with pytest.raises(ValueError, match="width must be one of"):
        block_rows(True, 64)
