#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py run``: runs a case."""

from argparse import ArgumentParser, Namespace

from host.connect import open_device, requested_config
from host.device.block import MODES, run_block
from host.device.case import check_case, load_case, save_output
from host.device.manifest import adopt
from host.progress import Progress

from tools.arguments import number
from tools.errors import UsageError
from tools.files import check_writable, save_json

# Constants ----------------------------------------------------------------------------------------

WAITS = {"state": "a head tile", "input": "inputs", "output": "room for y", "descriptor": "a descriptor"} # Of the lanes.

# Options ------------------------------------------------------------------------------------------

def add_run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("case", metavar="CASE.npz",
        help="Inputs, float16: x (T,H,P), dt and dA (T,H), B and C (T,G,N), D (H); optional h0 (H,P,N).")
    parser.add_argument("--output", metavar="OUT.npz", required=True,
        help="Where to write the results: y (T,H,P) and h (H,P,N).")
    parser.add_argument("--mode",   choices=MODES, default=MODES[0],
        help="prefill: one job for all tokens; decode: one job a token (default: %(default)s).")
    parser.add_argument("--store-every", type=number(int, "an integer", 1, 65535), default=1, metavar="K",
        help="With --mode decode: store the state at each K-th token only, and run the tokens since then again; "
             "less DRAM traffic, the same bits (default: %(default)s).")
    parser.add_argument("--seed",   type=number(int, "an integer", 0, 2**32 - 1),
        help="Of the stochastic rounding of token 0; token t takes seed + t (default: 0).")

# Command ------------------------------------------------------------------------------------------

def run(args: Namespace) -> None:
    """Run a case."""
    if args.store_every > 1 and args.mode != "decode":
        raise UsageError(f"--store-every must be 1 with --mode {args.mode}, is {args.store_every}; --mode decode takes others.")
    check_writable(args.output, args.json, args.case)
    case = load_case(args.case, requested_config(args))
    with open_device(args, args.log) as device, Progress() as progress:
        if args.seed is not None and not device.info.config.stochastic_rounding:
            raise UsageError(f"--seed must be left out, is {args.seed}: this device rounds the state to nearest "
                "(see --rounding stochastic).")
        adopt(device) # What was loaded stays.
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
    print("  not finite " + ", ".join(f"{count} of {getattr(result, name).size} values of {name}"
        for name, count in summary["not_finite"].items()))
    print(f"  results in {args.output}")
