#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Imported first by every command: sees to it that the packages of pyproject.toml are there.

A command started by a Python without them is started again by the one in ``.venv/``, which ``make setup`` makes.
"""

import importlib.util
import os
import sys

from pathlib import Path

_needed  = ("litex", "migen", "numpy", "safetensors", "serial", "tokenizers", "torch", "tqdm")
_missing = [name for name in _needed if not importlib.util.find_spec(name)]

if _missing:
    _folder = Path(__file__).resolve().parent/".venv"
    _python = _folder/"bin"/"python"
    if _python.exists() and Path(sys.prefix).resolve() != _folder:
        os.execv(_python, [str(_python), *sys.orig_argv[1:]])
    sys.exit(f"{Path(sys.argv[0]).name}: error: Python packages are missing: {', '.join(_missing)}. Run make setup.")
