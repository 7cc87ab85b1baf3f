#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The command batch of stream.py: a model writes several texts at once."""

from argparse import ArgumentParser, Namespace

from host.commands.whole_model import WHERE, add_model_arguments

from operations.numerics import CANDIDATES

from tools import environment
from tools.arguments import number, token_list, utf8

# Command Line -------------------------------------------------------------------------------------

def add_batch_arguments(parser: ArgumentParser) -> None:
    """Add the options of batch; those of the device come on top."""
    add_model_arguments(parser)
    parser.add_argument("--tokenizer", metavar="FILE",
        help="A tokenizer.json, of a checkpoint that comes without one (default: the folder's).")
    parser.add_argument("--prompt", action="append", type=utf8, default=[], metavar="TEXT", dest="prompts",
        help="What a text begins with; give it for each text.")
    parser.add_argument("--prompt-tokens", action="append", type=token_list, default=[], metavar="1,2,3",
        help="Likewise, as tokens; these texts come after those of --prompt.")
    parser.add_argument("--tokens", type=number(int, "an integer", 1), default=100, metavar="N",
        help="How many to generate at most, of each text (default: %(default)s).")
    parser.add_argument("--temperature", type=number(float, "a finite number", 0), default=0.0, metavar="T",
        help="Above 0: tokens are drawn, the more freely the higher it is. 0: always the likeliest (default: %(default)s).")
    parser.add_argument("--top-k",  type=number(int, "an integer", 1, CANDIDATES), default=CANDIDATES, metavar="K",
        help="Draw from the K likeliest tokens only (default: %(default)s).")
    parser.add_argument("--top-p",  type=number(float, "a number", 0, 1), default=1.0, metavar="P",
        help="Draw from the likeliest of these only that together have so much of their probability (default: %(default)s).")
    parser.add_argument("--seed",   type=number(int, "an integer", 0, 2**32 - 1), default=0,
        help="Of the first text's draws; the n-th one's is n more (default: %(default)s).")
    parser.add_argument("--stop-token", action="append", type=number(int, "an integer", 0), default=[], metavar="ID",
        help="End a text before this token, as before those that the checkpoint names; may be given several times.")
    parser.add_argument("--sessions", type=number(int, "an integer", 1), metavar="S",
        help="Texts at once, up to the device's --pass-tokens (default: as many as there can be); when one ends, the next one takes its place.")
    parser.add_argument("--boards", metavar="FILE",
        help="With --on device, on the boards that a TOML file names (docs/cluster.md); --sessions are then those of each pipeline.")
    parser.add_argument("--on", choices=WHERE[:2], default=WHERE[0],
        help="The device; or on the host the model that is exact to the bit, which writes the same (default: %(default)s).")

# Command ------------------------------------------------------------------------------------------

def batch(args: Namespace) -> None:
    """Let a model write several texts at once."""
    environment.require("model", "torch", "safetensors", "tokenizers", "gguf")
    from host.batch import write # PyTorch takes seconds to load: for this command only.
    write(args)
