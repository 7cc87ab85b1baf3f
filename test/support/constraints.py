#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What Vivado is given for a target, beside what it is given for LiteX's own one."""

import re

from litex.soc.integration.builder import Builder

# Constraints --------------------------------------------------------------------------------------

def without_names(text):
    """Lines of a script or of constraints, in any order, without what only the name of class and folder makes different."""
    text = re.sub(r"\w+_clkin", "clkin", re.sub(r"\{\S*/gateware/", "{", text))
    return sorted(line for line in text.splitlines() if line and not line.startswith("#"))


def assert_same_constraints(folder, socs, name):
    """Pins, I/O standards, clocks, false paths and commands are the same. socs: {"litex": SoC, "here": SoC}, which are written; name: of
    their files."""
    for which, soc in socs.items():
        Builder(soc, output_dir=str(folder/which), compile_software=False, compile_gateware=False).build()
    for extension in ("xdc", "tcl"):
        litex, here = (without_names((folder/which/"gateware"/f"{name}.{extension}").read_text()) for which in ("litex", "here"))
        assert here == litex and len(here) > 20
