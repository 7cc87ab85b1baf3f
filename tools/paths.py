#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Where the project lies, and where it writes what it builds."""

from pathlib import Path

# Constants ----------------------------------------------------------------------------------------

ROOT  = Path(__file__).resolve().parents[1] # The folder of cores/, soc/, firmware/ and the others.
BUILD = (ROOT if (ROOT/"pyproject.toml").exists() else Path.cwd())/"build" # Installed, it writes to the current folder.
