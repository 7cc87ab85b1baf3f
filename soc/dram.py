#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""LiteDRAM set up for long streams: a model's weights, head tiles."""

from math import ceil

from litedram.core.controller import ControllerSettings

# Controller Settings ------------------------------------------------------------------------------

def controller_settings():
    """Settings for ``add_sdram(controller_settings=...)``.

    Long runs of reads and of writes, since each change of direction costs; deep command buffers, so that the next bank
    opens its row while the last commands of the present one wait; rows left open; refreshes in groups of eight, as
    many as JEDEC allows to postpone.
    """
    return ControllerSettings(
        cmd_buffer_depth    = 16,
        read_time           = 1023,
        write_time          = 895,
        refresh_postponing  = 8,
        with_auto_precharge = False,
    )

# Timings ------------------------------------------------------------------------------------------

def refresh_in_time(module):
    """A LiteDRAM module (litedram.modules) whose refresh takes the time that its data sheet says, tRFC. Returns it.

    LiteDRAM has the tRFC of most DDR3 modules in clocks of their speed grade, 128 at 800 MHz for the 160 ns of 2 Gb (JESD79-3), and counts
    as many of the DRAM's own clocks, which behind an FPGA are two to five times longer. Other modules stay as they are.
    """
    grades = module.speedgrade_timings
    grade  = grades[module.speedgrade or "default"]
    rate   = next((int(name) for name, timings in grades.items() if timings is grade and name.isdigit()), None) # Transfers a second, millions.
    clocks, _ = grade.tRFC if isinstance(grade.tRFC, tuple) else (None, grade.tRFC)
    if module.memtype == "DDR3" and clocks and rate:
        cycles  = ceil((2000*clocks/rate + module.margin)*module.clk_freq/1e9)
        settings = module.timing_settings
        settings.tRFC = min(settings.tRFC, cycles)
    return module
