#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Streams data to the accelerator, on a board or in the simulation, has it work, and brings the results back.

exit codes: 0 done; 1 the device or the link failed; 2 an option, a file or a case is wrong; 130 interrupted;
141 nobody reads the output any more; 143 terminated.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL) # Ctrl-C while packages are imported: the end, without a traceback. run_command takes over.

try:
    from tools import environment # noqa: F401 (first: the packages are there)
except ImportError: # Not even this project's.
    raise SystemExit("stream.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

import argparse
import os
import sys
import traceback

from collections.abc import Callable, Sequence

import shtab

from host.commands.batch import add_batch_arguments, batch
from host.commands.bench import add_bench_arguments, bench
from host.commands.discover import add_discover_arguments, discover
from host.commands.generate import add_generate_arguments, generate
from host.commands.info import info
from host.commands.load import add_load_arguments, load
from host.commands.logits import add_logits_arguments, logits
from host.commands.reset import reset
from host.commands.run import add_run_arguments, run
from host.commands.selftest import selftest
from host.commands.serve import add_serve_arguments, serve
from host.connect import add_device_arguments

from tools.arguments import Parser
from tools.command import run_command
from tools.files import check_writable

# Constants ----------------------------------------------------------------------------------------

Command = Callable[[argparse.Namespace], None]
Options = Callable[[argparse.ArgumentParser], None]

COMMANDS: tuple[tuple[Command, Options | None], ...] = ( # Command, and its options.
    (info,     None),
    (load,     add_load_arguments),
    (run,      add_run_arguments),
    (generate, add_generate_arguments),
    (batch,    add_batch_arguments),
    (serve,    add_serve_arguments),
    (logits,   add_logits_arguments),
    (bench,    add_bench_arguments),
    (selftest, None),
    (reset,    None),
    (discover, add_discover_arguments),
)

INPUTS  = ("case", "files", "model", "tokenizer", "load_session", "csr_csv", "firmware", "api_key_file", "boards") # Options that name files to read,
OUTPUTS = ("output", "manifest", "save_session", "json")                                 # and to write.

INSTALLED = "mamba2-litex" # What the command is called where the package is installed.

# Main ---------------------------------------------------------------------------------------------

def program() -> str:
    """What the user called."""
    return INSTALLED if os.path.basename(sys.argv[0]) == INSTALLED else "stream.py"


def check_outputs(args: argparse.Namespace) -> None:
    """Raise UsageError if a file that is to be written cannot be, or is one that the command reads: a session alone goes on in its file."""
    for option in OUTPUTS:
        path = getattr(args, option, None)
        if path is None:
            continue
        given  = [getattr(args, name, None) for name in INPUTS if (option, name) != ("save_session", "load_session")]
        inputs = [file for value in given for file in (value if isinstance(value, list) else [value]) if file and os.path.isfile(file)]
        check_writable(path, *inputs)


def make_parser() -> Parser:
    parser = Parser(prog=program(), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shtab.add_argument_to(parser, ["--print-completion"], help="Print the completion script of a shell: "
        "eval \"$(stream.py --print-completion bash)\".")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command, add_arguments in COMMANDS:
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        if add_arguments is not None:
            add_arguments(sub)
        if command is not discover:
            add_device_arguments(sub, command is not serve) # Its --port is that of HTTP.
        sub.add_argument("--json",    metavar="FILE", help="Write a summary to FILE.")
        sub.add_argument("--verbose", action="store_true", help="Tell each step, and where an error comes from.")
        sub.set_defaults(function=command)
    return parser


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    args     = make_parser().parse_args(arguments)
    args.log = log_to_stderr if args.verbose or sys.stderr.isatty() else lambda message: None
    return args


def log_to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def execute(arguments: Sequence[str] | None) -> None:
    """Run the command that the arguments name."""
    args = parse_arguments(arguments)
    try:
        check_outputs(args)
        args.function(args)
    except Exception:
        if args.verbose:
            traceback.print_exc()
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(program(), lambda: execute(arguments))


if __name__ == "__main__":
    sys.exit(main())
