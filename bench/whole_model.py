#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures whole models on the simulated SoC against the DRAM's bound: build/bench/model.json and model.html.

Random weights in the shape of Mamba-2 130M: no time depends on their values. Cycles are simulated ones at the declared clock, firmware in
charge, from one pass to the next one; bytes are those that the device's counters say. A share is bytes read and written, of those
that the memory port moves in as many cycles.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("whole_model.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "gguf", "torch", "tokenizers")

import argparse
import json
import os
import sys
import tempfile

from dataclasses import dataclass

import numpy as np

from tqdm import tqdm

from bench.cases import repeating_model, shaped_model
from bench.cpu import CORES, measure_cpu

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.batch import DeviceBatch
from host.device.csr import CSRMap
from host.device.device import Device
from host.device.model import DeviceDecoder, ModelOnDevice

from model.gguf import write_gguf
from model.image import TRAFFIC_KINDS, Image
from model.tokenizer import NumberTokenizer
from model.vocabulary import vocabulary_values

from operations.config import ProgramConfig, SystemConfig
from operations.image import ProgramKind
from operations.protocol import DATA_OFFSET

from tools.arguments import Parser
from tools.page import BLUE, GREEN, GREY, ORANGE, RED, figure, heading, page, paragraph, pyplot, table
from tools.paths import BUILD
from tools.simulation.runner import Simulation
from tools.simulation.timeline import WINDOW, parse_timeline

# Constants ----------------------------------------------------------------------------------------

OUTPUT  = BUILD/"bench"
COMMAND = "make bench-model"
CLOSE   = 450_000 # Cycles of the closer look.
PERIOD  = 8    # Of a text that repeats itself.
POINTS  = 1500 # Of a timeline, at most.
BYTES   = dict(zip(TRAFFIC_KINDS, (BLUE, GREEN, ORANGE, RED, GREY)))
UNITS   = {"gemv": BLUE, "ssm": GREEN, "vector": ORANGE, "move": RED, "head": GREY}

# Shares of the memory's bandwidth that others state (of other models, on other boards).
OTHERS = {"arXiv 2502.10659, KV260, LLaMA2-7B, published": 0.85, "Hummingbird (arXiv 2507.03308), LLaMA3-8B, claimed": 0.935,
    "LightMamba (arXiv 2502.15260), U280, Mamba2-2.7B, simulated": 0.27}

# Runs ---------------------------------------------------------------------------------------------

@dataclass
class Run:
    """A model on a simulated SoC, and what came out."""
    name        : str
    kind        : str             # Of the matrices.
    pass_tokens : int   = 1       # R.
    data_width  : int   = 128     # Of the memory ports.
    lanes       : int   = 16
    prompt      : int   = 1       # Tokens,
    store_every : int   = 1
    tokens      : int   = 9       # and those that are generated: of the first one the pass is the prompt's.
    sessions    : int   = 1       # That are decoded together.
    speculate   : bool  = False   # A text that counts to PERIOD, over and over: drafts come from it.
    figures     : object     = None
    timeline    : np.ndarray = None # Of the decoding alone.
    bound       : float      = None # Cycles a decoded token: its bytes at a beat a cycle,
    prompt_bound : float     = None # and of a token of the prompt;
    head_bound  : float      = 0    # of these, the head's weights.
    kinds       : dict       = None # Bytes of a decoded token by what they are.
    macs        : int        = None # Multiplications with weights, and in the SSM core, of a token.

    @property
    def config(self):
        program = ProgramConfig(self.pass_tokens, max(ProgramConfig.vector_lanes, self.data_width//128))
        return SystemConfig.of(self.lanes, self.data_width, program)

    @property
    def beat(self):
        """Bytes."""
        return self.data_width//8

    @property
    def cycles(self):
        """A decoded token."""
        return self.figures.decode_cycles/self.figures.decode_tokens

    @property
    def bytes(self):
        """(read, written) a decoded token."""
        return self.figures.decode_read/self.figures.decode_tokens, self.figures.decode_written/self.figures.decode_tokens

    @property
    def share(self):
        return sum(self.bytes)/(self.cycles*self.beat)

    @property
    def idle(self):
        """Of decoding's cycles, those in which the DRAM had nothing to do. Windows that are not there were of no program."""
        worked = WINDOW*len(self.timeline) - self.timeline["idle"].sum()
        return 1 - worked/self.figures.decode_cycles

    @property
    def prompt_rate(self):
        """Tokens of the prompt a cycle."""
        return self.figures.prefill_tokens/self.figures.prefill_cycles

    @property
    def is_prefill(self):
        """It decodes as another run does."""
        return self.name.startswith("prefill")

    @property
    def text(self):
        ports = f", ports of {self.data_width} bits" if self.data_width != 128 else ""
        more   = f", state stored every {self.store_every}th token" if self.store_every > 1 else ""
        more  += f", {self.sessions} sessions together" if self.sessions > 1 else ""
        more  += ", drafts" if self.speculate else ""
        return f"{self.kind.upper()}, R = {self.pass_tokens}, {self.lanes} lanes{ports}{more}"


def the_runs():
    return [
        Run("decode_q4",     "q4_0"),
        Run("decode_q8",     "q8_0"),
        Run("decode_q4_k4",  "q4_0", store_every=4, tokens=12), # The last one's state is stored in any case.
        Run("prefill_q4_r4", "q4_0", pass_tokens=4, prompt=64, tokens=5),
        Run("batch_q4_r4",   "q4_0", pass_tokens=4, sessions=4),
        Run("draft_q4_r4",   "q4_0", pass_tokens=4, prompt=PERIOD + 4, tokens=33, speculate=True),
        Run("decode_q4_512", "q4_0", data_width=512, lanes=64),
        # For the plots: fewer tokens do.
        Run("batch_q4_r2",   "q4_0", pass_tokens=2, sessions=2, tokens=4),
        Run("batch_q4_r8",   "q4_0", pass_tokens=8, sessions=8, tokens=4),
        Run("decode_q4_256", "q4_0", data_width=256, lanes=32, tokens=4),
    ]


def measure(run, shape, log=lambda line: None):
    """Fill in what a run takes. shape: arguments of shaped_model."""
    config = run.config
    model  = shaped_model(run.kind, **shape)
    if run.speculate:
        model = repeating_model(model, PERIOD)
    image  = Image(model, run.data_width, config.ssm, config.program)
    log(f"{run.name}: build")
    with Simulation(config, dram=[(DATA_OFFSET, image.to_bytes())], timeline=True) as simulation:
        log(run.name)
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, SIM_TIMEOUT_SCALE)
            device.boot(simulation.firmware)
            there = ModelOnDevice(device, image)
            there.load(filled=True)
            if run.sessions > 1:
                text   = DeviceBatch(there, sessions=run.sessions)
                tokens = text.generate([[n] for n in range(run.sessions)], run.tokens)
            else:
                text   = DeviceDecoder(there, store_every=run.store_every, speculate=run.speculate)
                tokens = text.generate(run.tokens)
                text.prefill([n % (PERIOD if run.speculate else model.vocab_size) for n in range(1, 1 + run.prompt)])
            for count, _ in enumerate(tokens, 1):
                log(f"{run.name}: {count} tokens")
        windows = parse_timeline(simulation.console())
    run.figures  = text.figures
    run.timeline = windows[windows["time"] > windows["time"][-1] - run.figures.decode_cycles]
    run.kinds    = least_bytes(image, run)
    run.bound    = sum(run.kinds.values())/run.beat
    layer        = model.config.layer
    run.macs     = sum(matrix.integers.size for layer in model.layers for matrix in (layer.in_proj, layer.out_proj)) + model.head.integers.size + \
        2*model.n_layer*layer.d_inner*layer.d_state
    run.head_bound   = image.tape_bytes(ProgramKind.HEAD)/run.beat
    run.prompt_bound = 1/image.prompt_tokens_per_second(1, run.beat)


def least_bytes(image, run):
    """{what: bytes} of a decoded token, at the least: all drafts right."""
    tokens = run.sessions
    if run.speculate:
        tokens = run.pass_tokens
        parts  = [image.traffic_by_kind(tokens, ProgramKind.DRAFTS, ProgramKind.EACH, store=False),
            image.traffic_by_kind(1, ProgramKind.STATE, deferred=tokens - 1)]
    elif run.sessions > 1:
        parts  = [image.traffic_by_kind(tokens, ProgramKind.BATCH, ProgramKind.EACH)]
    else:
        parts  = [image.traffic_by_kind(1, ProgramKind.LAYERS, ProgramKind.HEAD)]
    found = {what: sum(part[what].total for part in parts)/tokens for what in TRAFFIC_KINDS}
    found["state"] -= image.device.sizes.state*(1 - 1/run.store_every)
    return found

# Results ------------------------------------------------------------------------------------------

def entries(runs, clock):
    """Those of model.json, in the form of results.json; `least` or `most`: what a figure must reach."""
    by_name = {run.name: run for run in runs}

    def entry(name, value, unit, run, bound=1, **limits):
        return {"name": name, "value": value, "unit": unit, "bound": bound, "ratio": value/bound, **limits, "config": run.text, "command": COMMAND}

    found = []
    for name, least in (("decode_q4", 0.92), ("decode_q8", 0.93), ("decode_q4_512", 0.80)):
        if run := by_name.get(name):
            label = {"decode_q4_512": "decode_q4_share_512"}.get(name, f"{name}_share")
            found.append(entry(label, run.share, "of a beat a cycle", run, least=least))
            found.append(entry(f"{name}_rate", clock/run.cycles, f"tokens/s at {clock/1e6:.0f} MHz", run, clock/run.bound))
    if run := by_name.get("decode_q4_k4"):
        found.append(entry("decode_q4_tokens", clock/run.cycles, f"tokens/s at {clock/1e6:.0f} MHz", run, clock/run.bound, least=17))
    if run := by_name.get("decode_q4"):
        found.append(entry("idle_share", run.idle, "of decoding's cycles", run, most=0.04))
    if run := by_name.get("batch_q4_r4"):
        found.append(entry("batch_q4_r4", clock/run.cycles, f"tokens/s at {clock/1e6:.0f} MHz, of all sessions", run, clock/run.bound, least=36))
    if "decode_q4" in by_name and (run := by_name.get("draft_q4_r4")):
        found.append(entry("speculate_gain", by_name["decode_q4"].cycles/run.cycles, "times as fast as decode_q4", run,
            by_name["decode_q4"].cycles/run.bound, least=1.8))
    if run := by_name.get("prefill_q4_r4"):
        found.append(entry("prefill_q4_r4", clock*run.prompt_rate, f"tokens/s at {clock/1e6:.0f} MHz", run, clock/run.prompt_bound, least=72))
    return found


def missed(row):
    return row["value"] < row.get("least", row["value"]) or row["value"] > row.get("most", row["value"])

# Processor ----------------------------------------------------------------------------------------

def measure_processor(layers, vocabulary):
    """As measure_cpu, of the model of the runs in Q4_0."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        write_gguf(path, shaped_model("q4_0", layers, vocabulary), vocabulary_values(NumberTokenizer(path, vocabulary), vocabulary))
        return measure_cpu(path)

# Plots --------------------------------------------------------------------------------------------

def plot_timeline(run, cycles, after=0):
    """The last cycles of a run, but for those `after` them, from above: beats a cycle, and each engine's work."""
    end   = run.timeline["time"][-1] - after
    rows  = run.timeline[(run.timeline["time"] > end - cycles) & (run.timeline["time"] <= end)]
    each  = -(-len(rows)//POINTS) # Windows of a point.
    rows  = rows[len(rows) % each:]
    mean  = {name: rows[name].reshape(-1, each).mean(-1)/WINDOW for name in rows.dtype.names}
    time  = WINDOW*each*np.arange(len(mean["read"]))/1000
    plot, axes = pyplot.subplots(1 + len(UNITS), 1, figsize=(9.5, 5), sharex=True, gridspec_kw={"height_ratios": [3] + [1]*len(UNITS)})
    axes[0].stackplot(time, mean["read"], mean["write"], colors=(BLUE, ORANGE), labels=("read", "written"), lw=0)
    axes[0].set(ylabel="beats a cycle", ylim=(0, 1.02))
    axes[0].legend(ncol=2, loc="lower right", bbox_to_anchor=(1, 1))
    for axis, (name, color) in zip(axes[1:], UNITS.items()):
        axis.fill_between(time, mean[name], color=color, lw=0)
        axis.set(ylim=(0, 1), yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    axes[-1].set(xlabel="thousand cycles", xlim=(0, time[-1]))
    return figure(plot)


def plot_shares(runs):
    rows  = [(f"{run.name}: {run.text}", run.share, BLUE) for run in runs if not run.is_prefill]
    rows += [(name, share, GREY) for name, share in OTHERS.items()]
    rows.sort(key=lambda row: row[1])
    plot, axis = pyplot.subplots(figsize=(9.5, 0.34*len(rows) + 0.7))
    axis.barh([row[0] for row in rows], [row[1] for row in rows], color=[row[2] for row in rows])
    for number, (_, share, _) in enumerate(rows):
        axis.text(share, number, f" {share:.3f}", va="center", fontsize=8)
    axis.set(xlabel="share of the memory's bandwidth, decoding; blue: simulated here", xlim=(0, 1.08))
    axis.grid(axis="y", visible=False)
    return figure(plot)


def plot_roofline(runs):
    """Multiplications a cycle against those for which a byte of DRAM is moved; the roofs are the ports."""
    plot, axis = pyplot.subplots(figsize=(9.5, 4.2))
    x    = np.array([min(run.macs/sum(run.bytes) for run in runs)/1.5, max(run.macs/sum(run.bytes) for run in runs)*2])
    for width in sorted({run.data_width for run in runs}):
        axis.plot(x, width//8*x, color=GREY, lw=1)
        axis.annotate(f"{width//8} bytes a cycle", (x[0], width//8*x[0]), xytext=(3, 4), textcoords="offset points", fontsize=8, color=GREY)
    colors = {128: BLUE, 256: GREEN, 512: ORANGE}
    shown = sorted((run for run in runs if not run.is_prefill), key=lambda run: (run.data_width, -run.macs/sum(run.bytes)))
    for number, run in enumerate(shown):
        at = run.macs/sum(run.bytes), run.macs/run.cycles
        axis.plot(*at, "o", color=colors[run.data_width], ms=5)
        axis.annotate(f"{run.name} {run.share:.0%}", at, xytext=(7, (-8, -19, -30)[number % 3]), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", yscale="log", xlabel="multiplications of decoding for each byte of DRAM", ylabel="multiplications a cycle", xlim=x)
    return figure(plot)


def plot_rates(runs, clock):
    """Tokens a second against R and against the ports' width, and what the bytes allow."""
    of   = lambda *names: [run for name in names for run in runs if run.name == name]
    sets = (("sessions together, a token of each a pass", of("decode_q4", "batch_q4_r2", "batch_q4_r4", "batch_q4_r8"), lambda run: run.sessions),
        ("bits of the memory ports, a token a pass", of("decode_q4", "decode_q4_256", "decode_q4_512"), lambda run: run.data_width))
    plot, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.4), sharey=True)
    for axis, (label, found, x_of) in zip(axes, sets):
        x = [str(x_of(run)) for run in found]
        axis.bar(x, [clock/run.cycles for run in found], color=BLUE, width=0.5, label="simulated")
        axis.plot(x, [clock/run.bound for run in found], "_", color=RED, ms=34, mew=2, label="the bytes allow")
        axis.set(xlabel=label)
        axis.grid(axis="x", visible=False)
    axes[0].set(ylabel=f"tokens a second at {clock/1e6:.0f} MHz")
    axes[0].legend(loc="upper left", markerscale=0.4)
    return figure(plot)


def stacked(runs, label, parts):
    """Bars of all runs. parts: (name, colour, value of a run)."""
    plot, axis = pyplot.subplots(figsize=(9.5, 0.34*len(runs) + 1))
    left  = np.zeros(len(runs))
    for name, color, value in parts:
        size = np.array([value(run) for run in runs[::-1]])
        axis.barh([run.name for run in runs[::-1]], size, left=left, color=color, label=name)
        left += size
    axis.set(xlabel=label)
    axis.legend(ncol=len(parts), loc="lower right", bbox_to_anchor=(1, 1))
    axis.grid(axis="y", visible=False)
    return figure(plot)


def plot_bytes(runs):
    """What is read and written for a decoded token."""
    return stacked(runs, "million bytes of DRAM a decoded token",
        [(what, color, lambda run, what=what: run.kinds[what]/1e6) for what, color in BYTES.items()])


def plot_causes(runs):
    """For what the dispatcher waited; cycles in which it waited for two count for both, so these are no parts of a whole."""
    return stacked(runs, "of a token's cycles, the next descriptor waited for ...",
        [(name, color, lambda run, name=name: run.figures.waits[name]/max(run.figures.waited_tokens, 1)/run.cycles) for name, color in UNITS.items()])

# Page ---------------------------------------------------------------------------------------------

def cpu_table(cpu):
    """What :func:`bench.cpu.measure_cpu` says of this machine's processor."""
    rates, memory = cpu
    return "".join((
        heading("The same weights on this machine's processor"),
        paragraph(f"Wall time of {CORES} cores at the time of the run, of other clocks, memories and powers than the simulated SoC's: a token "
            f"each, Q4_0. Memory gives {memory/1e9:.1f} GB/s to a sum of floats."),
        table(["what", "tokens/s", "bytes a token", "GB/s", "of the memory's"], [[rate.name, f"{rate.tokens:.2f}", f"{rate.bytes}",
            f"{rate.bandwidth/1e9:.2f}", f"{rate.bandwidth/memory:.2f}"] for rate in rates]),
    ))


def results_page(runs, rows, clock, cpu=None):
    first = runs[0]
    return page("Whole models on the simulated SoC", "".join((
        paragraph(f"Written by {COMMAND}. Random weights in the shape of Mamba-2 130M; cycles are simulated (Verilator), at {clock/1e6:.0f} MHz, "
            "firmware in charge, mean of all decoded tokens; nothing here ran on a board. Bytes are those of the device's counters."),
        table(["figure", "value", "must be", "of the bound", "unit", "build"], [("missed" if missed(row) else "", [row["name"], f"{row['value']:.3f}",
            f"at least {row['least']}" if "least" in row else f"at most {row['most']}" if "most" in row else "",
            f"{row['ratio']:.3f}", row["unit"], row["config"]]) for row in rows], text=(0, 4, 5)),
        table(["run", "cycles a token", "bound", "bytes read", "written", "DRAM has nothing to do"], [[run.name, f"{run.cycles:.0f}",
            f"{run.bound:.0f}", *(f"{count:.0f}" for count in run.bytes), f"{run.idle:.3f}"] for run in runs]),
        heading("Shares"),
        plot_shares(runs),
        paragraph("Grey: other models on other boards, as their authors state them."),
        heading("Roofs"),
        plot_roofline(runs),
        heading("Tokens a second"),
        plot_rates(runs, clock),
        heading("Bytes"),
        plot_bytes(runs),
        *([cpu_table(cpu)] if cpu else []),
        heading("A token"),
        paragraph(f"{first.name}: beats that DRAM moves, and which engines work, layer by layer, and then the head."),
        plot_timeline(first, first.cycles),
        heading("Its last layers, and where the head begins"),
        plot_timeline(first, CLOSE, 0.95*first.head_bound),
        heading("What the dispatcher waited for"),
        plot_causes(runs),
    )))

# Main ---------------------------------------------------------------------------------------------

def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run",        action="append", metavar="NAME", help="Only this run, once or more often.")
    parser.add_argument("--cpu",        action="store_true", help="With --run: this machine's processor as well.")
    parser.add_argument("--layers",     type=int, default=24,     help="Of the model (default: %(default)s).")
    parser.add_argument("--vocabulary", type=int, default=50_288, help="Of the model (default: %(default)s).")
    options = parser.parse_args()
    runs    = the_runs()
    for name in options.run or ():
        if name not in [run.name for run in runs]:
            parser.error(f"--run must be one of {', '.join(run.name for run in runs)}, is {name}.")
    runs  = [run for run in runs if not options.run or run.name in options.run]
    clock = Simulation.sys_clk_freq
    with tqdm(total=len(runs), unit="run", disable=None) as bar:
        for run in runs:
            measure(run, {"layers": options.layers, "vocabulary": options.vocabulary}, bar.set_description)
            bar.write(f"{run.name:<16} {run.cycles:>12.0f} cycles a token, bound {run.bound:.0f}; share {run.share:.4f}, DRAM has nothing to do "
                f"{run.idle:.4f}; prompt {clock*run.prompt_rate:.1f} tokens/s")
            sys.stdout.flush()
            bar.update()
    rows = entries(runs, clock)
    cpu  = measure_processor(options.layers, options.vocabulary) if options.cpu or not options.run else None
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT/"model.json").write_text(json.dumps(rows, indent=4) + "\n")
    (OUTPUT/"model.html").write_text(results_page(runs, rows, clock, cpu))
    for rate in cpu[0] if cpu else ():
        print(f"{rate.name}: {rate.tokens:.2f} tokens/s on this machine's processor, {rate.bandwidth/cpu[1]:.2f} of its memory's {cpu[1]/1e9:.1f} GB/s")
    for row in rows:
        print(f"{row['name']:<22}{row['value']:>9.3f}  {row['unit']}{'  MISSED' if missed(row) else ''}")
    print(f"{OUTPUT/'model.json'}, {OUTPUT/'model.html'}")


if __name__ == "__main__":
    sys.exit(main())
