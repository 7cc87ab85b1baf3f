#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures the arithmetic of the whole model: build/bench/exact.json and exact.html.

The exact model, which the device is to equal bit for bit, against PyTorch on the same dequantised weights: the perplexity of the
tiny model on 16,384 bytes that were held out of its training, and the logits of a random model of the size of Mamba-2 130M. And
the functions of a binary16 value, against mpmath.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("exact.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("matplotlib", "mpmath", "torch")

import sys

import mpmath
import numpy as np
import torch

from tqdm import tqdm

from bench.accuracy import entry, entry_row, run_bench, write_results

from model.checkpoint import TINY, load_checkpoint, to_network
from model.config import NetworkConfig
from model.exact import functions
from model.exact.network import ExactNetwork
from model.network import Mamba2Network
from model.quantized import from_network, quantize_model

from operations.numerics import MANTISSA_BITS

from tools.page import BLUE, figure, heading, page, paragraph, pyplot, table

# Constants ----------------------------------------------------------------------------------------

TOKENS   = 16384
CHUNK    = 64
WEIGHTS  = { # Name: types of the layers and of the head.
    "Q8_0"                 : ("q8_0", "q8_0"),
    "Q4_0"                 : ("q4_0", "q4_0"),
    "Q4_0, head in Q8_0"   : ("q4_0", "q8_0"),
}
KEYS     = {"Q8_0": "exact_q8_ppl", "Q4_0": "exact_q4_ppl"}
RANDOM   = NetworkConfig(vocab_size=50288, n_layer=24) # The sizes of Mamba-2 130M.
SEED     = 2024
FORMULAS = {
    "exp"      : mpmath.exp,
    "softplus" : lambda x: mpmath.log1p(mpmath.exp(x)),
    "silu"     : lambda x: x/(1 + mpmath.exp(-x)),
}

# Perplexity ---------------------------------------------------------------------------------------

def loss_of(run, text, name):
    """Nats a byte of a text. run: (tokens, states, first) to (logits, states)."""
    states, losses = None, []
    for first in tqdm(range(0, len(text) - 1, CHUNK), desc=name, unit="chunk", leave=False, file=sys.stderr, disable=None):
        chunk          = text[first:first + CHUNK + 1]
        logits, states = run(chunk[:-1], states, first)
        scores         = torch.log_softmax(torch.as_tensor(logits).double(), -1)
        losses.append(-scores.gather(1, torch.as_tensor(chunk[1:])[:, None])[:, 0])
    return torch.cat(losses).mean().item()


def measure_perplexity(network, text):
    """[(weights, loss in float32, loss by the exact model or None)]."""
    torch_run = lambda network: lambda tokens, states, first: network.prefill(tokens, states)
    rows      = [("float32", loss_of(torch_run(network), text, "float32"), None)]
    for name, types in WEIGHTS.items():
        model = quantize_model(from_network(network), *types)
        exact = ExactNetwork(model)
        rows.append((name, loss_of(torch_run(to_network(model)), text, f"{name}, float32"),
            loss_of(lambda tokens, states, first: exact(tokens, states, first), text, f"{name}, exact")))
    return rows


def perplexity_entries(rows, tokens):
    config  = f"tiny, {tokens} bytes of held-out text"
    entries = []
    for name, single, exact in rows:
        if name in KEYS:
            entries.append(entry(KEYS[name], 100*abs(np.expm1(exact - single)), "%", 0.05,
                f"{config}; change of the perplexity, {name}, against float32 on the same weights"))
    return entries

# Logits -------------------------------------------------------------------------------------------

def random_network(config, seed=SEED):
    """A network of random weights."""
    torch.manual_seed(seed)
    return Mamba2Network(config).requires_grad_(False).eval()


def measure_logits(config, count):
    """{weights: (relative RMS error of the logits, share of tokens whose likeliest is the same)} against float64."""
    network = random_network(config)
    tokens  = np.random.default_rng(SEED).integers(0, config.vocab_size, count)
    result  = {}
    for name in KEYS:
        model  = quantize_model(from_network(network), *WEIGHTS[name])
        got    = ExactNetwork(model)(tokens)[0]
        wanted = to_network(model).double().prefill(tokens)[0].numpy()
        result[name] = (np.sqrt(np.square(got - wanted).mean()/np.square(wanted).mean()),
            (got.argmax(-1) == wanted.argmax(-1)).mean())
    return result


def logit_entries(errors, config, count):
    text  = f"random, {config.n_layer} layers of {config.layer.d_model}, {count} tokens, m = {MANTISSA_BITS}, against float64; "
    worst = max(errors, key=lambda name: errors[name][0])
    least = min(errors, key=lambda name: errors[name][1])
    return [
        entry("exact_logit_error", errors[worst][0], "1", 0.006, text + f"relative RMS error, {worst}, the worse"),
        entry("exact_logit_differs", 100*(1 - errors[least][1]), "%", 2, text + f"another likeliest token, {least}"),
    ]

# Functions ----------------------------------------------------------------------------------------

def measure_function(name):
    """(inputs, errors in units of the last place, how many are not the nearest) over all finite binary16 values, sorted."""
    bits   = np.array([bits for bits in range(65536) if bits & 0x7c00 != 0x7c00], np.uint16)
    inputs = bits.view(np.float16).astype(np.float64)
    table_ = functions.table(name)[bits].astype(np.float64)
    errors = np.zeros(len(bits))
    with mpmath.workprec(100):
        for n, x in enumerate(inputs.tolist()):
            if not np.isfinite(table_[n]):
                continue # Beyond binary16: the tests hold where that begins.
            ulp       = 2.0**max(int(np.frexp(table_[n])[1]) - 11, -24)
            errors[n] = float((mpmath.mpf(table_[n]) - FORMULAS[name](mpmath.mpf(x)))/ulp)
    order = np.argsort(inputs, kind="stable")
    return inputs[order], errors[order], int((abs(errors) > 0.5).sum())


def function_entries(measured):
    config = "all finite binary16 inputs of " + ", ".join(measured)
    return [
        entry("function_max_ulp", max(abs(errors).max() for _, errors, _ in measured.values()), "ulp", 0.501, config),
        entry("function_not_correctly_rounded", sum(wrong for _, _, wrong in measured.values()), "inputs", None, config),
    ]


def plot_functions(measured):
    plot, axes = pyplot.subplots(len(measured), 1, figsize=(9, 2.3*len(measured)), sharey=True)
    axes = np.atleast_1d(axes)
    for axis, (name, (inputs, errors, _)) in zip(axes, measured.items()):
        near = abs(inputs) < 20
        axis.plot(inputs[near], errors[near], ",", color=BLUE, alpha=0.5, rasterized=True) # As vectors: megabytes.
        axis.axhline(0.5, color="0.7", lw=0.8)
        axis.axhline(-0.5, color="0.7", lw=0.8)
        axis.set(title=name, ylim=(-0.6, 0.6), ylabel="error, ulp")
    axes[-1].set_xlabel("input")
    plot.tight_layout()
    return figure(plot)

# Page ---------------------------------------------------------------------------------------------

def exact_page(entries, rows, measured, tokens):
    losses = [[name, arithmetic, f"{loss:.5f}", f"{np.exp(loss):.4f}", f"{100*np.expm1(loss - rows[0][1]):+.3f} %"]
        for name, single, exact in rows for arithmetic, loss in (("float32", single), ("exact", exact)) if loss is not None]
    return page("Accuracy of the whole model", "".join((
        paragraph("The exact model is what the device is to compute, bit for bit. Made by python bench/exact.py."),
        table(["figure", "value", "unit", "bound", "ratio", "configuration"], map(entry_row, entries), text=(0, 2, 5)),
        heading("Weights and arithmetic"),
        paragraph(f"The tiny model on {tokens} bytes it was not trained on. The change is that of the perplexity, against float32 "
            "weights in float32."),
        table(["weights", "arithmetic", "nats a byte", "perplexity", "change"], losses, text=(0, 1)),
        heading("Functions"),
        paragraph("Error of each result, in units of its last place; between the lines it is the nearest there is."),
        plot_functions(measured),
    )))

# Main ---------------------------------------------------------------------------------------------

def bench(output, tokens=TOKENS, config=RANDOM, count=32):
    """Measure, and write both files. Returns the entries."""
    text     = np.frombuffer((TINY/"heldout.txt").read_bytes()[:tokens + 1], np.uint8).astype(np.int64)
    rows     = measure_perplexity(load_checkpoint("tiny"), text)
    measured = {name: measure_function(name) for name in FORMULAS}
    entries  = [*perplexity_entries(rows, tokens), *logit_entries(measure_logits(config, count), config, count),
        *function_entries(measured)]
    write_results(output, "exact", entries, exact_page(entries, rows, measured, tokens))
    return entries


if __name__ == "__main__":
    sys.exit(run_bench("exact", __doc__, bench))
