#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A whole Mamba-2 model on the device, token in, token out, compared with the exact model.

The tiny model of this repository, or another one, is quantised and loaded; then the device computes the logits of the prompt, and writes text by
itself. Logits and tokens must equal those of the exact model, which runs on the host, bit for bit.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("demo.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("torch", "gguf")

import argparse
import sys

import numpy as np

from host.commands.load_model import plan_summary, planned_build, show_loaded, show_plan
from host.commands.whole_model import add_model_arguments, build_image, load_quantized, open_model
from host.connect import add_device_arguments
from host.device.model import DeviceDecoder
from host.generate import ExactText, Screen
from host.stream import log_to_stderr

from model.checkpoint_config import checkpoint_path
from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, inverse_of
from model.tokenizer import TextStream, load_tokenizer

from operations.numerics import CANDIDATES

from tools.arguments import Parser, number, utf8
from tools.command import run_command
from tools.errors import CommandError, UsageError

# Constants ----------------------------------------------------------------------------------------

TEMPERATURE = 0.6
SEED        = 1

# Parts --------------------------------------------------------------------------------------------

def compare_logits(decoder, exact, prompt):
    """Of all tokens of the prompt."""
    logits   = decoder.logits(prompt)
    expected = exact(prompt)[0]
    differ   = np.count_nonzero(logits.view(np.uint32) != expected.view(np.uint32))
    print(f"Logits of the prompt, {len(prompt)} tokens: {differ} of {logits.size} logits differ from the exact model")
    if differ:
        raise CommandError("The device and the exact model differ.")


def write_text(text, exact, tokenizer, prompt, tokens):
    """On the device, shown as it comes; then what it cost."""
    stream = TextStream(tokenizer)
    screen = Screen(tokens)
    stop   = (*exact.config.stop_tokens, *tokenizer.stop_tokens)
    text.prefill(prompt)
    try:
        screen.write(stream(prompt))
        for token in text.generate(tokens, stop, False):
            screen.write(stream([token]))
            screen.rate(text.rate())
        screen.write(stream.flush())
    finally:
        screen.close()
    print()
    expected = ExactDecoder(exact, text.decoder.draws)
    expected.prefill(prompt)
    written  = text.tokens[len(prompt):]
    differ   = sum(a != b for a, b in zip(written, expected.generate(tokens, stop), strict=True))
    print(f"Text, {len(written)} tokens: {differ} differ from the exact model's")
    for line in text.report():
        print(line)
    if differ:
        raise CommandError("The device and the exact model differ.")

# Demo ---------------------------------------------------------------------------------------------

def demo(args):
    model     = load_quantized(args)
    tokenizer = load_tokenizer(checkpoint_path(args.model), model.vocab_size)
    prompt    = tokenizer.encode(args.prompt)
    if not prompt:
        raise UsageError("--prompt must be a text to begin with, is empty.")
    system, size, clock_hz = planned_build(args)
    print(f"The model {args.model}, quantised, and where it lies in the device's memory", flush=True)
    show_plan(plan_summary(build_image(model, system), size, clock_hz))
    with open_model(args, model) as there:
        info  = there.device.info
        draws = Draws(inverse_of(TEMPERATURE), CANDIDATES, SEED)
        exact = ExactNetwork(model, seed=SEED if info.config.stochastic_rounding else None)
        show_loaded(there.counts)
        print(f"transport        {there.device.transport.name}" + (", simulated SoC: all cycles below are simulated ones" if args.transport == "sim" else ""))
        print()
        compare_logits(DeviceDecoder(there, draws), exact, prompt)
        print()
        write_text(ExactText(DeviceDecoder(there, draws), model, info), exact, tokenizer, prompt, args.tokens)


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--prompt",  type=utf8, default="In the beginning", metavar="TEXT", help="What the text begins with (default: %(default)s).")
    parser.add_argument("--tokens",  type=number(int, "an integer", 1), default=64, metavar="N",
        help="How many to generate at most (default: %(default)s).")
    parser.add_argument("--verbose", action="store_true", help="Tell each step.")
    add_device_arguments(parser)
    args        = parser.parse_args()
    args.log    = log_to_stderr
    args.memory = None # That of the build.
    demo(args)


if __name__ == "__main__":
    sys.exit(run_command("demo.py", main, (CommandError, ValueError)))
