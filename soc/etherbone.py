#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Adds Etherbone to a LiteX SoC: the host's way to its bus over Ethernet."""

from migen import *

from litex.soc.interconnect import stream

from liteeth.common import eth_phy_description
from liteeth.core import LiteEthUDPIPCore

from cores.etherbone.core import Etherbone
from cores.etherbone.datagram_buffer import RECORD_DEPTH
from cores.common.wishbone_slice import WishboneSlice
from cores.etherbone.write_filter import WriteFilter

from operations.protocol import DATA_OFFSET, JOB_BYTES, MANIFEST_OFFSET, MANIFEST_SIZE, RING_ENTRIES, RING_OFFSET

from soc.boot import csr_address

# Constants ----------------------------------------------------------------------------------------

# CSRs that a host writes, beside memory, to run jobs and to watch them.
WRITABLE_CSRS = (("mailbox", "doorbell"), ("mailbox", "latch"), ("ssm", "counters_latch"))

ICMP_DEPTH = 1024 # Bytes of the longest ping; in block RAM.
WINDOW     = 8192 # Words that a host may have on their way, see docs/link.md.

# Windows ------------------------------------------------------------------------------------------

def writable_windows(soc):
    """[(origin, size)] of what a host must write to run jobs on a running firmware: ring, manifest, data, some CSRs."""
    ram     = soc.bus.regions["main_ram"]
    windows = [(ram.origin + offset, size) for offset, size in (
        (RING_OFFSET,     RING_ENTRIES*JOB_BYTES),
        (MANIFEST_OFFSET, MANIFEST_SIZE),
        (DATA_OFFSET,     ram.size - DATA_OFFSET),
    )]
    return windows + [(csr_address(soc, module, register), 4) for module, register in WRITABLE_CSRS]

# Etherbone ----------------------------------------------------------------------------------------

def add_etherbone(soc, phy, mac_address, ip_address, udp_port=1234, protect=False, wide=False, name="etherbone"):
    """Add Etherbone to a LiteX SoC, as its own ``add_etherbone``, with :class:`Etherbone` in place of LiteEth's.

    Parameters
    ----------
    phy     : PHY with the clock domains ``eth_rx`` and ``eth_tx``, 8 bits wide.
    wide    : For a gigabit PHY: UDP/IP is 32 bits wide, not 8; and there are registers before the bus, as the address comes
              from block RAM and goes to every slave.
    protect : Writes reach only what jobs need (:func:`cores.etherbone.write_filter.writable_windows`), so no firmware can be loaded by
              Etherbone; mailbox and accelerator must have been added before.
    """
    core = LiteEthUDPIPCore(phy, mac_address, ip_address, soc.clk_freq,
        dw                = 32 if wide else 8,
        with_sys_datapath = True,
        icmp_fifo_depth   = ICMP_DEPTH)
    soc.add_module(name=f"ethcore_{name}", module=core)
    if wide:
        # Whether a word is taken is decided by all of ARP, ICMP and UDP: a register before it reaches the MAC's FIFO.
        buffer  = stream.Buffer(eth_phy_description(32), pipe_valid=True, pipe_ready=True)
        receive = core.mac.core.rx_datapath
        receive.submodules += buffer
        receive.pipeline.insert(-1, buffer)
        # LiteEth has a FIFO between UDP and Etherbone where their clocks differ by name.
        soc.cd_etherbone = ClockDomain("etherbone")
        soc.comb += [
            soc.cd_etherbone.clk.eq(ClockSignal("sys")),
            soc.cd_etherbone.rst.eq(ResetSignal("sys")),
        ]
    soc.add_module(name=name, module=Etherbone(core.udp, udp_port, cd="etherbone" if wide else "sys"))
    bus = getattr(soc, name).wishbone.bus
    if protect:
        write_filter = WriteFilter(bus, writable_windows(soc))
        soc.add_module(name=f"{name}_filter", module=write_filter)
        bus = write_filter.bus
    if wide:
        wishbone_slice = WishboneSlice(bus)
        soc.add_module(name=f"{name}_slice", module=wishbone_slice)
        bus = wishbone_slice.bus
    soc.bus.add_master(name=name, master=bus)
    soc.add_constant("ETHERBONE_BUFFER_DEPTH", RECORD_DEPTH) # For the host.
    soc.add_constant("ETHERBONE_WINDOW",       WINDOW)

    if not getattr(phy, "model", False):
        rx, tx = phy.crg.cd_eth_rx.clk, phy.crg.cd_eth_tx.clk
        soc.platform.add_period_constraint(rx, 1e9/phy.rx_clk_freq)
        if tx is not rx: # Of RGMII both are the PHY's receive clock.
            soc.platform.add_period_constraint(tx, 1e9/phy.tx_clk_freq)
        soc.platform.add_false_path_constraints(soc.crg.cd_sys.clk, *dict.fromkeys((rx, tx)))
