#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the targets share: where they build, and the families of command line options."""

import os
import sys

from contextlib import contextmanager

from operations.config import LANES, PASS_TOKENS, VECTOR_LANES, ProgramConfig, SSMConfig, SystemConfig

# Constants ----------------------------------------------------------------------------------------

BIOS_ROM_SIZE = 0x20000


def sram_size(config):
    """Bytes of the CPU's SRAM: with the firmware's sampling tables in it, a token is drawn without reading DRAM."""
    return 0x2000 if config.program is None else 0x4000

# Builder ------------------------------------------------------------------------------------------

@contextmanager
def builder_environment(tools_dir=None):
    """Where LiteX's Builder runs: it finds commands (meson, a toolchain's) by the PATH, and leaves another current folder.

    First on the PATH are `tools_dir`, if there is one, and the folder of this Python.
    """
    path, folder = os.environ["PATH"], os.getcwd()
    os.environ["PATH"] = os.pathsep.join(filter(None, (tools_dir, os.path.dirname(sys.executable), path)))
    try:
        yield
    finally:
        os.environ["PATH"] = path
        os.chdir(folder)

# Command Line -------------------------------------------------------------------------------------

def add_config_arguments(parser, lanes=SSMConfig.lanes, lanes_default=None, pass_tokens=None, pass_tokens_default=None, vector_lanes_default=None,
        tape_depth_default=None):
    """Add the options that choose a SystemConfig; `lanes_default` and its like say on what the default of --lanes and so on depends. Where
    --pass-tokens has a default, 0 builds no engines for whole models."""
    default = SSMConfig()
    group   = parser.add_argument_group("accelerator")
    group.add_argument("--lanes",       type=int, default=lanes, choices=LANES,
        help=f"State elements updated in a cycle (default: {lanes_default or lanes}).")
    group.add_argument("--max-headdim", type=int, default=default.max_headdim, metavar="P",
        help="Largest head dimension (default: %(default)s).")
    group.add_argument("--max-d-state", type=int, default=default.max_d_state, metavar="N",
        help="Largest state size (default: %(default)s).")
    group.add_argument("--resident-tiles", type=int, default=0, metavar="TILES",
        help="Head tiles kept on chip, 2 to 256, for layers whose state stays there (default: %(default)s, none).")
    group.add_argument("--stochastic-rounding", action="store_true",
        help="Round the state stochastically, by the seed of each job (default: to nearest even).")
    program = ProgramConfig()
    group   = parser.add_argument_group("whole models", "The engines that run a whole model, beside the SSM core.")
    of_target = pass_tokens_default or pass_tokens
    group.add_argument("--pass-tokens",  type=int, choices=(0, *PASS_TOKENS) if of_target else PASS_TOKENS, default=pass_tokens,
        help="Build them, for so many tokens at once" + (f"; 0: none are built (default: {of_target})." if of_target else
            " (default: none are built)."))
    group.add_argument("--vector-lanes", type=int, choices=VECTOR_LANES,
        help=f"Elements that their vector unit takes in a cycle (default: {vector_lanes_default or program.vector_lanes}).")
    group.add_argument("--scratch",      type=int, metavar="ELEMENTS",
        help="Of their scratchpad, a multiple of 1024 (default: 32768 for one token at once, 65536 for 2 and 4, 131072 for 8).")
    group.add_argument("--activations",  type=int, metavar="WORDS",
        help=f"Of sixteen columns, of the activations' memory (default: {program.activations}).")
    group.add_argument("--tape-depth",   type=int, metavar="BEATS",
        help=f"Of weights, read ahead (default: {tape_depth_default or program.tape_depth}).")


def program_from_arguments(args):
    """The ProgramConfig that the options choose; None: none is to be built. Raises ValueError unless it is allowed."""
    options = {name: getattr(args, name) for name in ("vector_lanes", "scratch", "activations", "tape_depth") if getattr(args, name) is not None}
    if not args.pass_tokens:
        for name, value in options.items():
            raise ValueError(f"--{name.replace('_', '-')} must be left out without --pass-tokens, is {value}.")
        return None
    return ProgramConfig(args.pass_tokens, **options)


def add_protect_argument(parser):
    """Add the option --protect."""
    parser.add_argument("--protect", action="store_true",
        help="Etherbone writes only what jobs need: data, ring, manifest, doorbell; a firmware is loaded by UARTBone "
        "(docs/security.md; default: Etherbone writes everything).")


def config_from_arguments(parser, args, **defaults):
    """The SystemConfig that the options choose; ends the program when it is not allowed."""
    try:
        return SystemConfig.of(args.lanes, max_headdim=args.max_headdim, max_d_state=args.max_d_state,
            resident_tiles=args.resident_tiles, stochastic_rounding=args.stochastic_rounding, program=program_from_arguments(args),
            **defaults)
    except ValueError as error:
        parser.error(str(error))
