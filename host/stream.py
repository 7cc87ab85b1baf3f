#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Streams cases to the accelerator, on a board or in the simulation, and its results back.

exit codes: 0 done; 1 the device or the link failed; 2 an option, a file or a case is wrong; 130 interrupted.
"""

import argparse
import os
import signal
import sys
import traceback

sys.path[:0] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

import environment # First: the others need it.

from tqdm import tqdm

from host.block import MODES, run_block
from host.case import check_case, check_writable, load_case, save_json, save_output
from host.connect import add_device_arguments, open_device, requested_config
from host.device import Job, version_string
from host.errors import HostError, UsageError
from host.generate import add_generate_arguments, generate

from soc.protocol import Opcode

# Constants ----------------------------------------------------------------------------------------

EXIT_FAILED      = 1
EXIT_USAGE       = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED  = 143

WAITS  = {"state": "a head tile", "input": "inputs", "output": "room for y", "descriptor": "a descriptor"} # Of the lanes.
MAXIMA = ("max_heads", "max_headdim", "max_d_state", "max_groups", "max_tokens")

# Output -------------------------------------------------------------------------------------------

class Progress:
    """Shows bars on a terminal, nothing elsewhere; called as progress(what, done, total)."""
    def __init__(self):
        self.bar  = None
        self.what = None

    def __call__(self, what, done, total):
        if what != self.what:
            self.close()
            unit      = {"unit": "job"} if what == "jobs" else {"unit": "B", "unit_scale": True}
            self.bar  = tqdm(desc=what, total=total, leave=False, file=sys.stderr, disable=None, **unit)
            self.what = what
        self.bar.update(done - self.bar.n)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        if self.bar is not None:
            self.bar.close()
        self.bar = self.what = None


def seed(text):
    """A seed of stochastic rounding, for argparse."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: 0 to {2**32 - 1} is.")
    return int(text)


def store_every(text):
    """A number of tokens, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: 1 to 65535 is.")
    return int(text)


def log_to_stderr(message):
    print(message, file=sys.stderr, flush=True)

# Commands -----------------------------------------------------------------------------------------

def run(args):
    """Run a case."""
    if args.store_every > 1 and args.mode != "decode":
        raise UsageError(f"--store-every {args.store_every} is allowed with --mode decode only.")
    check_writable(args.output)
    case = load_case(args.case, requested_config(args))
    with open_device(args, args.log) as device, Progress() as progress:
        if args.seed is not None and not device.info.config.stochastic_rounding:
            raise UsageError(f"--seed {args.seed} is not allowed: this device rounds the state to nearest "
                "(see --rounding stochastic).")
        check_case({name: array for name, array in vars(case).items() if array is not None}, device.info.config)
        result = run_block(device, case, args.mode, progress, args.seed or 0, args.store_every)
    save_output(args.output, result.y, result.h)
    save_json(args.json, result.summary)

    summary      = result.summary
    microseconds = 1e6*summary["cycles_per_token"]/summary["clock_hz"]
    print(f"{case.tokens} tokens of {case.heads} heads x {case.headdim} x {case.d_state}, {args.mode}, "
          f"by {summary['transport']}")
    print(f"  streamed   {summary['bytes_streamed']} bytes, {summary['bytes_verified']} of them read back")
    print(f"  cycles     {summary['cycles']}: {summary['cycles_per_token']:.1f} a token, {microseconds:.1f} us at "
          f"{summary['clock_hz']/1e6:g} MHz")
    print(f"  lanes      {summary['lanes']}, busy in {summary['lane_busy_cycles']} cycles; the state is rounded "
          f"{'to nearest' if summary['rounding'] == 'nearest' else 'stochastically'}")
    print("  waits      " + ", ".join(f"{cycles} cycles for {WAITS[name]}" for name, cycles in summary["wait_cycles"].items()))
    print(f"  DRAM       {summary['dma_read_bytes']} bytes read, {summary['dma_write_bytes']} written, in "
          f"{summary['port_cycles']} cycles with something to move: {summary['dram_share']:.0%} of a beat a cycle")
    print(f"  results in {args.output}")


def info(args):
    """Show what the device is."""
    with open_device(args, args.log) as device:
        fields  = device.info._asdict()
        summary = fields | {
            "transport" : device.transport.name,
            "firmware"  : version_string(device.info.firmware_version),
            "gateware"  : version_string(device.info.gateware_version),
        }
    save_json(args.json, summary)
    print(f"firmware   {summary['firmware']}, protocol {summary['protocol_version']}, started "
          f"{summary['boot_count']} times")
    print(f"gateware   {summary['gateware']}, {summary['lanes']} lanes at {summary['clock_hz']/1e6:g} MHz")
    print(f"maxima     {', '.join(name.removeprefix('max_') + f' {fields[name]}' for name in MAXIMA)}")
    print(f"data       {summary['data_size']} bytes at 0x{summary['data_base']:08x}")
    print(f"link       {summary['transport']}")


def selftest(args):
    """Run the firmware's vectors through the core."""
    with open_device(args, args.log) as device:
        result = device.run(Job(Opcode.SELFTEST))
        summary = {
            "passed"    : True,
            "cycles"    : result.cycles,
            "tiles"     : result.tiles,
            "lanes"     : device.info.lanes,
            "transport" : device.transport.name,
            "firmware"  : version_string(device.info.firmware_version),
        }
    save_json(args.json, summary)
    print(f"self-test passed: {result.tiles} head tiles in {result.cycles} cycles")

# Main ---------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    """As argparse's, with errors of one line."""
    def error(self, message):
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def parse_arguments(arguments):
    parser   = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in (run, generate, info, selftest):
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        if command is run:
            sub.add_argument("case", metavar="CASE.npz",
                help="Inputs, float16: x (T,H,P), dt and dA (T,H), B and C (T,G,N), D (H); optional h0 (H,P,N).")
            sub.add_argument("--output", metavar="OUT.npz", required=True,
                help="Where to write the results: y (T,H,P) and h (H,P,N).")
            sub.add_argument("--mode",   choices=MODES, default=MODES[0],
                help="prefill: one job for all tokens; decode: one job a token (default: %(default)s).")
            sub.add_argument("--store-every", type=store_every, default=1, metavar="K",
                help="With --mode decode: store the state at each K-th token only, and run the tokens since then again; "
                     "less DRAM traffic, the same bits (default: %(default)s).")
            sub.add_argument("--seed",   type=seed,
                help="Of the stochastic rounding of token 0; token t takes seed + t (default: 0).")
        if command is generate:
            add_generate_arguments(sub)
        add_device_arguments(sub)
        sub.add_argument("--json",    metavar="FILE", help="Write a summary to FILE.")
        sub.add_argument("--verbose", action="store_true", help="Tell each step, and where an error comes from.")
        sub.set_defaults(function=command)
    args     = parser.parse_args(arguments)
    args.log = log_to_stderr if args.verbose or sys.stderr.isatty() else lambda message: None
    return args


def terminate(number, frame):
    """End as by sys.exit, so that simulation and link are closed."""
    sys.exit(EXIT_TERMINATED)


def main(arguments=None):
    args = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, terminate)
    try:
        if args.json is not None:
            check_writable(args.json)
        args.function(args)
        return 0
    except KeyboardInterrupt:
        print("stream.py: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        message = str(error) if isinstance(error, HostError) else f"unexpected {type(error).__name__}: {error}"
        print(f"stream.py: error: {' '.join(message.split())}", file=sys.stderr)
        return getattr(error, "exit_code", EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main())
