#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The simulated SoC: builds it, and runs it for the host's transports."""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("sim.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "migen")

import select
import shlex
import sys
import time

from host.connect import SIM_TIMEOUT_SCALE

from operations.config import DATA_WIDTHS

from targets.common import add_config_arguments, add_protect_argument, config_from_arguments

from tools.arguments import Parser
from tools.command import run_command
from tools.paths import ROOT
from tools.simulation.build import BuildError, build
from tools.simulation.runner import Simulation, SimulationError

# Command Line -------------------------------------------------------------------------------------

def _parser():
    parser = Parser(description="Simulated SoC with the Mamba-2 accelerator (Verilator): the Arty's "
        "clock, DRAM and CPU. Without further options, builds what is not built yet, runs it, and says how to reach "
        "it, until Ctrl-C. host/stream.py --transport sim needs none of this: it runs a simulation of its own.")
    add_config_arguments(parser)
    add_protect_argument(parser)
    group = parser.add_argument_group("simulation")
    group.add_argument("--transport", default="auto", choices=("auto", "etherbone", "uart"),
        help="Etherbone over a TAP device in a network namespace, UARTBone over TCP, or auto: Etherbone where that is "
        "permitted (default: %(default)s).")
    group.add_argument("--data-width", type=int, choices=DATA_WIDTHS,
        help="Bits of the accelerator's memory ports, eight words of the DRAM (default: 128).")
    group.add_argument("--with-flash-boot", action="store_true",
        help="The SoC has a flash that holds the firmware, which starts without a host (default: without).")
    group.add_argument("--trace-fst",  metavar="FILE", help="Write waves to FILE; simulates more slowly.")
    group.add_argument("--build-only", action="store_true", help="Build, but do not run.")
    group.add_argument("--build-dir",  metavar="DIR", help="Folder of the models (default: build/sim).")
    return parser


def stream_command(simulation):
    """(words before, words after) a command of host/stream.py, which then reaches the simulated SoC."""
    before = [sys.executable, ROOT/"host"/"stream.py"]
    after  = ["--csr-csv", simulation.csr_csv, "--timeout-scale", SIM_TIMEOUT_SCALE]
    if not simulation.with_flash_boot: # Else one runs, which by Etherbone cannot be replaced where it is protected.
        after += ["--firmware", simulation.firmware]
    if simulation.transport_kind == "etherbone":
        _, address, port = simulation.endpoint
        before = ["nsenter", "--target", simulation.process.pid, "--net", *before]
        after  = ["--transport", "etherbone", "--ip", address, "--udp-port", port, *after]
    else:
        address, port = simulation.endpoint
        after = ["--transport", "uart", "--port", f"socket://{address}:{port}", *after]
    return before, after


def _print_how_to_reach(simulation):
    *_, address, port = simulation.endpoint
    before, after     = (shlex.join(map(str, words)) for words in stream_command(simulation))
    print(f"The simulated SoC runs, process {simulation.process.pid}. Ctrl-C ends it.")
    if simulation.transport_kind == "etherbone":
        print(f"  Etherbone: {address}, UDP port {port}, in the network namespace of that process")
    else:
        print(f"  UARTBone:  {address}, TCP port {port}")
    print(f"  Registers: {simulation.csr_csv}")
    print(f"  Firmware:  {simulation.firmware}")
    print(f"  Console:   tail -f {simulation.log}")
    print(f"  Ask it:    {before} info {after}")
    print("  The same with `run CASE.npz --output OUT.npz` in the place of `info` runs a case.")
    if simulation.protect and simulation.transport_kind == "etherbone" and not simulation.with_flash_boot:
        print("  No firmware runs, and none can be loaded by Etherbone: use --with-flash-boot or --transport uart.")
    sys.stdout.flush()


def _nobody_reads():
    """Whether the other end of standard output was closed."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))


def _run(config, args):
    with Simulation(config, args.transport, args.trace_fst, args.build_dir, verbose=True,
            protect=args.protect, with_flash_boot=args.with_flash_boot) as simulation:
        try:
            _print_how_to_reach(simulation)
            while simulation.alive():
                if _nobody_reads():
                    raise BrokenPipeError
                time.sleep(0.1)
        except KeyboardInterrupt: # How it is meant to end.
            return 0
        raise SimulationError(f"The simulation has ended. Its output:\n{simulation.console()[-2000:]}")


def main():
    parser = _parser()
    args   = parser.parse_args()
    config = config_from_arguments(parser, args, data_width=args.data_width)
    if not args.build_only:
        return _run(config, args)
    print(build(config, trace=args.trace_fst is not None, build_dir=args.build_dir, report=print, protect=args.protect,
        with_flash_boot=args.with_flash_boot))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("sim.py", main, (BuildError, SimulationError)))
