#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Quantises a checkpoint to a GGUF file that llama.cpp reads too: matrices to Q8_0 or Q4_0, all else float32."""

from tools import environment # First: the packages are there.

environment.check("gguf", "torch")

import math
import os
import sys

from dataclasses import replace

from model.checkpoint_config import CheckpointError, checkpoint_path
from model.gguf import is_gguf, open_gguf, write_gguf
from model.quantized import TYPES, quantize_checkpoint
from model.tokenizer import load_tokenizer
from model.vocabulary import KEYS, MODEL, vocabulary_values

from tools.arguments import Parser
from tools.command import run_command
from tools.errors import CommandError
from tools.files import check_writable

# Constants ----------------------------------------------------------------------------------------

OWN = ("general.architecture", "general.file_type", "general.quantization_version", "general.alignment") # Of each file.

# Main ---------------------------------------------------------------------------------------------

def kept_values(path):
    """{key: GGUFValue} of a GGUF file that one made from it says as well: its vocabulary, name, license."""
    return {key: value for key, value in open_gguf(path).values.items()
        if key.startswith((KEYS, "general.")) and key not in OWN}


def quantize_file(path, kind, output, head_kind=None, tokenizer=None):
    """Quantise the checkpoint of a path to the GGUF file `output`. tokenizer: of a tokenizer.json, or None.

    Returns the :class:`model.weights.QuantizedModel`.
    """
    model = quantize_checkpoint(path, kind, head_kind)
    if is_gguf(path) and tokenizer is None:
        values = kept_values(path)
    else:
        loaded = load_tokenizer(path, model.vocab_size, tokenizer)
        stop   = tuple(dict.fromkeys(token for token in (*loaded.stop_tokens, *model.stop_tokens) if token < model.vocab_size))
        model  = replace(model, config=replace(model.config, stop_tokens=stop))
        values = vocabulary_values(loaded, model.vocab_size, stop)
    write_gguf(output, model, values)
    if values.get(MODEL) is None or values[MODEL].value == "none":
        print(f"{output}: without a vocabulary that llama.cpp knows.", file=sys.stderr)
    if tuple(model.dt_limit) != (0.0, math.inf):
        print(f"{output}: dt is limited to {model.dt_limit}, which llama.cpp does not do.", file=sys.stderr)
    return model


def quantize(arguments):
    parser = Parser(prog="python -m model.quantize", description=__doc__)
    parser.add_argument("--model",     required=True, metavar="MODEL", help="Folder of a checkpoint, a GGUF file, or tiny.")
    parser.add_argument("--type",      required=True, choices=TYPES,   help="Of the matrices.")
    parser.add_argument("--head-type", choices=TYPES, help="Of the head, and of an embedding that it is tied to (default: --type).")
    parser.add_argument("--tokenizer", metavar="FILE", help="A tokenizer.json, of a checkpoint that comes without one.")
    parser.add_argument("--output",    required=True, metavar="OUT.gguf", help="Where to write the file.")
    args  = parser.parse_args(arguments)
    path  = checkpoint_path(args.model)
    check_writable(args.output, args.model)
    model = quantize_file(path, args.type, args.output, args.head_type, args.tokenizer)
    types = {"embedding": model.embedding.type, "layers": args.type, "head": "tied" if model.tied else model.head.type}
    print(f"{args.output}: {', '.join(f'{name} {kind}' for name, kind in types.items())}; "
        f"{os.path.getsize(args.output):,} bytes" if os.path.isfile(args.output) else args.output)


def main(arguments=None):
    return run_command("quantize.py", lambda: quantize(arguments), (CommandError, CheckpointError))


if __name__ == "__main__":
    sys.exit(main())
