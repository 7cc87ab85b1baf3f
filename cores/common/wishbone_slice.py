#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Registers between a Wishbone master and the bus, for FPGAs on which the way through the bus is long."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import wishbone

# Wishbone Slice -----------------------------------------------------------------------------------

class WishboneSlice(LiteXModule):
    """Registers between a Wishbone master and the bus, both ways: no path goes through. Two cycles more an access."""
    def __init__(self, master):
        self.bus = bus = wishbone.Interface(data_width=master.data_width, address_width=master.address_width,
            addressing=master.addressing)

        # # #

        active = Signal()
        self.comb += bus.cyc.eq(active), bus.stb.eq(active)
        self.sync += [
            master.ack.eq(active & bus.ack),
            master.err.eq(active & bus.err),
            If(active,
                active.eq(~(bus.ack | bus.err)),
                master.dat_r.eq(bus.dat_r),
            ).Else(
                active.eq(master.cyc & master.stb & ~(master.ack | master.err)), # Not the request just answered.
                bus.adr.eq(master.adr),
                bus.dat_w.eq(master.dat_w),
                bus.sel.eq(master.sel),
                bus.we.eq(master.we),
            )
        ]
