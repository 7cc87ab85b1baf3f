#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""One Mamba-2 130M layer: its SSM block on the device, token by token and in a chunk, compared with PyTorch and the model.

Weights and hidden states are random with the distributions of Mamba-2's initialisation, seeds fixed; the state comes
from 256 tokens before the first one.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("layer.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "torch")

import argparse
import sys

import numpy as np
import torch

from host.connect import add_device_arguments, open_device
from host.device.block import run_block
from host.device.case import check_case
from host.progress import Progress
from host.stream import log_to_stderr

from model.bitexact import ssm_block
from model.case import realistic_case
from model.reference import mamba2_130m_layer
from model.ssm import error_statistics, ssm_recurrence

from tools.arguments import Parser
from tools.command import run_command
from tools.errors import CommandError

# Constants ----------------------------------------------------------------------------------------

SEED      = 2024
PREFILL   = 4 # Tokens in the chunk, for each that is decoded.
PER_TOKEN = ("x", "dt", "dA", "B", "C")

# The simulation-only Verilog prototype this project carries on from, on a data set of its own.
PROTOTYPE_MICROSECONDS = 149
PROTOTYPE_ERRORS       = (0.007812, 0.00022)

# Report -------------------------------------------------------------------------------------------

def print_errors(case, y, h):
    """Table of absolute errors of y and of the state, over the decoded tokens."""
    wide = {dtype: ssm_recurrence(**case, dtype=dtype) for dtype in (torch.float64, torch.float16)}
    rows = [
        ("device against torch.float64",        (y, h),              wide[torch.float64]),
        ("device against torch.float16",        (y, h),              wide[torch.float16]),
        ("torch.float16 against torch.float64", wide[torch.float16], wide[torch.float64]),
    ]
    print(f"{'Absolute error':<38}{'y max':>11}{'y mean':>11}{'state max':>11}{'state mean':>11}")
    for name, actual, expected in rows:
        errors = [value for one, other in zip(actual, expected)
            for value in error_statistics(torch.as_tensor(one), torch.as_tensor(other))]
        print(f"  {name:<36}" + "".join(f"{error:>11.2e}" for error in errors))
    print(f"  {'prototype against torch.float16 *':<36}" + "".join(f"{error:>11.2e}" for error in PROTOTYPE_ERRORS))
    print("  * on another data set, as published")


def print_times(decode, prefill):
    """Cycles and time of each decoded token, and a token of the chunk."""
    clock = decode["clock_hz"]
    rows  = [(f"decode, token {n}", cycles) for n, cycles in enumerate(decode["per_token_cycles"])]
    rows += [(f"prefill, {prefill['tokens']} tokens in a job, each", round(prefill["cycles_per_token"]))]
    print(f"{'Time a token':<38}{'cycles':>11}{'us':>11}   at {clock/1e6:g} MHz, from doorbell to completion")
    for name, cycles in rows:
        print(f"  {name:<36}{cycles:>11}{1e6*cycles/clock:>11.1f}")
    print(f"  {'Verilog prototype, without memory or bus':<40}{'':>7}{PROTOTYPE_MICROSECONDS:>11.1f}")


def compare(mode, case, result):
    """Compare with the bit-accurate model; the number of values that differ in a bit."""
    wrong = 0
    for name, actual, expected in zip(("y", "state"), (result.y, result.h), ssm_block(**case)):
        differ = np.count_nonzero(actual.view(np.uint16) != expected.view(np.uint16))
        print(f"  {mode + ', ' + name:<36}{actual.size:>11} values, {differ} differ")
        wrong += differ
    return wrong

# Layer ---------------------------------------------------------------------------------------------

def run_layer(args):
    torch.set_num_threads(1) # The simulation needs the processor more.
    config = mamba2_130m_layer
    print(f"Mamba-2 130M layer: {config.heads} heads x {config.headdim} x {config.d_state}. {args.tokens} tokens are "
        f"decoded, each a job, its state read from and written to DRAM; then {PREFILL*args.tokens} run as one job.",
        flush=True)
    chunk = realistic_case(config, PREFILL*args.tokens, SEED, with_h0=True)
    cases = {
        "decode" : {name: array[:args.tokens] if name in PER_TOKEN else array for name, array in chunk.items()},
        "prefill": chunk,
    }
    with open_device(args, log_to_stderr) as device, Progress() as progress:
        results = {mode: run_block(device, check_case(case, device.info.config), mode, progress)
            for mode, case in cases.items()}

    summary  = results["decode"].summary
    link     = summary["transport"] + (", simulated SoC" if args.transport == "sim" else "")
    streamed, verified = (sum(result.summary[key] for result in results.values())
        for key in ("bytes_streamed", "bytes_verified"))
    print(f"Transport: {link}; {summary['lanes']} lanes; "
        f"firmware {summary['firmware']}, gateware {summary['gateware']}")
    print(f"Streamed:  {streamed} bytes, {verified} of them written, read back and equal")
    print()
    print_times(*(results[mode].summary for mode in cases))
    print()
    print_errors(cases["decode"], results["decode"].y, results["decode"].h)
    print()
    print("Against the bit-accurate model, bit for bit")
    if sum(compare(mode, cases[mode], results[mode]) for mode in cases):
        raise CommandError("The device and the bit-accurate model differ.")


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens",  type=int, default=4,
        help="Tokens to decode; four times as many are then run as one job (default: %(default)s).")
    parser.add_argument("--verbose", action="store_true", help="Tell each step.")
    add_device_arguments(parser)
    args = parser.parse_args()
    run_layer(args)


if __name__ == "__main__":
    sys.exit(run_command("layer.py", main))
