#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Ethernet PHY of the simulated SoC."""

from migen import *

from litex.gen import *

from liteeth.common import *
from liteeth.phy.model import LiteEthPHYModelCRG

# Ethernet PHY -------------------------------------------------------------------------------------

class EthernetPHY(LiteXModule):
    """Ethernet PHY of the simulated SoC

    Like LiteEth's own model it passes frames without preamble and CRC, a byte a cycle; unlike it, ``ready`` and
    ``last`` reach the pads. A frame that the SoC can't take yet waits outside, where LiteEth's model would lose bytes
    in the middle of it: a byte a cycle is 8 times what the board's 100 Mbit/s bring. And while ``hold`` is 1 no new
    frame begins, as after a PAUSE frame.
    """
    dw                = 8
    model             = True # Without timing constraints.
    with_preamble_crc = False
    def __init__(self, pads):
        self.crg    = LiteEthPHYModelCRG()
        self.sink   = sink   = stream.Endpoint(eth_phy_description(8))
        self.source = source = stream.Endpoint(eth_phy_description(8))
        self.hold   = Signal()

        # # #

        first = Signal(reset=1)
        take  = Signal()
        self.sync.eth_rx += If(source.valid & source.ready, first.eq(source.last))
        self.comb += take.eq(~(first & self.hold))
        self.comb += [
            pads.source_valid.eq(sink.valid),
            pads.source_last.eq(sink.last),
            pads.source_data.eq(sink.data),
            sink.ready.eq(pads.source_ready),

            source.valid.eq(pads.sink_valid & take),
            source.last.eq(pads.sink_last),
            source.data.eq(pads.sink_data),
            pads.sink_ready.eq(source.ready & take),
        ]
