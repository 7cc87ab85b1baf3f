#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures the accuracy of the SSM core's arithmetic: build/bench/accuracy.json and accuracy.html.

The core's results are those of its bit-accurate model, which the tests hold equal to the gateware. Figures of bench/area.py,
bench/exact.py and bench/recall.py are taken from build/bench/, if they ran before.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("accuracy.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import json
import sys


import numpy as np
import torch

from bench.baselines import EXACT, NEAREST, PER_OPERATION, STOCHASTIC, TORCH_FLOAT16, Run
from bench.drift import ARITHMETICS, LAYER, MEMORIES, SEED, measure_decay, measure_drift
from bench.hex import PROTOTYPE_GAIN, measure, mismatches, pipelining_gain

from model.bitexact import ssm_block
from model.case import realistic_case
from model.reference import mamba2_130m_layer

from operations.config import SSMConfig

from tools.files import save_json, write_atomically
from tools.page import BLACK, BLUE, GREEN, GREY, ORANGE, RED, figure, heading, page, paragraph, pyplot, table
from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

OUTPUT  = BUILD/"bench"
COMMAND = "make bench-accuracy"
SEEDS   = range(2024, 2032)
TOKENS  = 4

ROUNDED  = "float64, rounded to FP16"
COMPARED = (ROUNDED, NEAREST.name, TORCH_FLOAT16.name, PER_OPERATION.name)
COLORS   = {ROUNDED: GREY, NEAREST.name: BLUE, STOCHASTIC.name: GREEN, TORCH_FLOAT16.name: ORANGE,
    PER_OPERATION.name: RED, "FP32 state": GREY, EXACT.name: BLACK}

# Errors of y --------------------------------------------------------------------------------------

INPUTS = { # Name: what is done with a realistic case. Powers of two, so nothing is rounded again.
    "realistic"              : lambda case: case,
    "scan alone (D = 0)"     : lambda case: case | {"D": 0*case["D"]},
    "x, B and C 4 times"     : lambda case: case | {n: 4*case[n] for n in "xBC"} | {"h0": 16*case["h0"]},
}


def measure_y(layer, tokens, seeds):
    """Absolute errors of y against float64, {inputs: {name: (seeds, T, H, P)}}; |core - torch.float16| of one step."""
    cases  = [realistic_case(layer, tokens, seed, with_h0=True) for seed in seeds]
    result = {}
    for inputs, change in INPUTS.items():
        exact  = np.stack([Run(EXACT, change(case)).all_y() for case in cases])
        values = {ROUNDED: exact.astype(np.float16)}
        for arithmetic in (NEAREST, TORCH_FLOAT16, PER_OPERATION):
            values[arithmetic.name] = np.stack([Run(arithmetic, change(case)).all_y() for case in cases])
        result[inputs] = {name: abs(value.astype(float) - exact) for name, value in values.items()}
        if inputs == "realistic":
            nearest, float16 = (values[name][:, 0].astype(float) for name in (NEAREST.name, TORCH_FLOAT16.name))
            one_step = abs(nearest - float16)
    return result, one_step


def beside_rounding(errors, name):
    """RMS of the errors without what the rounding of y to FP16 adds in any case; independent errors add in squares."""
    square = {key: np.square(value).mean() for key, value in errors.items()}
    return np.sqrt(max(square[name] - square[ROUNDED], 0))

# Figures ------------------------------------------------------------------------------------------

def entry(name, value, unit, bound, config):
    """An entry of accuracy.json. Its ratio is value/bound (bound/value of the gain): at most 1 is within the bound."""
    ratio = None if bound is None else float(bound/value if name == "pipelining_gain" else value/bound)
    return {"name": name, "value": float(value), "unit": unit, "bound": bound, "ratio": ratio, "config": config,
        "command": COMMAND}


def y_entries(errors, one_step, config):
    realistic, scan = errors["realistic"], errors["scan alone (D = 0)"]

    def ratio(errors, statistic, name=NEAREST.name, other=PER_OPERATION.name):
        return statistic(errors[name])/statistic(errors[other])

    return [
        entry("y_mean_err_ratio",          ratio(realistic, np.mean), "1", 0.5, config),
        entry("y_max_err_ratio",           ratio(realistic, np.max),  "1", 0.6, config),
        entry("y_mean_err_ratio_floor",    ratio(realistic, np.mean, ROUNDED), "1", None, config + "; exact y rounded"),
        entry("y_max_err_ratio_floor",     ratio(realistic, np.max,  ROUNDED), "1", None, config + "; exact y rounded"),
        entry("y_err_ratio_beside_rounding",
            beside_rounding(realistic, NEAREST.name)/beside_rounding(realistic, PER_OPERATION.name), "1", 0.5,
            config + "; RMS without the rounding of y"),
        entry("y_mean_err_ratio_scan",     ratio(scan, np.mean), "1", 0.5, config + "; D = 0"),
        entry("y_max_err_ratio_scan",      ratio(scan, np.max),  "1", 0.6, config + "; D = 0"),
        entry("y_max_err_ratio_scan_block", ratio(scan, lambda error: error.max((2, 3)).mean()), "1", 0.6,
            config + "; D = 0, mean over blocks of a block's maximum"),
        entry("y_mean_err_ratio_to_torch", ratio(realistic, np.mean, other=TORCH_FLOAT16.name), "1", 1, config),
        entry("y_max_err_ratio_to_torch",  ratio(realistic, np.max,  other=TORCH_FLOAT16.name), "1", 1, config),
        entry("y_mean_err_torch16",        one_step.mean(), "absolute", 0.00022,  config + "; one step"),
        entry("y_max_err_torch16",         one_step.max(),  "absolute", 0.007812, config + "; one step"),
    ]


def drift_entries(drift):
    config = (f"{LAYER.heads}x{LAYER.headdim}x{LAYER.d_state}, {drift.tokens[-1]} tokens, seed {SEED}, "
        f"A of a third of the heads each divided by {', '.join(map(str, MEMORIES))}")
    drawn  = config + "; heads as drawn alone"
    return [
        entry("drift_rne_ratio",          drift.worst_ratio(NEAREST), "1", 1,    config + "; worst group, checkpoint"),
        entry("drift_sr_ratio",           drift.ratio(STOCHASTIC),    "1", 0.25, config),
        entry("drift_rne_ratio_as_drawn", drift.ratio(NEAREST, 0),    "1", 1,    drawn),
        entry("drift_sr_ratio_as_drawn",  drift.ratio(STOCHASTIC, 0), "1", 0.25, drawn),
    ]


def gain_entry(case, lanes):
    """Pipelining, on one token. Raises RuntimeError when the core and the model differ."""
    results  = measure(case, lanes)
    expected = ssm_block(**case)
    for y, h, _ in results.values():
        if mismatches(y, expected[0]) + mismatches(h, expected[1]):
            raise RuntimeError("the core and the bit-accurate model differ.")
    cycles = [count for _, _, count in results.values()]
    sizes  = "x".join(map(str, case["h0"].shape))
    return entry("pipelining_gain", 100*pipelining_gain(*cycles), "%", 100*PROTOTYPE_GAIN,
        f"{sizes}, {lanes} lanes, 1 token: {cycles[0]} cycles, stages one after the other {cycles[1]}")

# Plots --------------------------------------------------------------------------------------------

def plot_y(errors):
    """Share of the outputs whose error exceeds a value."""
    plot, axes = pyplot.subplots(1, len(errors), figsize=(11, 3.4), sharey=True)
    for axis, (inputs, values) in zip(axes, errors.items()):
        for name in COMPARED:
            sizes = np.sort(values[name].ravel())[::-1]
            share = np.arange(1, len(sizes) + 1)/len(sizes)
            pick  = np.unique(np.geomspace(1, len(sizes), 400).astype(int)) - 1
            axis.plot(sizes[pick], share[pick], color=COLORS[name], label=name, lw=1.6,
                ls="--" if name == ROUNDED else "-", zorder=3 if name == ROUNDED else 2)
        axis.set(title=inputs, xlabel="absolute error of y", xscale="log", yscale="log",
            xlim=(np.median(values[ROUNDED])/4, None))
    axes[0].set_ylabel("share of outputs with a larger error")
    axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5))
    return figure(plot)


def group_title(drift, group):
    title = "heads as drawn" if MEMORIES[group] == 1 else f"A divided by {MEMORIES[group]}"
    return f"{title}, mean dA {drift.dA[group]:.4f}"


def plot_drift(drift, kind, label, names):
    plot, axes = pyplot.subplots(1, len(MEMORIES), figsize=(11, 3.2))
    width = max(len(drift.tokens)//64, 1) # Checkpoints that a point is the mean of.
    means = lambda values: values[:len(values)//width*width].reshape(-1, width).mean(axis=1)
    for group, axis in enumerate(axes):
        for name in names:
            axis.plot(means(drift.tokens), means(getattr(drift, kind)[name][:, group]), color=COLORS[name], label=name,
                lw=1.4)
        axis.set(title=group_title(drift, group), xlabel="tokens")
        if kind != "shrink":
            axis.set_yscale("log")
    axes[0].set_ylabel(label)
    axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5))
    plot.tight_layout()
    return figure(plot)


def plot_decay(decay):
    plot, axis = pyplot.subplots(figsize=(6.5, 3.2))
    styles = {EXACT.name: dict(lw=4, alpha=0.3), NEAREST.name: dict(ls="--", zorder=3)}
    for name, means in decay.items():
        axis.plot(means, color=COLORS[name], label=name, **(dict(lw=1.4) | styles.get(name, {})))
    axis.set(xlabel="tokens", ylabel="mean of the state", ylim=(0, None))
    axis.legend()
    return figure(plot)

# Page ---------------------------------------------------------------------------------------------

def number(value):
    return "" if value is None else f"{value:.4g}"


def print_entries(entries):
    print(f"{'figure':<32}{'value':>12}{'unit':>12}{'bound':>12}{'ratio':>11}")
    for row in entries:
        value, bound, ratio = (number(row[key]) for key in ("value", "bound", "ratio"))
        print(f"{row['name']:<32}{value:>12}{row['unit']:>12}{bound:>12}{ratio:>11}")


def write_results(output, name, entries, html):
    """Write `name`.json and `name`.html into the folder `output`."""
    output.mkdir(parents=True, exist_ok=True)
    save_json(output/f"{name}.json", entries)
    write_atomically(output/f"{name}.html", lambda file: file.write(html.encode()))


def run_bench(name, description, bench):
    """A benchmark as a command: `bench` measures, writes its results into the folder it is given, and returns their entries."""
    argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    print_entries(bench(OUTPUT))
    print(f"{OUTPUT/name}.json, {OUTPUT/name}.html")


def entry_row(entry):
    missed = "missed" if entry["ratio"] is not None and entry["ratio"] > 1 else ""
    value, bound, ratio = (number(entry[key]) for key in ("value", "bound", "ratio"))
    return missed, [entry["name"], value, entry["unit"], bound, ratio, entry["config"]]


def y_section(errors):
    rows = []
    for inputs, values in errors.items():
        per_operation = values[PER_OPERATION.name]
        per_block     = per_operation.max((2, 3)).mean()
        for name in COMPARED:
            mean, most = values[name].mean(), values[name].max()
            rows.append([inputs if name == ROUNDED else "", name, number(mean), number(most),
                number(mean/per_operation.mean()), number(most/per_operation.max()),
                number(values[name].max((2, 3)).mean()/per_block),
                "" if name == ROUNDED else number(beside_rounding(values, name))])
    floor = errors["realistic"][ROUNDED].mean()/errors["realistic"][PER_OPERATION.name].mean()
    return "".join((
        heading("Errors of y against float64"),
        paragraph("All arithmetics get the same float16 inputs: those that a freshly initialised Mamba-2 130M "
            "layer hands its SSM block, the state taken after 256 earlier tokens. Per-operation FP16 rounds every "
            "product and every sum, and sums over N by a tree."),
        table(["inputs", "y computed in", "mean", "max", "mean / per-op.", "max / per-op.", "max of a block / per-op.",
            "RMS beside rounding of y"], rows, text=(0, 1)),
        plot_y(errors),
        paragraph("Why the ratios on realistic inputs are not lower: there y is mostly D*x, and the rounding of y "
            "to FP16 is nearly the whole error of every arithmetic. The exact y, rounded once, already has "
            f"{floor:.0%} of the mean error of per-operation FP16, so no core with an FP16 output can have less. "
            "What a core can be better at is the rest (last column; independent errors add in squares), and the "
            "scan itself, without the skip that hides it. The maximum over all blocks is one output among many "
            "and moves with the seeds; the next column takes the maximum of each block, of one token, and "
            "averages."),
    ))


def drift_section(drift, decay):
    names = [arithmetic.name for arithmetic in ARITHMETICS]
    rows  = []
    for group in range(len(MEMORIES)):
        torch_error = drift.state[TORCH_FLOAT16.name][:, group].mean()
        for name in names:
            state, y = drift.state[name][:, group], drift.y[name][:, group]
            size     = drift.shrink[name][len(drift.tokens)//2:, group].mean()
            rows.append([group_title(drift, group) if name == names[0] else "", name, number(state.mean()),
                number(state[-1]), number(state.mean()/torch_error), f"{size:+.3%}", number(y.mean())])
    return "".join((
        heading(f"Drift over {drift.tokens[-1]} tokens"),
        paragraph(f"{LAYER.heads} heads of {LAYER.headdim} rows (rows are independent) and {LAYER.d_state} state "
            "columns, from a state of zeros. As Mamba-2 initialises them, heads forget within tens of tokens. Two "
            f"thirds of the heads got a longer memory: their A divided by {MEMORIES[1]} and {MEMORIES[2]}, which "
            "puts dA among the few float16 values next to 1. Errors are means over a group's heads and over all "
            "checkpoints; size is the mean of |state| relative to float64, over the second half."),
        table(["heads", "state computed in", "state error", "at the end", "/ torch.float16", "size", "y error"], rows,
            text=(0, 1)),
        plot_drift(drift, "state", "mean absolute error of the state", names),
        plot_drift(drift, "y", "mean absolute error of y", names),
        heading("Why"),
        paragraph("Heads with a short memory. A state kept in FP16 is rounded at each token, and the errors are "
            "independent. In units of the last place, rounding to nearest has a mean square of 1/12, stochastic "
            "rounding one of 1/6, and torch.float16 rounds dA*h and then the sum: 2/12. So, against "
            "torch.float16, the core's error with nearest even is sqrt(1/2) = 0.71, and with stochastic rounding "
            "1. Nearest even is the least error a step can make, so a quarter is out of reach of any FP16 state "
            f"in these heads. Measured: {drift.ratio(NEAREST, 0):.2f} and {drift.ratio(STOCHASTIC, 0):.2f}."),
        paragraph("Heads with a long memory. With dA = 1 - 2^-11, the float16 next to 1, a token takes half a "
            "unit to one unit in the last place from h. Rounding dA*h alone always makes it a whole one: "
            "torch.float16 forgets up to twice too fast, at every token, and these errors add up. The core rounds "
            "only the sum dA*h + u*B, where u*B acts as a dither, and the errors stay independent. "
            "Where a state has grown so far that u*B is below its last place, nothing dithers any more: then nearest "
            "even fades too, though less, and only stochastic rounding keeps the size."),
        plot_drift(drift, "shrink", "size of the state, relative", names),
        paragraph("Without any input nearest even is no better than torch.float16. Below, 1,024 states that decay by "
            "1 - 2^-11:"),
        plot_decay(decay),
    ))


def accuracy_page(entries, errors, drift, decay):
    return page("Accuracy of the SSM core", "".join((
        paragraph(f"Written by {COMMAND}. Ratio is value/bound (bound/value for the gain): at most 1 is within "
            "the bound."),
        table(["figure", "value", "unit", "bound", "ratio", "configuration"], [entry_row(entry) for entry in entries],
            text=(0, 2, 5)),
        y_section(errors),
        drift_section(drift, decay),
    )))

# Main ---------------------------------------------------------------------------------------------

def bench(output, layer=mamba2_130m_layer, tokens=TOKENS, seeds=SEEDS, drift_tokens=16384, decay_tokens=4096,
        lanes=SSMConfig.lanes):
    """Measure and write accuracy.json and accuracy.html in `output`. Returns the entries."""
    config           = (f"{layer.heads}x{layer.headdim}x{layer.d_state}, seeds {seeds[0]} to {seeds[-1]}, "
        f"{tokens} tokens each, nearest even")
    errors, one_step = measure_y(layer, tokens, seeds)
    drift            = measure_drift(drift_tokens)
    decay            = measure_decay(decay_tokens)
    entries  = y_entries(errors, one_step, config) + drift_entries(drift)
    entries += [gain_entry(realistic_case(layer, 1, seeds[0], with_h0=True), lanes)]
    for other in ("area.json", "exact.json", "recall.json"):
        if (output/other).exists():
            entries += json.loads((output/other).read_text())
    write_results(output, "accuracy", entries, accuracy_page(entries, errors, drift, decay))
    return entries


if __name__ == "__main__":
    sys.exit(run_bench("accuracy", __doc__, bench))
