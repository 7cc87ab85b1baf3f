#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""LiteDRAM's settings."""

import pytest

from litedram import modules

from soc.dram import refresh_in_time

# Refresh ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, clock, rate, grade, before, nanoseconds", [ # The least, by JESD79-3 for 1, 2, 4 and 8 Gb.
    ("MT41K128M16",  100e6, "1:4", None,   32,  160),
    ("MT41K128M16",  100e6, "1:4", "800",  16,  160),
    ("MT41K256M16",   75e6, "1:2", None,   104, 260),
    ("MT41K256M16",  100e6, "1:4", "1066", 35,  260),
    ("MT41K512M16",  125e6, "1:4", None,   70,  350),
    ("MT8JTF12864",  125e6, "1:4", None,   15,  110), # LiteDRAM has it as a time.
    ("IS43TR16256A", 100e6, "1:4", None,   27,  260),
])
def test_refresh(name, clock, rate, grade, before, nanoseconds):
    module = getattr(modules, name)(clock, rate, speedgrade=grade)
    assert module.timing_settings.tRFC == before
    assert refresh_in_time(module) is module
    cycles = module.timing_settings.tRFC
    assert nanoseconds <= 1e9*cycles/clock < nanoseconds + 2e9/clock and cycles <= before


def test_refresh_of_other_memories():
    for module in (modules.AS4C32M16(50e6, "1:1"), modules.MT46H32M16(100e6, "1:2"), modules.MT47H64M16(100e6, "1:2")):
        before = vars(module.timing_settings).copy()
        refresh_in_time(module)
        assert vars(module.timing_settings) == before
