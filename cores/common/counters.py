#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Counters of events, for any engine."""

from migen import *

from litex.gen import *

from litex.soc.interconnect.csr import *

# Constants ----------------------------------------------------------------------------------------

COUNTER_BITS = 40 # 3 hours at 100 MHz.

# Counters -----------------------------------------------------------------------------------------

class Counters(LiteXModule):
    """Event counters of COUNTER_BITS bits, which wrap, cleared together and read from one common snapshot.

    events : {name: (Signal, description)}; a counter adds its signal each cycle.
    """
    def __init__(self, events):
        self.latch = CSRStorage(1, name="latch", description="A write copies all counters to their registers at once.")
        self.clear = CSRStorage(1, name="clear", description="A write sets all counters to 0.")

        # # #

        for name, (event, description) in events.items():
            step   = Signal(len(event), name=f"{name}_step") # Of all counters a cycle late.
            count  = Signal(COUNTER_BITS, name=f"{name}_count")
            status = CSRStatus(COUNTER_BITS, name=name, description=description)
            setattr(self, name, status)
            self.sync += [
                step.eq(event),
                count.eq(count + step),
                If(self.clear.re, count.eq(0)),
                If(self.latch.re, status.status.eq(count)),
            ]
