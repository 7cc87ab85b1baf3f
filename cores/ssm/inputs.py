#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Inputs of the tokens to come: scalars, x, B and C from their streams into two slots, one in use, one filling."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import NORMALISED_BITS, Normaliser
from cores.memory.region import BLOCK_DEPTH

from operations.config import BC_SLOTS

# Constants ----------------------------------------------------------------------------------------

WORD_ELEMENTS = 4 # Elements of x, or of B and C, that are taken in a cycle.
WORD_BITS     = 16*WORD_ELEMENTS

SCALARS_LAYOUT = [("dt", 16), ("dA", 16), ("D", 16)]

# Slots --------------------------------------------------------------------------------------------

class Slots(LiteXModule):
    """Two slots, which are filled, taken and given back in turn.

    A slot just taken is still being read, so it is not filled again before it was given back. ``full`` says which wait to be taken.
    """
    def __init__(self):
        self.filled  = Signal() # Pulses.
        self.take    = Signal()
        self.release = Signal()
        self.fill    = Signal() # The slot to be filled,
        self.room    = Signal() # and whether it may be.
        self.full    = Signal(2)

        # # #

        occupied     = Signal(2)
        take_slot    = Signal()
        release_slot = Signal()
        self.comb += self.room.eq(~(occupied >> self.fill)[0])
        self.sync += [
            If(self.filled,  self.fill.eq(~self.fill)),
            If(self.take,    take_slot.eq(~take_slot)),
            If(self.release, release_slot.eq(~release_slot)),
        ]
        for slot in range(2):
            self.sync += [
                If(self.take    & (take_slot    == slot), self.full[slot].eq(0)),
                If(self.release & (release_slot == slot), occupied[slot].eq(0)),
                If(self.filled  & (self.fill    == slot), self.full[slot].eq(1), occupied[slot].eq(1)),
            ]

# x ------------------------------------------------------------------------------------------------

class XMemory(LiteXModule):
    """x of two slots: written in words, read element by element, two cycles after its row and slot."""
    def __init__(self, config):
        words      = 2*(-(-config.max_headdim//8))
        self.index = Signal(max=words)
        self.data  = Signal(WORD_BITS)
        self.write = Signal()
        self.fill  = Signal()

        self.slot  = Signal()
        self.row   = Signal(max=max(config.max_headdim, WORD_ELEMENTS + 1))
        self.x     = Signal(16, reset_less=True)

        # # #

        memory  = Memory(WORD_BITS, 2*words)
        write   = memory.get_port(write_capable=True)
        read    = memory.get_port()
        element = Signal(2, reset_less=True)
        self.specials += memory, write, read
        self.comb += [
            write.adr.eq(self.index + Mux(self.fill, words, 0)),
            write.dat_w.eq(self.data),
            write.we.eq(self.write),
            read.adr.eq(self.row[2:] + Mux(self.slot, words, 0)),
        ]
        self.sync += [
            element.eq(self.row[:2]),
            Case(element, {n: self.x.eq(read.dat_r[16*n:16*(n + 1)]) for n in range(WORD_ELEMENTS)}),
        ]

# B and C ------------------------------------------------------------------------------------------

class BCSlots(LiteXModule):
    """Where B and C of a token lie: in one of BC_SLOTS slots, taken in turn, so that the tiles after may use them again.

    A new one is never that of the token before, which may still be in use; earlier ones are not.
    """
    def __init__(self):
        self.filled  = Signal()
        self.fill    = Signal()                                          # The slot of the inputs that are filled.
        self.same_bc = Signal()
        self.first   = Signal()                                          # It is the tile's first token.
        self.token   = Signal(max=BC_SLOTS)
        self.present = Signal(max=BC_SLOTS)                              # Of this token,
        self.slots   = [Signal(max=BC_SLOTS) for _ in range(2)]          # and of the tokens in the two slots.

        # # #

        tile_first = Signal(max=BC_SLOTS) # Of the tile's first token,
        newest     = Signal(max=BC_SLOTS) # and of the last new one.
        self.comb += self.present.eq(Mux(self.same_bc, tile_first + self.token, newest + 1))
        self.sync += If(self.filled,
            [If(self.fill == n, slot.eq(self.present)) for n, slot in enumerate(self.slots)],
            If(~self.same_bc,
                newest.eq(self.present),
                If(self.first, tile_first.eq(self.present)),
            )
        )


class BCMemory(LiteXModule):
    """B, normalised, or C of BC_SLOTS tokens: a memory for each four lanes. Written in words, read by column for all lanes."""
    def __init__(self, config, element_bits, name):
        lanes   = config.lanes
        groups  = lanes//WORD_ELEMENTS
        columns = max(config.max_d_state//lanes, 2)
        bases   = Array([n*columns for n in range(BC_SLOTS)])
        depth   = BC_SLOTS*columns
        if depth >= BLOCK_DEPTH//2: # Deep enough to be block RAM.
            depth = max(depth, BLOCK_DEPTH)
        self.data       = Signal(element_bits*WORD_ELEMENTS)
        self.index      = Signal(bits_for(columns*groups - 1))
        self.write_slot = Signal(max=BC_SLOTS)
        self.write      = Signal()

        self.slot       = Signal(max=BC_SLOTS)
        self.column     = Signal(max=columns)
        self.source     = Signal(element_bits*lanes)

        # # #

        group_bits = log2_int(groups)
        outputs    = []
        for group in range(groups):
            memory     = Memory(len(self.data), depth, name=f"{name}_memory")
            write_port = memory.get_port(write_capable=True)
            read_port  = memory.get_port(mode=READ_FIRST)
            self.specials += memory, write_port, read_port
            self.comb += [
                write_port.adr.eq(self.index[group_bits:] + bases[self.write_slot]),
                write_port.dat_w.eq(self.data),
                write_port.we.eq(self.write & (self.index[:group_bits] == group if group_bits else 1)),
                read_port.adr.eq(self.column + bases[self.slot]),
            ]
            outputs.append(read_port.dat_r)
        self.comb += self.source.eq(Cat(*outputs))

# Input Buffer -------------------------------------------------------------------------------------

class InputBuffer(LiteXModule):
    """Two slots, each the inputs of one token and head: dt, dA, D, x (P), B and C (N).

    ::

        scalars_sink (48) ----------> dt, dA, D
        x_sink (64) ----------------> XMemory -----------------------> x (cycle 2)
        bc_sink (64) --+-> Normaliser (x 4) -> reg -> BCMemory ------> B (one cycle after its address)
                       +--------------------------->  BCMemory ------> C (likewise)

    The sinks take, token after token and independently of each other within a token: its scalars; its x, four elements a word,
    ``x_words`` words; its B and then its C, ``bc_words`` words each. B is normalised on its way in, for the state update. ``tile``
    says how many tokens a tile has, and whether their B and C are those of the tile before: then these do not come again. For
    that B and C have slots of their own.

    ``full`` says which slots hold a token that waits; slots are filled, taken (``take``, with the token's last vector) and given
    back (``release``, with its last read) in turn. Reads name the slot with their address. The scalars appear with x.

    ``end`` says that the word x_sink, or bc_sink, is ready for is the last one of its record, for whoever has records in beats.

    Throughput: a word a cycle at each sink.
    """
    def __init__(self, config):
        self.scalars_sink = scalars_sink = stream.Endpoint(SCALARS_LAYOUT)
        self.x_sink       = x_sink       = stream.Endpoint([("data", WORD_BITS)])
        self.bc_sink      = bc_sink      = stream.Endpoint([("data", WORD_BITS)])
        self.x_words      = Signal(max=2*(-(-config.max_headdim//8)) + 1) # Geometry.
        self.bc_words     = Signal(max=max(config.max_d_state//WORD_ELEMENTS, 2) + 1)
        self.x_end        = Signal()
        self.bc_end       = Signal()

        self.tile         = tile = stream.Endpoint([("tokens", 16), ("same_bc", 1)])

        self.slots        = slots = Slots()
        self.full         = slots.full
        self.take         = slots.take
        self.release      = slots.release

        self.x_memory     = x_memory = XMemory(config)
        self.x_slot       = x_memory.slot
        self.x_row        = x_memory.row
        self.x            = x_memory.x
        self.dt           = Signal(16, reset_less=True)
        self.dA           = Signal(16, reset_less=True)
        self.D            = Signal(16, reset_less=True)

        self.B_memory     = B_memory = BCMemory(config, NORMALISED_BITS, "B")
        self.B_slot       = Signal()
        self.B_column     = B_memory.column
        self.B            = B_memory.source

        self.C_memory     = C_memory = BCMemory(config, 16, "C")
        self.C_slot       = Signal()
        self.C_column     = C_memory.column
        self.C            = C_memory.source

        # # #

        # What of the token is there. --------------------------------------------------------------
        x_index  = Signal.like(x_memory.index)
        bc_index = Signal.like(B_memory.index)
        in_C     = Signal() # C is due: B is there.
        have     = {sink: Signal() for sink in (scalars_sink, x_sink, bc_sink)} # All of it.
        x_last   = Signal() # The next word is the last one of x,
        bc_last  = Signal() # of B, or of C.
        last     = {scalars_sink: 1, x_sink: x_last, bc_sink: in_C & bc_last}
        due      = Signal() # There is a tile, and room for its inputs.
        filled   = Signal()
        complete = 1
        self.comb += [
            due.eq(slots.room & tile.valid),
            self.x_end.eq(x_last),
            self.bc_end.eq(in_C & bc_last),
        ]
        for sink, there in have.items():
            done = Signal()
            self.comb += [
                sink.ready.eq(due & ~there & (~tile.same_bc if sink is bc_sink else 1)),
                done.eq(there | (sink.valid & sink.ready & last[sink])),
            ]
            self.sync += there.eq(done & ~filled)
            complete = complete & (done | tile.same_bc if sink is bc_sink else done)
        self.comb += [
            filled.eq(due & complete),
            slots.filled.eq(filled),
        ]
        self.sync += [
            If(x_sink.valid & x_sink.ready, # There are two words at least.
                x_index.eq(Mux(x_last, 0, x_index + 1)),
                x_last.eq(~x_last & (x_index + 2 == self.x_words)),
            ),
            If(bc_sink.valid & bc_sink.ready,
                bc_index.eq(Mux(bc_last, 0, bc_index + 1)),
                bc_last.eq(~bc_last & (bc_index + 2 == self.bc_words)),
                in_C.eq(in_C ^ bc_last),
            ),
        ]

        # Tokens, and the slots of their B and C. --------------------------------------------------
        token         = Signal(16)
        next_token    = Signal(16)
        self.bc_slots = bc_slots = BCSlots()
        self.comb += [
            next_token.eq(token + 1),
            tile.ready.eq(filled & (next_token == tile.tokens)),
            bc_slots.filled.eq(filled),
            bc_slots.fill.eq(slots.fill),
            bc_slots.same_bc.eq(tile.same_bc),
            bc_slots.first.eq(token == 0),
            bc_slots.token.eq(token),
        ]
        self.sync += If(filled, token.eq(Mux(tile.ready, 0, next_token)))

        # Scalars and x. ---------------------------------------------------------------------------
        scalars = Array([Signal(48, reset_less=True) for _ in range(2)])
        slot_1  = Signal(reset_less=True)
        self.sync += [
            If(scalars_sink.valid & scalars_sink.ready,
                scalars[slots.fill].eq(Cat(scalars_sink.dt, scalars_sink.dA, scalars_sink.D)),
            ),
            slot_1.eq(self.x_slot),
            Cat(self.dt, self.dA, self.D).eq(scalars[slot_1]),
        ]
        self.comb += [
            x_memory.index.eq(x_index),
            x_memory.data.eq(x_sink.data),
            x_memory.write.eq(x_sink.valid & x_sink.ready),
            x_memory.fill.eq(slots.fill),
        ]

        # B and C. B is written a cycle late; C, which follows it, ends the record. ----------------
        normalised = []
        for n in range(WORD_ELEMENTS):
            normaliser = Normaliser()
            self.submodules += normaliser
            self.comb += normaliser.sink.eq(bc_sink.data[16*n:16*(n + 1)])
            normalised.append(normaliser.source)
        taken = Signal()
        self.comb += [
            taken.eq(bc_sink.valid & bc_sink.ready),
            C_memory.data.eq(bc_sink.data),
            C_memory.index.eq(bc_index),
            C_memory.write_slot.eq(bc_slots.present),
            C_memory.write.eq(taken & in_C),
            B_memory.slot.eq(Mux(self.B_slot, bc_slots.slots[1], bc_slots.slots[0])),
            C_memory.slot.eq(Mux(self.C_slot, bc_slots.slots[1], bc_slots.slots[0])),
        ]
        B_write = Record([("data", len(B_memory.data)), ("index", len(bc_index)), ("slot", len(bc_slots.present))], reset_less=True)
        write_B = Signal()
        self.sync += [
            B_write.data.eq(Cat(*normalised)),
            B_write.index.eq(bc_index),
            B_write.slot.eq(bc_slots.present),
            write_B.eq(taken & ~in_C),
        ]
        self.comb += [
            B_memory.data.eq(B_write.data),
            B_memory.index.eq(B_write.index),
            B_memory.write_slot.eq(B_write.slot),
            B_memory.write.eq(write_B),
        ]
