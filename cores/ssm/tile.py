#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Tile memory: what all kinds of it share; and two banks, one in the lanes' hands, the other swapping its old tile for the
next one in place."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import delay
from cores.memory.convert import BeatsToWords, WordsToBeats
from cores.memory.region import BLOCK_DEPTH

from operations.ssm import ROW_ELEMENTS

# Tile Memory --------------------------------------------------------------------------------------

class TileMemory(LiteXModule):
    """What tile memories share: ports, the banks' status, and the way between the streams' beats and the memory's words.

    Tile n is in bank n % 2. A bank goes FREE -> (load) -> LOADED -> (finish) -> STORING -> (store) -> FREE. ``load`` and
    ``store`` take one command a tile: with ``zero`` nothing is read from the sink and the tile starts as zeros; with
    ``skip`` nothing is stored.

    The memory itself, and when it may be loaded, is the subclass's: it drives ``load_write`` and ``load_done``, takes
    ``load_data`` for ``load_address``, and answers ``store_read`` of ``store_address`` with ``store_data`` in the next
    cycle; ``store_free`` says whether it can.
    """
    def __init__(self, config, data_width, load_layout):
        width        = 16*config.lanes
        address_bits = bits_for(max(config.max_tile_words, 2))

        self.words     = Signal(address_bits) # Geometry.

        self.sink      = stream.Endpoint([("data", data_width)])
        self.source    = stream.Endpoint([("data", data_width)])
        self.load      = load  = stream.Endpoint(load_layout)
        self.store     = store = stream.Endpoint([("skip", 1)])
        self.stored    = Signal() # Pulse: a store command is done; its last word left for the source.

        self.loaded        = Signal(2) # Tiles that wait for the lanes.
        self.finish        = Signal()  # Pulse: the lanes are done with finish_bank.
        self.finish_bank   = Signal()
        self.read_valid    = Signal()
        self.read_bank     = Signal()
        self.read_address  = Signal(address_bits)
        self.state         = Signal(width)
        self.write_valid   = Signal()
        self.write_bank    = Signal()
        self.write_address = Signal(address_bits)
        self.new_state     = Signal(width)

        # For the subclass.
        self.storing       = Signal(2)
        self.load_bank     = Signal()
        self.load_address  = Signal(address_bits)
        self.load_data     = Signal(width)
        self.load_valid    = Signal() # The data is there.
        self.load_write    = Signal()
        self.load_full     = Signal() # All words are written.
        self.load_done     = Signal()
        self.store_bank    = Signal()
        self.store_active  = Signal()
        self.store_address = Signal(address_bits)
        self.store_free    = Signal(reset=1)
        self.store_read    = Signal()
        self.store_data    = Signal(width)

        # # #

        # Status of the banks. ---------------------------------------------------------------------
        store_done = Signal()
        for bank in range(2):
            self.sync += [
                If(self.load_done & (self.load_bank == bank),   self.loaded[bank].eq(1)),
                If(self.finish    & (self.finish_bank == bank), self.loaded[bank].eq(0), self.storing[bank].eq(1)),
                If(store_done     & (self.store_bank == bank),  self.storing[bank].eq(0)),
            ]
        self.sync += [
            If(self.load_done, self.load_bank.eq(~self.load_bank)),
            If(store_done,     self.store_bank.eq(~self.store_bank)),
        ]
        self.comb += self.stored.eq(store_done)

        next_load  = Signal(address_bits)
        next_store = Signal(address_bits)
        self.comb += [
            next_load.eq(self.load_address + 1),
            next_store.eq(self.store_address + 1),
        ]

        # Gather beats to words and back. ----------------------------------------------------------
        self.to_words = to_words = BeatsToWords(data_width, width)
        self.to_beats = to_beats = WordsToBeats(width, data_width)
        self.comb += [
            self.sink.connect(to_words.sink),
            to_beats.source.connect(self.source),
        ]
        if data_width > 16*ROW_ELEMENTS: # Else tiles are of whole beats.
            self.comb += to_words.end.eq(next_load == self.words)

        # Load. ------------------------------------------------------------------------------------
        self.comb += [
            self.load_data.eq(Mux(load.zero, 0, to_words.source.data)),
            self.load_valid.eq(to_words.source.valid | load.zero),
            to_words.source.ready.eq(self.load_write & ~load.zero),
            load.ready.eq(self.load_done),
        ]
        self.sync += [
            If(self.load_done,
                self.load_address.eq(0),
                self.load_full.eq(0),
            ).Elif(self.load_write,
                self.load_address.eq(next_load),
                self.load_full.eq(next_load == self.words),
            )
        ]

        # Store. A FIFO in block RAM hides the memory's latency. -----------------------------------
        self.store_fifo = store_fifo = stream.SyncFIFO([("data", width)], BLOCK_DEPTH, buffered=True)
        last = Signal()
        self.comb += [
            self.store_active.eq(store.valid & (self.storing >> self.store_bank)[0]),
            self.store_read.eq(self.store_active & ~store.skip & (self.store_address != self.words) &
                (store_fifo.level < 8) & self.store_free),
            last.eq(next_store == self.words),
            store_fifo.sink.valid.eq(delay(self, self.store_read, 1, reset_less=False)),
            store_fifo.sink.last.eq(delay(self, last, 1)),
            store_fifo.sink.data.eq(self.store_data),
            store_fifo.source.connect(to_beats.sink),
            store_done.eq(self.store_active & (store.skip | (self.store_address == self.words))),
            store.ready.eq(store_done),
        ]
        self.sync += [
            If(store_done,
                self.store_address.eq(0),
            ).Elif(self.store_read,
                self.store_address.eq(next_store),
            )
        ]

# Tile Banks ---------------------------------------------------------------------------------------

class TileBanks(TileMemory):
    """Ping-pong tile memory. A tile is ``words`` words of L elements; tile n lives in bank n % 2.

    ::

                     +--------+     +---------+ words  +--------+
        sink ------->| gather |---->| bank 0  |------->| gather |-----> source
        (beats)      +--------+     | bank 1  |        +--------+       (beats; last ends a tile)
                                    +---------+
                                     ^       |
                                new_state  state  (the lanes: one read, one write a cycle)

    The next tile may be loaded while the bank is STORING: each word is overwritten only after it was read out.

    Throughput: a word a cycle at each of the four ports. A read answers in the next cycle.
    """
    def __init__(self, config, data_width):
        TileMemory.__init__(self, config, data_width, [("zero", 1)])

        # # #

        # Load: the store's read runs ahead of it. -------------------------------------------------
        load, store  = self.load, self.store
        load_clear   = Signal() # No old word in the way.
        load_storing = Signal() # The bank still holds the old tile, or is still the lanes'.
        behind       = Signal() # The load is behind the store, even if it took a step.
        self.sync += behind.eq(self.load_address + 1 < self.store_address)
        self.comb += [
            load_storing.eq(((self.storing | self.loaded) >> self.load_bank)[0]),
            load_clear.eq(~load_storing | (self.store_active & (self.store_bank == self.load_bank) & ~store.skip & behind)),
            self.load_write.eq(load.valid & load_clear & ~self.load_full & self.load_valid),
            self.load_done.eq(load.valid & self.load_full & ~load_storing),
        ]

        # Banks. The lanes read at port a and write at port b, the swap the other way round: so neither port has to choose
        # what it writes. No word is read while it is written.
        bank_a = [Signal(len(self.state)) for _ in range(2)]
        bank_b = [Signal(len(self.state)) for _ in range(2)]
        for bank in range(2):
            memory = Memory(len(self.state), max(config.max_tile_words, 2), name=f"tile_bank{bank}")
            port_a = memory.get_port(write_capable=True, mode=READ_FIRST)
            port_b = memory.get_port(write_capable=True, mode=READ_FIRST)
            self.specials += memory, port_a, port_b
            self.comb += [
                port_a.adr.eq(Mux(self.loaded[bank], self.read_address, self.load_address)),
                port_a.dat_w.eq(self.load_data),
                port_a.we.eq(self.load_write & (self.load_bank == bank)),
                bank_a[bank].eq(port_a.dat_r),

                port_b.adr.eq(Mux(self.loaded[bank], self.write_address, self.store_address)),
                port_b.dat_w.eq(self.new_state),
                port_b.we.eq(self.write_valid & (self.write_bank == bank)),
                bank_b[bank].eq(port_b.dat_r),
            ]
        self.comb += [
            self.state.eq(Mux(delay(self, self.read_bank, 1), bank_a[1], bank_a[0])),
            self.store_data.eq(Mux(delay(self, self.store_bank, 1), bank_b[1], bank_b[0])),
        ]
