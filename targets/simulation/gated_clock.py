#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Clocks for the SSM core and for each engine, which stop while it has nothing to do: simulators skip what stands still."""

from functools import reduce
from operator import or_

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

# Constants ----------------------------------------------------------------------------------------

HOLD = 64 # Cycles that a clock goes on: more than any pipeline has stages.

# Helpers ------------------------------------------------------------------------------------------

def streams(module):
    """Of each stream that is an attribute of a module: whether it may move something. The tape, which is there long before it is wanted, does
    when a beat is taken."""
    parts = [part for value in vars(module).values() for part in (value if isinstance(value, list) else [value])]
    tape  = getattr(module, "tape", None)
    return [part.valid & part.ready if part is tape else part.valid for part in parts if isinstance(part, stream.Endpoint)]

# Gated Clocks -------------------------------------------------------------------------------------

class GatedClocks(LiteXModule):
    """Moves the SSM core of a SoC and the engines of its program, which must not be finalized yet, to clocks of their own. For simulation,
    not for FPGAs.
    """
    def __init__(self, ssm, program=None):
        self.cd_falling = ClockDomain(reset_less=True)
        self.comb += self.cd_falling.clk.eq(~ClockSignal())

        # # #

        # The core has work from a tile's command until the tile is stored, and when the geometry changes.
        core     = ssm.core
        tiles    = Signal(16)
        geometry = Cat(core.headdim, core.d_state)
        known    = Signal(len(geometry))
        self.sync += [
            known.eq(geometry),
            tiles.eq(tiles + (core.command.valid & core.command.ready) - core.stored),
            If(core.reset, tiles.eq(0)),
        ]
        self.move_to_own_clock(core, "ssm_core", core.reset | (tiles != 0) | (known != geometry))
        for name in ("move", "gemv", "vector", "head"):
            engine = getattr(program, name, None)
            if engine is not None:
                active = ~engine.idle | program.resetting
                if name == "head":
                    active |= engine.selector.waiting.source.valid # Logits that came before the descriptor.
                self.move_to_own_clock(engine, f"{name}_engine", active)

    def move_to_own_clock(self, module, name, active):
        """A clock that runs in each cycle in which the module is `active` or one of its streams may move something, for HOLD cycles more, and
        after a reset."""
        ClockDomainsRenamer(name)(module)
        domain = ClockDomain(name)
        self.clock_domains += domain

        # # #

        moves = Signal(name=f"{name}_moves")
        hold  = Signal(max=HOLD + 1, reset=HOLD, name=f"{name}_hold") # After a reset it moves, to be reset too.
        run   = Signal(reset=1, name=f"{name}_run")                   # Changes while the clock is low.
        self.sync         += If(moves, hold.eq(HOLD)).Elif(hold != 0, hold.eq(hold - 1))
        self.sync.falling += run.eq(moves | (hold != 0))
        self.comb += [
            moves.eq(reduce(or_, streams(module), active)),
            domain.clk.eq(ClockSignal() & run),
            domain.rst.eq(ResetSignal()),
        ]
