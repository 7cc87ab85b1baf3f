#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A slave of the bus that answers at once where nothing else is.

LiteX's bus gives such an access up after a million cycles, and serves nobody meanwhile, the CPU neither: a host that reads 255
words from a wrong address would stop the SoC for seconds.
"""

from functools import reduce
from operator import or_

from litex.gen import *

from litex.soc.integration.soc import SoCRegion
from litex.soc.interconnect import wishbone

# Region -------------------------------------------------------------------------------------------

class UnmappedRegion(SoCRegion):
    """All addresses at which the bus has no other slave when it is finalized. Origin and size mean nothing."""
    def __init__(self):
        SoCRegion.__init__(self, origin=0, size=4, mode="r", linker=True) # Those of a linker may overlap others.

    def decoder(self, bus):
        others = [bus.regions[name].decoder(bus) for name in bus.slaves if bus.regions[name] is not self]
        return lambda address: ~reduce(or_, [inside(address) for inside in others])

# Unmapped -----------------------------------------------------------------------------------------

class Unmapped(LiteXModule):
    """Acknowledges each access in its second cycle: reads give zeros, which the bus gets for nothing, writes have no effect.

    `soc_bus` is the SoC's SoCBusHandler, and `name` the slave's there: in the end the region is taken away again, for software
    is not to be told of it.
    """
    def __init__(self, soc_bus, name):
        self.soc_bus = soc_bus
        self.name    = name
        self.bus = bus = wishbone.Interface(data_width=32, address_width=32, addressing="word")

        # # #

        self.sync += bus.ack.eq(bus.cyc & bus.stb & ~bus.ack)

    def do_finalize(self):
        del self.soc_bus.regions[self.name] # The bus is finalized before its modules.
