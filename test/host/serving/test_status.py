#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The figures of the last seconds."""

import pytest

from host.device.model import Figures
from host.serving.status import WINDOW, recent

# Tests --------------------------------------------------------------------------------------------

def figures(tokens):
    return Figures(decode_tokens=tokens, decode_cycles=10*tokens, waits={**Figures().waits, "ssm": tokens})


@pytest.mark.parametrize("ends, now, tokens, seconds", [
    ([0],                            1,          0, None), # There was none yet.
    ([0, 1],                         1.5,        1, 1.25),
    ([0, 1, 2],                      2 + WINDOW, 2, None), # None in the window: of the last one.
    ([100, 101, 102, 103, 104, 105], 105.5,      9, 2.25), # 4 and 5, those that ended before 103.5 are not.
    ([0, 3600],                      3600.5,     1, 1.25), # Idle before.
])
def test_recent(ends, now, tokens, seconds):
    """Of jobs of 3/4 s with 1, 2, ... tokens, with their ends."""
    rate, found = recent([(end - 0.75, end, figures(n*(n + 1)//2)) for n, end in enumerate(ends)], now)
    assert found == figures(tokens)
    assert rate == (pytest.approx(tokens/seconds) if seconds else 0)
