#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py logits``: the logits of a text by the whole model, to the bit as a device computes them, or by PyTorch."""

from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np

from tools import environment
from tools.arguments import token_list
from tools.errors import UsageError
from tools.files import check_writable, save_json, write_atomically

# Constants ----------------------------------------------------------------------------------------

WHERE = ("exact", "torch") # What computes them.
TYPES = ("q8_0", "q4_0")

# Command Line -------------------------------------------------------------------------------------

def add_model_arguments(parser: ArgumentParser) -> None:
    """Add the options that name a model and its quantisation."""
    parser.add_argument("--model",  default="tiny", metavar="DIR",
        help="Folder of a checkpoint, a GGUF file, or tiny: the model in this repository (default: %(default)s).")
    parser.add_argument("--type", choices=TYPES,
        help="Quantise the matrices first (default: a GGUF file's as they are, others for exact to q8_0).")
    parser.add_argument("--head-type", choices=TYPES, help="That of the head alone (default: as --type).")


def add_logits_arguments(parser: ArgumentParser) -> None:
    """Add the options of logits."""
    add_model_arguments(parser)
    parser.add_argument("--tokens", required=True, type=token_list, metavar="1,2,3", help="The text, as tokens.")
    parser.add_argument("--output", required=True, metavar="OUT.npy", help="Where to write them: float32 (T, vocabulary).")
    parser.add_argument("--on", choices=WHERE, default=WHERE[0],
        help="The model that is exact to the bit, or PyTorch in float32 on the same weights (default: %(default)s).")

# Command ------------------------------------------------------------------------------------------

def load_network(args: Namespace, seed: int | None = None) -> tuple[Any, tuple[str, str] | None]:
    """(the network that the options name, the types of its layers' matrices and of its head where they are quantised).

    The network is a :class:`model.exact.network.ExactNetwork` with --on exact, else a :class:`model.network.Mamba2Network`. seed: of
    the former's stochastic rounding; None: its state is rounded to nearest even.
    """
    if args.on != "exact" and args.type is None and args.head_type is None:
        from model.checkpoint import load_checkpoint # PyTorch takes seconds to load.
        return load_checkpoint(args.model), None
    from model.quantized import quantize_checkpoint
    model = quantize_checkpoint(args.model, args.type, args.head_type)
    types = model.layers[0].in_proj.type, model.head.type
    if args.on == "exact":
        from model.exact.network import ExactNetwork
        return ExactNetwork(model, seed=seed), types
    from model.checkpoint import to_network
    return to_network(model), types


def compute_logits(args: Namespace) -> tuple[np.ndarray, tuple[str, str] | None]:
    """(logits, types as of :func:`load_network`)."""
    environment.require("model", "gguf")
    from model.gguf import is_gguf
    if args.on == "torch" or not is_gguf(args.model):
        environment.require("model", "torch", "safetensors")
    network, types = load_network(args)
    return network(args.tokens)[0] if args.on == "exact" else network.prefill(args.tokens)[0].numpy(), types


def logits(args: Namespace) -> None:
    """Write the logits of a text, as the whole model computes them."""
    check_writable(args.output, args.json)
    try:
        values, types = compute_logits(args)
        finite = np.isfinite(values).all(-1)
        if not finite.all():
            raise ValueError(f"the logits of token {finite.argmin()} must be finite, are not.")
    except ValueError as error: # CheckpointError is one.
        raise UsageError(str(error)) from error
    write_atomically(args.output, lambda file: np.save(file, values))
    save_json(args.json, {"model": args.model, "on": args.on, "tokens": args.tokens,
        "type": types and types[0], "head_type": types and types[1], "best": values.argmax(-1).tolist()})
    print(f"{args.output}: {len(values)} x {values.shape[1]} logits, {args.on}"
        + (f", layers {types[0]}, head {types[1]}" if types else ""))
