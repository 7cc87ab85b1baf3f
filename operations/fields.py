#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Kinds of operands. An operand is a word of a job, of 32 bits; its kind says what a word may be, and how that is told.

The firmware holds the limits; a host checks only that what it is given is a word (:meth:`Field.check`).
"""

from dataclasses import dataclass

from operations.config import ALIGNMENT, check_range

# Constants ----------------------------------------------------------------------------------------

WORD_MAX = 2**32 - 1

# Fields -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Field:
    """An operand.

    Parameters
    ----------
    name    : in C and in Python.
    text    : what it is, as the end of a line.
    default : of a job that does not name it; None: each job must.
    """
    name    : str
    text    : str
    default : int | None = None

    @property
    def limits(self) -> str:
        """What the firmware takes."""
        return "any word"

    def check(self, value: int) -> None:
        """Raise :class:`ValueError` unless `value` is a word."""
        check_range(self.name, value, 0, WORD_MAX)


@dataclass(frozen=True)
class Address(Field):
    """The address of a region in DRAM, a multiple of ALIGNMENT. region: the part of the DRAM it must lie in."""
    region : str = "data"

    @property
    def limits(self) -> str:
        return f"an address in the {self.region}, a multiple of {ALIGNMENT}"


@dataclass(frozen=True)
class Size(Field):
    """Bytes of a region, a multiple of ALIGNMENT."""
    @property
    def limits(self) -> str:
        return f"bytes, a multiple of {ALIGNMENT} above 0"


@dataclass(frozen=True)
class Count(Field):
    """A number from `low` to `high`, which is a number, or the name of what bounds it."""
    low  : int = 1
    high : int | str = WORD_MAX

    @property
    def limits(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Immediate(Field):
    """A number that is taken as it is."""


@dataclass(frozen=True)
class Flag:
    """A bit of the word `flags`. needs: what a build must have for it to be allowed."""
    name  : str
    bit   : int
    text  : str
    needs : str | None = None
