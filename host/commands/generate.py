#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The command generate of stream.py: a model writes text, on the device or on the host."""

from argparse import ArgumentParser, Namespace

from host.commands.whole_model import WHERE, add_model_arguments

from operations.image import MAX_DEFERRED
from operations.numerics import CANDIDATES

from tools import environment
from tools.arguments import number, token_list, utf8

# Command Line -------------------------------------------------------------------------------------

def add_generate_arguments(parser: ArgumentParser) -> None:
    """Add the options of generate; those of the device come on top."""
    add_model_arguments(parser)
    parser.add_argument("--tokenizer", metavar="FILE",
        help="A tokenizer.json, of a checkpoint that comes without one (default: the folder's).")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", type=utf8, default="", metavar="TEXT", help="What the text begins with.")
    prompt.add_argument("--prompt-tokens", type=token_list, metavar="1,2,3",
        help="What it begins with, as tokens; without a tokenizer, the text is shown as numbers too.")
    parser.add_argument("--tokens", type=number(int, "an integer", 0), default=100, metavar="N",
        help="How many to generate at most (default: %(default)s).")
    parser.add_argument("--temperature", type=number(float, "a finite number", 0), default=0.0, metavar="T",
        help="Above 0: tokens are drawn, the more freely the higher it is. 0: always the likeliest (default: %(default)s).")
    parser.add_argument("--top-k",  type=number(int, "an integer", 0), metavar="K",
        help=f"Draw from the K likeliest tokens only; 0: from all (default: {CANDIDATES}, the most of a device; for torch 0).")
    parser.add_argument("--top-p",  type=number(float, "a number", 0, 1), default=1.0, metavar="P",
        help="Draw from the likeliest tokens only that together have probability P, of those of --top-k (default: %(default)s).")
    parser.add_argument("--seed",   type=number(int, "an integer", 0, 2**32 - 1), default=0,
        help="Of the draws, and of stochastic rounding (default: %(default)s).")
    parser.add_argument("--repetition-penalty", type=number(float, "a number", 0.01, 100), default=1.0, metavar="R",
        help="Above 1: tokens that were there before become less likely; for torch alone (default: %(default)s).")
    parser.add_argument("--stop",   action="append", type=utf8, default=[], metavar="TEXT",
        help="End before this text; may be given several times.")
    parser.add_argument("--stop-token", action="append", type=number(int, "an integer", 0), default=[], metavar="ID",
        help="End before this token, as before those that the checkpoint names; may be given several times.")
    parser.add_argument("--on", choices=WHERE, default=WHERE[0],
        help="What runs the whole model: the device; on the host the model that is exact to the bit, which writes the same; or PyTorch in "
             "float32 (default: %(default)s).")
    parser.add_argument("--store-every", type=number(int, "an integer", 1, MAX_DEFERRED + 1), default=1, metavar="K",
        help="With --on device, the state goes to DRAM with each so many-th token, and at the end; the tokens between run through the SSM core "
             "again with the next one. The bits are the same; DRAM has less to write, the core more to do (default: %(default)s).")
    parser.add_argument("--speculate", action="store_true",
        help="With --on device that runs several tokens at once (--pass-tokens), also run what came after the same tokens earlier in the text, and "
             "keep what is right: the text is the same, in fewer passes where it repeats itself.")
    parser.add_argument("--boards", metavar="FILE",
        help="With --on device, on the boards that a TOML file names, which have a share of the model's layers each (docs/cluster.md); the text is the same.")
    parser.add_argument("--load-session", metavar="FILE", help="Go on from a saved session; the prompt continues its text.")
    parser.add_argument("--save-session", metavar="FILE", help="Save the session at the end, with the state of all layers.")

# Command ------------------------------------------------------------------------------------------

def generate(args: Namespace) -> None:
    """Let a model write text."""
    environment.require("model", "torch", "safetensors", "tokenizers", "gguf")
    from host.generate import write # PyTorch takes seconds to load: for this command only.
    write(args)
