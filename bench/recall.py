#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures what the format of the state costs a model that recalls from far back: build/bench/recall.json and recall.html.

The model of model/recall/, with weights in Q8_0, is told values of keys and asked for them up to 16,384 tokens later. All but
the state is the exact model's arithmetic, which the device is to equal bit for bit. The state is binary16, rounded to nearest or
stochastically, or binary32, where each operation of the update and of the sum over n is rounded to binary32, and y to binary16.
Beside these three, dA is exp(dt*A) in binary32, with a state in binary32; and all of the model is in float32.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("recall.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("matplotlib", "torch")

import sys

from dataclasses import dataclass

import numpy as np

from tqdm import tqdm

from bench.accuracy import entry, entry_row, run_bench, write_results
from bench.baselines import FLOAT32_STATE, NEAREST, STOCHASTIC, Run, stochastic

from model.checkpoint import to_network
from model.exact.network import ExactNetwork
from model.quantized import quantize_checkpoint
from model.train_recall import PAIRS, RECALL, draw

from operations.config import SEED_STRIDE

from tools.page import BLACK, BLUE, GREEN, GREY, ORANGE, figure, heading, page, paragraph, pyplot, table

# Constants ----------------------------------------------------------------------------------------

COMMAND   = "python bench/recall.py"
DISTANCES = (64, 256, 1024, 4096, 16384) # Tokens between the last pair that is told and the questions.
SEQUENCES = 24
SEEDS     = (0, 2**20, 2**21) # Of stochastic rounding, far apart: a token takes the seed and its place.
SEED      = 2027 # Of the sequences.
TOGETHER  = 4    # Sequences that are run at once: their states stay in the processor's cache.
CHUNK     = 1024 # Tokens that go through the layer's projections at once.
SINGLE    = FLOAT32_STATE.name
FINE      = "FP32 state and dA"
FLOAT32   = "float32" # All of the model, in PyTorch.
STATES    = (SINGLE, NEAREST.name, STOCHASTIC.name, FINE)
TITLES    = {SINGLE: "binary32", NEAREST.name: "binary16, to nearest", STOCHASTIC.name: "binary16, stochastically",
    FINE: "binary32, and dA", FLOAT32: "all in float32"}
KEYS      = {SINGLE: "fp32", NEAREST.name: "rne", STOCHASTIC.name: "sr", FINE: "fp32_dA", FLOAT32: "float32"} # In names of entries.
COLORS    = {SINGLE: BLACK, NEAREST.name: BLUE, STOCHASTIC.name: GREEN, FINE: ORANGE, FLOAT32: GREY}
CHANGES   = { # Against a state in binary32: unit, and what it is.
    "accuracy" : ("points", "change of the share of right answers"),
    "other"    : ("%",      "answers that become right or wrong"),
    "margin"   : ("logits", "change of the margin of the right answer"),
    "size"     : ("%",      "change of the state's size"),
    "error"    : ("%",      "difference of the state, relative"),
}

# Texts --------------------------------------------------------------------------------------------

def side_by_side(cases):
    """Cases of several sequences as one of as many times the heads and groups."""
    return {name: np.concatenate([case[name] for case in cases], 0 if name == "D" else 1) for name in cases[0]}


class Texts:
    """Sequences under way on an exact model of one layer, its SSM block left out.

    What the block takes does not depend on its state then, and the y of a token that asks nothing is not needed.

    Parameters
    ----------
    network : :class:`model.exact.network.ExactNetwork`.
    count   : S, sequences.

    Raises
    ------
    ValueError : the model has several layers.
    """
    def __init__(self, network, count):
        if network.config.n_layer != 1:
            raise ValueError(f"n_layer must be 1, is {network.config.n_layer}.")
        self.network = network
        self.layer,  = network.layers
        self.windows = [self.layer.initial_state().window]*count

    def take(self, tokens):
        """What the block takes of the next tokens (S, T): a case, see :mod:`model.case`, x (T, S*H, P) and so on."""
        parts = []
        for first in range(0, tokens.shape[1], CHUNK):
            projected    = self._project(tokens[:, first:first + CHUNK])
            self.windows = [window for _, _, window in projected]
            parts.append(side_by_side([inputs for _, inputs, _ in projected]))
        return {name: parts[0][name] if name == "D" else np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def ask(self, tokens):
        """One token for each sequence, (S,), which is not taken. Returns its case, and a function from y to the logits.

        That one: y float16 (S*H, P) to float32 (S, vocabulary).
        """
        projected = self._project(tokens[:, None])
        residual  = self.network.embed(tokens)
        z         = np.concatenate([z for z, _, _ in projected])

        def logits(y):
            return self.network.logits(self.layer.output(residual, y.reshape(len(tokens), -1, y.shape[-1]), z))

        return side_by_side([inputs for _, inputs, _ in projected]), logits

    def _project(self, tokens):
        return [self.layer.project(self.network.embed(row), window) for row, window in zip(tokens, self.windows)]

# Measurement --------------------------------------------------------------------------------------

@dataclass
class Recall:
    """Of an arithmetic of the state. `right` and `margin` are of each question; the others of each sequence's whole state.

    right  : bool  (runs, S, distances, pairs): whether the likeliest token is the value that was told.
    margin : float (runs, S, distances, pairs): its logit less the best other one's.
    size   : float (runs, S, distances): RMS of the state, over that of binary32, less 1.
    error  : float (runs, S, distances): RMS of its difference from binary32, over the RMS of binary32.
    """
    right  : np.ndarray
    margin : np.ndarray
    size   : np.ndarray
    error  : np.ndarray

    def accuracy(self):
        """Share of right answers: (S, distances)."""
        return self.right.mean((0, 3))


def judge(logits, values):
    """(right, margin) of logits (S, vocabulary) where the values (S,) were told."""
    rows  = np.arange(len(values))
    told  = logits[rows, values]
    other = logits.copy()
    other[rows, values] = -np.inf
    return logits.argmax(-1) == values, told - other.max(-1)


def rms(values):
    """Over all but the first axis."""
    return np.sqrt(np.square(values.astype(np.float64)).mean(tuple(range(1, values.ndim))))


def seeds_of(name, seeds):
    """Those that an arithmetic is run with."""
    return seeds if name == STOCHASTIC.name else (None,)


def measure_group(network, keys, values, tokens, distances, seeds, first, advance):
    """:func:`measure_recall` for sequences at once, the first of them number `first`: {arithmetic: {field: [runs of ...]}}."""
    count  = len(tokens)
    told   = tokens.shape[1] - distances[-1]
    texts  = Texts(network, count)
    heads  = network.config.layer.heads
    A      = np.tile(texts.layer.A.astype(np.float64), count)
    states = {(name, seed): None for name in STATES for seed in seeds_of(name, seeds)}
    result = {run: {field: [] for field in ("right", "margin", "size", "error")} for run in states}

    def run(name, seed, case, place):
        """The next tokens of a run, from the one at `place` on; its state is as it was."""
        state = states[name, seed]
        case  = case if state is None else case | {"h0": state}
        if name == FINE:
            case = case | {"dA": np.exp(case["dt"]*A).astype(np.float32)}
        if name == STOCHASTIC.name:
            return Run(stochastic(seed + first*heads*SEED_STRIDE + place), case) # The sequences' heads count on.
        return Run(NEAREST if name == NEAREST.name else FLOAT32_STATE, case)

    place = 0
    for distance in distances:
        case = texts.take(tokens[:, place:told + distance])
        for name, seed in states:
            following = run(name, seed, case, place)
            for _ in range(len(case["x"])):
                following.step()
                advance()
            states[name, seed] = following.h
        place     = told + distance
        questions = [texts.ask(column) for column in keys.T]
        wanted    = states[SINGLE, None].reshape(count, -1).astype(np.float64)
        for (name, seed), fields in result.items():
            answers = []
            for (case, logits), column in zip(questions, values.T):
                question = run(name, seed, case, place)
                question.step()
                answers.append(judge(logits(question.y()), column))
            state = states[name, seed].reshape(count, -1).astype(np.float64)
            fields["right"].append(np.stack([right for right, _ in answers], -1))
            fields["margin"].append(np.stack([margin for _, margin in answers], -1))
            fields["size"].append(rms(state)/rms(wanted) - 1)
            fields["error"].append(rms(state - wanted)/rms(wanted))
    return {run: {field: np.stack(rows, 1) for field, rows in fields.items()} for run, fields in result.items()}


def measure_float32(network, keys, values, tokens, distances):
    """Likewise of a network of PyTorch, all of it in float32: (right, margin), each (S, distances, pairs)."""
    told, answers = tokens.shape[1] - distances[-1], []
    for row, asked, wanted in zip(tokens, keys, values):
        states, place = None, 0
        for distance in distances:
            _, states = network.prefill(row[place:told + distance], states)
            place     = told + distance
            answers.append(judge(np.stack([network.step(int(key), states)[0].numpy() for key in asked]), wanted))
    shape = (len(tokens), len(distances), -1)
    return tuple(np.concatenate(parts).reshape(shape) for parts in zip(*answers))


def measure_recall(model, sequences=SEQUENCES, pairs=PAIRS, distances=DISTANCES, seeds=SEEDS, together=TOGETHER):
    """{arithmetic: :class:`Recall`}. model: :class:`model.quantized.QuantizedModel`."""
    network, whole       = ExactNetwork(model), to_network(model)
    keys, values, tokens = draw(np.random.default_rng(SEED), sequences, pairs, distances[-1])[:3]
    firsts = range(0, sequences, together)
    groups = []
    bar    = tqdm(total=len(firsts)*tokens.shape[1]*(len(STATES) - 1 + len(seeds)), desc="tokens", unit="token", unit_scale=True,
        leave=False, file=sys.stderr, disable=None)
    with bar:
        for first in firsts:
            group = slice(first, first + together)
            groups.append(measure_group(network, keys[group], values[group], tokens[group], distances, seeds, first, bar.update))
    result = {}
    for name in STATES:
        runs         = [(name, seed) for seed in seeds_of(name, seeds)]
        result[name] = Recall(**{field: np.stack([np.concatenate([group[run][field] for group in groups]) for run in runs])
            for field in ("right", "margin", "size", "error")})
    right, margin   = measure_float32(whole, keys, values, tokens, distances)
    nothing         = np.full((1, *right.shape[:2]), np.nan)
    result[FLOAT32] = Recall(right[None], margin[None], nothing, nothing)
    return result

# Figures ------------------------------------------------------------------------------------------

def mean_and_error(values):
    """Mean over sequences, and its standard error. values: (S, ...)."""
    return values.mean(0), values.std(0, ddof=1)/np.sqrt(len(values))


def change(result, name, kind):
    """Against a state in binary32, on the same questions: (distances,), and standard errors.

    kind: "accuracy", in points; "margin"; "size" and "error" of the state, in percent; or "other", the percent of answers that
    are right where binary32's are wrong, or the other way round.
    """
    recall, single = result[name], result[SINGLE]
    return mean_and_error({
        "accuracy" : lambda: 100*(recall.accuracy() - single.accuracy()),
        "margin"   : lambda: recall.margin.mean((0, 3)) - single.margin.mean((0, 3)),
        "size"     : lambda: 100*recall.size.mean(0),
        "error"    : lambda: 100*recall.error.mean(0),
        "other"    : lambda: 100*(recall.right != single.right).mean((0, 3)),
    }[kind]())


def recall_entries(result, distances):
    """Entries as bench/accuracy.py's."""
    runs, count, _, pairs = result[STOCHASTIC.name].right.shape
    config  = f"recall, {count} sequences of {pairs} questions"
    entries = []
    for name, recall in result.items():
        seeds        = f", {runs} seeds" if name == STOCHASTIC.name else ""
        means, error = mean_and_error(100*recall.accuracy())
        for distance, value, deviation in zip(distances, means, error):
            entries.append(entry(f"recall_{KEYS[name]}_{distance}", value, "%", None,
                f"{config}{seeds}, {distance} tokens back; right answers, {TITLES[name]}; standard error {deviation:.2f}"))
    for name in STATES[1:]:
        for kind, (unit, meaning) in CHANGES.items():
            means, error = change(result, name, kind)
            entries.append(entry(f"recall_{KEYS[name]}_{kind}", means[-1], unit, None,
                f"{config}, {distances[-1]} tokens back; {meaning}, {TITLES[name]} against binary32; standard error "
                f"{error[-1]:.2g}"))
    return [row | {"command": COMMAND} for row in entries]

# Page ---------------------------------------------------------------------------------------------

def answer(result, distances):
    """What a user is to build, by what was measured: paragraphs."""
    far = f"{distances[-1]:,}"

    def worse(name):
        """Over which distances there are fewer right answers than with a state in binary32, by two standard errors."""
        return ", ".join(f"{distance:,}" for distance, value, error in zip(distances, *change(result, name, "accuracy"))
            if value < -2*error)

    near, stochastically = (worse(name) for name in (NEAREST.name, STOCHASTIC.name))
    if not near and not stochastically:
        build = ("Rounding to nearest, the smaller build, is enough for a model like this one: over no distance does either format "
            "of the state have fewer right answers than binary32 by two standard errors. Stochastic rounding buys a state, and "
            "answers, that are nearer to binary32's: build it where long texts are to agree with another implementation.")
    elif not stochastically:
        build = ("Stochastic rounding, for texts as long as these: rounding to nearest has fewer right answers than binary32 over "
            f"{near} tokens, and stochastic rounding has not. For shorter texts rounding to nearest, the smaller build, is enough.")
    else:
        build = ("Against binary32 there are fewer right answers with stochastic rounding over "
            f"{stochastically} tokens, with rounding to nearest over {near or 'none'} of these distances.")
    ends    = {name: [values[-1] for values in change(result, name, "margin")] for name in (NEAREST.name, STOCHASTIC.name)}
    margins = [f"{-value:.2f} ({TITLES[name]})" for name, (value, error) in ends.items() if value < -2*error]
    if margins:
        build += (f" The margin of the right answer, {result[SINGLE].margin[:, :, -1].mean():.2f} with binary32, does shrink over {far} "
            f"tokens, by {' and '.join(margins)}.")
    build += (f" Over {far} tokens a loss of less than {2*change(result, NEAREST.name, 'accuracy')[1][-1]:.1f} points by rounding to "
        "nearest could not be seen.")
    return (
        build,
        "The format of dA, which is binary16 in every build, moves the state farther than the state's own does. Here dA is so near "
            "to 1 that binary16 has little but 1 and 1 - 2^-11 for it, so the state fades faster or slower than in training.",
        "This is one model and one task, in which an answer depends on one thing that was told long before. What adds up thousands "
            "of small things in its state was not measured.",
    )


def change_table(result):
    """Of the farthest distance."""
    rows = []
    for name in STATES[1:]:
        ends = [[values[-1] for values in change(result, name, kind)] for kind in CHANGES]
        rows.append([TITLES[name], *(f"{value:.2f} ± {error:.2f}" for value, error in ends)])
    return table(["state in", *(f"{meaning}, {unit}" for unit, meaning in CHANGES.values())], rows)


def accuracy_table(result, distances):
    rows = []
    for name, recall in result.items():
        means, error = mean_and_error(100*recall.accuracy())
        rows.append([TITLES[name], *(f"{value:.1f} ± {deviation:.1f}" for value, deviation in zip(means, error))])
    return table(["right answers, %, of a state in", *(f"{distance:,} tokens back" for distance in distances)], rows)


def plot_over_distance(axis, distances, result, names, values, label):
    """Lines of means with bars of a standard error. values: of a :class:`Recall`, (S, distances)."""
    for number, name in enumerate(names):
        means, error = mean_and_error(values(result[name]))
        apart        = np.array(distances)*1.06**(number - (len(names) - 1)/2) # So that bars can be told apart.
        axis.errorbar(apart, means, error, color=COLORS[name], label=TITLES[name], lw=1.3, capsize=2, marker="o", ms=3)
    axis.set_xscale("log", base=2)
    axis.set_xticks(distances, [f"{distance:,}" for distance in distances])
    axis.minorticks_off()
    axis.set(xlabel="tokens back", ylabel=label)


def plot_recall(result, distances):
    plot, axes = pyplot.subplots(1, 2, figsize=(11, 3.4))
    plot_over_distance(axes[0], distances, result, result, lambda recall: 100*recall.accuracy(), "right answers, %")
    plot_over_distance(axes[1], distances, result, result, lambda recall: recall.margin.mean((0, 3)), "margin of the right answer")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title="state in")
    plot.tight_layout()
    return figure(plot)


def plot_state(result, distances):
    plot, axes = pyplot.subplots(1, 2, figsize=(11, 3.2))
    names      = STATES[1:]
    plot_over_distance(axes[0], distances, result, names, lambda recall: 100*recall.size.mean(0), "change of the size, %")
    plot_over_distance(axes[1], distances, result, names, lambda recall: 100*recall.error.mean(0), "difference, relative, %")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title="state in")
    plot.tight_layout()
    return figure(plot)


def recall_page(entries, result, distances):
    return page("Recall over thousands of tokens", "".join((
        paragraph(" ".join(__doc__.split("\n\n")[1].split()) + f" Made by {COMMAND}."),
        heading("Which build"),
        *map(paragraph, answer(result, distances)),
        heading("Right answers over the distance"),
        accuracy_table(result, distances),
        paragraph("± is a standard error, of the means of sequences."),
        plot_recall(result, distances),
        heading(f"Against a state in binary32, {distances[-1]:,} tokens back"),
        change_table(result),
        plot_state(result, distances),
        heading("Figures"),
        table(["figure", "value", "unit", "bound", "ratio", "configuration"], map(entry_row, entries), text=(0, 2, 5)),
    )))

# Main ---------------------------------------------------------------------------------------------

def bench(output, model=RECALL, **options):
    """Measure, and write both files. Options as :func:`measure_recall`. Returns the entries."""
    distances = options.get("distances", DISTANCES)
    result    = measure_recall(quantize_checkpoint(model, "q8_0"), **options)
    entries   = recall_entries(result, distances)
    write_results(output, "recall", entries, recall_page(entries, result, distances))
    return entries


if __name__ == "__main__":
    sys.exit(run_bench("recall", __doc__, bench))
