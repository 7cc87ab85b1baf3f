#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Console of a SoC whose serial port is taken by UARTBone."""

from migen import *

from litex.gen import *

from litex.soc.cores.uart import UART

# Console ------------------------------------------------------------------------------------------

class Console(UART):
    """Console over the bus

    The CPU sees a UART; a terminal reaches its other side, ``xover``, over the bus: ``litex_term crossover``. Unlike
    with LiteX's ``UARTCrossover``, what the CPU prints while no terminal reads is dropped, so the BIOS never waits.

        CPU --> UART --> xover --> bus --> terminal
    """
    def __init__(self):
        UART.__init__(self)
        self.xover = UART(tx_fifo_depth=1, rx_fifo_depth=16, rx_fifo_rx_we=True)

        # # #

        self.comb += [
            self.xover.sink.valid.eq(self.source.valid),
            self.xover.sink.data.eq(self.source.data),
            self.source.ready.eq(1),
            self.xover.source.connect(self.sink),
        ]
