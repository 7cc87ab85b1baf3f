#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Mailbox between host and firmware: boot address, doorbell, completion count and clock."""

from migen import *

from litex.gen import *

from litex.soc.interconnect.csr import *
from litex.soc.interconnect.csr_eventmanager import *

# Mailbox ------------------------------------------------------------------------------------------

class Mailbox(LiteXModule):
    """Mailbox

    Registers through which the host, which reaches the bus by Etherbone or UARTBone, and the firmware talk. What they
    say (the job ring in DRAM) is in ``operations/protocol.py``; here are only the two counters that say how far each is, the
    address to boot from, and a clock common to both.

    To start a firmware, the host uploads it to DRAM and writes its entry address to ``boot``; the boot ROM (see
    ``soc/boot.py``) waits for that, clears ``boot`` and jumps. To run jobs, the host writes them to the ring and their
    total number to ``doorbell``; the firmware writes the number it has finished to ``completed``.

    Each write to ``doorbell`` also stores the time in ``doorbell_cycles`` and raises the event ``doorbell``, so the
    time from doorbell to completion does not contain what the firmware takes to notice. ``cycles`` is read by a write
    to ``latch`` first: a 64-bit CSR is two bus words, and the latch holds them together.
    """
    def __init__(self):
        self.boot      = CSRStorage(32, description="""Entry address for the boot ROM; 0: none.
            Cleared by the boot ROM before it jumps. 0xffffffff asks a running firmware to return to the boot ROM.""")
        self.doorbell  = CSRStorage(32, description="Number of jobs in the ring since the firmware started.")
        self.completed = CSRStorage(32, description="Number of jobs completed since the firmware started.")
        self.latch     = CSRStorage(1,  description="A write copies the clock to ``cycles``.")
        self.cycles    = CSRStatus(64,  description="Clock cycles since reset, at the last write to ``latch``.")
        self.doorbell_cycles = CSRStatus(64,
            description="Clock cycles since reset, at the last write to ``doorbell``.")

        self.ev          = EventManager()
        self.ev.doorbell = EventSourcePulse(description="``doorbell`` was written.")
        self.ev.finalize()

        # # #

        cycles = Signal(64)
        self.sync += [
            cycles.eq(cycles + 1),
            If(self.latch.re,    self.cycles.status.eq(cycles)),
            If(self.doorbell.re, self.doorbell_cycles.status.eq(cycles)),
        ]
        self.comb += self.ev.doorbell.trigger.eq(self.doorbell.re)
