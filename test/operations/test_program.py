#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The list of descriptors, and their words."""

import pytest

from hypothesis import given, settings, strategies as st

from migen import Record

from operations.program import (BY_CODE, DESCRIPTOR_WORDS, DESCRIPTORS, FIRST_OPERAND, NO_WAIT, Code, Memory, Register,
    Unit, fields, pack, unpack)

# Helpers ------------------------------------------------------------------------------------------

def values(operand):
    """A strategy of all that an operand may be."""
    if isinstance(operand, Memory):
        return st.tuples(st.sampled_from(Register), st.integers(0, (2**28 - 1)//operand.multiple).map(lambda n: n*operand.multiple))
    return st.integers(0, (2**operand.bits - 1)//operand.multiple).map(lambda n: operand.low + n*operand.multiple)


@st.composite
def descriptors(draw):
    descriptor = draw(st.sampled_from(DESCRIPTORS))
    return (descriptor, draw(st.dictionaries(st.sampled_from(Unit), st.integers(0, NO_WAIT - 1))),
        [name for name, _ in descriptor.flags if draw(st.booleans())], {operand.name: draw(values(operand)) for operand in descriptor.operands})

# Tests --------------------------------------------------------------------------------------------

def test_list():
    assert [descriptor.code for descriptor in DESCRIPTORS] == list(Code) == list(range(len(Code)))
    for descriptor in DESCRIPTORS:
        names = [operand.name for operand in descriptor.operands]
        assert len(set(names)) == len(names)
        assert all(FIRST_OPERAND <= word < DESCRIPTOR_WORDS and bit + operand.bits <= 32 for operand, word, bit in descriptor.places())


@settings(max_examples=500, derandomize=True)
@given(descriptors())
def test_there_and_back(case):
    descriptor, waits, flags, operands = case
    words = pack(descriptor.code, waits, flags, **operands)
    assert len(words) == DESCRIPTOR_WORDS and all(0 <= word < 2**32 for word in words)
    assert unpack(words) == (descriptor, waits, flags, operands)


@settings(max_examples=200, derandomize=True)
@given(descriptors())
def test_layout(case):
    """The gateware's record has the operands where the words have them."""
    descriptor, waits, flags, operands = case
    words = pack(descriptor.code, waits, flags, **operands)
    value = sum(word << 32*n for n, word in enumerate(words[FIRST_OPERAND:]))
    at    = 0
    for name, bits in fields(descriptor):
        bits_ = value >> at & 2**bits - 1
        if name.startswith("reserved"):
            assert bits_ == 0
        else:
            operand = next(operand for operand in descriptor.operands if operand.name == name)
            assert operand.decode(bits_) == operands[name]
        at += bits
    assert at == len(Record(fields(descriptor), name="operands")) == 32*(DESCRIPTOR_WORDS - FIRST_OPERAND)


@settings(max_examples=500, derandomize=True)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=DESCRIPTOR_WORDS, max_size=DESCRIPTOR_WORDS))
def test_any_words(words):
    """Are a descriptor or refused: nothing between."""
    try:
        descriptor, waits, flags, operands = unpack(words)
    except ValueError:
        return
    assert pack(descriptor.code, waits, flags, **operands) == words


@pytest.mark.parametrize("code, arguments, message", [
    (77,           {},                                              "code must be one of END, LOAD, .*, is 77."),
    (Code.END,     {"rows": 1},                                     "an operand of END must be one of none, is 'rows'."),
    (Code.ROUND,   {"flags": ["HEAD"]},                             "a flag of ROUND must be one of none, is 'HEAD'."),
    (Code.MATRIX,  {"groups": 1},                                   "rows must be 1 to 1048576, is missing."),
    (Code.MATRIX,  {"groups": 0, "rows": 1},                        "groups must be 1 to 512, is 0."),
    (Code.MATRIX,  {"groups": 1, "rows": 2, "target": 4},           "target must be 0 to 1048575, a multiple of 8, is 4."),
    (Code.BEST,    {"target": (Register.RESULTS, 3)}, "target must be a base register and an offset .*, is .*3"),
    (Code.BEST,    {"target": 64},                 "target must be a base register and an offset .*, a multiple of 64, is 64."),
    (Code.END,     {"waits": {Unit.GEMV: 256}},                     "a wait must be 0 to 255, is 256."),
])
def test_refused(code, arguments, message):
    with pytest.raises(ValueError, match=message):
        pack(code, **arguments)
    assert Code.MATRIX in BY_CODE
