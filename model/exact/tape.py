#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The tape: quantised matrices as the device reads them, beat by beat.

With n = width/128 lanes, a block of rows is n rows of Q8_0 or 2*n rows of Q4_0. Block by block, group by group, half by half of the
group there is a beat: for each lane the bytes of 16 columns. In front of each 8 beats of Q4_0 or 16 of Q8_0 stands a beat with their
scales, 8 a lane, the last one of a matrix with as many as are left and zeros::

    Q8_0, lane l: byte = row l's integer, two's complement           scales: row l's, group by group
    Q4_0, lane l: byte = row l's integer << 4 | row (n + l)'s + 8    scales: of each group row l's, then row (n + l)'s

Rows that a matrix lacks to a whole block are zeros.
"""

import numpy as np

from operations.config import DATA_WIDTHS, ceil_multiple, check_choice
from operations.numerics import COLUMNS, GROUP, LANE_BITS

# Constants ----------------------------------------------------------------------------------------

SCALES = LANE_BITS//16 # Of a beat, for each lane.

# Helpers ------------------------------------------------------------------------------------------

def block_rows(narrow, width):
    """Rows of a block."""
    check_choice("width", width, DATA_WIDTHS)
    return width//LANE_BITS*(2 if narrow else 1)


def _beats(narrow):
    """Beats that a beat of scales stands in front of."""
    return SCALES if narrow else 2*SCALES


def tape_beats(rows, columns, narrow, width):
    """Beats of a matrix on the tape."""
    beats = ceil_multiple(rows, block_rows(narrow, width))//block_rows(narrow, width)*(columns//COLUMNS)
    return beats + -(-beats//_beats(narrow))

# Tape ---------------------------------------------------------------------------------------------

def pack_matrix(integers, scales, narrow, width):
    """A matrix for the tape.

    Parameters
    ----------
    integers : int8 (rows, n), with `narrow` from -8 to 7; n a multiple of GROUP.
    scales   : float16 (rows, n/GROUP).
    narrow   : Q4_0, else Q8_0.
    width    : of a beat, bits.

    Returns
    -------
    uint8 (beats, width/8).
    """
    block = block_rows(narrow, width)
    lanes = width//LANE_BITS
    lack  = -len(integers) % block
    integers, scales = (np.pad(array, ((0, lack), (0, 0))) for array in (integers, scales))
    rows  = integers.reshape(-1, block//lanes, lanes, integers.shape[1]//COLUMNS, COLUMNS).view(np.uint8)
    if narrow:
        rows = rows[:, :1] << 4 | rows[:, 1:] + np.uint8(8)
    beats = rows[:, 0].transpose(0, 2, 1, 3).reshape(-1, width//8)

    order = scales.reshape(-1, block//lanes, lanes, scales.shape[1]).transpose(2, 0, 3, 1).reshape(lanes, -1)
    order = np.pad(order, ((0, 0), (0, -order.shape[1] % SCALES)))
    heads = np.ascontiguousarray(order.reshape(lanes, -1, SCALES).transpose(1, 0, 2)).view(np.uint8).reshape(-1, width//8)
    runs  = [beats[first:first + _beats(narrow)] for first in range(0, len(beats), _beats(narrow))]
    return np.concatenate([part for head, run in zip(heads, runs) for part in (head[None], run)])


def unpack_matrix(tape, rows, columns, narrow, width):
    """(integers, scales) of a matrix on the tape. tape: uint8 (beats, width/8)."""
    block = block_rows(narrow, width)
    lanes = width//LANE_BITS
    place = np.arange(len(tape)) % (1 + _beats(narrow))
    heads, beats = tape[place == 0], tape[place > 0]
    bytes_ = beats.reshape(-1, columns//COLUMNS, lanes, COLUMNS).transpose(0, 2, 1, 3).reshape(-1, lanes, columns)
    if narrow:
        both   = np.stack([bytes_.view(np.int8) >> 4, (bytes_ & 15).view(np.int8) - np.int8(8)], 1)
    else:
        both   = bytes_.view(np.int8)[:, None]
    order  = np.ascontiguousarray(heads).view(np.float16).reshape(-1, lanes, SCALES).transpose(1, 0, 2).reshape(lanes, -1)
    groups = columns//GROUP
    count  = len(both)*groups*both.shape[1]
    scales = order[:, :count].reshape(lanes, len(both), groups, -1).transpose(1, 3, 0, 2)
    return both.reshape(-1, columns)[:rows], scales.reshape(len(both)*block, groups)[:rows]


def unpack_row(tape, row, columns, narrow, width):
    """(integers, scales) of one row of a matrix on the tape: int8 (columns,), float16 (columns/32,). tape: uint8, from its first byte on.

    Raises
    ------
    ValueError : the tape is too short.
    """
    block  = block_rows(narrow, width)
    count  = columns//COLUMNS
    run    = _beats(narrow)
    beats  = row//block*count + np.arange(count)
    places = beats + beats//run + 1
    if (places[-1] + 1)*width//8 > len(tape):
        raise ValueError(f"row {row} must lie in the tape.")
    lanes  = width//LANE_BITS
    lane   = row % lanes
    second = row % block//lanes # Of a byte's two.
    bytes_ = np.stack([tape[place*width//8:][16*lane:16*(lane + 1)] for place in places]).reshape(-1)
    if narrow:
        integers = (bytes_ & 15).view(np.int8) - np.int8(8) if second else bytes_.view(np.int8) >> 4
    else:
        integers = bytes_.view(np.int8).copy()
    # A lane's scales are numbered through: two to a group of Q4_0, one to a group of Q8_0.
    group  = row//block*(columns//GROUP) + np.arange(columns//GROUP)
    number = 2*group + second if narrow else group
    heads  = (number//SCALES*(run + 1)*width//8 + 16*lane + 2*(number % SCALES))
    scales = np.array([tape[head:head + 2] for head in heads]).reshape(-1).view(np.float16)
    return integers, scales
