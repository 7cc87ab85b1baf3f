#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What engines and DRAM do, window by window, on the simulation's console."""

from functools import reduce
from operator import add, or_

from migen import *

from litex.gen import *

from tools.simulation.timeline import COLUMNS, MARK, WINDOW

# Timeline -----------------------------------------------------------------------------------------

class Timeline(LiteXModule):
    """Prints a line for each window of cycles in which a program ran: of each of COLUMNS, in how many of its cycles it was so.

    Parameters
    ----------
    program : :class:`cores.program.program.Program`, of a SoC that simulates.
    ports   : all native ports of LiteDRAM's crossbar.
    """
    def __init__(self, program, ports):
        beats = {
            "read"  : reduce(add, [port.rdata.valid for port in ports if port.mode != "write"]),
            "write" : reduce(add, [port.wdata.valid & port.wdata.ready for port in ports if port.mode != "read"]),
        }
        waits   = reduce(or_, [port.cmd.valid for port in ports])
        signals = {
            "busy" : program.dispatcher.busy,
            **beats,
            "idle" : ~waits & (reduce(add, beats.values()) == 0),
            **{unit.name.lower(): signal for unit, signal in program.busy.items()},
        }

        # # #

        place  = Signal(max=WINDOW)
        time   = Signal(32)
        counts = {name: Signal(32) for name in COLUMNS}
        ends   = Signal()
        self.comb += ends.eq(place == WINDOW - 1)
        self.sync += [
            place.eq(place + 1),
            time.eq(time + 1),
            [counts[name].eq(Mux(ends, 0, counts[name]) + signals.get(name, 0)) for name in COLUMNS],
            If(ends & (counts["busy"] != 0),
                Display(f"{MARK} %d{' %d'*len(COLUMNS)}", time, *counts.values()),
            ),
        ]
