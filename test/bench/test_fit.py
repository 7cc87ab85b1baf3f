#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What bench/fit.py makes of a netlist: whose a cell is, and the longest path; and of reports, the figures and the page."""

import json

import pytest

from bench import fit

from targets.board import TargetError
from targets.trellis import check_timing, clocks

from tools.netlist import Netlist

# Netlist ------------------------------------------------------------------------------------------

def cell(kind, inputs, outputs):
    connections = {**inputs, **outputs}
    return {"type": kind, "connections": connections, "port_directions": {**dict.fromkeys(inputs, "input"),
        **dict.fromkeys(outputs, "output")}}


def netlist(cells, names):
    nets = {name: {"hide_name": 0, "bits": bits} for name, bits in names.items()}
    return Netlist({"modules": {"top": {"cells": cells, "netnames": nets}}}, "top")


def lut(out, *inputs):
    return cell(f"LUT{len(inputs)}", {f"I{n}": [bit] for n, bit in enumerate(inputs)}, {"O": [out]})


def flip_flop(out, data):
    return cell("FDRE", {"D": [data], "C": [1], "CE": ["1"], "R": ["0"]}, {"Q": [out]})


def test_levels():
    """From flip-flop to flip-flop: LUT, two carry cells as one level, LUT; the inverter and what ends at a flip-flop add
    none."""
    carry = lambda out, co, ci, s: cell("CARRY4", {"CI": [ci], "CYINIT": ["0"], "DI": ["0"]*4, "S": [s, "0", "0", "0"]},
        {"O": [out, "x", "x", "x"], "CO": ["x", "x", "x", co]})
    found = netlist({
        "a": flip_flop(10, 99), "l0": lut(11, 10), "c0": carry(20, 12, "0", 11), "c1": carry(13, 21, 12, "0"),
        "inv": cell("INV", {"I": [13]}, {"O": [14]}), "l1": lut(15, 14, 10), "b": flip_flop(16, 15), "l2": lut(17, 16),
        "c": flip_flop(18, 17),
    }, {"ssm_ssmcore_a": [10], "ssm_ssmcore_b": [16], "other": [18]})
    levels, path = found.longest_path(lambda name: True)
    assert (levels, path) == (3, [10, 11, 12, 13, 14, 15])
    assert found.describe(path)[0] == "FDRE ssm_ssmcore_a" and found.describe(path)[-1] == "LUT2"
    assert found.longest_path(lambda name: name == "c") == (1, [16, 17])
    assert found.longest_path(lambda name: name == "l2") == (0, [])


def test_a_carry_reaches_no_lower_sum():
    """In a carry cell, the upper bits' inputs do not matter to the lower bits' sums: no loop."""
    carry = cell("CARRY4", {"CI": ["0"], "CYINIT": ["0"], "DI": ["0"]*4, "S": [10, 11, "0", "0"]},
        {"O": [12, 13, 14, 15], "CO": [16, 17, 18, 19]})
    assert netlist({"a": flip_flop(10, 13), "c": carry, "l": lut(11, 12)}, {}).longest_path(lambda name: True)[0] == 3


def test_a_memory_is_read_by_its_own_address():
    """From an address to the output that it belongs to; what is written, and where, waits for the clock."""
    ram = cell("RAM32M", {"ADDRA": [11], "ADDRD": [12], "DIA": [13]}, {"DOA": [20], "DOD": [21]})
    cells = {"ram": ram, "a": flip_flop(10, 99), "read": lut(11, 10), "write": lut(12, 11), "data": lut(13, 12),
        "l": lut(22, 20), "end": flip_flop(23, 22)}
    assert netlist(cells, {}).longest_path(lambda name: name == "end") == (3, [10, 11, 20, 22])
    assert netlist(cells, {}).longest_path(lambda name: name == "ram") == (3, [10, 11, 12, 13])
    cells = {"ram": cell("RAM64X1D", {"A": [11], "DPRA": [12], "D": [13]}, {"SPO": [20], "DPO": [21]}), "read": lut(12, 10),
        "end": flip_flop(22, 21)}
    assert netlist(cells, {}).longest_path(lambda name: name == "end") == (2, [10, 12, 21])


def test_a_loop():
    with pytest.raises(ValueError, match="a netlist must have no loop of logic, has one."):
        netlist({"a": lut(10, 11), "b": lut(11, 10)}, {}).longest_path(lambda name: True)


def test_owners():
    """By the name of the output, else as most readers; a cell nobody reads belongs to nobody."""
    found = netlist({
        "a": flip_flop(10, 11), "l": lut(11, 12), "ram": cell("RAM32M", {"ADDRA": [14]}, {"DOA": [12]}),
        "b": flip_flop(15, 10), "c": flip_flop(16, 10), "lost": lut(20, 10), "cpu": flip_flop(14, 10),
    }, {"soc_core_inputs_x": [10], "soc_artysoc_sdram_bank": [15], "VexRiscv.pc": [14], "soc_ssm_tiledma_y": [16]})
    assert found.owners(fit.owner) == {"a": "core", "l": "core", "ram": "core", "b": "LiteDRAM", "c": "DMA", "cpu": "CPU"}

# Figures ------------------------------------------------------------------------------------------

FOUND = {"parts": {"core": {"LUT": 5000, "FF": 4000, "DSP48E1": 24, "RAMB36": 1.5}, "SoC": {"LUT": 8000, "FF": 6000,
    "DSP48E1": 4, "RAMB36": 20}}, "total": {"LUT": 13000, "FF": 10000, "DSP48E1": 28, "RAMB36": 21.5}, "levels": 9,
    "path": [], "engines": {}, "engine_path": []}

MODEL = FOUND | {"engines": {"GEMV": 11, "head": 3}, "engine_path": ["FDRE a"]}

REPORT = {
    "fmax": {"$glbnet$sys_clk": {"achieved": 80.0, "constraint": 75.0},
        "$glbnet$eth$TRELLIS_IO_IN": {"achieved": 130.0, "constraint": 125.0}},
    "utilization": {"TRELLIS_COMB": {"used": 60_000, "available": 83_640}},
    "critical_paths": [{"from": "posedge $glbnet$sys_clk", "to": "posedge $glbnet$sys_clk", "path": [
        {"delay": 0.5, "type": "clk-to-q", "net": "", "from": {"cell": "a", "port": "CLK"},
            "to": {"cell": "a_reg", "port": "Q"}},
        {"delay": 9.0, "type": "routing",  "net": "a_net", "from": {"cell": "a", "port": "Q"},
            "to": {"cell": "b", "port": "A"}},
    ]}],
}


def test_parts():
    """A slice has four LUTs and eight flip-flops; slices, block RAMs and DSP slices by Xilinx DS180."""
    slices = {"a7-35": (5_200, 50, 90), "a7-100": (15_850, 135, 240), "k7-325": (50_950, 445, 840)}
    assert fit.PARTS == {part: {"LUT": 4*count, "FF": 8*count, "RAMB36": ram, "DSP48E1": dsp}
        for part, (count, ram, dsp) in slices.items()}


def test_taken():
    assert fit.taken({"LUT6": 2, "RAM32M": 1, "FDRE": 3, "DSP48E1": 1, "RAMB36E1": 2, "RAMB18E1": 3}) == {
        "LUT": 6, "FF": 3, "DSP48E1": 1, "RAMB36": 3.5}


def test_entries_and_page():
    entries = {entry["name"]: entry for entry in fit.fit_entries({"arty35": FOUND, "arty100_model": MODEL}) + fit.ecpix5_entries("ecpix5", {"ssm_lanes": 16}, REPORT)
        + fit.ecpix5_entries("ecpix5_model", {"ssm_lanes": 8, "program_pass_tokens": 1}, REPORT)}
    assert entries["arty35_max_share"]["value"] == 13000/20800 and not fit.missed(entries["arty35_max_share"])
    assert "LUT is the scarcest" in entries["arty35_max_share"]["config"]
    assert (entries["core_logic_levels"]["value"], entries["core_logic_levels"]["bound"]) == (9, 10)
    assert (entries["ecpix5_fmax_mhz"]["value"], entries["ecpix5_fmax_mhz"]["bound"]) == (80.0, 75.0)
    assert fit.missed(entries["ecpix5_fmax_mhz"] | {"ratio": 0.9}) and not fit.missed(entries["ecpix5_eth_mhz"])
    assert (entries["ecpix5_model_fmax_mhz"]["value"], entries["ecpix5_model_fmax_mhz"]["command"]) == (80.0, "python targets/ecpix5.py --build --pass-tokens 1")
    assert "8 lanes, whole models, R = 1, routed" in entries["ecpix5_model_eth_mhz"]["config"]
    assert entries["ecpix5_lut_share"]["value"] == 60_000/83_640 and fit.missed(entries["ecpix5_lut_share"]) and not fit.missed(entries["ecpix5_model_lut_share"])
    assert entries["arty100_model_max_share"]["value"] == 13000/63400 and entries["arty35_max_share"]["bound"] == 0.85
    assert (entries["model_logic_levels"]["value"], fit.missed(entries["model_logic_levels"])) == (11, True)
    json.dumps(list(entries.values()), allow_nan=False)
    text = fit.boards_page({"arty35": FOUND, "arty100_model": MODEL}, list(entries.values()))
    assert "<svg" in text and "62.5%" in text and "ecpix5_fmax_mhz" in text and "GEMV 11, head 3, core 9." in text


def test_builds():
    """Whole models where a build's name says so; of the wide memories 0.6 of the part at the most."""
    assert {name: (build.part, build.share) for name, build in fit.BUILDS.items()} == {"arty35": ("a7-35", 0.85), "arty100": ("a7-100", 0.85),
        "arty100_model": ("a7-100", 0.85), "arty35_model": ("a7-35", 0.95), "genesys2": ("k7-325", 0.6), "kc705": ("k7-325", 0.6)}


def test_owners_of_engines():
    """Names as LiteX gives them in SoCs of different classes."""
    assert [fit.owner(name) for name in ("soc_program_gemvengine_gemvlanes_x", "soc_program_program_scratchpad_y", "soc_program_program_dmawriter0",
        "soc_ssm_core_valid", "soc_genesys2soc_sdram_bank", "soc_kc705soc_litedramcrossbar", "soc_artysoc_x", "soc_k7ddrphy_dq", "memory_3")] == \
        ["GEMV", "scratchpad", "their DMA", "core", "LiteDRAM", "LiteDRAM", "SoC", "LiteDRAM", None]

# Timing of the ECPIX-5 ----------------------------------------------------------------------------

def test_timing_is_checked():
    check_timing(REPORT)
    assert [clock.name for clock in clocks(REPORT)] == ["eth", "sys_clk"]


def test_a_miss_names_the_path():
    slow = json.loads(json.dumps(REPORT))
    slow["fmax"]["$glbnet$sys_clk"]["achieved"] = 74.99
    with pytest.raises(TargetError, match=r"(?s)sys_clk reaches 74.99 MHz, 75.00 MHz are needed. .*0.50 ns .*a_reg Q"
            r".*9.50 ns  routing     a_net") as error:
        check_timing(slow)
    assert "eth" not in str(error.value)


def test_a_clock_without_a_constraint():
    loose = json.loads(json.dumps(REPORT))
    loose["fmax"]["$glbnet$eth$TRELLIS_IO_IN"]["constraint"] = 12.0
    with pytest.raises(TargetError, match="eth has no constraint."):
        check_timing(loose)
