#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Command lines: a parser, and types of options, whose errors are one line that says what a value must be."""

import argparse
import math

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from tools.errors import UsageError

# Parser -------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    """As argparse's, with errors of one line, and options that may have the value --."""
    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]: # Before Python 3.13 it is taken away.
            value = self._get_value(action, "--")
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.exit_code, f"{self.prog}: error: {message}\n")

# Types --------------------------------------------------------------------------------------------

Number = TypeVar("Number", int, float)


def number(kind: type[Number], name: str, low: float, high: float = math.inf) -> Callable[[str], Number]:
    """A number from `low` to `high`; kind: int or float, which `name` says in words."""
    def convert(text: str) -> Number:
        try:
            value: Number | None = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high or value == math.inf:
            limit = f"from {low} to {high}" if high != math.inf else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"must be {name} {limit}, is {text!r}.")
        return value
    return convert


udp_port = number(int, "an integer", 1, 65535)
baudrate = number(int, "an integer", 1, 12_000_000)


def token_list(text: str) -> list[int]:
    """Tokens separated by commas, a list of at least one."""
    try:
        tokens = [int(token) for token in text.split(",")]
    except ValueError:
        tokens = [-1]
    if not all(0 <= token < 2**24 for token in tokens):
        raise argparse.ArgumentTypeError(f"must be integers from 0 to {2**24 - 1}, separated by commas, is {text!r}.")
    return tokens


def utf8(text: str) -> str:
    """A text. The shell hands over bytes; Python marks those that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"must be UTF-8, is {text!r}.") from None
    return text
