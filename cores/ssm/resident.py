#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Tile memory that keeps many head tiles, so that a layer's state stays on chip from token to token."""

from migen import *

from litex.gen import *

from cores.ssm.tile import TileMemory

# Resident Tiles -----------------------------------------------------------------------------------

class ResidentTiles(TileMemory):
    """Tile memory of ``config.resident_tiles`` tiles, in the place of :class:`cores.ssm.tile.TileBanks`.

    ::

                      write port             read port
        sink --> gather -->+-----------------------+--> gather --> source
        (128, beats)       | tile 0, tile 1, ...   |               (beats; last ends a tile)
        new_state -------->+-----------------------+--> state      (the lanes come first)

    Two tiles are under way at a time, one in the lanes' hands and the next one; their banks are numbers only. Where a tile
    lies its command says: ``load.tile``. With ``resident`` it is taken as it lies there; else it comes from the sink, or
    with ``zero`` is cleared. With ``skip`` it stays there; else it leaves for the source as well.

    A resident tile is ready at once, unless the one before is still to be stored. Everything else waits for the tile
    before to be done with, and uses the cycles that the lanes leave: this memory is for tiles that stay.

    Throughput: a word a cycle for the lanes, read and written. A read answers in the next cycle.
    """
    def __init__(self, config, data_width):
        size  = config.max_tile_words
        tiles = config.resident_tiles
        depth = tiles*size
        TileMemory.__init__(self, config, data_width, [("zero", 1), ("resident", 1), ("skip", 1), ("tile", bits_for(tiles - 1))])

        # # #

        # Load: first the base, then the words. ----------------------------------------------------
        load    = self.load
        bases   = Array([Signal(bits_for(depth - 1), name=f"base{bank}") for bank in range(2)])
        stores  = Signal(2) # The bank's tile is to be stored when it is finished.
        busy    = Signal(2)
        allowed = Signal()
        based   = Signal()
        self.comb += [
            busy.eq(self.loaded | self.storing),
            allowed.eq(load.valid & ~(busy >> self.load_bank)[0] &
                ~(Mux(load.resident, busy & stores, busy) >> (self.load_bank == 0))[0]),
            self.load_write.eq(based & ~load.resident & ~self.load_full & ~self.write_valid &
                self.load_valid),
            self.load_done.eq(based & (load.resident | self.load_full)),
        ]
        self.sync += [
            If(self.load_done,
                based.eq(0),
            ).Elif(allowed,
                based.eq(1),
                bases[self.load_bank].eq(
                    sum((Mux(load.tile[n], size << n, 0) for n in range(len(load.tile))), Constant(0))),
            ),
            [If(self.load_done & (self.load_bank == bank), stores[bank].eq(~load.skip)) for bank in range(2)],
        ]

        # Memory. ----------------------------------------------------------------------------------
        memory = Memory(len(self.state), depth)
        read   = memory.get_port(mode=READ_FIRST)
        write  = memory.get_port(write_capable=True)
        self.specials += memory, read, write
        self.comb += [
            self.state.eq(read.dat_r),
            self.store_free.eq(~self.read_valid),
            self.store_data.eq(read.dat_r),
            If(self.read_valid,
                read.adr.eq(bases[self.read_bank] + self.read_address),
            ).Else(
                read.adr.eq(bases[self.store_bank] + self.store_address),
            ),
            If(self.write_valid,
                write.adr.eq(bases[self.write_bank] + self.write_address),
                write.dat_w.eq(self.new_state),
            ).Else(
                write.adr.eq(bases[self.load_bank] + self.load_address),
                write.dat_w.eq(self.load_data),
            ),
            write.we.eq(self.write_valid | self.load_write),
        ]
