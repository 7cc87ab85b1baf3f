#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What a simulated SoC says of its engines and its DRAM (targets/simulation/timeline.py), read from its console."""

import numpy as np

# Constants ----------------------------------------------------------------------------------------

MARK   = "timeline:"
WINDOW = 256 # Cycles that a line is of.

# In how many cycles: a program ran; beats were read, written; the DRAM had nothing to do (no port asked for a beat, none moved); an engine
# worked.
COLUMNS = ("busy", "read", "write", "idle", "move", "gemv", "vector", "ssm", "head")

# Console ------------------------------------------------------------------------------------------

def parse_timeline(console: str) -> np.ndarray:
    """The lines of a console: a structured array of int64, `time` the cycle after a window's last one, and COLUMNS."""
    rows = [tuple(map(int, line.partition(MARK)[2].split())) for line in console.splitlines() if MARK in line]
    whole = 1 + len(COLUMNS)
    return np.array([row for row in rows if len(row) == whole], [(name, np.int64) for name in ("time", *COLUMNS)])
