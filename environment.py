#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Imported first by every command: sees to it that the packages of pyproject.toml are there.

A command started by a Python without them is started again, once, by the one in ``.venv/``, which ``make setup`` makes.
"""

import importlib.util
import os
import sys

from pathlib import Path

_needed  = ("litex", "migen", "numpy", "safetensors", "serial", "tokenizers", "torch", "tqdm")
_missing = [name for name in _needed if not importlib.util.find_spec(name)]
_again   = os.environ.pop("MAMBA2_STARTED_AGAIN", None)

if _missing:
    _python = Path(__file__).resolve().parent/".venv"/"bin"/"python"
    if _python.exists() and not _again:
        _options = [option for option in sys.orig_argv[1:-len(sys.argv)] if option != "-S"] # That hides all packages.
        os.execve(_python, [str(_python), *_options, *sys.orig_argv[-len(sys.argv):]],
            {**os.environ, "MAMBA2_STARTED_AGAIN": "1"})
    sys.exit(f"{Path(sys.argv[0]).name}: error: Python packages are missing: {', '.join(_missing)}. Run make setup.")
