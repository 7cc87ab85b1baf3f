#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Imported first by every command: where packages are missing it ends with a line that says what to do."""

import importlib.util
import sys

from pathlib import Path

from tools.errors import UsageError

ADVICE = "run make setup, then . .venv/bin/activate; or install the package with its extras gateware and model"


def missing(*packages: str) -> list[str]:
    """Those of the packages that are not there."""
    return [name for name in packages if not importlib.util.find_spec(name)]


def check(*packages: str) -> None:
    """Exit, with one line, unless these packages are there."""
    if names := missing(*packages):
        sys.exit(f"{Path(sys.argv[0]).name}: error: Python packages are missing: {', '.join(names)}: {ADVICE}.")


def require(extra: str, *packages: str) -> None:
    """Raise UsageError unless these packages, which one of the project's extras brings, are there: a part of a command needs them."""
    if names := missing(*packages):
        raise UsageError(f"Python packages are missing: {', '.join(names)}: install the extra {extra}, in the project's folder by "
            f"pip install \".[{extra}]\".")


check("numpy", "serial", "shtab", "tqdm")
