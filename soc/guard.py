#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Etherbone that nothing on the network can block, and that can be kept from writing what no job needs.

    UDP port --> EtherboneGuard --> LiteEth's Etherbone --> WriteFilter --> bus
                                                            (option)
"""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream
from litex.soc.interconnect.csr import *

from liteeth.common import eth_udp_user_description, etherbone_magic, etherbone_version
from liteeth.core import LiteEthUDPIPCore
from liteeth.frontend.etherbone import LiteEthEtherbone

from soc.write_filter import WriteFilter, writable_windows

# Constants ----------------------------------------------------------------------------------------

PROBE_WORDS  = 3 # Packet header, and the one word that LiteEth's probe takes.
RECORD_WORDS = 4 # Packet header, record header, base address; values or addresses follow.
MAX_COUNT    = 255
SIZES        = 0x44 # Addresses and data of 4 bytes.

# Etherbone Guard ----------------------------------------------------------------------------------

class EtherboneGuard(LiteXModule):
    """Lets through what LiteEth's Etherbone (2024.12) takes, and drops all other datagrams whole.

    LiteEth trusts the network: it executes a datagram whose Ethernet checksum was wrong, takes the words that are
    missing of one datagram from the next one, takes left-over ones for a record of their own, and waits for ever
    where a record is longer than its FIFO or a probe longer than a word. It sends a reply to whoever was heard last.

    So a datagram is stored until its end is there, and passed on if

    - it came without error, and is as long as its UDP header says,
    - it is Etherbone version 1 with 4-byte addresses and data,
    - it is a probe of 12 bytes, or a record of the main address space with either writes or reads, as many as the
      record's header says, and not more than `buffer_depth` - 1.

    If it is of another sender than the one before, it waits until all replies to that one are out.

    Parameters
    ----------
    buffer_depth : that of LiteEth's Etherbone.

    Attributes
    ----------
    sink, source : eth_udp_user_description(32).
    replied      : input pulse: a reply has left.
    dropped      : output pulse: a datagram was dropped.
    """
    def __init__(self, buffer_depth):
        self.sink    = sink   = stream.Endpoint(eth_udp_user_description(32))
        self.source  = source = stream.Endpoint(eth_udp_user_description(32))
        self.replied = Signal()
        self.dropped = Signal()

        # # #

        max_words = RECORD_WORDS + MAX_COUNT
        params    = [("ip_address", 32), ("src_port", 16), ("dst_port", 16), ("length", 16)]
        self.words   = words   = stream.SyncFIFO([("data", 32)], 512, buffered=True)
        self.packets = packets = stream.SyncFIFO([("words", 9), ("good", 1), ("answered", 1), *params], 8)

        # In: words are stored, up to one too many, and judged. ------------------------------------
        index    = Signal(max=max_words + 2) # Of a word; stays at the first one too many.
        expected = Signal(max=max_words + 1) # Words of the packet by its headers.
        answered = Signal()
        probe    = Signal()
        bad      = Signal()
        magic    = Signal()
        record   = Signal()
        writes   = sink.data[16:24]
        reads    = sink.data[24:32]
        self.comb += [
            magic.eq(
                (Cat(sink.data[8:16], sink.data[:8]) == etherbone_magic) & (sink.data[20:24] == etherbone_version) &
                ~sink.data[17] & (sink.data[24:] == SIZES)), # Bit 17: it is a reply to a probe.
            record.eq(
                ((sink.data[:8] & 0b1110_1111) == 0) & ((writes == 0) ^ (reads == 0)) & # All flags but `cyc`.
                ((writes | reads) < buffer_depth)),
            sink.ready.eq(words.sink.ready & packets.sink.ready),
            words.sink.valid.eq(sink.valid & packets.sink.ready & (index <= max_words)),
            words.sink.data.eq(sink.data),
            packets.sink.valid.eq(sink.valid & sink.last & words.sink.ready),
            packets.sink.words.eq(Mux(index > max_words, index, index + 1)),
            packets.sink.good.eq(~bad & (sink.error == 0) & (index >= 2) &
                (packets.sink.words == Mux(index == 2, PROBE_WORDS, expected)) & ((index != 2) | probe) &
                (sink.length == Cat(Constant(0, 2), packets.sink.words))),
            packets.sink.answered.eq(answered),
            [getattr(packets.sink, name).eq(getattr(sink, name)) for name, _ in params],
        ]
        self.sync += If(sink.valid & sink.ready,
            If(index <= max_words, index.eq(index + 1)),
            If(sink.error != 0, bad.eq(1)),
            If(index == 0,
                probe.eq(sink.data[16]),
                answered.eq(sink.data[16]),
                If(~magic, bad.eq(1)),
            ),
            If(index == 2,
                expected.eq(RECORD_WORDS + (writes | reads)),
                If(~probe,
                    answered.eq(reads != 0),
                    If(~record, bad.eq(1))
                ).Else(
                    expected.eq(PROBE_WORDS),
                )
            ),
            If(sink.last,
                index.eq(0),
                bad.eq(0),
            )
        )

        # Out: good packets to LiteEth, the others nowhere. ----------------------------------------
        packet  = packets.source
        count   = Signal(9)
        last    = Signal()
        passed  = Signal()
        sender  = Signal(32) # Of the last packet passed on.
        waiting = Signal(6)  # Replies that are to leave.
        reply   = Signal()
        self.comb += [
            last.eq(count == packet.words - 1),
            passed.eq(packet.valid & packet.good & ((packet.ip_address == sender) | (waiting == 0))),
            source.valid.eq(passed & words.source.valid),
            source.data.eq(words.source.data),
            source.last.eq(last),
            source.last_be.eq(Cat(Constant(0, 3), last)),
            [getattr(source, name).eq(getattr(packet, name)) for name, _ in params],
            words.source.ready.eq((passed & source.ready) | (packet.valid & ~packet.good)),
            packet.ready.eq(words.source.valid & words.source.ready & last),
            self.dropped.eq(packet.valid & packet.ready & ~packet.good),
            reply.eq(source.valid & source.ready & source.last & packet.answered),
        ]
        self.sync += [
            waiting.eq(waiting + reply - self.replied),
            If(source.valid & source.ready, sender.eq(packet.ip_address)),
            If(words.source.valid & words.source.ready, count.eq(Mux(last, 0, count + 1))),
        ]

# Guarded Etherbone --------------------------------------------------------------------------------

class _Port:
    """What LiteEth's Etherbone needs of a UDP core: one port."""
    def __init__(self, dw, source, sink):
        self.crossbar = self
        self.dw, self.source, self.sink = dw, source, sink

    def get_port(self, udp_port, dw, cd):
        return self


class GuardedEtherbone(LiteXModule):
    """LiteEth's Etherbone behind an :class:`EtherboneGuard`; ``bus`` is its Wishbone master.

    Three FIFOs of LiteEth are corrected, in which a packet whose last word has to wait for room was counted more than
    once, after which its reader never found an end.

    Parameters
    ----------
    udp          : LiteEthUDP.
    udp_port     : port number.
    buffer_depth : words that LiteEth stores of a record, base address included; 256 at most.
    cd           : clock domain of the port, which must be a copy of ``sys``.
    """
    def __init__(self, udp, udp_port, buffer_depth, cd="sys"):
        self._dropped = CSRStatus(32, description="Datagrams dropped: malformed, damaged, or not for Etherbone.")

        # # #

        port = udp.crossbar.get_port(udp_port, dw=32, cd=cd)
        self.guard     = guard = EtherboneGuard(buffer_depth)
        self.etherbone = core  = LiteEthEtherbone(_Port(udp.crossbar.dw, guard.source, port.sink), udp_port,
            buffer_depth=buffer_depth, cd=cd)
        self.bus       = core.wishbone.bus
        self.comb += [
            port.source.connect(guard.sink),
            guard.replied.eq(port.sink.valid & port.sink.ready & port.sink.last),
        ]
        for fifo in (core.probe.fifo, core.record.receiver.fifo, core.record.sender.fifo):
            fifo.comb += fifo.param_fifo.sink.valid.eq(fifo.sink.valid & fifo.sink.last & fifo.payload_fifo.sink.ready)
        self.sync += If(guard.dropped, self._dropped.status.eq(self._dropped.status + 1))

# Integration --------------------------------------------------------------------------------------

def add_etherbone(soc, phy, mac_address, ip_address, udp_port, buffer_depth, protect=False, name="etherbone"):
    """Add Etherbone as ``SoC.add_etherbone`` does, but guarded.

    Parameters
    ----------
    protect : writes reach only what jobs need (:func:`writable_windows`), so the host cannot load a firmware by Etherbone;
              mailbox and accelerator must have been added before.
    """
    soc.check_if_exists(name)
    ethcore = LiteEthUDPIPCore(phy=phy, mac_address=mac_address, ip_address=ip_address, clk_freq=soc.clk_freq,
        with_ip_broadcast=True)
    ethcore = ClockDomainsRenamer({"eth_tx": "eth_tx", "eth_rx": "eth_rx", "sys": "eth_rx"})(ethcore)
    soc.add_module(name=f"ethcore_{name}", module=ethcore)

    setattr(soc, f"cd_{name}", ClockDomain(name))
    domain = getattr(soc, f"cd_{name}")
    soc.comb += [
        domain.clk.eq(ClockSignal("sys")),
        domain.rst.eq(ResetSignal("sys")),
    ]
    etherbone = GuardedEtherbone(ethcore.udp, udp_port, buffer_depth, cd=name)
    soc.add_module(name=name, module=etherbone)
    bus = etherbone.bus
    if protect:
        write_filter = WriteFilter(bus, writable_windows(soc))
        soc.add_module(name=f"{name}_filter", module=write_filter)
        bus = write_filter.bus
    soc.bus.add_master(name=name, master=bus)

    # Timing constraints.
    if not getattr(phy, "model", False):
        clocks = getattr(phy, "crg", phy)
        rx, tx = clocks.cd_eth_rx.clk, clocks.cd_eth_tx.clk
        soc.platform.add_period_constraint(rx, 1e9/phy.rx_clk_freq)
        soc.platform.add_period_constraint(tx, 1e9/phy.tx_clk_freq)
        soc.platform.add_false_path_constraints(soc.crg.cd_sys.clk, rx, tx)
