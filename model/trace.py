#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Shows the inside of a model's SSM blocks: operations, bytes, and what of dt, dA, B, C, x, state and y fits FP16.

Runs a text through the model in float32; prints tables and writes trace.html and trace.json. With --cases, also the blocks'
inputs of each layer: LAYER.npz for host/stream.py run (all tokens), and LAYER_*.hex for bench/hex.py play (the last token).
"""

from tools import environment # First: the packages are there.

environment.check("torch")

import argparse
import os
import sys

import numpy as np
import torch

from matplotlib import colors

from model.case import save_case
from model.checkpoint import load_checkpoint
from model.checkpoint_config import checkpoint_path
from model.decoder import Decoder, round_inputs
from model.hex_files import make_directory, write_token
from model.ranges import EXPONENTS, TENSORS, TracingBlocks, shapes, stages
from model.tokenizer import load_tokenizer

from tools.arguments import Parser, token_list, utf8
from tools.command import run_command
from tools.errors import CommandError
from tools.files import check_writable, save_json, write_atomically
from tools.page import RED, figure, heading, page, paragraph, pyplot, table
from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

OUTPUT  = str(BUILD/"trace")
PROMPT  = "In the beginning was the Word, and the Word was with God, and the Word was God."
LIMITS  = (-24, -14, 16) # FP16: exponents of the least subnormal, of the least normal number, and of what overflows.

# Tables -------------------------------------------------------------------------------------------

def size(shape):
    return " x ".join(map(str, shape))


def operation_rows(layer):
    """Header and rows of the operations of a layer's block, for one token."""
    rows = [[stage.name, stage.formula, size(stage.shape), *(f"{count:,}" for count in (stage.multiplies, stage.adds,
        stage.accumulations))] for stage in stages(layer)]
    total = [sum(getattr(stage, name) for stage in stages(layer)) for name in ("multiplies", "adds", "accumulations")]
    rows.append(["block", "", "", *(f"{count:,}" for count in total)])
    return ["stage", "", "shape", "multiplies", "adds", "accumulations"], rows


def byte_rows(layer):
    """Header and rows of what a layer's block reads and writes, for one token."""
    rows = [[name, size(shape), f"{count:,}", "read, written" if name == "state" else "written" if name == "y" else "read"]
        for name, (shape, count) in shapes(layer).items()]
    total = sum(count*(1 + (name == "state")) for name, (_, count) in shapes(layer).items())
    return ["tensor", "shape", "bytes", ""], [*rows, ["block", "", f"{total:,}", ""]]


def range_rows(ranges):
    """Header and rows of the ranges. ranges: of each layer."""
    rows = []
    for layer, by_name in enumerate(ranges):
        for name, values in by_name.items():
            share = values.subnormals/max(values.count - values.zeros, 1)
            rows.append([str(layer), name, f"{values.smallest:.3g}", f"{values.largest:.3g}", f"{share:.2%}",
                values.verdict])
    return ["layer", "tensor", "least", "largest", "subnormal in FP16", "in FP16"], rows


def text_table(header, rows):
    """A table in plain text, the first two columns to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    line   = lambda row: "  ".join(cell.ljust(width) if n < 2 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(row, widths))).rstrip()
    return "\n".join(map(line, (header, *rows)))

# Page ---------------------------------------------------------------------------------------------

def plot_histograms(ranges):
    """For each tensor, the share of the values with an exponent, by layer; what FP16 holds lies between the red lines."""
    counts = {name: np.array([by_name[name].histogram for by_name in ranges], float) for name in TENSORS}
    used   = np.flatnonzero(sum(array.sum(0) for array in counts.values()))
    first, last = min(used[0], LIMITS[0] - EXPONENTS[0] - 1), max(used[-1], LIMITS[-1] - EXPONENTS[0] + 1)
    edges  = np.arange(EXPONENTS[first], EXPONENTS[last] + 2)
    plot, axes = pyplot.subplots(len(TENSORS), 1, figsize=(9, 1.1*len(TENSORS) + 0.12*len(ranges)), sharex=True)
    for axis, (name, array) in zip(axes, counts.items()):
        share = array[:, first:last + 1]/np.maximum(array.sum(1, keepdims=True), 1)
        mesh  = axis.pcolormesh(edges, np.arange(len(ranges) + 1), np.ma.masked_equal(share, 0), cmap="viridis_r",
            norm=colors.LogNorm(1e-6, 1))
        for limit in LIMITS:
            axis.axvline(limit, color=RED, lw=1, ls="--" if limit == LIMITS[1] else "-")
        axis.set(ylabel=name, yticks=[0, len(ranges)])
        axis.invert_yaxis()
    axes[-1].set_xlabel("exponent to base 2")
    plot.colorbar(mesh, ax=axes, label="share of a layer's values", aspect=40)
    return figure(plot)


def trace_page(model, tokens, network, ranges):
    config, layer = network.config, network.config.layer
    return page(f"Inside the SSM blocks: {model}", "".join((
        paragraph(f"{config.n_layer} layers of {layer.heads} heads x {layer.headdim} x {layer.d_state}, {layer.ngroups} "
            f"groups; {tokens} tokens, in float32."),
        heading("Operations of a block"),
        paragraph("Of one layer and one token; all layers have the same."),
        table(*operation_rows(layer), text=(0, 1)),
        heading("Bytes of a block"),
        paragraph("Of one layer and one token, in FP16."),
        table(*byte_rows(layer), text=(0, 1, 3)),
        heading("Exponents"),
        paragraph("Layers from top to bottom. Between the solid lines FP16 holds a value, to the right of the dashed one "
            "with all its digits."),
        plot_histograms(ranges),
        heading("Ranges"),
        paragraph("Magnitudes other than 0."),
        table(*range_rows(ranges), text=(0, 1, 5)),
    )))

# Cases --------------------------------------------------------------------------------------------

def write_cases(blocks, directory):
    """Each layer's inputs as LAYER.npz, and those of the last token as .hex files."""
    for layer in range(len(blocks.ranges)):
        path = os.path.join(directory, f"{layer}.npz")
        case = round_inputs(layer, blocks.inputs(layer))
        save_case(path, case)
        write_token(directory, layer, case, len(case["x"]) - 1)

# Main ---------------------------------------------------------------------------------------------

def trace(args):
    for folder in (args.output, args.cases):
        if folder is not None:
            make_directory(folder)
            check_writable(os.path.join(folder, "trace.json")) # As good as any.
    directory = checkpoint_path(args.model)
    network   = load_checkpoint(directory)
    tokens    = args.tokens or load_tokenizer(directory, network.config.vocab_size, args.tokenizer).encode(args.prompt)
    blocks    = TracingBlocks(network.config)
    Decoder(network, blocks).prefill(tokens)

    layer = network.config.layer
    print(f"{args.model}: {network.config.n_layer} layers, {len(tokens)} tokens\n")
    for header, rows in (operation_rows(layer), byte_rows(layer), range_rows(blocks.ranges)):
        print(text_table(header, rows) + "\n")

    save_json(os.path.join(args.output, "trace.json"), {"model": args.model, "tokens": len(tokens),
        "stages": [vars(stage) for stage in stages(layer)], "shapes": shapes(layer),
        "ranges": [{name: values.summary() for name, values in by_name.items()} for by_name in blocks.ranges]})
    html = trace_page(args.model, len(tokens), network, blocks.ranges).encode()
    write_atomically(os.path.join(args.output, "trace.html"), lambda file: file.write(html))
    print(f"{args.output}: trace.html, trace.json")
    if args.cases is not None:
        write_cases(blocks, args.cases)


def parse_arguments(arguments):
    parser = Parser(prog="python -m model.trace", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model",  default="tiny", metavar="MODEL",
        help="Folder of a checkpoint, a GGUF file, or tiny (default: %(default)s).")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--prompt", type=utf8, default=PROMPT, metavar="TEXT", help="The text (default: %(default)s).")
    text.add_argument("--tokens", "--prompt-tokens", type=token_list, metavar="1,2,3",
        help="Tokens instead of a text, separated by commas.")
    parser.add_argument("--tokenizer", metavar="FILE", help="A tokenizer.json, of a checkpoint that comes without one.")
    parser.add_argument("--output", default=OUTPUT, metavar="DIR", help="Folder of page and JSON (default: %(default)s).")
    parser.add_argument("--cases",  metavar="DIR", help="Folder to write each layer's inputs to.")
    return parser.parse_args(arguments)


def main(arguments=None):
    torch.set_num_threads(1)
    return run_command("trace.py", lambda: trace(parse_arguments(arguments)), (CommandError, ValueError))


if __name__ == "__main__":
    sys.exit(main())
