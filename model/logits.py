#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Writes the logits of the PyTorch reference for any checkpoint: float32 (T, vocabulary), as .npy."""

from tools import environment # First: the packages are there.

environment.check("torch")

import sys

import numpy as np
import torch

from model.checkpoint import load_checkpoint
from model.decoder import check_finite

from tools.arguments import Parser, token_list
from tools.command import run_command
from tools.errors import CommandError
from tools.files import check_writable, write_atomically

# Main ---------------------------------------------------------------------------------------------

def compute_logits(network, tokens, step=False):
    """Logits (T, vocabulary) of tokens from the start of a text, by prefill, or with `step` one by one."""
    if not step:
        return network.prefill(tokens)[0]
    states, rows = None, []
    for token in tokens:
        logits, states = network.step(token, states)
        rows.append(logits)
    return torch.stack(rows)


def write_logits(arguments):
    parser = Parser(prog="python -m model.logits", description=__doc__)
    parser.add_argument("--model",  required=True, metavar="MODEL", help="Folder of a checkpoint, a GGUF file, or tiny.")
    parser.add_argument("--tokens", required=True, type=token_list, metavar="1,2,3", help="Tokens, separated by commas.")
    parser.add_argument("--output", required=True, metavar="OUT.npy", help="Where to write the logits.")
    parser.add_argument("--step",   action="store_true", help="Compute them token by token instead of by prefill.")
    args = parser.parse_args(arguments)
    check_writable(args.output, args.model)
    logits = compute_logits(load_checkpoint(args.model), args.tokens, args.step)
    check_finite(logits, "the logits")
    write_atomically(args.output, lambda file: np.save(file, logits.numpy()))


def main(arguments=None):
    return run_command("logits.py", lambda: write_logits(arguments), (CommandError, ValueError))


if __name__ == "__main__":
    sys.exit(main())
