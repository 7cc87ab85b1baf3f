#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Does it fit? Synthesises complete SoCs, BIOS in ROM, by yosys for Xilinx 7-series, and prints what they take, part by
part, beside what the FPGA has, and the longest paths through the core and the engines. With a built ECPIX-5
(targets/ecpix5.py --build), its timing too.

Writes build/bench/boards.json and boards.html. A synthesis takes a quarter of an hour, with whole models' engines more, and
is kept by the Verilog it belongs to, in build/yosys/.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


from matplotlib import pyplot

from bench.area import resources

from operations.config import ProgramConfig, SystemConfig

from targets.arty import VARIANTS, ArtySoC
from targets.board import write_gateware
from targets.ecpix5 import FOLDERS
from targets.genesys2 import Genesys2SoC
from targets.kc705 import KC705SoC
from targets.trellis import clocks, read_report

from tools import page, processes
from tools.netlist import Netlist
from tools.paths import BUILD
from tools.yosys import FOLDER, find_yosys

# Constants ----------------------------------------------------------------------------------------

OUTPUT  = BUILD/"bench"
COMMAND = "python bench/fit.py"

PARTS = { # What there is (Xilinx DS180).
    "a7-35"  : {"LUT":  20800, "FF":  41600, "RAMB36":  50, "DSP48E1":  90},
    "a7-100" : {"LUT":  63400, "FF": 126800, "RAMB36": 135, "DSP48E1": 240},
    "k7-325" : {"LUT": 203800, "FF": 407600, "RAMB36": 445, "DSP48E1": 840},
}
COLUMNS = tuple(PARTS["a7-35"])


@dataclass(frozen=True)
class Build:
    """A SoC: what it is called, its FPGA, and the most that it is to take of that."""
    text  : str
    part  : str
    make  : Callable
    share : float = 0.85


def arty(variant, pass_tokens=0):
    """As targets/arty.py builds it by default, or with whole models of so many tokens at once."""
    options = dict(VARIANTS[variant].options(pass_tokens))
    lanes   = options.pop("lanes")
    text    = f"Arty {variant}, {lanes} lanes" + (f", whole models, R = {pass_tokens}" if pass_tokens else "")
    program = ProgramConfig(pass_tokens, **options) if pass_tokens else None
    return Build(text, variant, lambda: ArtySoC(SystemConfig.of(lanes, program=program), variant), 0.95 if program and variant == "a7-35" else 0.85)


def wide(name, soc, lanes, width):
    return Build(f"{name}, {lanes} lanes, whole models, R = 4, ports of {width} bits", "k7-325",
        lambda: soc(SystemConfig.of(lanes, program=ProgramConfig(4))), 0.6)


BUILDS = {
    "arty35"        : arty("a7-35"),
    "arty100"       : arty("a7-100"),
    "arty100_model" : arty("a7-100", VARIANTS["a7-100"].pass_tokens),
    "arty35_model"  : arty("a7-35",  1),
    "genesys2"      : wide("Genesys 2", Genesys2SoC, 32, 256),
    "kc705"         : wide("KC705",     KC705SoC,    64, 512),
}

SYNTHESIS = "synth_xilinx -flatten -abc9 -family xc7"

MAX_LEVELS, MIN_FMAX = 10, 75.0
ECPIX5_LUT_SHARES    = {"ecpix5": 47_624/83_640, "ecpix5_model": 0.85} # At most.

# Whose a signal is, by how its name begins, or the class of the module it is in; the first that fits counts. Names as LiteX
# gives them in the Verilog.
OWNERS = (
    ("CPU",         ("VexRiscv.",)),
    ("tile memory", ("core_tilebanks", "core_tiles", "ssm_core_tilebanks", "ssm_core_tiles", "tile_bank")),
    ("core",        ("core_", "ssm_core_", "ssmcore_", "B_memory", "C_memory")),
    ("GEMV",        ("program_gemvengine",)),
    ("vector unit", ("program_vectorengine",)),
    ("scratchpad",  ("program_program_scratchpad", "scratchpad_bank")),
    ("head",        ("program_headengine", "worst", "lists")),
    ("moves",       ("program_moveengine",)),
    ("dispatcher",  ("program_dispatcher", "program_converter")),
    ("their DMA",   ("program_",)),
    ("DMA",         ("ssm_", "tiledma_", "inputs_", "outputs_", "state_", "y_", "heads_", "descriptor_", "arbiter0_", "words_",
        "syncfifo_")),
    ("LiteDRAM",    ("soc_sdram", "sdram", "a7ddrphy", "k7ddrphy", "soc_litedram", "litedram", "soc_port", "new_master", "soc_wb",
        "bankmachine", "roundrobin", "multiplexer", "refresher", "ddrphy")),
    ("LiteEth",     ("soc_ethcore", "ethcore", "soc_etherbone", "etherbone", "add_etherbone", "ethphy", "liteeth", "eth_")),
)
BOARDS  = ("artysoc", "genesys2soc", "kc705soc") # LiteX begins some names with a SoC's class.
ENGINES = ("GEMV", "vector unit", "scratchpad", "head", "moves", "dispatcher", "their DMA")
REST = "SoC"

# Names that say nothing: of memories, and of what LiteX makes of expressions.
NAMELESS = ("storage", "memory", "mem", "comb_", "sync_", "rhs_", "slice_proxy", "array_muxed", "next_")

# Synthesis ----------------------------------------------------------------------------------------

def owner(name):
    """Whose a signal is; None: its name does not say it."""
    for prefix in ("builder_", "main_", "soc_"):
        name = name.removeprefix(prefix)
    for board in BOARDS:
        name = name.replace(board, "soc", 1) if name.startswith(board) else name
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


def fit(name):
    """{"parts": {part: taken}, "total", "levels", "path", "engines": {engine: levels}, "engine_path"} of one of BUILDS; levels: the longest
    path from or to a register, in the core, and in each engine of whole models."""
    soc     = BUILDS[name].make()
    builder = write_gateware(soc, str(BUILD/"fit"/name), compile_gateware=False)
    netlist = synthesise(builder.gateware_dir, soc.get_build_name())
    owners  = netlist.owners(owner)
    cells   = {part: Counter() for part in (*(part for part, _ in OWNERS), REST)}
    for name, cell in netlist.cells.items():
        cells[owners.get(name, REST)][cell["type"]] += 1
    parts   = {part: taken(counted) for part, counted in cells.items()}
    total   = {column: sum(row[column] for row in parts.values()) for column in COLUMNS}
    parts   = {part: row for part, row in parts.items() if any(row.values())}
    levels, path = netlist.longest_path(lambda name: owners.get(name) in ("core", "tile memory"))
    engines = {engine: netlist.longest_path(lambda name, engine=engine: owners.get(name) == engine) for engine in ENGINES if engine in parts}
    worst   = max(engines, key=lambda engine: engines[engine][0], default=None)
    return {"parts": parts, "total": total, "levels": levels, "path": netlist.describe(path),
        "engines": {engine: found for engine, (found, _) in engines.items()},
        "engine_path": netlist.describe(engines[worst][1]) if worst else []}

# Results ------------------------------------------------------------------------------------------

def shares(name, total):
    return {column: total[column]/PARTS[BUILDS[name].part][column] for column in COLUMNS}


def fit_entries(fits):
    """Entries of boards.json. fits: {build: what :func:`fit` gives}."""
    result = []
    for name, found in fits.items():
        build  = BUILDS[name]
        config = f"{build.text}, complete SoC, yosys {SYNTHESIS}"
        each   = shares(name, found["total"])
        rows   = [(f"{name}_max_share", max(each.values()), f"{config}; {max(each, key=each.get)} is the scarcest")]
        rows  += [(f"{name}_{column.lower()}_share", share, config) for column, share in each.items()]
        result += [{"name": name, "value": value, "unit": "of the part", "bound": build.share, "ratio": value/build.share,
            "config": text, "command": COMMAND} for name, value, text in rows]
    levels = [("core_logic_levels", "core and tile memory", {name: found["levels"] for name, found in fits.items()}),
        ("model_logic_levels", "the engines of whole models", {name: max(found["engines"].values()) for name, found in fits.items() if found["engines"]})]
    for name, what, each in levels:
        if each:
            worst = max(each, key=each.get)
            result.append({"name": name, "value": each[worst], "unit": "levels", "bound": MAX_LEVELS, "ratio": each[worst]/MAX_LEVELS,
                "command": COMMAND, "config": f"longest path from or to a register of {what}, a carry chain counts as one; {BUILDS[worst].text}, the longest"})
    return result


def ecpix5_entries(name, constants, report):
    """Likewise of an ECPIX-5's timing report, of its clocks and of what it takes. constants: of the build's csr.json."""
    tokens  = constants.get("program_pass_tokens")
    text    = f"ECPIX-5 85F, {constants['ssm_lanes']} lanes" + (f", whole models, R = {tokens}" if tokens else "")
    command = "python targets/ecpix5.py --build" + (f" --pass-tokens {tokens}" if tokens else "")
    result  = []
    for clock in clocks(report):
        system = clock.name == "sys_clk"
        bound  = MIN_FMAX if system else clock.constraint
        result.append({"name": f"{name}_fmax_mhz" if system else f"{name}_{clock.name}_mhz", "value": clock.achieved, "unit": "MHz",
            "bound": bound, "ratio": clock.achieved/bound, "config": f"{text}, routed by nextpnr-ecp5; clock {clock.name}, constrained to "
            f"{clock.constraint:.2f} MHz", "command": command})
    use   = report["utilization"]["TRELLIS_COMB"]
    share = use["used"]/use["available"]
    result.append({"name": f"{name}_lut_share", "value": share, "unit": "of the part", "bound": ECPIX5_LUT_SHARES[name],
        "ratio": share/ECPIX5_LUT_SHARES[name], "config": text, "command": command})
    return result

# Output -------------------------------------------------------------------------------------------

def rows(name, found):
    """Header and rows of the table of a build, as strings."""
    number = lambda value: f"{value:,.1f}".removesuffix(".0")
    table  = [[part, *(number(row[column]) for column in COLUMNS)] for part, row in found["parts"].items()]
    table.append(["total", *(number(found["total"][column]) for column in COLUMNS)])
    table.append(["there are", *(number(PARTS[BUILDS[name].part][column]) for column in COLUMNS)])
    table.append(["share", *(f"{share:.1%}" for share in shares(name, found["total"]).values())])
    return [BUILDS[name].text, *COLUMNS], table


def print_fit(name, found):
    header, table = rows(name, found)
    print(header[0])
    for row in (["", *header[1:]], *table):
        print(f"{row[0]:<28}" + "".join(f"{cell:>12}" for cell in row[1:]))
    print(f"longest path through the core: {found['levels']} logic levels")
    for line in found["path"]:
        print(f"  {line}")
    if found["engines"]:
        print(f"longest paths through the engines: {', '.join(f'{engine} {levels}' for engine, levels in found['engines'].items())}; the longest:")
        for line in found["engine_path"]:
            print(f"  {line}")
    print(flush=True)


def bars(fits):
    """A stacked bar a resource: the parts' shares."""
    across = min(3, len(fits))
    plot, axes = pyplot.subplots(-(-len(fits)//across), across, figsize=(9.5, 3.2*-(-len(fits)//across)), sharey=True, squeeze=False)
    names  = [*(part for part, _ in OWNERS), REST]
    colors = dict(zip(names, pyplot.get_cmap("tab20").colors))
    for axis, (name, found) in zip(axes.flat, fits.items()):
        bottom = [0.0]*len(COLUMNS)
        for part, row in found["parts"].items():
            height = [100*row[column]/PARTS[BUILDS[name].part][column] for column in COLUMNS]
            axis.bar(COLUMNS, height, bottom=bottom, color=colors[part], label=part)
            bottom = [low + high for low, high in zip(bottom, height)]
        axis.axhline(100*BUILDS[name].share, color=page.BLACK, linewidth=1, linestyle=":")
        axis.set(ylim=(0, 100))
        axis.set_title(name, fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
    for row in axes:
        row[0].set(ylabel="% of the part")
    for axis in axes.flat[len(fits):]:
        axis.set_visible(False)
    handles = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels())}
    axes[0][-1].legend([handles[name] for name in names if name in handles], [name for name in names if name in handles],
        loc="upper left", bbox_to_anchor=(1, 1))
    return plot


def boards_page(fits, entries):
    body = page.paragraph("What the SoC takes of each board's FPGA, by synthesis with yosys; nothing here ran on a board. "
        "The dotted line is the limit. A part's cells are told by the names of their outputs.")
    if fits:
        body += page.figure(bars(fits))
    for name, found in fits.items():
        body += page.heading(BUILDS[name].text) + page.table(*rows(name, found))
        if found["engines"]:
            body += page.paragraph("Logic levels of the longest paths: " + ", ".join(f"{engine} {levels}" for engine, levels in found["engines"].items())
                + f", core {found['levels']}.")
    body += page.heading("Figures") + page.table(["name", "value", "unit", "bound", "what"], [("missed" if missed(entry) else "",
        [entry["name"], f"{entry['value']:.4g}", entry["unit"], f"{entry['bound']:.4g}", entry["config"]]) for entry in entries],
        text=(0, 2, 4))
    return page.page("Boards", body)


def missed(entry):
    """Whether a figure is on the wrong side of its bound."""
    return entry["ratio"] < 1 if entry["unit"] == "MHz" else entry["ratio"] > 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", choices=BUILDS, action="append", help="SoC to synthesise, once or more often (default: all).")
    args = parser.parse_args()
    fits = {}
    for name in args.build or BUILDS:
        fits[name] = fit(name)
        print_fit(name, fits[name])
    entries = fit_entries(fits)
    for models, folder in FOLDERS.items():
        name = "ecpix5_model" if models else "ecpix5"
        try:
            entries += ecpix5_entries(name, json.loads((folder/"csr.json").read_text())["constants"], read_report(folder/"gateware"))
        except FileNotFoundError:
            print(f"{folder} has no ECPIX-5: python targets/ecpix5.py {'--pass-tokens 1 ' if models else ''}--build makes it, in three quarters of an hour.")
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
