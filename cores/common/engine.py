#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What engines on the SoC's bus have in common: version, reset, errors, events."""

from functools import reduce
from operator import and_

from migen import *

from litex.gen import *

from litex.soc.integration.doc import AutoDoc
from litex.soc.interconnect.csr import *
from litex.soc.interconnect.csr_eventmanager import *

from operations.config import GATEWARE_VERSION

# Constants ----------------------------------------------------------------------------------------

SETTLE = 31 # Cycles of a reset, at least: what a request on its way to a memory master takes to show there.

# Engine -------------------------------------------------------------------------------------------

class Engine(LiteXModule, AutoDoc):
    """Base of an engine's peripheral. A subclass calls, in this order where it needs them,

    - :meth:`add_registers`: version, control, errors and events;
    - :meth:`add_reset`: all its parts go idle at once, then memory becomes quiet;
    - :meth:`add_errors`: what its checks find sets bits in ``errors`` until the next reset.

    Attributes
    ----------
    resetting : 1 from a reset until memory is quiet.
    """
    def add_registers(self, what, errors):
        """Registers of every engine. what: what its work is called, in the plural; errors: {name: description}."""
        self._version = CSRStatus(32, description="Gateware version: major[23:16], minor[15:8], patch[7:0].")
        self._control = CSRStorage(description="Control.", fields=[
            CSRField("reset", size=1, pulse=True, description=f"""Write 1: queue, core and DMA go idle; {what} in flight
                are lost, errors cleared, ``{what}_done`` set to 0. ``status.busy`` is 1 until memory is quiet."""),
        ])
        self._errors = CSRStatus(description="Errors since the last reset.", fields=[
            CSRField(name, size=1, description=description) for name, description in errors.items()])
        self.ev       = EventManager()
        self.ev.done  = EventSourcePulse(description=f"One of the {what} with the flag ``interrupt`` is completed.")
        self.ev.error = EventSourcePulse(description="A bit of ``errors`` was set.")
        self.ev.finalize()

        # # #

        self.resetting = Signal()
        self.comb += self._version.status.eq(GATEWARE_VERSION)

    def add_reset(self, parts, readers, writers):
        """`parts` have a `reset`; memory masters are not reset, but readers are flushed."""
        resetting = self.resetting
        settle    = Signal(max=SETTLE + 1)
        quiet     = Signal()
        self.comb += [
            quiet.eq(reduce(and_, (master.idle for master in (*readers, *writers)))),
            [part.reset.eq(resetting) for part in parts],
            [reader.flush.eq(resetting) for reader in readers],
        ]
        self.sync += [
            If(self._control.fields.reset,
                resetting.eq(1),
                settle.eq(SETTLE),
            ).Elif(settle != 0,
                settle.eq(settle - 1),
            ).Elif(quiet,
                resetting.eq(0),
            )
        ]

    def add_errors(self, found):
        """found: {name: Signal that is 1 in a cycle in which the error is found}, as in add_registers."""
        names  = [field.name for field in self._errors.fields.fields]
        raised = Cat(*[found[name] for name in names])
        sticky = Signal(len(names))
        self.comb += [
            [getattr(self._errors.fields, name).eq(sticky[n]) for n, name in enumerate(names)],
            self.ev.error.trigger.eq((raised != 0) & ~self.resetting),
        ]
        self.sync += If(self.resetting, sticky.eq(0)).Else(sticky.eq(sticky | raised))
