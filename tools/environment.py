#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Imported first by every command: where packages are missing it ends with a line that says what to do."""

import importlib.util
import sys

from pathlib import Path

ADVICE = "run make setup, then . .venv/bin/activate; or install the package with its extras gateware and model"


def check(*packages: str) -> None:
    """Exit, with one line, unless these packages are there."""
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    if missing:
        sys.exit(f"{Path(sys.argv[0]).name}: error: Python packages are missing: {', '.join(missing)}: {ADVICE}.")


check("numpy", "serial", "shtab", "tqdm")
