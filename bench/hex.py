#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Plays a data set of .hex files through the SSM core, tile by tile, in compiled simulation.

A file holds one float16 a line, as four hex digits, in C order. For layer 0: 0_dt.hex, 0_dA.hex and 0_D.hex (H),
0_B.hex and 0_C.hex (G,N), 0_x.hex (H,P), 0_ssm_state.hex (H,P,N). Results: 0_y_out.hex (H,P) and the new state in
0_ssm_state.hex.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("hex.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import json
import os
import sys

import numpy as np
import torch

from cores.ssm.harness import CoreHarness

from host.device.case import load_case
from host.device.maxima import LARGEST

from model.bitexact import ssm_block
from model.hex_files import ARRAYS, hex_path, hex_text, make_directory, read_hex, write_files, write_token
from model.ssm import error_statistics, ssm_recurrence

from operations.config import LANES, SSMConfig, ceil_multiple
from operations.ssm import Geometry

from tools.arguments import Parser
from tools.command import run_command
from tools.errors import CommandError, UsageError
from tools.files import check_writable, write_atomically

# Constants ----------------------------------------------------------------------------------------

CLOCK_HZ       = 100e6 # Of the Arty; cycles are converted with it.
PROTOTYPE_GAIN = -0.62 # Of the simulation-only Verilog prototype this bench carries on from.

# Measurement --------------------------------------------------------------------------------------

def measure(case, lanes):
    """Play a case through the core, and through one whose stages run one after the other.

    Returns {pipelined: (y, h, cycles)}. Cycles are from the first beat offered to the core to the last one taken, with
    loading and storing of the state at a beat of 16 bytes a cycle.
    """
    results = {}
    for pipelined in (True, False):
        d_state = ceil_multiple(case["B"].shape[2], max(LANES))
        config  = SSMConfig(lanes=lanes, max_headdim=max(case["x"].shape[2], SSMConfig.max_headdim),
            max_d_state=max(d_state, SSMConfig.max_d_state), max_heads=LARGEST.max_heads, max_groups=LARGEST.max_groups,
            pipelined=pipelined)
        with CoreHarness(config) as player:
            results[pipelined] = player.play_case(**case)
    return results


def pipelining_gain(pipelined, sequential):
    """Change of the latency by pipelining, as the prototype states it: -0.62 is 62 % less."""
    return (pipelined - sequential)/sequential


def mismatches(actual, expected):
    """Elements that differ in a bit."""
    return int(np.count_nonzero(actual.view(np.uint16) != expected.view(np.uint16)))


def errors(case, y, h):
    """{reference: {statistic: value}} of absolute errors."""
    table = {}
    for dtype in (torch.float64, torch.float16):
        table[str(dtype)] = {}
        for name, actual, expected in zip(("y", "state"), (y, h), ssm_recurrence(**case, dtype=dtype)):
            for statistic, value in error_statistics(actual, expected)._asdict().items():
                table[str(dtype)][f"{name}_{statistic}"] = value
    return table

# Commands -----------------------------------------------------------------------------------------

def write(args):
    """Write one token of CASE.npz as .hex files."""
    case  = load_case(args.case, LARGEST)
    token = args.token
    if token is None:
        if case.tokens != 1:
            raise UsageError(f"{args.case}: tokens T must be 1, is {case.tokens}; --token selects one of more.")
        token = 0
    if not 0 <= token < case.tokens:
        raise UsageError(f"--token must be an integer from 0 to {case.tokens - 1}, is {token}.")
    write_token(args.directory, args.layer, vars(case), token)
    print(f"{len(ARRAYS)} files of layer {args.layer}: {case.heads} heads x {case.headdim} x {case.d_state}, groups "
        f"{case.groups}, in {args.directory}")


def play(args):
    """Play a data set through the core."""
    try:
        geometry = Geometry(LARGEST, args.heads, args.headdim, args.d_state, args.groups)
    except ValueError as error:
        raise UsageError(str(error)) from error
    sizes  = {"H": geometry.heads, "P": geometry.headdim, "G": geometry.groups, "N": geometry.d_state}
    read   = lambda name, dimensions: read_hex(hex_path(args.directory, args.layer, name),
        [sizes[dimension] for dimension in dimensions], dimensions)
    arrays = {name: read(name, dimensions) for name, dimensions in ARRAYS.items()}
    wanted = read("y", "HP") if os.path.exists(hex_path(args.directory, args.layer, "y")) else None
    case   = {name: arrays[name][None] for name in ("x", "dt", "dA", "B", "C")}
    case  |= {"D": arrays["D"], "h0": arrays["ssm_state"]}
    outputs = [hex_path(args.output, args.layer, name) for name in ("y_out", "ssm_state")]
    make_directory(args.output)
    for path in outputs + [args.json]*(args.json is not None):
        check_writable(path)

    results      = measure(case, args.lanes)
    y, h, cycles = results[True]
    table        = errors(case, y, h)
    if wanted is not None:
        statistics = error_statistics(y[0], wanted)
        table[os.path.basename(hex_path("", args.layer, "y"))] = {"y_max": statistics.max, "y_mean": statistics.mean}
    expected = ssm_block(**case)
    wrong    = {name: [mismatches(result[n], expected[n]) for result in results.values()]
        for n, name in enumerate(("y", "state"))}
    gain     = pipelining_gain(cycles, results[False][2])
    summary  = {
        "layer"   : args.layer,   "heads"  : args.heads,  "headdim": args.headdim,
        "d_state" : args.d_state, "groups" : args.groups, "lanes"  : args.lanes,
        "errors"  : {name: {key: value if np.isfinite(value) else None for key, value in row.items()}
            for name, row in table.items()},
        "mismatches"        : {name: sum(counts) for name, counts in wrong.items()},
        "cycles"            : cycles,
        "cycles_sequential" : results[False][2],
        "clock_hz"          : CLOCK_HZ,
        "pipelining_gain"   : gain,
    }

    write_files(dict(zip(outputs, map(hex_text, (y, h)))))
    if args.json is not None:
        write_atomically(args.json, lambda file: file.write((json.dumps(summary, indent=4) + "\n").encode()))

    print(f"{args.heads} heads x {args.headdim} x {args.d_state}, groups {args.groups}, layer {args.layer}, "
        f"{args.lanes} lanes, compiled simulation of the core")
    print(f"{'Absolute error against':<32}{'y max':>11}{'y mean':>11}{'state max':>11}{'state mean':>11}")
    for name, row in table.items():
        print(f"  {name:<30}" + "".join(f"{value:>11.2e}" for value in row.values()))
    print(f"{'Latency':<32}{'cycles':>11}{'us':>11}   at {CLOCK_HZ/1e6:g} MHz")
    for name, (_, _, count) in zip(("pipelined", "stages one after the other"), results.values()):
        print(f"  {name:<30}{count:>11}{1e6*count/CLOCK_HZ:>11.1f}")
    print(f"  {'change by pipelining':<30}{gain:>11.1%}   (prototype: {PROTOTYPE_GAIN:.0%})")
    print("Against the bit-accurate model, bit for bit")
    for n, name in enumerate(("y", "state")):
        print(f"  {name:<6} {expected[n].size:>7} values, {wrong[name][0]} differ; with the stages one after the other "
            f"{wrong[name][1]}")
    print(f"Results: {', '.join(outputs)}")
    if any(summary["mismatches"].values()):
        raise CommandError("the core and the bit-accurate model differ.")

# Main ---------------------------------------------------------------------------------------------

def parse_arguments(arguments):
    parser   = Parser(prog="hex.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    sub = commands.add_parser("write", help=write.__doc__, description=write.__doc__)
    sub.add_argument("case",      metavar="CASE.npz", help="As of host/stream.py; a missing h0 is written as zeros.")
    sub.add_argument("directory", metavar="DIR",      help="Where to write the files.")
    sub.add_argument("--layer",   type=int, default=0, help="Number the names begin with (default: %(default)s).")
    sub.add_argument("--token",   type=int, metavar="T",
        help="Token to write, of a case with several; its state is what the bit-accurate model makes of those before.")
    sub.set_defaults(function=write)

    sub = commands.add_parser("play", help=play.__doc__, description=play.__doc__)
    sub.add_argument("directory", metavar="DIR", help="The data set. If it has a 0_y.hex, y is compared with it too.")
    sub.add_argument("--layer",   type=int, default=0,  help="Number the names begin with (default: %(default)s).")
    sub.add_argument("--heads",   type=int, metavar="H", required=True)
    sub.add_argument("--headdim", type=int, metavar="P", required=True)
    sub.add_argument("--d-state", type=int, metavar="N", required=True)
    sub.add_argument("--groups",  type=int, metavar="G", default=1, help="Default: %(default)s.")
    sub.add_argument("--lanes",   type=int, default=SSMConfig.lanes, choices=LANES,
        help="State elements updated in a cycle (default: %(default)s).")
    sub.add_argument("--output",  metavar="DIR2", required=True, help="Where to write the results.")
    sub.add_argument("--json",    metavar="FILE", help="Write a summary to FILE.")
    sub.set_defaults(function=play)
    return parser.parse_args(arguments)


def execute(arguments):
    """Run the command that the arguments name."""
    args = parse_arguments(arguments)
    args.function(args)


def main(arguments=None):
    torch.set_num_threads(1)
    of_the_core = (FileNotFoundError, TimeoutError, RuntimeError)
    return run_command("hex.py", lambda: execute(arguments), (CommandError, *of_the_core))


if __name__ == "__main__":
    sys.exit(main())
