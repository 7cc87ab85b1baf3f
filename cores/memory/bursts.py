#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From a record to the addresses of its beats."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.region import ADDRESS_BITS

# Burst Generator ----------------------------------------------------------------------------------

class BurstGenerator(LiteXModule):
    """A record's address, and its beats less one, to the addresses of its beats; ``last`` with the last. One a cycle."""
    def __init__(self, length_bits):
        self.sink   = sink   = stream.Endpoint([("address", ADDRESS_BITS), ("last_beat", length_bits)])
        self.source = source = stream.Endpoint([("address", ADDRESS_BITS)])

        # # #

        offset = Signal(length_bits)
        self.comb += [
            source.valid.eq(sink.valid),
            source.address.eq(sink.address + offset),
            source.last.eq(offset == sink.last_beat),
            sink.ready.eq(source.ready & source.last),
        ]
        self.sync += If(source.valid & source.ready, offset.eq(Mux(source.last, 0, offset + 1)))
