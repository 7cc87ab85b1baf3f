#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""CRC-32 of a region of memory, by which the host knows that what it streamed has arrived."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream
from litex.soc.interconnect.csr import *

from liteeth.mac.crc import LiteEthMACCRC32, LiteEthMACCRCEngine

from cores.memory.bursts import BurstGenerator
from cores.memory.dma import DMAReader
from cores.memory.region import beat_shift

from operations.config import ALIGNMENT

# CRC-32 -------------------------------------------------------------------------------------------

class CRC32(LiteXModule):
    """CRC-32 of a sequence of words of 32 bits

    That of Ethernet and zlib: ``zlib.crc32(data)``, the least significant byte of a word being the first one.

    Latency: 1 cycle. Throughput: a word a cycle.
    """
    def __init__(self):
        self.clear = Signal() # Begin again.
        self.valid = Signal()
        self.data  = Signal(32)
        self.crc   = Signal(32, reset_less=True)

        # # #

        self.engine = engine = LiteEthMACCRCEngine(32, LiteEthMACCRC32.width, LiteEthMACCRC32.polynom)
        state = Signal(32, reset=LiteEthMACCRC32.init)
        self.comb += [
            engine.data.eq(self.data),
            engine.crc_prev.eq(state),
            self.crc.eq(~state[::-1]),
        ]
        self.sync += [
            If(self.clear,
                state.eq(state.reset)
            ).Elif(self.valid,
                state.eq(engine.crc_next)
            ),
        ]

# Checksum -----------------------------------------------------------------------------------------

class Checksum(LiteXModule):
    """Checksum unit

    Reads a region of memory and computes its CRC-32, ``zlib.crc32`` of its bytes, at 4 bytes a cycle, more than any link
    brings.

        CSRs --> BurstGenerator --> DMAReader --> 32-bit words --> CRC32 --> crc

    To use it, write ``address`` and ``length``, then ``start`` to ``control``; wait until ``status.busy`` is 0; read ``crc``
    if no error is set. A region that is misaligned or empty is not read, one that leaves the memory no further than that: an
    error is set instead. What the bus has acknowledged before the start is seen (see Coherency in docs/architecture.md).

    Parameters
    ----------
    port   : LiteDRAMNativePort or wishbone.Interface, of 128, 256 or 512 bits.
    region : :class:`cores.memory.region.Region`: nothing outside it is read.
    """
    def __init__(self, port, region):
        self._address = CSRStorage(32, description=f"Address of the first byte, a multiple of {ALIGNMENT}.")
        self._length  = CSRStorage(32, description=f"Bytes, a multiple of {ALIGNMENT} that is not 0.")
        self._control = CSRStorage(description="Control.", fields=[
            CSRField("start", size=1, pulse=True, description="Write 1 while not busy: computes the CRC of the region."),
            CSRField("reset", size=1, pulse=True,
                description="Write 1: gives up; errors are cleared. ``status.busy`` is 1 until memory is quiet."),
        ])
        self._status = CSRStatus(description="Status.", fields=[
            CSRField("busy",         size=1, offset=0, description="The region is being read, or a reset is under way."),
            CSRField("misaligned",   size=1, offset=1, description=f"The last start: not multiples of {ALIGNMENT}, or of 0 bytes."),
            CSRField("out_of_range", size=1, offset=2, description="The last start: not inside the memory region."),
        ])
        self._crc = CSRStatus(32, description="CRC-32 of the last region.")

        # # #

        shift  = beat_shift(port)
        beats  = self._length.storage[shift:]
        self.burst  = burst  = ResetInserter()(BurstGenerator(shift, len(beats)))
        self.reader = reader = DMAReader(port, region)
        self.words  = words  = ResetInserter()(stream.Converter(port.data_width, 32))
        self.crc32  = crc32  = CRC32()

        fine       = log2_int(ALIGNMENT)
        misaligned = Signal()
        begin      = Signal()
        asking     = Signal() # Addresses of beats are still to come.
        resetting  = Signal()
        busy       = Signal()
        status     = self._status.fields
        self.comb += [
            misaligned.eq((Cat(self._address.storage[:fine], self._length.storage[:fine]) != 0) | (beats == 0)),
            busy.eq(asking | resetting | ~reader.idle),
            begin.eq(self._control.fields.start & ~busy),
            status.busy.eq(busy),
            burst.reset.eq(resetting),
            burst.sink.valid.eq(asking),
            burst.sink.record.eq(self._address.storage[fine:]),
            burst.sink.length.eq(beats),
            burst.source.connect(reader.sink),
            reader.flush.eq(resetting),
            words.reset.eq(resetting),
            words.sink.valid.eq(reader.source.valid),
            words.sink.data.eq(reader.source.data),
            reader.source.ready.eq(words.sink.ready),
            words.source.ready.eq(1),
            crc32.clear.eq(begin),
            crc32.valid.eq(words.source.valid),
            crc32.data.eq(words.source.data),
            self._crc.status.eq(crc32.crc),
        ]
        self.sync += [
            If(burst.sink.ready, asking.eq(0)),
            If(self._control.fields.reset | reader.out_of_range,
                resetting.eq(1),
                asking.eq(0),
                status.misaligned.eq(0),
                status.out_of_range.eq(~self._control.fields.reset),
            ).Elif(resetting,
                If(reader.idle, resetting.eq(0))
            ).Elif(begin,
                asking.eq(~misaligned),
                status.misaligned.eq(misaligned),
                status.out_of_range.eq(0),
            )
        ]
