#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""LiteDRAM set up for streams of head tiles."""

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
