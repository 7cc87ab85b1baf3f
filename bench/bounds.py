#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures the simulated SoC against its bounds: build/bench/results.json and results.html.

Cycles are simulated ones at the declared clock, firmware in charge, each job from doorbell to completion. Beside them, in the
same run: the block on this machine's CPU and GPU, by the clock on the wall, and the prototype's published times.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("bounds.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import json
import platform
import statistics
import sys
import time

from dataclasses import dataclass, field

import numpy as np
import torch

from tqdm import tqdm

from bench.cases import layer_case
from bench.link import link_entries
from bench.simulator import measure_simulator

from host.connect import add_device_arguments, open_device
from host.device.block import run_block
from host.device.case import Case

from operations.config import LANES

from tools.page import BLACK, BLUE, GREEN, GREY, ORANGE, RED, figure, heading, page, paragraph, pyplot, table
from tools.paths import BUILD
from tools.simulation.runner import network_permitted

# Constants ----------------------------------------------------------------------------------------

OUTPUT    = BUILD/"bench"
COMMAND   = "make bench"
PROTOTYPE = {"laptop CPU (i7-1165G7)": 477, "GPU (RTX 4070 Ti SUPER)": 202, "prototype, in simulation": 149} # us, published.
BEAT_BITS = 128 # Of the memory ports, where a run does not say otherwise.
CLOCK_MHZ = 100 # Declared, of the simulated SoC.
SHARES    = {256: 0.87, 512: 0.80} # Of a beat a cycle, that decoding reaches at least on wide ports.
SHAPES    = {"130M": 24, "370M": 32, "780M": 48, "1.3B": 64, "2.7B": 80} # Heads of 64 x 128.

# Runs ---------------------------------------------------------------------------------------------

@dataclass
class Run:
    """A case on a simulated SoC, and what came out. Cycles are per token."""
    name        : str
    lanes       : int
    tokens      : int
    mode        : str = "prefill"
    heads       : int = 24
    resident    : int = 0         # Tiles on chip.
    data_width  : int = BEAT_BITS # Of the memory ports.
    store_every : int = 1
    measured    : tuple = (0, None) # First and end of decoded tokens, those that count: after warm-up, and before the end shows.
    bound       : float = None    # Cycles,
    most        : float = None    # and how many it may take.
    cycles      : float = None
    read_bytes  : float = None
    write_bytes : float = None
    causes      : dict  = field(default_factory=dict) # Cycles by what the lanes did, or waited for.


def lane_bound(heads, lanes):
    return heads*64*128/lanes


def dram_bound(heads, store_every=1, data_width=BEAT_BITS):
    """Cycles to read the state for each token, and to write it for some, at a beat a cycle."""
    return heads*64*128*16/data_width*(1 + 1/store_every)


def microseconds(cycles):
    """At the declared clock."""
    return cycles/CLOCK_MHZ


def the_figures():
    """Those that have a limit."""
    return [
        Run("prefill_t64_l16",   16, 64, bound=lane_bound(24, 16), most=12_400),
        Run("prefill_t64_l32",   32, 64, bound=lane_bound(24, 32), most=6_260),
        Run("onchip_t1_l32",     32, 14, "decode", resident=24, measured=(3, 12), bound=lane_bound(24, 32), most=6_180),
        Run("decode_l16",        16, 62, "decode", measured=(4, 60), bound=dram_bound(24), most=52_900),
        Run("decode_store4_l32", 32, 14, "decode", store_every=4, measured=(4, 12), bound=dram_bound(24, 4),
            most=34_100),
        *[Run(f"decode_w{width}", 32, 14, "decode", data_width=width, measured=(4, 12), bound=bound, most=bound/SHARES[width])
            for width, bound in ((width, dram_bound(24, data_width=width)) for width in SHARES)],
    ]


def the_sweep():
    """Lanes and tokens of a chunk; sizes of models."""
    runs  = [Run(f"chunk_t{tokens}_l{lanes}", lanes, tokens) for lanes in LANES for tokens in (1, 4, 16, 64)]
    runs += [Run(f"decode_store{every}_l16", 16, 14, "decode", store_every=every, measured=(4, 12),
        bound=dram_bound(24, every)) for every in (2, 4)]
    for name, heads in SHAPES.items():
        runs.append(Run(f"prefill_{name}", 16, 16, heads=heads, bound=lane_bound(heads, 16)))
        runs.append(Run(f"decode_{name}",  16,  5, "decode", heads=heads, measured=(1, 4), bound=dram_bound(heads)))
    for run in runs:
        if run.bound is None: # Whichever binds: the lanes, or the state's way out, once a chunk; it starts from zeros.
            run.bound = max(lane_bound(run.heads, run.lanes), dram_bound(run.heads)/2/run.tokens)
    return runs


def measure(run, device, progress=None):
    """Fill in what a run takes."""
    summary = run_block(device, layer_case(run.tokens, run.heads), run.mode, progress, store_every=run.store_every).summary
    each    = summary["per_token_cycles"]
    run.cycles      = statistics.mean(each[slice(*run.measured)]) if each else summary["cycles_per_token"]
    run.read_bytes  = summary["dma_read_bytes"]/run.tokens
    run.write_bytes = summary["dma_write_bytes"]/run.tokens
    run.causes      = {"lane_busy": summary["lane_busy_cycles"]/run.tokens}
    run.causes     |= {f"wait_{name}": cycles/run.tokens for name, cycles in summary["wait_cycles"].items()}
    run.causes["other"] = max(summary["cycles_per_token"] - sum(run.causes.values()), 0)


def measure_cpu(device):
    """Cycles that a job takes the CPU, whatever its size: those of a job that takes the core next to nothing."""
    random = np.random.default_rng(1)
    draw   = lambda *shape: random.standard_normal(shape).astype(np.float16)
    case   = Case(x=draw(14, 1, 1), dt=draw(14, 1), dA=draw(14, 1), B=draw(14, 1, 8), C=draw(14, 1, 8), D=draw(1))
    return statistics.mean(run_block(device, case, "decode").summary["per_token_cycles"][4:12])


def measure_all(runs):
    """Runs, by the gateware they need: each is simulated once. Returns the CPU's cycles a job."""
    groups = {}
    for run in runs:
        groups.setdefault((run.lanes, run.resident, run.data_width), []).append(run)
    parser = argparse.ArgumentParser()
    add_device_arguments(parser)
    cpu = None
    with tqdm(total=len(runs), unit="run", disable=None) as bar:
        for (lanes, resident, width), members in groups.items():
            options = parser.parse_args(["--lanes", str(lanes), "--resident-tiles", str(resident), "--data-width", str(width)])
            options.verbose = False
            bar.set_description(f"{lanes} lanes, {width} bits: build")
            with open_device(options) as device:
                for run in members:
                    bar.set_description(run.name)
                    measure(run, device)
                    bar.update()
                cpu = cpu or measure_cpu(device)
    return cpu

# CPU and GPU --------------------------------------------------------------------------------------

def as_written(h, x, dt, dA, B, C, D):
    h = h*dA[:, None, None] + (dt[:, None]*x)[:, :, None]*B
    return h, (h*C).sum(-1) + D[:, None]*x


def tuned(h, x, dt, dA, B, C, D):
    h.mul_(dA[:, None, None]).addcmul_((dt[:, None]*x)[:, :, None], B)
    return h, torch.addcmul(torch.matmul(h, C), D[:, None], x)


def time_block(function, device, dtype, seconds=0.6):
    """Median microseconds of a 130M block by PyTorch."""
    draw  = lambda *shape: torch.rand(shape, device=device).to(dtype)
    state = draw(24, 64, 128)
    rest  = (draw(24, 64), draw(24), draw(24), draw(128), draw(128), draw(24))
    wait  = torch.cuda.synchronize if device == "cuda" else lambda: None
    times, end = [], time.perf_counter() + seconds
    for number in range(100_000):
        wait()
        start    = time.perf_counter()
        state, y = function(state, *rest)
        wait()
        if number >= 20:
            times.append(time.perf_counter() - start)
        if time.perf_counter() > end and len(times) > 5:
            break
    return 1e6*statistics.median(times)


def measure_processors():
    """[{device, dtype, how, threads, us}]; the GPU's only where there is one."""
    rows    = []
    threads = torch.get_num_threads()
    devices = [("cpu", 1), ("cpu", threads)] + ([("cuda", 1)] if torch.cuda.is_available() else [])
    with torch.inference_mode():
        for device, count in dict.fromkeys(devices):
            torch.set_num_threads(count)
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                for function in (as_written, tuned):
                    rows.append({"device": device, "threads": count, "dtype": str(dtype).removeprefix("torch."),
                        "how": function.__name__.replace("_", " "), "us": time_block(function, device, dtype)})
    torch.set_num_threads(threads)
    return rows


def cpu_name():
    try:
        return next(line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"

# Results ------------------------------------------------------------------------------------------

def entry(run):
    """An entry of results.json. The ratio is cycles/bound; `most` says how many cycles are allowed, None: no limit is set."""
    config = f"{run.heads}x64x128, {run.lanes} lanes, {run.mode} of {run.tokens} tokens"
    if run.resident:
        config += f", {run.resident} tiles on chip"
    if run.data_width != BEAT_BITS:
        config += f", memory ports of {run.data_width} bits"
    if run.store_every > 1:
        config += f", state stored every {run.store_every} tokens"
    return {"name": run.name, "value": run.cycles, "unit": "cycles a token", "bound": run.bound, "ratio": run.cycles/run.bound,
        "most": run.most, "config": config, "command": COMMAND}


def share_entry(run):
    """Of decoding on a wide port: bytes of the state that are read and written, of those that the port could move."""
    share, least = run.bound/run.cycles, SHARES[run.data_width]
    return {"name": f"{run.name}_share", "value": share, "unit": "of a beat a cycle", "bound": 1, "ratio": share, "least": least,
        "config": entry(run)["config"], "command": COMMAND}


def cpu_entry(cycles, runs):
    """The CPU's cycles a job; the ratio is their share of a decoded token, behind whose tiles they hide."""
    token = next(run for run in runs if run.name == "decode_l16")
    wait  = token.causes["wait_descriptor"]
    return {"name": "cpu_job", "value": cycles, "unit": "cycles of the CPU a job", "bound": token.cycles,
        "ratio": cycles/token.cycles, "config": f"decode_l16: of {token.cycles:.0f} cycles a token the lanes wait {wait:.0f} "
        "for a descriptor", "command": COMMAND}


def processor_entries(rows):
    return [{"name": f"torch_{row['device']}_{row['dtype']}_{row['how'].replace(' ', '_')}_{row['threads']}threads",
        "value": row["us"], "unit": "us a block, wall", "bound": None, "ratio": None,
        "config": cpu_name() if row["device"] == "cpu" else torch.cuda.get_device_name(), "command": COMMAND} for row in rows]

# Plots --------------------------------------------------------------------------------------------

def roofline_point(run):
    """(State elements updated for each byte to or from DRAM, and in a cycle) of a run."""
    updates = run.heads*64*128
    return updates/(run.read_bytes + run.write_bytes), updates/run.cycles


def plot_roofline(runs):
    """Updates a cycle over updates a byte of DRAM traffic."""
    plot, axis = pyplot.subplots(figsize=(9.5, 5.2))
    intensity  = np.geomspace(0.1, 30, 100)
    colors     = dict(zip(LANES, (GREY, GREEN, BLUE, RED, ORANGE)))
    for lanes in LANES:
        axis.plot(intensity, np.minimum(lanes, BEAT_BITS/8*intensity), color=colors[lanes], lw=1, alpha=0.7)
        axis.text(28, lanes*1.03, f"{lanes} lanes", ha="right", va="bottom", fontsize=8, color=colors[lanes])
    axis.text(0.125, 2.25, "DRAM, 16 bytes a cycle", rotation=33, fontsize=8)
    for run in runs:
        if run.data_width != BEAT_BITS: # It has another roof.
            continue
        x, y = roofline_point(run)
        axis.plot(x, y, "o" if run.most else ".", color=colors[run.lanes], ms=7 if run.most else 6,
            mec=BLACK if run.most else "none", mew=0.8)
        if run.most:
            left = run.resident > 0 # Its neighbour is to the right.
            axis.annotate(run.name, (x, y), xytext=(-8 if left else 8, -11), textcoords="offset points", fontsize=8,
                ha="right" if left else "left")
    axis.set(xscale="log", yscale="log", xlabel="state elements updated for each byte to or from DRAM",
        ylabel="state elements updated in a cycle", xlim=(0.12, 30), ylim=(1.5, 96))
    return figure(plot)


def plot_times(runs, processors):
    """Microseconds a block."""
    rows  = [(f"{run.name}, simulated at {CLOCK_MHZ} MHz", microseconds(run.cycles), BLUE) for run in runs if run.most]
    rows += [(f"{name}, published", us, GREY) for name, us in PROTOTYPE.items()]
    for device in dict.fromkeys(row["device"] for row in processors):
        for how in ("as written", "tuned"):
            best = min((row for row in processors if (row["device"], row["how"]) == (device, how)), key=lambda row: row["us"])
            name = "this machine's CPU" if device == "cpu" else torch.cuda.get_device_name()
            rows.append((f"{name}, {how}: {best['dtype']}, {best['threads']} threads", best["us"], ORANGE))
    rows.sort(key=lambda row: -row[1])
    plot, axis = pyplot.subplots(figsize=(9.5, 0.32*len(rows) + 0.8))
    axis.barh([name for name, _, _ in rows], [us for _, us, _ in rows], color=[color for _, _, color in rows])
    for number, (_, us, _) in enumerate(rows):
        axis.text(us, number, f" {us:.0f}", va="center", fontsize=8)
    axis.set(xlabel="microseconds a block of Mamba-2 130M, one token")
    axis.grid(axis="y", visible=False)
    return figure(plot)


def plot_causes(runs):
    """Where the cycles went."""
    names  = [run.name for run in runs][::-1]
    labels = {"lane_busy": "lanes busy", "wait_state": "waiting for state", "wait_input": "for inputs",
        "wait_output": "for room for y", "wait_descriptor": "for a descriptor", "other": "nothing in flight, or between tiles"}
    plot, axis = pyplot.subplots(figsize=(9.5, 0.36*len(runs) + 1.2))
    left = np.zeros(len(runs))
    for (cause, label), color in zip(labels.items(), (BLUE, RED, ORANGE, GREEN, BLACK, GREY)):
        share = np.array([run.causes[cause]/sum(run.causes.values()) for run in runs[::-1]])
        axis.barh(names, share, left=left, color=color, label=label)
        left += share
    axis.set(xlabel="share of all cycles, the first and last tokens included", xlim=(0, 1))
    axis.grid(axis="y", visible=False)
    axis.legend(ncol=3, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return figure(plot)


def plot_scaling(runs):
    plot, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.6))
    chunks = [run for run in runs if run.name.startswith("chunk")]
    colors = dict(zip(LANES, (GREY, GREEN, BLUE, RED, ORANGE)))
    for lanes in LANES:
        rows = sorted((run for run in chunks if run.lanes == lanes), key=lambda run: run.tokens)
        axes[0].plot([run.tokens for run in rows], [run.cycles for run in rows], "o-", color=colors[lanes], ms=4,
            label=f"{lanes} lanes")
        axes[0].plot([run.tokens for run in rows], [run.bound for run in rows], ls=":", color=colors[lanes])
    axes[0].set(xscale="log", yscale="log", xlabel="tokens of a chunk", ylabel="cycles a token (dotted: bound)",
        xticks=[1, 4, 16, 64], xticklabels=[1, 4, 16, 64])
    axes[0].legend()
    for kind, color in (("prefill", BLUE), ("decode", RED)):
        rows = [run for run in runs for name in SHAPES if run.name == f"{kind}_{name}"]
        axes[1].plot(list(SHAPES), [microseconds(run.cycles) for run in rows], "o-", color=color, ms=4, label=kind)
        axes[1].plot(list(SHAPES), [microseconds(run.bound)  for run in rows], ls=":", color=color)
    axes[1].set(xlabel="model whose layer it is", ylabel="us a block at 100 MHz, 16 lanes", ylim=(0, None))
    axes[1].legend()
    plot.tight_layout()
    return figure(plot)

# Page ---------------------------------------------------------------------------------------------

def results_page(runs, processors, cpu, rates, link):
    def row(run):
        missed = "missed" if run.most and run.cycles > run.most else ""
        return missed, [run.name, f"{run.cycles:.0f}", f"{run.bound:.0f}", f"{run.cycles/run.bound:.3f}",
            f"{run.most:.0f}" if run.most else "", f"{microseconds(run.cycles):.1f}", f"{run.read_bytes:.0f}", f"{run.write_bytes:.0f}"]
    gpu = "" if torch.cuda.is_available() else " There is no GPU here: skipped."
    return page("The SSM block on the simulated SoC", "".join((
        paragraph(f"Written by {COMMAND}. Cycles are simulated (Verilator), at the 100 MHz and with the DRAM of the Arty A7, "
            "firmware in charge, from doorbell to completion; nothing here ran on a board. The bound is what lanes or DRAM, "
            "whichever binds, take without any overhead."),
        table(["run", "cycles a token", "bound", "ratio", "at most", "us", "bytes read", "written"], [row(run) for run in runs]),
        heading("Roofline"),
        plot_roofline(runs),
        heading("Time of a block"),
        plot_times(runs, processors),
        paragraph(f"This machine's CPU: {cpu_name()}, {torch.get_num_threads()} threads; medians of wall time.{gpu}"),
        heading("Where the cycles went"),
        plot_causes([run for run in runs if run.most]),
        paragraph(f"A job takes the CPU {cpu:.0f} cycles; they pass while the tiles of the job before move and are computed on."),
        heading("Scaling"),
        plot_scaling(runs) if any(run.name.startswith("chunk") for run in runs) else paragraph("Not measured: --quick."),
        heading("Link"),
        table(["", "value", "at least", "unit"], [[row["name"], f"{row['value']:.3f}", f"{row['least'] or ''}", row["unit"]]
            for row in link], text=(0, 3)) if link else paragraph("Not measured: network namespaces are not permitted here."),
        heading("Speed of the simulation"),
        table(["", "million cycles a second", "of litex_sim's"],
            [[what, f"{1e-6*rate:.3f}", f"{rate/rates['litex_sim']:.2f}"] for what, rate in rates.items()]),
        paragraph("By the processor's time, one after the other; litex_sim with the same CPU and DRAM, in its BIOS."),
    )))

# Main ---------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Only the figures that have a limit.")
    options    = parser.parse_args()
    runs       = the_figures() + ([] if options.quick else the_sweep())
    processors = measure_processors()
    cpu        = measure_all(runs)
    rates, simulator = measure_simulator()
    link       = link_entries() if network_permitted() else []
    OUTPUT.mkdir(parents=True, exist_ok=True)
    entries = [entry(run) for run in runs] + [share_entry(run) for run in runs if run.data_width != BEAT_BITS] + [cpu_entry(cpu, runs)] + simulator + link + processor_entries(processors)
    (OUTPUT/"results.json").write_text(json.dumps(entries, indent=4) + "\n")
    (OUTPUT/"results.html").write_text(results_page(runs, processors, cpu, rates, link))
    print(f"{'run':<24}{'cycles a token':>15}{'bound':>9}{'ratio':>8}{'at most':>9}")
    for run in runs:
        print(f"{run.name:<24}{run.cycles:>15.0f}{run.bound:>9.0f}{run.cycles/run.bound:>8.3f}"
            f"{f'{run.most:.0f}' if run.most else '':>9}")
    best = min(processors, key=lambda row: row["us"])
    print(f"CPU: {cpu:.0f} cycles a job, of which the lanes see "
        f"{next(run for run in runs if run.name == 'decode_l16').causes['wait_descriptor']:.0f} a decoded token")
    for row in link:
        print(f"{row['name']:<27}{row['value']:>9.3f}  {row['unit']}")
    print("Simulation: " + ", ".join(f"{what} {1e-6*rate:.3f} million cycles/s" for what, rate in rates.items()))
    print(f"PyTorch here: {best['us']:.0f} us a block at best ({best['device']}, {best['dtype']}, {best['how']})")
    print(f"{OUTPUT/'results.json'}, {OUTPUT/'results.html'}")


if __name__ == "__main__":
    sys.exit(main())
