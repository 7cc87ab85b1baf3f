#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Tile memory that keeps many head tiles, so that a layer's state stays on chip from token to token."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.ssm.fp16 import delay

# Resident Tiles -----------------------------------------------------------------------------------

class ResidentTiles(LiteXModule):
    """Tile memory of ``config.resident_tiles`` tiles, in the place of :class:`cores.ssm.tile.TileBanks`.

    ::

                      write port             read port
        sink --> gather -->+-----------------------+--> gather --> source
        (128, beats)       | tile 0, tile 1, ...   |               (128, beats; last ends a tile)
        new_state -------->+-----------------------+--> state      (the lanes come first)

    Two tiles are under way at a time, one in the lanes' hands and the next one; "bank" numbers them, tile n being in bank
    n % 2. Where a tile lies its command says: ``load.tile``. With ``resident`` it is taken as it lies there; else it comes
    from the sink, or with ``zero`` is cleared. With ``skip`` it stays there; else it leaves for the source as well.

    A resident tile is ready at once, unless the one before is still to be stored. Everything else waits for the tile
    before to be done with, and uses the cycles that the lanes leave: this memory is for tiles that stay.

    Throughput: a word a cycle for the lanes, read and written. A read answers in the next cycle.
    """
    def __init__(self, config):
        width        = 16*config.lanes
        size         = config.max_tile_words
        tiles        = config.resident_tiles
        depth        = tiles*size
        offset_bits  = bits_for(max(size, 2))
        address_bits = bits_for(depth - 1)

        self.words     = Signal(offset_bits) # Geometry.

        self.sink      = stream.Endpoint([("data", 128)])
        self.source    = stream.Endpoint([("data", 128)])
        self.load      = load  = stream.Endpoint([("zero", 1), ("resident", 1), ("skip", 1), ("tile", bits_for(tiles - 1))])
        self.store     = store = stream.Endpoint([("skip", 1)])
        self.stored    = Signal() # Pulse: a store command is done; its last word left for the source.

        self.loaded        = Signal(2) # Tiles that wait for the lanes.
        self.finish        = Signal()  # Pulse: the lanes are done with finish_bank.
        self.finish_bank   = Signal()
        self.read_valid    = Signal()
        self.read_bank     = Signal()
        self.read_address  = Signal(offset_bits)
        self.state         = Signal(width)
        self.write_valid   = Signal()
        self.write_bank    = Signal()
        self.write_address = Signal(offset_bits)
        self.new_state     = Signal(width)

        # # #

        # Status of the banks. ---------------------------------------------------------------------
        storing    = Signal(2)
        stores     = Signal(2) # The tile is to be stored when it is finished.
        bases      = Array([Signal(address_bits, name=f"base{bank}") for bank in range(2)])
        load_bank  = Signal()
        store_bank = Signal()
        load_done  = Signal()
        store_done = Signal()
        for bank in range(2):
            self.sync += [
                If(load_done   & (load_bank == bank),        self.loaded[bank].eq(1), stores[bank].eq(~load.skip)),
                If(self.finish & (self.finish_bank == bank), self.loaded[bank].eq(0), storing[bank].eq(1)),
                If(store_done  & (store_bank == bank),       storing[bank].eq(0)),
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

        # Load: first the base, then the words. ----------------------------------------------------
        busy         = Signal(2)
        allowed      = Signal()
        based        = Signal()
        load_address = Signal(offset_bits)
        load_write   = Signal()
        self.comb += [
            busy.eq(self.loaded | storing),
            allowed.eq(load.valid & ~(busy >> load_bank)[0] &
                ~(Mux(load.resident, busy & stores, busy) >> (load_bank == 0))[0]),
            load_write.eq(based & ~load.resident & (load_address != self.words) & ~self.write_valid &
                (to_words.source.valid | load.zero)),
            to_words.source.ready.eq(load_write & ~load.zero),
            load_done.eq(based & (load.resident | (load_address == self.words))),
            load.ready.eq(load_done),
        ]
        self.sync += [
            If(load_done,
                based.eq(0),
                load_address.eq(0),
            ).Elif(allowed,
                based.eq(1),
                bases[load_bank].eq(sum((Mux(load.tile[n], size << n, 0) for n in range(len(load.tile))), Constant(0))),
            ),
            If(load_write, load_address.eq(load_address + 1)),
        ]

        # Store. Two words of FIFO hide the memory's latency. --------------------------------------
        self.store_fifo = store_fifo = stream.SyncFIFO([("data", width)], 4)
        store_address   = Signal(offset_bits)
        store_read      = Signal()
        store_active    = Signal()
        data            = Signal(width)
        self.comb += [
            store_active.eq(store.valid & (storing >> store_bank)[0]),
            store_read.eq(store_active & ~store.skip & (store_address != self.words) & (store_fifo.level < 2) &
                ~self.read_valid),
            store_fifo.sink.valid.eq(delay(self, store_read, 1, reset_less=False)),
            store_fifo.sink.last.eq(delay(self, store_address == (self.words - 1)[:offset_bits], 1)),
            store_fifo.sink.data.eq(data),
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

        # Memory. ----------------------------------------------------------------------------------
        self.memory = memory = Memory(width, depth)
        read  = memory.get_port()
        write = memory.get_port(write_capable=True)
        self.specials += read, write
        self.comb += [
            data.eq(read.dat_r),
            self.state.eq(read.dat_r),
            If(self.read_valid,
                read.adr.eq(bases[self.read_bank] + self.read_address),
            ).Else(
                read.adr.eq(bases[store_bank] + store_address),
            ),
            If(self.write_valid,
                write.adr.eq(bases[self.write_bank] + self.write_address),
                write.dat_w.eq(self.new_state),
            ).Else(
                write.adr.eq(bases[load_bank] + load_address),
                write.dat_w.eq(Mux(load.zero, 0, to_words.source.data)),
            ),
            write.we.eq(self.write_valid | load_write),
        ]
