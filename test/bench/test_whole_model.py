#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The figures of whole models, of made-up counts, and once of a simulated SoC."""

import re

import numpy as np
import pytest

from bench import whole_model
from bench.cpu import Rate
from bench.cases import repeating_model, shaped_model

from host.device.model import Figures

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork

from tools.simulation.timeline import COLUMNS, MARK, WINDOW, parse_timeline

# Helpers ------------------------------------------------------------------------------------------

CLOCK = 100e6


def windows(count, **values):
    rows = np.zeros(count, [(name, np.int64) for name in ("time", *COLUMNS)])
    rows["time"] = WINDOW*np.arange(1, count + 1)
    for name, value in values.items():
        rows[name] = value
    return rows


@pytest.fixture
def runs():
    """Eight decoded tokens of 6,400 cycles in each, 80 % of whose beats are moved; in front of them a prompt of 64 tokens."""
    found = whole_model.the_runs()
    for run in found:
        run.figures  = Figures(prefill_tokens=64, prefill_cycles=64*4000, decode_passes=8, decode_tokens=8, decode_cycles=8*6400,
            decode_read=8*6400*run.beat//2, decode_written=8*6400*run.beat*3//10, waited_tokens=8, waits={"move": 800, "gemv": 40_000, "vector": 1600, "ssm": 8000, "head": 0, "tape": 400})
        run.timeline = windows(8*6400//WINDOW, busy=WINDOW, read=128, write=77, idle=16, gemv=200)
        run.bound, run.prompt_bound = 5120.0, 3000.0
        run.kinds, run.macs = dict.fromkeys(whole_model.BYTES, 5120.0*run.beat/5), 100_000
    return found

# Tests --------------------------------------------------------------------------------------------

def test_figures(runs):
    run = runs[0]
    assert (run.cycles, run.bytes, run.share) == (6400, (6400*8, 6400*4.8), pytest.approx(0.8))
    assert run.idle == pytest.approx(16/WINDOW)
    run.timeline = run.timeline[:-20] # Windows in which no program ran.
    assert run.idle == pytest.approx((180*16 + 20*WINDOW)/(200*WINDOW))
    assert run.prompt_rate == 1/4000
    assert [run.config.memory.data_width for run in runs] == [128]*6 + [512, 128, 128, 256]
    assert [run.config.program.pass_tokens for run in runs] == [1, 1, 1, 4, 4, 4, 1, 2, 8, 1]


def test_entries(runs):
    rows = {row["name"]: row for row in whole_model.entries(runs, CLOCK)}
    assert {name: (row["value"], row.get("least"), row.get("most")) for name, row in rows.items() if "least" in row or "most" in row} == {
        "decode_q4_share"     : (pytest.approx(0.8), 0.92, None),
        "decode_q8_share"     : (pytest.approx(0.8), 0.93, None),
        "decode_q4_share_512" : (pytest.approx(0.8), 0.80, None),
        "idle_share"          : (pytest.approx(0.0625), None, 0.04),
        "prefill_q4_r4"       : (25_000, 72, None),
        "batch_q4_r4"         : (CLOCK/6400, 36, None),
        "speculate_gain"      : (1, 1.8, None),
        "decode_q4_tokens"    : (CLOCK/6400, 17, None),
    }
    assert rows["decode_q4_rate"]["value"] == CLOCK/6400 and rows["decode_q4_rate"]["ratio"] == pytest.approx(0.8)
    assert rows["prefill_q4_r4"]["ratio"] == pytest.approx(0.75)
    assert {name for name, row in rows.items() if whole_model.missed(row)} == {"decode_q4_share", "idle_share", "decode_q8_share",
        "speculate_gain"}


def test_page(runs):
    cpu  = [Rate("llama.cpp", 10**8, 0.1), Rate("PyTorch", 5*10**8, 0.1)], 10**10
    text = whole_model.results_page(runs, whole_model.entries(runs, CLOCK), CLOCK, cpu)
    assert "<td>1.00</td><td>0.10</td>" in text and "<td>5.00</td><td>0.50</td>" in text
    assert '<tr class="missed"><td class=text>decode_q4_share</td>' in text and '<tr class="missed"><td class=text>prefill_q4_r4' not in text
    assert text.count("<svg") == text.count("</svg>") == 7
    assert not re.search(r"<(link|script|img)|url\((?!#)|@import", text) # Nothing is loaded from elsewhere.


def test_repeating():
    """Its greedy text, which drafts are taken from, goes round."""
    model   = repeating_model(shaped_model("q4_0", 1, 64), 5)
    decoder = ExactDecoder(ExactNetwork(model))
    decoder.prefill([0, 1])
    assert list(decoder.generate(8)) == [2, 3, 4, 0, 1, 2, 3, 4]


def test_console():
    """Its lines among others, some of them cut."""
    line = f"{MARK} 512 {' '.join(str(n) for n in range(len(COLUMNS)))}"
    rows = parse_timeline(f"BIOS\n{line}\n{MARK} 768 1 2\nready {line}\n")
    assert rows["time"].tolist() == [512, 512] and rows[COLUMNS[-1]].tolist() == [len(COLUMNS) - 1]*2


def test_shape():
    """Bytes of the 130M model's matrices: 4.5 bits a weight, or 8.5."""
    for kind, bits in (("q4_0", 4.5), ("q8_0", 8.5)):
        model   = shaped_model(kind, 1, 64)
        layer   = model.layers[0]
        weights = [matrix.shape for matrix in (layer.in_proj, layer.out_proj, model.head)]
        assert weights == [(3352, 768), (768, 1536), (64, 768)]
        assert sum(matrix.pack().size for matrix in (layer.in_proj, layer.out_proj)) == (3352*768 + 768*1536)*bits/8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_simulated():
    """The timeline has the beats that the engines' counters have, and those of the CPU."""
    run = whole_model.Run("x", "q4_0", tokens=4)
    whole_model.measure(run, {"layers": 1, "vocabulary": 512})
    read, written = (run.timeline[name].sum()*run.beat for name in ("read", "write"))
    assert run.figures.decode_read <= read < 1.02*run.figures.decode_read
    assert run.figures.decode_written <= written < 1.02*run.figures.decode_written
    assert 0.8 < run.share < 1 and run.idle < 0.1
