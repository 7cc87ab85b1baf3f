#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A filter between a host's Wishbone master and the bus, which answers at once where the bus has nothing.

LiteX's bus gives such an access up after a million cycles, and serves nobody meanwhile, the CPU neither: a host that reads 255
words from a wrong address would stop the SoC for seconds.
"""

from functools import reduce
from operator import or_

from migen import *

from litex.gen import *

from litex.soc.interconnect import wishbone

# Address Filter -----------------------------------------------------------------------------------

class AddressFilter(LiteXModule):
    """A Wishbone master whose accesses to unmapped addresses are acknowledged: writes have no effect, reads give all ones.

    Parameters
    ----------
    master : wishbone.Interface, word addressed.
    bus    : SoCBusHandler, whose slaves are looked at when the SoC is finalized, as more may be added till then.

    Attributes
    ----------
    source : the wishbone.Interface that goes on.
    """
    def __init__(self, master, bus):
        self.soc_bus = bus
        self.adr     = master.adr
        self.mapped  = Signal()
        self.source  = source = wishbone.Interface(data_width=32, address_width=32, addressing="word")

        # # #

        self.comb += [
            master.connect(source),
            If(~self.mapped,
                source.cyc.eq(0),
                source.stb.eq(0),
                master.ack.eq(master.cyc & master.stb),
                master.err.eq(0),
                master.dat_r.eq(2**32 - 1),
            ),
        ]

    def do_finalize(self):
        bus     = self.soc_bus
        regions = [bus.regions[name].decoder(bus)(self.adr) for name in bus.slaves]
        self.comb += self.mapped.eq(reduce(or_, regions))

# Integration --------------------------------------------------------------------------------------

def add_address_filter(soc, master):
    """Add an :class:`AddressFilter` behind the bus master of a LiteX SoC that has this name."""
    address_filter = AddressFilter(soc.bus.masters[master], soc.bus)
    soc.add_module(name=f"{master}_address_filter", module=address_filter)
    soc.bus.masters[master] = address_filter.source
