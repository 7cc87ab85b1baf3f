#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Etherbone for a gigabit PHY on a slow FPGA: a 32-bit datapath, all but the PHY on the system clock, and paths kept short."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import wishbone

from liteeth.core import LiteEthUDPIPCore
from liteeth.frontend.etherbone import LiteEthEtherbone

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

# Integration --------------------------------------------------------------------------------------

def add_etherbone(soc, phy, mac_address, ip_address, udp_port, buffer_depth):
    """Add Etherbone, as ``soc.add_etherbone(data_width=32)`` does, with two cuts: a FIFO between UDP and Etherbone (the
    ready of a frame being sent would reach the receiver's FIFO), and registers before the bus (the address comes from block
    RAM, and would go through the bus's decoder to every slave)."""
    soc.ethcore = LiteEthUDPIPCore(phy, mac_address, ip_address, soc.clk_freq, dw=32, with_sys_datapath=True)

    # LiteEth has the FIFO where the clocks differ by name.
    soc.cd_etherbone = ClockDomain()
    soc.comb += [
        soc.cd_etherbone.clk.eq(ClockSignal("sys")),
        soc.cd_etherbone.rst.eq(ResetSignal("sys")),
    ]
    soc.etherbone       = LiteEthEtherbone(soc.ethcore.udp, udp_port, buffer_depth=buffer_depth, cd="etherbone")
    soc.etherbone_slice = WishboneSlice(soc.etherbone.wishbone.bus)
    soc.bus.add_master(name="etherbone", master=soc.etherbone_slice.bus)

    if not getattr(phy, "model", False): # RGMII: both clocks are the PHY's receive clock.
        soc.platform.add_period_constraint(phy.crg.cd_eth_rx.clk, 1e9/phy.rx_clk_freq)
        soc.platform.add_false_path_constraints(soc.crg.cd_sys.clk, phy.crg.cd_eth_rx.clk)
