#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""LiteEth's Etherbone, from which bad datagrams are kept away."""

from liteeth.frontend.etherbone import LiteEthEtherbone

from cores.etherbone.datagram_buffer import BUFFER_DEPTH, RECORD_DEPTH, DatagramBuffer

# Etherbone ----------------------------------------------------------------------------------------

class _BufferedPort:
    """A UDP port as LiteEthEtherbone asks for it, with a :class:`DatagramBuffer` on its way in."""
    def __init__(self, crossbar, buffer):
        self.crossbar = self
        self.dw       = crossbar.dw
        self._users   = crossbar
        self._buffer  = buffer

    def get_port(self, udp_port, dw, cd):
        port = self._users.get_port(udp_port, dw, cd)
        self._buffer.comb += port.source.connect(self._buffer.sink)
        port.source = self._buffer.source
        return port


class Etherbone(LiteEthEtherbone):
    """LiteEth's Etherbone behind a :class:`DatagramBuffer`."""
    def __init__(self, udp, udp_port, depth=BUFFER_DEPTH, cd="sys"):
        buffer = DatagramBuffer(depth)
        LiteEthEtherbone.__init__(self, _BufferedPort(udp.crossbar, buffer), udp_port, buffer_depth=RECORD_DEPTH, cd=cd)
        self.buffer = buffer

        # # #

        answers = self.packet.sink
        self.comb += buffer.answered.eq(answers.valid & answers.last & answers.ready)

        # LiteX's PacketFIFO takes the end of a packet as often as it has to wait for room.
        for fifo in (self.probe.fifo, self.record.receiver.fifo, self.record.sender.fifo):
            fifo.comb += fifo.param_fifo.sink.valid.eq(fifo.sink.valid & fifo.sink.last & fifo.payload_fifo.sink.ready)
