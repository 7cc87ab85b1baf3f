#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Netlists of Xilinx 7-series as yosys writes them in JSON: whose part a cell is, and the longest paths in logic levels."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Constants ----------------------------------------------------------------------------------------

# How names of cells begin whose outputs follow their inputs at once. All others end and begin a path: flip-flops, block
# RAM, what is at the pins.
LOGIC = ("LUT", "INV", "MUXF", "CARRY4")
READ  = ("RAM32", "RAM64", "RAM128", "RAM256", "SRL") # Read like logic, by the address of the output; written at the clock.

CONSTANTS = ("0", "1", "x", "z")

Bit = int | str # A signal by its number, or one of the constants.

# Netlist ------------------------------------------------------------------------------------------

class Netlist:
    """The top module of a flattened netlist (the dictionary of yosys' write_json)."""
    def __init__(self, design: dict[str, Any], top: str):
        module      = design["modules"][top]
        self.cells  = {name: cell for name, cell in module["cells"].items() if not cell["type"].startswith("$")}
        self.names: dict[Bit, str] = {} # Of a bit: the shortest of those a person gave.
        for name, net in module["netnames"].items():
            for bit in net["bits"] if not net["hide_name"] else ():
                if bit not in CONSTANTS and len(name) < len(self.names.get(bit, name + " ")):
                    self.names[bit] = name
        self.readers: defaultdict[Bit, list[str]] = defaultdict(list) # Of a bit: cells.
        self.driver: dict[Bit, str] = {} # Of a bit: cell.
        for name in self.cells:
            for bit in self.bits(name, "input"):
                self.readers[bit].append(name)
            for bit in self.bits(name, "output"):
                self.driver[bit] = name

    def count(self) -> Counter[str]:
        """Cells by their type, as yosys names it."""
        return Counter(cell["type"] for cell in self.cells.values())

    def ports(self, name: str, direction: str) -> dict[str, list[Bit]]:
        """{port: bits} of a cell, without constants."""
        cell = self.cells[name]
        return {port: [bit for bit in bits if bit not in CONSTANTS] for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == direction}

    def bits(self, name: str, direction: str) -> list[Bit]:
        return [bit for bits in self.ports(name, direction).values() for bit in bits]

    # Owners.

    def owners(self, owner_of: Callable[[str], str | None]) -> dict[str, str]:
        """{cell: owner}. `owner_of(name)` says whose a named signal is, or None. A cell belongs to whom its output's name
        belongs to, and without such a name to whom most of its readers belong to."""
        found: dict[str, str] = {}
        for name, cell in self.cells.items():
            given = [owner for owner in (owner_of(self.names[bit]) for bit in self.bits(name, "output") if bit in self.names)
                if owner is not None]
            if given:
                found[name] = Counter(given).most_common(1)[0][0]
        waiting = [name for name in self.cells if name not in found]
        while waiting:
            step = {}
            for name in waiting:
                readers = Counter(found[reader] for bit in self.bits(name, "output") for reader in self.readers[bit]
                    if reader in found)
                if readers:
                    step[name] = readers.most_common(1)[0][0]
            if not step:
                break
            found.update(step)
            waiting = [name for name in waiting if name not in found]
        return found

    # Logic levels.

    def _arcs(self) -> Iterator[tuple[Bit, Bit, int]]:
        """(from bit, to bit, levels) of all cells that are logic. A LUT is one level, a wide multiplexer another one; a carry
        chain is one, however long."""
        for name, cell in self.cells.items():
            kind    = cell["type"]
            inputs  = self.ports(name, "input")
            outputs = cell["connections"]
            if kind == "CARRY4":
                for port in ("O", "CO"):
                    for n, out in enumerate(outputs.get(port, ())):
                        if out in CONSTANTS:
                            continue
                        for source, bits in inputs.items():
                            for bit in cell["connections"][source][:n + (port == "CO" or source == "S")] \
                                    if source in ("S", "DI") else bits:
                                if bit not in CONSTANTS:
                                    chained = source == "CI" and self.cells.get(self.driver.get(bit), {}).get("type") == "CARRY4"
                                    yield bit, out, 0 if chained else 1
            elif kind.startswith(LOGIC):
                for out in self.bits(name, "output"):
                    for bit in self.bits(name, "input"):
                        yield bit, out, 0 if kind == "INV" else 1 # An inverter becomes part of a LUT.
            elif kind.startswith(READ):
                for port, bits in self.ports(name, "output").items():
                    address = f"ADDR{port[2]}" if port in ("DOA", "DOB", "DOC", "DOD") else "DPRA" if port == "DPO" else "A"
                    for out in bits:
                        for source, addresses in inputs.items():
                            if source.rstrip("0123456789") == address:
                                for bit in addresses:
                                    yield bit, out, 1

    def longest_path(self, belongs: Callable[[str], bool]) -> tuple[int, list[Bit]]:
        """(levels, [bits]) of the longest path that begins or ends at a cell with a clock for which `belongs(cell name)` is
        true.

        Raises
        ------
        ValueError : the logic has a loop.
        """
        forward: defaultdict[Bit, list[tuple[Bit, int]]]  = defaultdict(list)
        backward: defaultdict[Bit, list[tuple[Bit, int]]] = defaultdict(list)
        for source, out, levels in self._arcs():
            forward[source].append((out, levels))
            backward[out].append((source, levels))
        waits = {bit: len(sources) for bit, sources in backward.items()}
        order = [bit for bit in forward if bit not in waits]
        level = dict.fromkeys(order, 0)
        for bit in order: # Grows.
            for out, levels in forward[bit]:
                level[out] = max(level.get(out, 0), level[bit] + levels)
                waits[out] -= 1
                if not waits[out]:
                    order.append(out)
        if any(waits.values()):
            raise ValueError("a netlist must have no loop of logic, has one.")
        after = dict.fromkeys(order, 0)
        for bit in reversed(order):
            after[bit] = max((after[out] + levels for out, levels in forward[bit]), default=0)
        longest: tuple[int, Bit | None, bool] = (0, None, False) # Levels, the bit at the cell, whether the path ends there.
        for name, cell in self.cells.items():
            if not cell["type"].startswith(LOGIC) and belongs(name):
                found   = [(after[bit], bit, False) for bit in self.bits(name, "output") if bit in forward and bit not in backward]
                found  += [(level[bit], bit, True)  for bit in self.bits(name, "input")  if bit in backward]
                longest = max(found + [longest], key=lambda item: item[0])
        levels, end, ends = longest
        if end is None:
            return 0, []
        path = [end]
        while ends and backward[path[0]]:
            path.insert(0, max(backward[path[0]], key=lambda arc: level[arc[0]] + arc[1])[0])
        while not ends and forward[path[-1]]:
            path.append(max(forward[path[-1]], key=lambda arc: after[arc[0]] + arc[1])[0])
        return levels, path

    def describe(self, path: Iterable[Bit]) -> list[str]:
        """A line for each bit of a path: the cell that drives it, and its name, if it has one."""
        return [f'{self.cells[self.driver[bit]]["type"] if bit in self.driver else "input"} {self.names.get(bit, "")}'.rstrip()
            for bit in path]
