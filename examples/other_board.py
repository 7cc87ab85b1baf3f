#!/usr/bin/env python3
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator in an unmodified target of litex-boards: its name comes first, then its own options, such as --help, and the
accelerator's (targets/common.py), such as --lanes and --pass-tokens.

python examples/other_board.py radiona_ulx3s --build --no-compile-gateware                    # All but the bitstream.
python examples/other_board.py radiona_ulx3s --build --no-compile-gateware --pass-tokens 1    # With the engines of whole models.
"""
import importlib, importlib.util, sys

from soc.accelerator import add_accelerator
from soc.dram import controller_settings, refresh_in_time
from targets.board import supervised
from targets.common import add_config_arguments, builder_environment, config_from_arguments, sram_size
from tools.arguments import Parser
from tools.firmware.build import BuildError, build as build_firmware

def with_accelerator(base, config):
    class SoC(base):
        def __init__(self, *args, uart_name="serial", **kwargs): # The serial port is the host's, the console behind it.
            super().__init__(*args, **{**kwargs, "uart_name": uart_name, "with_uart": uart_name != "serial",
                "integrated_sram_size": max(kwargs.get("integrated_sram_size", 0), sram_size(config))})
            add_accelerator(self, config)
        def add_sdram(self, *args, **kwargs): # Without an L2 cache, which the accelerator's ports would bypass.
            super().add_sdram(*args, **{**kwargs, "l2_cache_size": 0, "controller_settings": controller_settings(),
                "module": refresh_in_time(kwargs["module"])})
    return SoC

def main(name="--help", *options):
    if name in ("-h", "--help"):
        return print(__doc__)
    if not name.isidentifier() or name.startswith("_") or not importlib.util.find_spec(f"litex_boards.targets.{name}"):
        raise ValueError(f"target must be the name of one of litex_boards.targets, is {name!r}.")
    target = importlib.import_module(f"litex_boards.targets.{name}")
    parser = Parser(add_help=False, allow_abbrev=False)
    add_config_arguments(parser)
    args, options = parser.parse_known_args(options)
    config = config_from_arguments(parser, args)
    target.BaseSoC, sys.argv[1:] = with_accelerator(target.BaseSoC, config), [*options, f"--output-dir=build/{name}"]
    with builder_environment():
        target.main()
    build_firmware(f"build/{name}") # For host/stream.py, with build/NAME/csr.csv.
if __name__ == "__main__":
    sys.exit(supervised(lambda: main(*sys.argv[1:]), "other_board.py", (ImportError, ValueError, OSError, BuildError)))
