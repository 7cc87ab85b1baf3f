#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A clock of its own for the core's datapath, which stops while there is nothing to do: simulators skip what stands still."""

from migen import *

from litex.gen import *

# Gated Clock --------------------------------------------------------------------------------------

class GatedClock(LiteXModule):
    """Moves the datapath of an :class:`cores.ssm.core.SSMCore`, which must not be finalized yet, to a clock that runs from a vector
    until its y is there, and during a reset. For simulation, not for FPGAs.
    """
    def __init__(self, core):
        ClockDomainsRenamer("datapath")(core.datapath)
        self.cd_datapath = ClockDomain()
        self.cd_falling  = ClockDomain(reset_less=True)

        # # #

        cycles = core.y_cycle + 1
        active = Signal(max=cycles + 1, reset=cycles) # After a reset it moves, to be reset too.
        moving = Signal(reset=1)
        run    = Signal()                             # Changes while the clock is low.
        self.sync += [
            If(core.sequencer.valid | core.reset,
                active.eq(cycles),
            ).Elif(active != 0,
                active.eq(active - 1),
            ),
            moving.eq(active != 0),
        ]
        self.sync.falling += run.eq(moving)
        self.comb += [
            self.cd_falling.clk.eq(~ClockSignal()),
            self.cd_datapath.clk.eq(ClockSignal() & run),
            self.cd_datapath.rst.eq(ResetSignal()),
        ]
