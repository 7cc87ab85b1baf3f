#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Two banks of tile memory: one in the lanes' hands, the other swapping its old tile for the next one in place."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.ssm.fp16 import delay

# Tile Banks ---------------------------------------------------------------------------------------

class TileBanks(LiteXModule):
    """Ping-pong tile memory. A tile is ``words`` words of L elements; tile n lives in bank n % 2.

    ::

                     +--------+     +---------+ words  +--------+
        sink ------->| gather |---->| bank 0  |------->| gather |-----> source
        (128, beats) +--------+     | bank 1  |        +--------+       (128, beats; last ends a tile)
                                    +---------+
                                     ^       |
                                new_state  state  (the lanes: one read, one write a cycle)

    A bank goes FREE -> (load) -> LOADED -> (finish) -> STORING -> (store) -> FREE. The next tile may be loaded while
    the bank is STORING: each word is overwritten only after it was read out. ``load`` and ``store`` take one command a
    tile: with ``zero`` nothing is read from the sink and the tile starts as zeros; with ``skip`` nothing is stored.

    Throughput: a word a cycle at each of the four ports. A read answers in the next cycle.
    """
    def __init__(self, config):
        width = 16*config.lanes
        depth = max(config.max_tile_words, 2)
        address_bits = bits_for(depth)

        self.words     = Signal(address_bits) # Geometry.

        self.sink      = stream.Endpoint([("data", 128)])
        self.source    = stream.Endpoint([("data", 128)])
        self.load      = load  = stream.Endpoint([("zero", 1)])
        self.store     = store = stream.Endpoint([("skip", 1)])
        self.stored    = Signal() # Pulse: a store command is done; its last word left for the source.

        self.loaded        = Signal(2) # Tiles that wait for the lanes.
        self.finish        = Signal()  # Pulse: the lanes are done with finish_bank.
        self.finish_bank   = Signal()
        self.read_bank     = Signal()
        self.read_address  = Signal(address_bits)
        self.state         = Signal(width)
        self.write_valid   = Signal()
        self.write_bank    = Signal()
        self.write_address = Signal(address_bits)
        self.new_state     = Signal(width)

        # # #

        # Status of the banks. ---------------------------------------------------------------------
        storing    = Signal(2)
        load_bank  = Signal()
        store_bank = Signal()
        load_done  = Signal()
        store_done = Signal()
        for bank in range(2):
            self.sync += [
                If(load_done  & (load_bank == bank),        self.loaded[bank].eq(1)),
                If(self.finish & (self.finish_bank == bank), self.loaded[bank].eq(0), storing[bank].eq(1)),
                If(store_done & (store_bank == bank),       storing[bank].eq(0)),
            ]
        self.sync += [
            If(load_done,  load_bank.eq(~load_bank)),
            If(store_done, store_bank.eq(~store_bank)),
        ]
        self.comb += self.stored.eq(store_done)

        # Gather beats to words and back. ----------------------------------------------------------
        self.to_words = to_words = stream.Converter(128, width)
        self.to_beats = to_beats = stream.Converter(width, 128)
        self.comb += [
            self.sink.connect(to_words.sink),
            to_beats.source.connect(self.source),
        ]

        # Store: the read runs ahead of the load. --------------------------------------------------
        # Two words of FIFO hide the memory's latency.
        self.store_fifo = store_fifo = stream.SyncFIFO([("data", width)], 4)
        store_address   = Signal(address_bits)
        store_read      = Signal()
        store_read_last = Signal()
        store_active    = Signal()
        bank_state      = [Signal(width) for _ in range(2)]
        self.comb += [
            store_active.eq(store.valid & (storing >> store_bank)[0]),
            store_read.eq(store_active & ~store.skip & (store_address != self.words) & (store_fifo.level < 2)),
            store_read_last.eq(store_address == (self.words - 1)[:address_bits]),
            store_fifo.sink.valid.eq(delay(self, store_read, 1, reset_less=False)),
            store_fifo.sink.last.eq(delay(self, store_read_last, 1)),
            store_fifo.sink.data.eq(Mux(delay(self, store_bank, 1), bank_state[1], bank_state[0])),
            store_fifo.source.connect(to_beats.sink),
            store_done.eq(store_active & (store.skip | (store_address == self.words))),
            store.ready.eq(store_done),
        ]
        self.sync += [
            If(store_done,
                store_address.eq(0),
            ).Elif(store_read,
                store_address.eq(store_address + 1),
            )
        ]

        # Load. ------------------------------------------------------------------------------------
        load_address = Signal(address_bits)
        load_write   = Signal()
        load_clear   = Signal() # No old word in the way.
        load_storing = Signal() # The bank still holds the old tile, or is still the lanes'.
        self.comb += [
            load_storing.eq(((storing | self.loaded) >> load_bank)[0]),
            load_clear.eq(~load_storing |
                (store_active & (store_bank == load_bank) & ~store.skip & (load_address < store_address))),
            load_write.eq(load.valid & load_clear & (load_address != self.words) & (to_words.source.valid | load.zero)),
            to_words.source.ready.eq(load_write & ~load.zero),
            load_done.eq(load.valid & (load_address == self.words) & ~load_storing),
            load.ready.eq(load_done),
        ]
        self.sync += [
            If(load_done,
                load_address.eq(0),
            ).Elif(load_write,
                load_address.eq(load_address + 1),
            )
        ]

        # Banks: one read and one write port each, the lanes' or the swap's. -----------------------
        for bank in range(2):
            memory = Memory(width, depth)
            read   = memory.get_port()
            write  = memory.get_port(write_capable=True)
            self.specials += memory, read, write
            lanes_write = Signal()
            self.comb += [
                If(self.loaded[bank],
                    read.adr.eq(self.read_address),
                ).Else(
                    read.adr.eq(store_address),
                ),
                bank_state[bank].eq(read.dat_r),
                lanes_write.eq(self.write_valid & (self.write_bank == bank)),
                If(lanes_write,
                    write.adr.eq(self.write_address),
                    write.dat_w.eq(self.new_state),
                    write.we.eq(1),
                ).Else(
                    write.adr.eq(load_address),
                    write.dat_w.eq(Mux(load.zero, 0, to_words.source.data)),
                    write.we.eq(load_write & (load_bank == bank)),
                ),
            ]
        self.comb += self.state.eq(Mux(delay(self, self.read_bank, 1), bank_state[1], bank_state[0]))
