#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py logits``: the logits of a text by the whole model: on the device, by the model that is exact to the bit, or by PyTorch."""

from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np

from host.commands.whole_model import WHERE, add_model_arguments, load_quantized, model_types, open_model

from tools import environment
from tools.arguments import token_list
from tools.errors import UsageError
from tools.files import check_writable, save_json, write_atomically

# Command Line -------------------------------------------------------------------------------------

def add_logits_arguments(parser: ArgumentParser) -> None:
    """Add the options of logits; those of the device come on top."""
    add_model_arguments(parser)
    parser.add_argument("--tokens", required=True, type=token_list, metavar="1,2,3", help="The text, as tokens.")
    parser.add_argument("--output", required=True, metavar="OUT.npy", help="Where to write them: float32 (T, vocabulary).")
    parser.add_argument("--on", choices=WHERE, default=WHERE[0],
        help="The device; the model that is exact to the bit, which gives the same; or PyTorch in float32 on the same weights "
             "(default: %(default)s).")

# Command ------------------------------------------------------------------------------------------

def load_torch(args: Namespace) -> tuple[Any, tuple[str, str] | None]:
    """(the :class:`model.network.Mamba2Network` that the options name, the types of its matrices where they are quantised)."""
    environment.require("model", "torch", "safetensors", "gguf")
    from model.checkpoint import load_checkpoint, to_network # PyTorch takes seconds to load.
    if args.type is None and args.head_type is None:
        return load_checkpoint(args.model), None
    model = load_quantized(args)
    return to_network(model), model_types(model)


def compute_logits(args: Namespace) -> tuple[np.ndarray, tuple[str, str] | None]:
    """(logits, the types of the matrices where they are quantised)."""
    if args.on == "torch":
        network, types = load_torch(args)
        return network.prefill(args.tokens)[0].numpy(), types
    model = load_quantized(args)
    if args.on == "exact":
        from model.exact.network import ExactNetwork
        return ExactNetwork(model, seed=0 if args.rounding == "stochastic" else None)(args.tokens)[0], model_types(model)
    from host.device.model import DeviceDecoder
    from model.exact.decoder import check_tokens
    check_tokens(args.tokens, model.vocab_size)
    with open_model(args, model) as there:
        return DeviceDecoder(there).logits(args.tokens), model_types(model)


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
    save_json(args.json, {"model": args.model, "on": args.on, "transport": args.transport if args.on == "device" else None,
        "tokens": args.tokens, "type": types and types[0], "head_type": types and types[1], "best": values.argmax(-1).tolist()})
    print(f"{args.output}: {len(values)} x {values.shape[1]} logits, {args.on}"
        + (f", layers {types[0]}, head {types[1]}" if types else ""))
