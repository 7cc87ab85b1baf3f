#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What is written from the list of operations, and the list itself. `python -m operations.header` writes it again."""

import pytest

from host.device.device import Info

from operations import header
from operations.operations import OPERATIONS, JobFlag, Opcode, operand_words
from operations.protocol import INFO_HEAD, JOB_OPERANDS

# Written Files ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", header.WRITTEN)
def test_written(name):
    assert header.path_of(name).read_text() == header.WRITTEN[name](), "run `python -m operations.header`, and look at what changes"

# List ---------------------------------------------------------------------------------------------

def test_every_opcode_once():
    assert [operation.opcode for operation in OPERATIONS] == list(Opcode)
    assert [int(opcode) for opcode in Opcode] == list(range(len(Opcode))) # The firmware's table has no holes.


def test_flags():
    """The bits of a job's flags are those that the operations describe."""
    flags = {flag.name: 1 << flag.bit for operation in OPERATIONS for flag in operation.flags}
    assert flags == {flag.name: flag.value for flag in JobFlag}


def test_names():
    for operation in OPERATIONS:
        names = [field.name for field in operation.fields]
        assert len(set(names)) == len(names) <= JOB_OPERANDS


def test_info_of_the_host():
    assert Info._fields == (*INFO_HEAD, "engines")

# Words --------------------------------------------------------------------------------------------

CHECKSUM = dict(region=64, region_bytes=128, block_bytes=64, table=0)


def test_operand_words():
    assert operand_words(Opcode.NOP, {}) == []
    assert operand_words(Opcode.CHECKSUM, dict(reversed(CHECKSUM.items()))) == [64, 128, 64, 0]
    ssm = {field.name: n for n, field in enumerate(OPERATIONS[Opcode.SSM].fields) if field.default is None}
    assert operand_words(Opcode.SSM, ssm) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0]


@pytest.mark.parametrize("opcode, operands, message", [
    (77,              {},                                  "opcode must be one of 0, 1, 2, 3, 4, 5, 6, is 77."),
    (Opcode.NOP,      {"heads": 1},                        "an operand of NOP must be one of none, is 'heads'."),
    (Opcode.CHECKSUM, CHECKSUM | {"tile": 1},              "an operand of CHECKSUM must be one of region, .*, table, is 'tile'."),
    (Opcode.CHECKSUM, {"region": 64},                      "region_bytes must be bytes, a multiple of 64 above 0, is missing."),
    (Opcode.CHECKSUM, CHECKSUM | {"table": 2**32},         "table must be an integer from 0 to 4294967295, is 4294967296."),
    (Opcode.CHECKSUM, CHECKSUM | {"region": -1},           "region must be an integer from 0 to 4294967295, is -1."),
    (Opcode.CHECKSUM, CHECKSUM | {"region": True},         "region must be an integer from 0 to 4294967295, is True."),
])
def test_bad_operands(opcode, operands, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        operand_words(opcode, operands)
