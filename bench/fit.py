#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Does it fit? Synthesises the complete Arty SoCs, BIOS in ROM, by yosys for Xilinx 7-series, and prints what they take,
part by part, beside what the FPGA has, and the longest path through the core. With a built ECPIX-5 (targets/ecpix5.py
--build), its timing too.

Writes build/bench/boards.json and boards.html. A synthesis takes a quarter of an hour, and is kept by the Verilog it
belongs to, in build/yosys/.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("fit.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import gzip
import hashlib
import json
import os
import sys

from collections import Counter
from pathlib import Path


from matplotlib import pyplot

from bench.area import resources

from operations.config import SystemConfig

from targets.arty import VARIANTS, ArtySoC
from targets.board import write_gateware
from targets.trellis import clocks, read_report

from tools import page, processes
from tools.netlist import Netlist
from tools.paths import BUILD
from tools.yosys import FOLDER, find_yosys

# Constants ----------------------------------------------------------------------------------------

OUTPUT  = BUILD/"bench"
COMMAND = "python bench/fit.py"

PARTS = { # What there is (Xilinx DS180).
    "a7-35"  : {"LUT": 20800, "FF":  41600, "RAMB36":  50, "DSP48E1":  90},
    "a7-100" : {"LUT": 63400, "FF": 126800, "RAMB36": 135, "DSP48E1": 240},
}
COLUMNS = tuple(PARTS["a7-35"])

SYNTHESIS = "synth_xilinx -flatten -abc9 -family xc7"

MAX_SHARE, MAX_LEVELS, MIN_FMAX = 0.85, 10, 75.0

# Whose a signal is, by how its name begins, or the class of the module it is in; the first that fits counts. Names as LiteX
# gives them in the Verilog.
OWNERS = (
    ("CPU",         ("VexRiscv.",)),
    ("tile memory", ("core_tilebanks", "core_tiles", "tile_bank")),
    ("core",        ("core_", "ssmcore_", "B_memory", "C_memory")),
    ("DMA",         ("ssm_", "tiledma_", "inputs_", "outputs_", "state_", "y_", "heads_", "descriptor_", "arbiter0_", "words_",
        "syncfifo_")),
    ("LiteDRAM",    ("artysoc_sdram", "sdram", "a7ddrphy", "artysoc_litedram", "litedram", "artysoc_port", "new_master", "artysoc_wb",
        "bankmachine", "roundrobin", "multiplexer", "refresher", "ddrphy")),
    ("LiteEth",     ("artysoc_ethcore", "ethcore", "artysoc_etherbone", "etherbone", "add_etherbone", "ethphy", "liteeth", "eth_")),
)
REST = "SoC"

# Names that say nothing: of memories, and of what LiteX makes of expressions.
NAMELESS = ("storage", "memory", "mem", "comb_", "sync_", "rhs_", "slice_proxy", "array_muxed", "next_")

# Synthesis ----------------------------------------------------------------------------------------

def owner(name):
    """Whose a signal is; None: its name does not say it."""
    for prefix in ("builder_", "main_", "soc_"):
        name = name.removeprefix(prefix)
    return next((part for part, beginnings in OWNERS if name.startswith(beginnings)), None if name.startswith(NAMELESS) else REST)


def synthesise(gateware_dir, name):
    """The :class:`~tools.netlist.Netlist` of a SoC, from yosys or as kept from an earlier run."""
    folder  = Path(gateware_dir)
    verilog = "\n".join(line for line in (folder/f"{name}.v").read_text().splitlines() if not line.startswith("//"))
    script  = (folder/f"{name}.tcl").read_text()
    sources = [line.split("{")[1].rstrip("}") for line in script.splitlines() if line.startswith("read_verilog")]
    lengths = [(file.name, len(file.read_text().split())) for file in sorted(folder.glob("*.init"))] # BIOSes bear a date.
    kept    = FOLDER/f"{hashlib.sha256(f'{SYNTHESIS}{verilog}{lengths}'.encode()).hexdigest()[:16]}.json.gz"
    if not kept.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        netlist  = folder/"netlist.json"
        commands = [*(f"read_verilog {source}" for source in sources), f"{SYNTHESIS} -top {name}", f"write_json {netlist}"]
        (folder/"fit.ys").write_text("\n".join(commands) + "\n")
        status, printed = processes.capture([find_yosys(), "-q", "-l", "fit.log", "fit.ys"], folder)
        if status:
            raise RuntimeError(f"yosys failed:\n{printed[-2000:]}")
        part = kept.with_suffix(f".{os.getpid()}")
        with gzip.open(part, "wb", compresslevel=3) as file:
            file.write(netlist.read_bytes())
        netlist.unlink()
        part.replace(kept)
    with gzip.open(kept) as file:
        return Netlist(json.load(file), name)


def taken(counted):
    """What cells take, by COLUMNS. Half a RAMB36 is a RAMB18."""
    found = resources(Counter(counted))
    return {**{column: found[column] for column in ("LUT", "FF", "DSP48E1")},
        "RAMB36": counted.get("RAMB36E1", 0) + counted.get("RAMB18E1", 0)/2}


def fit(variant, lanes):
    """{"parts": {part: taken}, "total", "levels", "path"} of a variant."""
    soc     = ArtySoC(SystemConfig.of(lanes), variant)
    builder = write_gateware(soc, str(BUILD/"fit"/variant), compile_gateware=False)
    netlist = synthesise(builder.gateware_dir, soc.get_build_name())
    owners  = netlist.owners(owner)
    cells   = {part: Counter() for part in (*(part for part, _ in OWNERS), REST)}
    for name, cell in netlist.cells.items():
        cells[owners.get(name, REST)][cell["type"]] += 1
    parts   = {part: taken(counted) for part, counted in cells.items()}
    total   = {column: sum(row[column] for row in parts.values()) for column in COLUMNS}
    levels, path = netlist.longest_path(lambda name: owners.get(name) in ("core", "tile memory"))
    return {"parts": parts, "total": total, "levels": levels, "path": netlist.describe(path)}

# Results ------------------------------------------------------------------------------------------

def shares(variant, total):
    return {column: total[column]/PARTS[variant][column] for column in COLUMNS}


def arty_entries(fits):
    """Entries of boards.json. fits: {variant: what :func:`fit` gives}."""
    result = []
    for variant, found in fits.items():
        config = f"Arty {variant}, {VARIANTS[variant][0]} lanes, complete SoC, yosys {SYNTHESIS}"
        each   = shares(variant, found["total"])
        name   = f"arty{variant.removeprefix('a7-')}"
        rows   = [(f"{name}_max_share", max(each.values()), f"{config}; {max(each, key=each.get)} is the scarcest")]
        rows  += [(f"{name}_{column.lower()}_share", share, config) for column, share in each.items()]
        result += [{"name": name, "value": value, "unit": "of the part", "bound": MAX_SHARE, "ratio": value/MAX_SHARE,
            "config": text, "command": COMMAND} for name, value, text in rows]
    if fits:
        variant, found = max(fits.items(), key=lambda item: item[1]["levels"])
        result.append({"name": "core_logic_levels", "value": found["levels"], "unit": "levels", "bound": MAX_LEVELS,
            "ratio": found["levels"]/MAX_LEVELS, "command": COMMAND,
            "config": f"longest path from or to a register of core and tile memory, a carry chain counts as one; Arty {variant}, the longer"})
    return result


def ecpix5_entries(lanes, report):
    """Likewise of the ECPIX-5's timing report."""
    result = []
    for clock in clocks(report):
        system = clock.name == "sys_clk"
        bound  = MIN_FMAX if system else clock.constraint
        result.append({"name": "ecpix5_fmax_mhz" if system else f"ecpix5_{clock.name}_mhz", "value": clock.achieved, "unit": "MHz",
            "bound": bound, "ratio": clock.achieved/bound, "config": f"ECPIX-5 85F, {lanes} lanes, routed by nextpnr-ecp5; clock "
            f"{clock.name}, constrained to {clock.constraint:.2f} MHz", "command": "python targets/ecpix5.py --build"})
    return result

# Output -------------------------------------------------------------------------------------------

def rows(variant, found):
    """Header and rows of the table of a variant, as strings."""
    number = lambda value: f"{value:,.1f}".removesuffix(".0")
    table  = [[part, *(number(row[column]) for column in COLUMNS)] for part, row in found["parts"].items()]
    table.append(["total", *(number(found["total"][column]) for column in COLUMNS)])
    table.append(["there are", *(number(PARTS[variant][column]) for column in COLUMNS)])
    table.append(["share", *(f"{share:.1%}" for share in shares(variant, found["total"]).values())])
    return [f"Arty {variant}, {VARIANTS[variant][0]} lanes", *COLUMNS], table


def print_fit(variant, found):
    header, table = rows(variant, found)
    for row in (header, *table):
        print(f"{row[0]:<28}" + "".join(f"{cell:>12}" for cell in row[1:]))
    print(f"longest path through the core: {found['levels']} logic levels")
    for line in found["path"]:
        print(f"  {line}")
    print()


def bars(fits):
    """A stacked bar a resource: the parts' shares."""
    plot, axes = pyplot.subplots(1, len(fits), figsize=(9, 3), sharey=True, squeeze=False)
    colors = (page.BLUE, page.ORANGE, page.GREEN, page.RED, "#56b4e9", "#f0e442", page.GREY)
    for axis, (variant, found) in zip(axes[0], fits.items()):
        bottom = [0.0]*len(COLUMNS)
        for color, (part, row) in zip(colors, found["parts"].items()):
            height = [100*row[column]/PARTS[variant][column] for column in COLUMNS]
            axis.bar(COLUMNS, height, bottom=bottom, color=color, label=part)
            bottom = [low + high for low, high in zip(bottom, height)]
        axis.axhline(100*MAX_SHARE, color=page.BLACK, linewidth=1, linestyle=":")
        axis.set(title=f"Arty {variant}, {VARIANTS[variant][0]} lanes", ylim=(0, 100), ylabel="% of the part")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return plot


def boards_page(fits, entries):
    body = page.paragraph("What the SoC takes of each board's FPGA, by synthesis with yosys; nothing here ran on a board. "
        f"The dotted line is the limit, {MAX_SHARE:.0%}. A part's cells are told by the names of their outputs.")
    if fits:
        body += page.figure(bars(fits))
    for variant, found in fits.items():
        body += page.heading(f"Arty {variant}") + page.table(*rows(variant, found))
    body += page.heading("Figures") + page.table(["name", "value", "unit", "bound", "what"], [("missed" if missed(entry) else "",
        [entry["name"], f"{entry['value']:.4g}", entry["unit"], f"{entry['bound']:.4g}", entry["config"]]) for entry in entries],
        text=(0, 2, 4))
    return page.page("Boards", body)


def missed(entry):
    """Whether a figure is on the wrong side of its bound."""
    return entry["ratio"] < 1 if entry["unit"] == "MHz" else entry["ratio"] > 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=PARTS, action="append", help="Arty to synthesise (default: both).")
    args = parser.parse_args()
    fits = {}
    for variant in args.variant or PARTS:
        fits[variant] = fit(variant, VARIANTS[variant][0])
        print_fit(variant, fits[variant])
    entries = arty_entries(fits)
    folder  = BUILD/"ecpix5"
    try:
        report = read_report(folder/"gateware")
        entries += ecpix5_entries(json.loads((folder/"csr.json").read_text())["constants"]["ssm_lanes"], report)
    except FileNotFoundError:
        print("No ECPIX-5 was built: python targets/ecpix5.py --build does that, in three quarters of an hour.")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT/"boards.json").write_text(json.dumps(entries, indent=4) + "\n")
    (OUTPUT/"boards.html").write_text(boards_page(fits, entries))
    for entry in entries:
        print(f"{entry['name']:<28}{entry['value']:>10.4g} {entry['unit']:<12} bound {entry['bound']:.4g}"
            f"{'  MISSED' if missed(entry) else ''}")
    print(f"{OUTPUT/'boards.json'}, {OUTPUT/'boards.html'}")
    return int(any(missed(entry) for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
