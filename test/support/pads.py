#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Scratchpads of compiled harnesses, filled and read, and the descriptors that an engine is given."""

import numpy as np

from operations.program import FIRST_OPERAND, FLAGS_BIT, OPERAND_BITS

from tools.verilated import pack_words, words_of

# Scratchpads --------------------------------------------------------------------------------------

def pad_ports(name, pad):
    """Streams for :func:`tools.verilated.stream_module`: to fill a :class:`cores.memory.scratchpad.Scratchpad` by its last port that writes,
    and to read it by its last one that reads."""
    return [(f"{name}_fill", pad.writes[-1], ("address", "data", "mask"), False), (f"{name}_ask", pad.reads[-1], ("address",), False),
        (f"{name}_words", pad.sources[-1], ("data",), True)]


def port_rows(data, bits):
    """Bytes, uint8, as the rows of a port of so many bits."""
    rows = np.zeros((8*data.size//bits, 8*words_of(bits)), np.uint8)
    rows[:, :bits//8] = data.reshape(len(rows), -1)
    return rows.view(np.uint64)


def fill(compiled, name, data, bits):
    """data: uint8, all that a pad of words of so many bits has."""
    rows = port_rows(data, bits)
    compiled.streams({f"{name}_fill": {"address": np.arange(len(rows)), "data": rows, "mask": np.full(len(rows), 2**(bits//16) - 1)}}, {},
        10*len(rows))


def dump(compiled, name, size, bits):
    """uint8 (size,)."""
    count  = 8*size//bits
    out, _ = compiled.streams({f"{name}_ask": {"address": np.arange(count)}}, {f"{name}_words": (("data",), count)}, 10*count)
    return np.ascontiguousarray(out[f"{name}_words"]["data"]).view(np.uint8).reshape(count, -1)[:, :bits//8].reshape(-1)

# Descriptors --------------------------------------------------------------------------------------

def given(descriptors):
    """The beats of an engine's sink. descriptors: words of each."""
    return {"code": [words[0] & 255 for words in descriptors], "flags": [words[0] >> FLAGS_BIT for words in descriptors],
        "operands": pack_words((sum(word << 32*n for n, word in enumerate(words[FIRST_OPERAND:])) for words in descriptors), OPERAND_BITS)}


def until_idle(compiled, limit):
    """The cycles until the engine is idle, and its writes are in the pads.

    Raises
    ------
    AssertionError : it is not, after `limit` cycles.
    """
    cycles = 0
    while not compiled.peek("idle"):
        compiled.step()
        cycles += 1
        assert cycles < limit, "the engine does not end."
    compiled.step(2)
    return cycles
