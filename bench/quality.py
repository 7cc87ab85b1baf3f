#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures what the blocks' arithmetic does to a model over a long text: build/bench/quality.json and quality.html.

The tiny model reads 16,384 bytes of the text that was held out of its training, in one go, its SSM blocks in float32, in
torch.float16, and in the core's bit-accurate model, which the device equals bit for bit. Everything else is float32.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("quality.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import sys

import numpy as np
import torch

from tqdm import tqdm

from bench.accuracy import OUTPUT, entry, entry_row, print_entries
from bench.baselines import NEAREST, STOCHASTIC, TORCH_FLOAT16

from model.checkpoint import TINY, load_checkpoint
from model.decoder import BitExactBlocks, Decoder, TorchBlocks
from model.exact.decoder import CHUNK

from tools.files import save_json, write_atomically
from tools.page import BLUE, GREEN, GREY, ORANGE, figure, heading, page, paragraph, pyplot, table

# Constants ----------------------------------------------------------------------------------------

COMMAND    = "python bench/quality.py"
TOKENS     = 16384
SEED       = 2024 # Of stochastic rounding.
FLOAT32    = "float32"
BLOCKS     = {
    FLOAT32            : lambda config: TorchBlocks(config),
    TORCH_FLOAT16.name : lambda config: TorchBlocks(config, torch.float16),
    NEAREST.name       : lambda config: BitExactBlocks(config),
    STOCHASTIC.name    : lambda config: BitExactBlocks(config, SEED),
}
REFERENCES = (FLOAT32, TORCH_FLOAT16.name) # The first two of BLOCKS.
ROUNDED    = tuple(name for name in BLOCKS if name != FLOAT32)
COLORS     = {FLOAT32: GREY, TORCH_FLOAT16.name: ORANGE, NEAREST.name: BLUE, STOCHASTIC.name: GREEN}
KEYS       = {TORCH_FLOAT16.name: "float16", NEAREST.name: "rne", STOCHASTIC.name: "sr"} # In names of entries.

# Baselines ----------------------------------------------------------------------------------------

def ngram_entropy(text, order):
    """Nats a byte of the best model there can be of this very text that sees `order` - 1 bytes: its own frequencies."""
    grams    = np.lib.stride_tricks.sliding_window_view(np.frombuffer(text, np.uint8), order)
    counts   = np.unique(grams, axis=0, return_counts=True)[1]
    contexts = np.unique(grams[:, :-1], axis=0, return_counts=True)[1] if order > 1 else np.array([len(grams)])
    return float((contexts*np.log(contexts)).sum() - (counts*np.log(counts)).sum())/len(grams)

# Measurement --------------------------------------------------------------------------------------

def measure_quality(network, text, tokens):
    """Read `tokens` bytes of a text in all arithmetics, side by side.

    Returns {arithmetic: {"loss": (tokens,), "kl", "same": {reference: (tokens,)}, "state": (chunks, layers)}}: nats of each
    next byte; for each of REFERENCES the Kullback-Leibler divergence from its predictions, and whether the likeliest byte is
    the same; after each CHUNK bytes the mean absolute error of the state over the mean magnitude of float32's.
    """
    text     = torch.frombuffer(bytearray(text[:tokens + 1]), dtype=torch.uint8).long()
    decoders = {name: Decoder(network, blocks(network.config)) for name, blocks in BLOCKS.items()}
    result   = {name: {"loss": [], "kl": {}, "same": {}, "state": []} for name in BLOCKS}
    layers   = range(network.config.n_layer)
    for first in tqdm(range(0, tokens, CHUNK), desc="bytes", unit="chunk", leave=False, file=sys.stderr, disable=None):
        chunk, following = text[first:first + CHUNK], text[first + 1:first + CHUNK + 1]
        scores, states   = {}, {}
        for name, decoder in decoders.items():
            with torch.no_grad():
                scores[name] = network.logits(decoder.take(chunk)).log_softmax(-1).double()
            states[name] = [decoder.blocks.state(layer).astype(np.float64) for layer in layers]
            columns      = result[name]
            columns["loss"].append(-scores[name].gather(1, following[:, None])[:, 0])
            columns["state"].append([abs(state - wanted).mean()/abs(wanted).mean()
                for state, wanted in zip(states[name], states[FLOAT32])])
            for reference in REFERENCES:
                if reference in scores: # float32 comes before torch.float16.
                    wanted = scores[reference]
                    columns["kl"].setdefault(reference, []).append((wanted.exp()*(wanted - scores[name])).sum(-1))
                    columns["same"].setdefault(reference, []).append((scores[name].argmax(-1) == wanted.argmax(-1)).double())
    joined = lambda parts: {reference: torch.cat(rows).numpy() for reference, rows in parts.items()}
    return {name: {"loss": torch.cat(columns["loss"]).numpy(), "kl": joined(columns["kl"]), "same": joined(columns["same"]),
        "state": np.array(columns["state"])} for name, columns in result.items()}


def agreement_entries(quality, name, reference, key, config):
    config += f"; {name} against {reference}"
    return [
        entry(f"tiny_top1_{key}", 100*quality[name]["same"][reference].mean(), "%",    None, config),
        entry(f"tiny_kl_{key}",   quality[name]["kl"][reference].mean(),       "nats", None, config),
    ]


def quality_entries(quality, text, tokens):
    """Entries as bench/accuracy.py's."""
    config  = f"tiny, {tokens} bytes of held-out text, in one go"
    exact   = quality[FLOAT32]["loss"].mean()
    half    = len(quality[FLOAT32]["state"])//2
    drift   = {name: quality[name]["state"][half:].mean() for name in ROUNDED}
    entries = [
        entry("tiny_loss",         exact,                  "nats/byte", ngram_entropy(text, 3), config + "; best trigrams"),
        entry("tiny_loss_unigram", ngram_entropy(text, 1), "nats/byte", None, "the held-out text's own byte frequencies"),
        entry("tiny_loss_bigram",  ngram_entropy(text, 2), "nats/byte", None, "likewise, of bytes after each byte"),
        entry("tiny_perplexity",   np.exp(exact),          "1/byte",    None, config),
    ]
    for name in ROUNDED:
        loss   = quality[name]["loss"].mean()
        change = 100*abs(np.expm1(loss - exact))
        bound  = 0.5 if name == NEAREST.name else None
        worst  = None if name == TORCH_FLOAT16.name else drift[TORCH_FLOAT16.name]
        entries += [
            entry(f"tiny_perplexity_{KEYS[name]}", np.exp(loss), "1/byte", None, config + f"; {name}"),
            entry(f"tiny_perplexity_{KEYS[name]}_change", change, "%", bound, config + f"; {name} against float32"),
            *agreement_entries(quality, name, FLOAT32, KEYS[name], config),
            entry(f"tiny_drift_{KEYS[name]}", drift[name], "1", worst,
                config + f"; {name}, relative error of the state, second half; bound: torch.float16's"),
        ]
    entries += agreement_entries(quality, NEAREST.name, TORCH_FLOAT16.name, "rne_to_float16", config)
    return [row | {"command": COMMAND} for row in entries]

# Page ---------------------------------------------------------------------------------------------

def plot_state(quality):
    layers = quality[FLOAT32]["state"].shape[1]
    plot, axes = pyplot.subplots(1, layers, figsize=(11, 3.2), sharey=True)
    for layer, axis in enumerate(np.atleast_1d(axes)):
        for name in ROUNDED:
            rows = quality[name]["state"][:, layer]
            axis.plot(CHUNK*np.arange(1, len(rows) + 1), rows, color=COLORS[name], label=name, lw=1)
        axis.set(title=f"layer {layer}", xlabel="bytes", yscale="log")
    np.atleast_1d(axes)[0].set_ylabel("relative error of the state")
    np.atleast_1d(axes)[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure(plot)


def plot_loss(quality, tokens):
    width      = max(tokens//32, 1)
    plot, axis = pyplot.subplots(figsize=(8, 3))
    for name in BLOCKS:
        means = quality[name]["loss"][:tokens//width*width].reshape(-1, width).mean(axis=1)
        axis.plot(width*np.arange(1, len(means) + 1), means, color=COLORS[name], label=name, lw=3 if name == FLOAT32 else 1)
    axis.set(xlabel="bytes", ylabel="nats a byte")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure(plot)


def quality_page(entries, quality, tokens):
    return page("Quality over a long text", "".join((
        paragraph(f"The tiny model reads {tokens} bytes that it has not been trained on, its SSM blocks in different "
            f"arithmetics. Made by {COMMAND}."),
        table(["figure", "value", "unit", "bound", "ratio", "configuration"], map(entry_row, entries), text=(0, 2, 5)),
        heading("Loss along the text"),
        plot_loss(quality, tokens),
        heading("Drift of the state"),
        paragraph(f"Mean absolute difference from float32 over float32's mean magnitude, each {CHUNK} bytes."),
        plot_state(quality),
    )))

# Main ---------------------------------------------------------------------------------------------

def bench(output, tokens=TOKENS):
    """Measure, and write both files. Returns the entries."""
    text    = (TINY/"heldout.txt").read_bytes()
    quality = measure_quality(load_checkpoint("tiny"), text, tokens)
    entries = quality_entries(quality, text, tokens)
    output.mkdir(parents=True, exist_ok=True)
    html = quality_page(entries, quality, tokens).encode()
    save_json(output/"quality.json", entries)
    write_atomically(output/"quality.html", lambda file: file.write(html))
    return entries


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, choices=[2**n for n in range(7, 15)], default=TOKENS,
        help="Bytes to read, a power of two (default: %(default)s).")
    args = parser.parse_args()
    torch.set_num_threads(1)
    entries = bench(OUTPUT, args.tokens)
    print_entries(entries)
    print(f"{OUTPUT/'quality.json'}, {OUTPUT/'quality.html'}")


if __name__ == "__main__":
    sys.exit(main())
