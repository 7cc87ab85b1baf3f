#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The benchmark: its bounds, its runs, and the form of its results; nothing is simulated here."""

import itertools
import json
import re

import numpy as np
import pytest
import torch

from bench import bounds, dram

from soc.dram import controller_settings, refresh_in_time

# Helpers ------------------------------------------------------------------------------------------

@pytest.fixture
def measured(monkeypatch):
    """All runs, with made-up results."""
    def run_block(device, case, mode, progress, store_every):
        tokens = case.tokens
        return type("Result", (), {"summary": {"cycles_per_token": 20_000, "dma_read_bytes": 100_000*tokens,
            "dma_write_bytes": 50_000*tokens,
            "lane_busy_cycles": 9_000*tokens, "wait_cycles": dict(state=1000*tokens, input=0, output=0, descriptor=0),
            "per_token_cycles": list(range(tokens)) if mode == "decode" else None}})
    monkeypatch.setattr(bounds, "run_block", run_block)
    runs = bounds.the_figures() + bounds.the_sweep()
    for run in runs:
        bounds.measure(run, None)
    return runs

# Bounds -------------------------------------------------------------------------------------------

def test_bounds():
    found = {run.name: (run.bound, run.most) for run in bounds.the_figures()}
    assert found == {
        "prefill_t64_l16"  : (12_288, 12_400),
        "prefill_t64_l32"  : ( 6_144,  6_260),
        "onchip_t1_l32"    : ( 6_144,  6_180),
        "decode_l16"       : (49_152, 52_900),
        "decode_store4_l32": (30_720, 34_100),
        "decode_w256"      : (24_576, 24_576/0.87),
        "decode_w512"      : (12_288, 12_288/0.80),
    }
    found = {run.name: run.bound for run in bounds.the_sweep()}
    assert found["chunk_t1_l4"]  == 49_152
    assert found["chunk_t1_l32"] == 24_576 # The DRAM: the state is stored, not loaded.
    assert found["chunk_t64_l8"] == 24_576
    assert found["decode_2.7B"]  == 80*2048
    assert len(found) == len(bounds.the_sweep())


def test_decoded_tokens_that_count():
    """At least eight, after warm-up, for the figures that are means of tokens."""
    for run in bounds.the_figures():
        if run.mode == "decode":
            first, end = run.measured
            assert first >= 3 and end - first >= 8 and end < run.tokens and (end - first) % run.store_every == 0

# Results ------------------------------------------------------------------------------------------

def test_measure(measured):
    runs = {run.name: run for run in measured}
    assert runs["prefill_t64_l16"].cycles == 20_000
    assert runs["onchip_t1_l32"].cycles   == np.arange(3, 12).mean()
    assert runs["decode_l16"].read_bytes  == 100_000
    assert runs["decode_l16"].write_bytes == 50_000
    causes = runs["decode_l16"].causes
    assert causes["wait_state"] == 1000 and causes["lane_busy"] == 9000 and sum(causes.values()) == pytest.approx(20_000)


def test_entries(measured):
    entries = [bounds.entry(run) for run in measured]
    entries += bounds.processor_entries([
        {"device": "cpu", "threads": 2, "dtype": "float32", "how": "as written", "us": 90.0}])
    entries += [bounds.cpu_entry(2500.0, measured)]
    assert len({entry["name"] for entry in entries}) == len(entries)
    for entry in json.loads(json.dumps(entries, allow_nan=False)):
        assert {"name", "value", "unit", "bound", "ratio", "config", "command"} <= set(entry)
        assert entry["bound"] is None or entry["ratio"] == entry["value"]/entry["bound"]


def row_of(text, name):
    """The cells of a table's row."""
    row, = re.findall(f"<tr[^>]*><td[^>]*>{re.escape(name)}</td>(.*?)</tr>", text)
    return re.findall("<td[^>]*>(.*?)</td>", row)


def test_page(measured):
    processors = [{"device": "cpu", "threads": 1, "dtype": "float32", "how": how, "us": us}
        for how, us in (("as written", 190.0), ("tuned", 90.0))]
    next(run for run in measured if run.name == "prefill_t64_l32").cycles = 6_700
    text = bounds.results_page(measured, processors, 2500.0, {"litex_sim": 6e5, "decode": 3e5},
        [{"name": "link_efficiency", "value": 0.93, "least": 0.9, "unit": "of all"}])
    assert all(run.name in text for run in measured)
    assert row_of(text, "prefill_t64_l16") == ["20000", "12288", "1.628", "12400", "200.0", "100000", "50000"]
    assert row_of(text, "prefill_t64_l32") == ["6700", "6144", "1.090", "6260", "67.0", "100000", "50000"]
    assert '<tr class="missed"><td class=text>prefill_t64_l32</td>' in text
    assert row_of(text, "link_efficiency") == ["0.930", "0.9", "of all"]
    assert row_of(text, "decode") == ["0.300", "0.50"]
    assert "takes the CPU 2500 cycles" in text
    assert text.count("<svg") == text.count("</svg>") == 4
    assert not re.search(r"<(link|script|img)|url\((?!#)|@import", text) # Nothing is loaded from elsewhere.


def test_times_on_the_page(measured):
    """Of the runs in microseconds at 100 MHz, of the prototype as published, of this machine the best of each kind."""
    processors = [{"device": "cpu", "threads": 1, "dtype": dtype, "how": how, "us": us} for dtype, how, us in
        (("float32", "as written", 190.0), ("float16", "as written", 250.0), ("float32", "tuned", 93.0))]
    bars = dict(zip(re.findall(r">([^<>]*(?:simulated|published|as written|tuned)[^<>]*)</text>", svg := bounds.plot_times(measured,
        processors)), map(int, re.findall(r"> (\d+)</text>", svg))))
    assert bars["prefill_t64_l16, simulated at 100 MHz"] == 200
    assert {name.removesuffix(", published"): us for name, us in bars.items() if "published" in name} == {
        "laptop CPU (i7-1165G7)": 477, "GPU (RTX 4070 Ti SUPER)": 202, "prototype, in simulation": 149}
    assert sorted(us for name, us in bars.items() if "machine" in name) == [93, 190]


def test_models():
    """Heads of 64 in twice the model's width, as published."""
    widths = {"130M": 768, "370M": 1024, "780M": 1536, "1.3B": 2048, "2.7B": 2560}
    assert bounds.SHAPES == {name: 2*width//64 for name, width in widths.items()}


def test_roofline():
    """DRAM traffic is what is read and written."""
    run = bounds.Run("x", 16, 1, heads=24, cycles=12_288*4, read_bytes=300_000, write_bytes=93_216)
    assert bounds.roofline_point(run) == (0.5, 4.0)
    assert bounds.microseconds(14_900) == 149


def test_time_of_a_block(monkeypatch):
    """Microseconds, of a clock that goes on by half a millisecond each time it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr(bounds.time, "perf_counter", lambda: 0.0005*next(ticks))
    calls = []
    assert bounds.time_block(lambda state, *rest: (calls.append(1) or state, None), "cpu", torch.float32) == pytest.approx(500)
    assert len(calls) > 100


def test_processors(monkeypatch):
    """Both ways to write the block compute the same, which is the recurrence, element by element."""
    import torch
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)
    h, rest = draw(3, 4, 5), (draw(3, 4), draw(3), draw(3), draw(5), draw(5), draw(3))
    written = bounds.as_written(h, *rest)
    tuned   = bounds.tuned(h.clone(), *rest)
    assert all(torch.allclose(*pair) for pair in zip(written, tuned))
    x, dt, dA, B, C, D = (array.tolist() for array in rest)
    for i in range(3):
        for p in range(4):
            state = [dA[i]*float(h[i, p, n]) + dt[i]*x[i][p]*B[n] for n in range(5)]
            assert written[0][i, p].tolist() == pytest.approx(state)
            assert float(written[1][i, p]) == pytest.approx(sum(a*c for a, c in zip(state, C)) + D[i]*x[i][p])

# DRAM ---------------------------------------------------------------------------------------------

def test_dram_settings():
    """The settings that are chosen keep the DRAM busy; each other setup differs from them in what its name says."""
    setups = dram.setups()
    assert len({setup.name for setup in setups}) == len(setups) and setups[0].changes == {}
    for setup in setups[1:]:
        assert setup.ports != 2 or setup.refresh is not refresh_in_time or any(getattr(controller_settings(), name) != value
            for name, value in setup.changes.items())
    cycles = dram.measure(setups[0]).cycles
    assert all(dram.bound(work) <= cycles[work] <= 1.08*dram.bound(work) for work in dram.WORK)


def test_dram_page():
    setups = dram.setups()
    for setup in setups:
        setup.cycles = dict(read=25_000, write=26_000, both=60_000)
    page    = dram.dram_page(setups)
    entries = dram.entries(setups)
    assert all(setup.name in page for setup in setups) and "<svg" in page
    assert {entry["ratio"] for entry in entries if entry["name"].startswith("dram_both")} == {60_000/(2*24*1024)}
