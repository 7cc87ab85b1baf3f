#!/usr/bin/env python3
#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The accelerator in an unmodified target of litex-boards. Its name comes first, then the target's own options:

python examples/other_board.py digilent_nexys_video --with-etherbone --build --load
"""
import importlib, os, sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import environment

from cores.ssm.config import SSMConfig
from firmware.build import build as build_firmware
from soc.accelerator import add_ssm
from soc.boot import add_boot
from soc.dram import controller_settings
from soc.mailbox import add_mailbox

def with_accelerator(target, config):
    class SoC(target.BaseSoC):
        def __init__(self, *args, **kwargs):
            target.BaseSoC.__init__(self, *args, **kwargs)
            for add in (add_mailbox, add_boot, lambda soc: add_ssm(soc, config)):
                add(self)
        def add_sdram(self, *args, **kwargs): # Without an L2 cache, which the accelerator's ports would bypass.
            super().add_sdram(*args, **{**kwargs, "l2_cache_size": 0, "controller_settings": controller_settings()})
    return SoC

if __name__ == "__main__":
    name   = sys.argv.pop(1)
    target = importlib.import_module(f"litex_boards.targets.{name}")
    target.BaseSoC = with_accelerator(target, SSMConfig(lanes=16))
    sys.argv += [f"--output-dir=build/{name}"]
    target.main()
    build_firmware(f"build/{name}") # For host/stream.py, with build/NAME/csr.csv.
