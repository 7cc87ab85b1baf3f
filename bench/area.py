#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Synthesises the datapath and its units by yosys for Xilinx 7-series: a table, and build/bench/area.json.

The datapath is everything between tile memory, inputs and y; DMA and tile memory are not in it. Results are kept by the
Verilog they belong to, in build/yosys/: the first run takes minutes a row.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("area.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import hashlib
import json
import os
import sys

from collections import Counter

from migen import ClockDomain, Record, Signal

from litex.gen.fhdl import verilog

from tqdm import tqdm

from cores.arith.accumulator import RowAccumulator
from cores.arith.dot import AlignedProduct, DotProduct
from cores.arith.exact_product import ExactProduct
from cores.arith.fused_dot2 import FRAME, FusedDot2
from cores.arith.multiplier import Multiplier
from cores.arith.rng import CounterRNG
from cores.arith.round import Round
from cores.arith.round_float import RoundFloat

from cores.gemv.block_float import BlockQuantiser
from cores.gemv.lanes import GEMVLanes
from cores.gemv.products import ProductChain
from cores.gemv.row_sum import RowSum
from cores.head.selector import BestSelector

from cores.memory.scratchpad import Scratchpad

from cores.ssm.datapath import Datapath

from cores.vector.functions import FunctionUnit
from cores.vector.product_sum import ProductSum
from cores.vector.residual_add import ResidualAdd
from cores.vector.rsqrt import Rsqrt
from cores.vector.vector_unit import VectorUnit

from operations.config import LANES, RANDOM_BITS, SSMConfig, SystemConfig

from tools.paths import BUILD
from tools.yosys import FOLDER, SYNTHESIS, synthesise

# Constants ----------------------------------------------------------------------------------------

OUTPUT  = BUILD/"bench"
COMMAND = "python bench/area.py"
BOUNDS  = {"dsp_per_lane": 3, "lut_per_lane": 650, "gemv_r1_lut": 2600, "gemv_r1_dsp": 36, "gemv_r4_lut": 9000, "gemv_r4_dsp": 80,
    "gemv_r4_levels": 9, "vector_v4_lut": 6000, "vector_v4_dsp": 16, "vector_v4_levels": 9}
ENGINES = {
    "gemv_r1"   : "GEMV lanes and quantiser, 128 bits, R = 1",
    "gemv_r4"   : "GEMV lanes and quantiser, 128 bits, R = 4",
    "vector_v4" : "vector unit, V = 4, with functions, norms and residual",
}
FIGURES = {"lut": ("LUT", "LUTs"), "dsp": ("DSP48E1", "DSP blocks"), "levels": ("levels", "levels of logic")}

# LUTs of a cell, by how its name begins; the first that fits counts.
LUTS = {"LUT": 1, "SRL": 1, "RAM64M": 4, "RAM32M": 4, "RAM64X1S": 1, "RAM32X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4,
    "RAM64X1D": 2, "RAM32X1D": 2, "RAM128X1D": 4}

COLUMNS = ("logic", "shift", "RAM", "LUT", "FF", "CARRY4", "DSP48E1", "RAMB36")

# Synthesis ----------------------------------------------------------------------------------------

def interface(module):
    """The signals that a module's attributes hold."""
    found = set()
    for value in vars(module).values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Signal):
                found.add(item)
            elif isinstance(item, Record):
                found.update(item.flatten())
    return found


def synthesised(module):
    """{"cells": a Counter by name, "levels": of logic on the longest path} of a module, from yosys or as kept from an earlier run."""
    module.cd_sys = ClockDomain("sys")
    source = str(verilog.convert(module, ios=interface(module) | {module.cd_sys.clk, module.cd_sys.rst}, name="top"))
    source = "\n".join(line for line in source.splitlines() if not line.startswith("//")) # LiteX's header bears a date.
    kept   = FOLDER/f"area-{hashlib.sha256((SYNTHESIS + source).encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        netlist = synthesise(source, "top")
        part    = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"cells": netlist.count(), "levels": netlist.longest_path(lambda name: True)[0]}))
        part.replace(kept)
    found = json.loads(kept.read_text())
    return {**found, "cells": Counter(found["cells"])}


def resources(counted):
    """What cells take, by COLUMNS: LUTs of logic, of shift registers, of memory and all; flip-flops; the rest as it is.

    Raises
    ------
    ValueError : a cell of memory whose LUTs are not known.
    """
    luts = Counter()
    for name, count in counted.items():
        if name.startswith("RAM") and not name.startswith("RAMB") and name not in LUTS:
            raise ValueError(f"{name} is not a known cell: of memories, {', '.join(n for n in LUTS if 'RAM' in n)} are.")
        for prefix, size in LUTS.items():
            if name.startswith(prefix):
                luts[prefix[:3]] += size*count
                break
    return dict(zip(COLUMNS, (luts["LUT"], luts["SRL"], luts["RAM"], sum(luts.values()),
        sum(count for name, count in counted.items() if name.startswith("FD")), counted["CARRY4"], counted["DSP48E1"],
        counted["RAMB36E1"] + counted["RAMB18E1"]/2)))

def measured(modules):
    """What modules take in all, by COLUMNS, and the longest path's levels."""
    found = [synthesised(module) for module in modules]
    rows  = [resources(each["cells"]) for each in found]
    return {**{column: sum(row[column] for row in rows) for column in COLUMNS}, "levels": max(each["levels"] for each in found)}

# Modules ------------------------------------------------------------------------------------------

def units():
    """{name: module} of the units alone."""
    dot = DotProduct(16)
    return {
        "Multiplier, 24 x 14"             : Multiplier(24, 14),
        "ExactProduct"                    : ExactProduct(),
        "FusedDot2"                       : FusedDot2(),
        "FusedDot2, stochastic"           : FusedDot2(stochastic=True),
        "CounterRNG, 16 lanes"            : CounterRNG(16, 64, 8),
        "AlignedProduct"                  : AlignedProduct(),
        "AlignedProduct without DSP"      : AlignedProduct(dsp=False),
        "DotProduct, 16 lanes"            : dot,
        "RowAccumulator, 64 x 129"        : RowAccumulator(64, 129, len(dot.source)),
        f"Round, {FRAME} bits"            : Round(FRAME),
        f"Round, {FRAME} bits, stochastic": Round(FRAME, RANDOM_BITS),
        "RoundFloat, 103 bits"            : RoundFloat(103, -50),
        "ProductChain"                    : ProductChain(),
        "RowSum"                          : RowSum(),
        "BlockQuantiser, 1 lane"          : BlockQuantiser(1),
        "BlockQuantiser, 4 lanes"         : BlockQuantiser(4),
        "Rsqrt"                           : Rsqrt(),
        "FunctionUnit"                    : FunctionUnit(),
        "ProductSum"                      : ProductSum(),
        "ResidualAdd"                     : ResidualAdd(),
        "BestSelector, R = 4"             : BestSelector(4),
        "Scratchpad, 64 KiB, 3 + 2 ports" : Scratchpad(),
    }


def engines():
    """{name: modules} of the whole model's engines, by how their figures are named."""
    return {
        "gemv_r1"   : [GEMVLanes(128, 1, 1), BlockQuantiser(1)],
        "gemv_r4"   : [GEMVLanes(128, 4, 4), BlockQuantiser(4)],
        "vector_v4" : [VectorUnit(4), ResidualAdd()],
    }


def datapaths():
    """{(lanes, stochastic): module} of the whole."""
    kinds = [(lanes, False) for lanes in LANES] + [(16, True)]
    return {kind: Datapath(SystemConfig.of(kind[0], stochastic_rounding=kind[1]).ssm) for kind in kinds}

# Results ------------------------------------------------------------------------------------------

def entries(measured):
    """Entries of area.json. measured: {(lanes, stochastic): resources}. The bounds are for the default rounding."""
    config = "datapath of 64x128 tiles, yosys synth_xilinx -family xc7"
    result = []
    for name, column in (("dsp_per_lane", "DSP48E1"), ("lut_per_lane", "LUT")):
        each  = {kind: row[column]/kind[0] for kind, row in measured.items()}
        rows  = [(name, each[SSMConfig.lanes, False], f"{config}; {SSMConfig.lanes} lanes, the default")]
        rows += [(f"{name}_l{lanes}{'_stochastic' if stochastic else ''}", value, f"{config}; {lanes} lanes"
            f"{', state rounded stochastically' if stochastic else ''}") for (lanes, stochastic), value in each.items()]
        for entry_name, value, text in rows:
            bound = BOUNDS[name] if "stochastic" not in entry_name else None
            result.append({"name": entry_name, "value": value, "unit": f"{column} a lane", "bound": bound,
                "ratio": None if bound is None else value/bound, "config": text, "command": COMMAND})
    return result


def engine_entries(measured):
    """Entries of area.json. measured: {engine: resources}."""
    result = []
    for engine, row in measured.items():
        for key, (column, unit) in FIGURES.items():
            bound = BOUNDS.get(f"{engine}_{key}")
            result.append({"name": f"{engine}_{key}", "value": row[column], "unit": unit, "bound": bound,
                "ratio": None if bound is None else row[column]/bound,
                "config": f"{ENGINES[engine]}; yosys synth_xilinx -family xc7", "command": COMMAND})
    return result


def print_table(title, rows):
    """rows: {name: values}."""
    print(f"{title:<56}" + "".join(f"{column:>9}" for column in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:<56}" + "".join(f"{value:>9.4g}" if isinstance(value, float) else f"{value:>9}" for value in row.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    alone, whole, model = units(), datapaths(), engines()
    with tqdm(total=len(alone) + len(whole) + len(model), unit="module", disable=None) as bar:
        def measure(modules):
            result = {}
            for name, module in modules.items():
                bar.set_description(str(name))
                result[name] = measured(module if isinstance(module, list) else [module])
                bar.update()
            return result
        alone, whole, model = measure(alone), measure(whole), measure(model)
    titles = {kind: f"{kind[0]} lanes{', stochastic' if kind[1] else ''}" for kind in whole}
    print_table("unit", alone)
    print()
    print_table("datapath", {titles[kind]: row for kind, row in whole.items()})
    print()
    print_table("datapath, a lane", {titles[kind]: {column: row[column]/kind[0] for column in COLUMNS}
        for kind, row in whole.items()})
    print()
    print_table("engine", {ENGINES[engine]: row for engine, row in model.items()})
    print("\nLUT is the sum of logic, shift registers (SRL16E, SRLC32E) and memory (RAM64X1S and the like).")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT/"area.json").write_text(json.dumps(entries(whole) + engine_entries(model), indent=4) + "\n")
    print(OUTPUT/"area.json")


if __name__ == "__main__":
    sys.exit(main())
