#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What synthesis counts, and the area of the datapath."""

import json

from collections import Counter

import pytest

from bench import area

from cores.arith.exact_product import ExactProduct

# Counting -----------------------------------------------------------------------------------------

def test_resources():
    """Cells that take several LUTs count as such; block RAM takes none."""
    counted = Counter(LUT2=3, LUT6=2, SRL16E=4, SRLC32E=1, RAM64X1S=5, RAM64M=2, RAM32X1D=1, FDRE=7, FDSE=1, CARRY4=9,
        DSP48E1=2, RAMB36E1=3, RAMB18E1=1, MUXF7=6, INV=1)
    assert area.resources(counted) == {"logic": 5, "shift": 5, "RAM": 15, "LUT": 25, "FF": 8, "CARRY4": 9, "DSP48E1": 2, "RAMB36": 3.5}


def test_unknown_memory():
    with pytest.raises(ValueError, match="RAM512X1S is not a known cell: of memories, RAM64M, .* are."):
        area.resources(Counter(RAM512X1S=1))


def test_entries():
    rows    = {(lanes, False): {"LUT": 600*lanes, "DSP48E1": 3*lanes} for lanes in (8, 16)}
    entries = {entry["name"]: entry for entry in area.entries(rows | {(16, True): {"LUT": 16000, "DSP48E1": 48}})}
    assert set(entries) == {name + end for name in ("dsp_per_lane", "lut_per_lane")
        for end in ("", "_l8", "_l16", "_l16_stochastic")}
    assert (entries["lut_per_lane"]["value"], entries["lut_per_lane"]["bound"]) == (600, 650)
    assert entries["dsp_per_lane"]["ratio"] == 1 and entries["lut_per_lane_l16_stochastic"]["bound"] is None
    json.dumps(list(entries.values()), allow_nan=False)


def test_engine_entries():
    entries = {entry["name"]: entry for entry in area.engine_entries({"gemv_r4": {"LUT": 4500, "DSP48E1": 68, "levels": 8}})}
    assert {name: entry["value"] for name, entry in entries.items()} == {"gemv_r4_lut": 4500, "gemv_r4_dsp": 68, "gemv_r4_levels": 8}
    assert (entries["gemv_r4_lut"]["bound"], entries["gemv_r4_lut"]["ratio"]) == (9000, 0.5)

# Synthesis ----------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_unit():
    """Counted, and kept for the next time."""
    first = area.resources(area.synthesised(ExactProduct())["cells"])
    assert first["DSP48E1"] == 0 and 100 < first["LUT"] < 400 and first["FF"] > 100
    assert area.resources(area.synthesised(ExactProduct())["cells"]) == first


@pytest.mark.slow
def test_the_datapath():
    """The default: within the bounds."""
    row = area.resources(area.synthesised(area.datapaths()[16, False])["cells"])
    assert row["DSP48E1"] == 3*16
    assert row["LUT"] <= 650*16


@pytest.mark.slow
@pytest.mark.parametrize("engine", area.ENGINES)
def test_the_engines(engine):
    """Within the bounds."""
    for entry in area.engine_entries({engine: area.measured(area.engines()[engine])}):
        assert entry["bound"] is None or entry["value"] <= entry["bound"]
