#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A memory behind LiteDRAM native ports or Wishbone masters, with random latencies, and a port for the test itself."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from litedram.common import LiteDRAMNativePort

# Random -------------------------------------------------------------------------------------------

class Random(LiteXModule):
    """64 bits that change every cycle (G. Marsaglia, "Xorshift RNGs", J. Stat. Software 8(14), 2003)."""
    def __init__(self):
        self.value = value = Signal(64, reset=88172645463325252)

        # # #

        first, second = Signal(64), Signal(64)
        self.comb += [
            first.eq(value ^ (value << 13)),
            second.eq(first ^ (first >> 7)),
        ]
        self.sync += value.eq(second ^ (second << 17))

# Memory Model -------------------------------------------------------------------------------------

class MemoryModel(LiteXModule):
    """`beats` words of the ports' width. `duty`: of 256 cycles, in how many a command or a beat may move.

    ``protocol_error`` is sticky: a port broke the rules of LiteDRAM's native ports (data of a write not there when the
    memory takes it, data of a read not taken when it comes, not all bytes written), or a Wishbone master changed its
    mind.
    ``outside`` is sticky: a master went for a word outside the region.

    Parameters
    ----------
    origin : word address of the memory on the bus.
    region : first word of the region within the memory, which ends with the memory: address 0 of a native port.
    masked : ports may write single bytes.
    """
    def __init__(self, ports, beats, origin, region, masked=False):
        self.masked         = masked
        self.width          = width = ports[0].data_width
        self.duty           = Signal(9, reset=256)
        self.protocol_error = Signal()
        self.outside        = Signal()
        self.address        = Signal(max=beats) # The test's own port.
        self.write          = Signal()
        self.write_data     = Signal(width)
        self.read_data      = Signal(width)

        # # #

        self.random = random = Random()
        memory = Memory(width, beats)
        access = memory.get_port(write_capable=True, async_read=True)
        self.specials += memory, access
        self.comb += [
            access.adr.eq(self.address),
            access.we.eq(self.write),
            access.dat_w.eq(self.write_data),
            self.read_data.eq(access.dat_r),
        ]
        chances = iter(range(57))

        def chance():
            """A signal that is 1 in `duty` of 256 cycles."""
            first  = 5*next(chances) % 57
            signal = Signal()
            self.comb += signal.eq(random.value[first:first + 8] < self.duty)
            return signal

        for port in ports:
            data_port = memory.get_port(write_capable=True, async_read=True, we_granularity=8 if masked else 0)
            self.specials += data_port
            if isinstance(port, LiteDRAMNativePort):
                self._native(port, data_port, chance(), chance(), beats, region)
            else:
                self._wishbone(port, data_port, chance(), beats, origin, region)

    def enables(self, write, bytes_):
        """Of a memory port, for a write of these bytes."""
        return bytes_ & Replicate(write, self.width//8) if self.masked else write

    def lacks(self, bytes_):
        """Whether they are fewer than they must be."""
        return 0 if self.masked else bytes_ != 2**(self.width//8) - 1

    def _native(self, port, data_port, command_chance, data_chance, beats, region):
        """Commands are taken in order; the data of each moves two cycles later or more, when the memory wants it."""
        self.submodules.queue = queue = stream.SyncFIFO([("address", port.address_width), ("we", 1)], 16, buffered=True)
        data = Signal(self.width)
        self.comb += [
            port.cmd.ready.eq(queue.sink.ready & command_chance),
            queue.sink.valid.eq(port.cmd.valid & command_chance),
            queue.sink.address.eq(port.cmd.addr),
            queue.sink.we.eq(port.cmd.we),
            queue.source.ready.eq(data_chance),
            port.wdata.ready.eq(queue.source.valid & queue.source.we & data_chance),
            data_port.adr.eq(queue.source.address + region),
            data_port.dat_w.eq(port.wdata.data),
            data_port.we.eq(self.enables(port.wdata.ready & port.wdata.valid, port.wdata.we)),
            port.rdata.data.eq(data),
        ]
        self.sync += [
            data.eq(data_port.dat_r),
            port.rdata.valid.eq(queue.source.valid & ~queue.source.we & data_chance),
            If(port.cmd.valid & (port.cmd.addr >= beats - region), self.outside.eq(1)),
            If(port.wdata.ready & (~port.wdata.valid | self.lacks(port.wdata.we)), self.protocol_error.eq(1)),
            If(port.rdata.valid & ~port.rdata.ready, self.protocol_error.eq(1)),
        ]

    def _wishbone(self, port, data_port, chance, beats, origin, region):
        """An acknowledge some cycles after each request."""
        request = Signal()
        waiting = Signal()
        address = Signal(len(port.adr))
        self.comb += [
            request.eq(port.cyc & port.stb),
            port.ack.eq(request & chance),
            port.dat_r.eq(data_port.dat_r),
            data_port.adr.eq(port.adr),
            data_port.dat_w.eq(port.dat_w),
            data_port.we.eq(self.enables(port.ack & port.we, port.sel)),
        ]
        self.sync += [
            waiting.eq(request & ~port.ack),
            address.eq(port.adr),
            If(request & ((port.adr < origin + region) | (port.adr >= origin + beats)), self.outside.eq(1)),
            If((request & port.we & self.lacks(port.sel)) | (request & waiting & (port.adr != address)),
                self.protocol_error.eq(1)
            )
        ]
