#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The file that names the boards of a cluster, boards.toml::

    stages = 2              # Boards that run a model together; as many boards after them run it as well. (All.)
    layers = [13, 11]       # Of each stage. (Such that each reads as many bytes a token.)

    [[board]]               # In the order of the stages.
    name      = "left"
    transport = "etherbone" # And any other option of a device that stream.py has, its dashes as underscores.
    ip        = "192.168.1.50"
    csr_csv   = "left/csr.csv"  # Files: from this file's folder on.
"""

import tomllib

from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.connect import ROUNDINGS, SIM_TIMEOUT_SCALE, add_device_arguments, port_url

from tools.errors import UsageError

# Constants ----------------------------------------------------------------------------------------

KEYS       = ("stages", "layers", "board") # Of the file.
FILES      = ("csr_csv", "firmware")
MAX_BOARDS = 64

# Types --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Board:
    """A board's name, and the options by which :func:`host.connect.open_device` reaches it."""
    name    : str
    options : Namespace

    @property
    def timeout_scale(self) -> float:
        """How many times slower than a board's its clock may be."""
        return self.options.timeout_scale or (SIM_TIMEOUT_SCALE if self.options.transport == "sim" else 1.0)


@dataclass(frozen=True)
class Boards:
    """What the file says.

    pipelines : boards that run a model together, stage by stage; each of these the same model.
    layers    : of each stage; None: to be balanced.
    """
    pipelines : tuple[tuple[Board, ...], ...]
    layers    : tuple[int, ...] | None = None

    @property
    def all(self) -> list[Board]:
        return [board for pipeline in self.pipelines for board in pipeline]

# Options ------------------------------------------------------------------------------------------

def _parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    add_device_arguments(parser)
    return parser


def _options(name: str, values: dict[str, Any], folder: Path) -> Namespace:
    """Those of a board, as the command line would have them."""
    parser  = _parser()
    actions = {action.dest: action for action in parser._actions}
    words: list[str] = []
    for key, value in values.items():
        if key not in actions:
            raise UsageError(f"board {name}: a key must be name, {', '.join(actions)}, is {key!r}.")
        action = actions[key]
        option = action.option_strings[-1]
        if action.nargs == 0:
            if not isinstance(value, bool):
                raise UsageError(f"board {name}: {key} must be true or false, is {value!r}.")
            words += [option]*value
        elif isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise UsageError(f"board {name}: {key} must be a text or a number, is {value!r}.")
        else:
            words.append(f"{option}={folder/value if key in FILES and isinstance(value, str) else value}")
    try:
        return Namespace(**vars(parser.parse_args(words)), verbose=False, log=None)
    except ArgumentError as error:
        raise UsageError(f"board {name}: {str(error).removeprefix('argument ').rstrip('.')}.") from error


def check_left_out(args: Namespace, boards: str) -> None:
    """Raise UsageError where an option of a single device was given beside the file of boards."""
    for action in _parser()._actions:
        value = getattr(args, action.dest, action.default)
        if value != action.default:
            raise UsageError(f"{action.option_strings[-1]} must be left out with --boards, is {value}: {boards} has what each board needs.")

# File ---------------------------------------------------------------------------------------------

def _place(options: Namespace) -> tuple[Any, ...] | None:
    """Where a board is, of which there is one."""
    if options.transport == "etherbone":
        return options.ip, options.udp_port
    return (port_url(options.port),) if options.transport == "uart" and options.port else None


def _integers(words: dict[str, Any], key: str, value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in values):
        raise UsageError(f"{key} must be {'integers' if isinstance(value, list) else 'an integer'} of at least 1, is {value!r}.")
    return values


def _boards(entries: Any, folder: Path) -> list[Board]:
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries) or len(entries) > MAX_BOARDS:
        raise UsageError(f"board must be 1 to {MAX_BOARDS} tables, each headed [[board]].")
    boards: list[Board] = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name")
        if not isinstance(name, str) or not name or not name.isprintable():
            raise UsageError(f"board {number}: name must be a text, is {name!r}.")
        board = Board(name, _options(name, {key: value for key, value in entry.items() if key != "name"}, folder))
        for other in boards:
            if other.name == name:
                raise UsageError(f"board {name}: the name must be its own, two boards have it.")
            if _place(board.options) is not None and _place(other.options) == _place(board.options):
                raise UsageError(f"board {name}: it must be another one than board {other.name}, is reached at the same place.")
        boards.append(board)
    return boards


def read_boards(path: str | Path) -> Boards:
    """The boards that a file names.

    Raises
    ------
    UsageError : it cannot be read, or something in it is wrong.
    """
    try:
        with open(path, "rb") as file:
            words = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot read the boards ({getattr(error, 'strerror', None) or error}).") from error
    try:
        for key in words:
            if key not in KEYS:
                raise UsageError(f"a key must be {', '.join(KEYS)}, is {key!r}.")
        boards = _boards(words.get("board"), Path(path).parent)
        stages = _integers(words, "stages", words.get("stages", len(boards)))[0]
        if len(boards) % stages:
            raise UsageError(f"stages must be a divisor of the {len(boards)} boards, is {stages}.")
        layers = None if "layers" not in words else tuple(_integers(words, "layers", words["layers"]))
        if layers is not None and len(layers) != stages:
            raise UsageError(f"layers must be of as many stages as there are, {stages}, are of {len(layers)}.")
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return Boards(tuple(tuple(boards[first:first + stages]) for first in range(0, len(boards), stages)), layers)


def check_rounding(stochastic: Sequence[tuple[str, bool]]) -> None:
    """Raise UsageError unless all boards round alike. stochastic: (a board's name, whether it rounds so)."""
    first = stochastic[0]
    for name, rounds in stochastic:
        if rounds != first[1]:
            raise UsageError(f"board {name}: rounding must be that of board {first[0]}, {ROUNDINGS[first[1]]}, is {ROUNDINGS[rounds]}.")
