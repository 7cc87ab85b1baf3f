#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A filter between a Wishbone master and the bus, which lets it write what jobs need and nothing else."""

from functools import reduce
from operator import or_

from migen import *

from litex.gen import *

from litex.soc.interconnect import wishbone
from litex.soc.interconnect.csr import *


# Write Filter -------------------------------------------------------------------------------------

class WriteFilter(LiteXModule):
    """A Wishbone master whose writes reach nothing but some windows: others are acknowledged, and have no effect.

    Parameters
    ----------
    master  : wishbone.Interface, word addressed.
    windows : [(origin, size)] in bytes, multiples of 4.

    Attributes
    ----------
    bus     : the wishbone.Interface that goes on.
    """
    def __init__(self, master, windows):
        self.bus      = bus = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        self._refused = CSRStatus(32, description="Writes stopped since reset.")

        # # #

        for origin, size in windows:
            if origin % 4 or size % 4 or size <= 0:
                raise ValueError(f"a window must be of whole words, is 0x{size:x} bytes at 0x{origin:x}.")
        inside = [(master.adr >= origin//4) & (master.adr < (origin + size)//4) for origin, size in windows]
        stop   = Signal()
        self.comb += [
            master.connect(bus),
            stop.eq(master.we & ~reduce(or_, inside)),
            If(stop,
                bus.cyc.eq(0),
                bus.stb.eq(0),
                master.ack.eq(master.cyc & master.stb),
                master.err.eq(0),
            ),
        ]
        self.sync += If(stop & master.cyc & master.stb, self._refused.status.eq(self._refused.status + 1))
