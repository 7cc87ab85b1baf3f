#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Inputs of the tokens to come: x and BC records from the stream into two slots, one in use, one filling."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.fp16 import NORMALISED_BITS, Normaliser
from cores.memory.region import BLOCK_DEPTH

from operations.config import BC_SLOTS

# Constants ----------------------------------------------------------------------------------------

GRANULE = 4 # Elements taken from the stream a cycle: half a beat.

# Input Buffer -------------------------------------------------------------------------------------

class InputBuffer(LiteXModule):
    """Two slots, each the inputs of one token and head: dt, dA, D, x (P), B and C (N).

    The sink takes beats of 8 elements: the x record, then the BC record of a token (see
    :class:`operations.ssm.Geometry`), token after token. B is normalised on its way in, for the state update. ``tile``
    says how many tokens a tile has, and whether their B and C are those of the tile before: then these do not come again.
    For that B and C have slots of their own, BC_SLOTS of them, taken in turn.

    ::

        sink (128) -> 64 -+-> dt, dA, D
                          +-> x  memory -> select -------------------> x (cycle 2)
                          +-> Normaliser (x 4) -> reg -> B memory ---> B (one cycle after its address)
                          +-> C memory ------------------------------> C (likewise)

    ``full`` says which slots hold a token that waits; slots are filled, taken (``take``, with the token's last vector)
    and given back (``release``, with its last read) in turn. Reads name the slot with their address. The scalars appear
    with x.

    Throughput: a beat every two cycles.
    """
    def __init__(self, config):
        lanes   = config.lanes
        columns = max(config.max_d_state//lanes, 2) # Words of B, and of C.

        self.sink      = sink = stream.Endpoint([("data", 128)])
        self.x_beats   = Signal(max=config.max_headdim//8 + 2) # Geometry: beats of x, and of B (C likewise).
        self.bc_beats  = Signal(max=config.max_d_state//8 + 1)

        self.tile      = tile = stream.Endpoint([("tokens", 16), ("same_bc", 1)])

        self.full      = Signal(2)
        self.take      = Signal()
        self.release   = Signal()

        self.x_slot    = Signal()
        self.x_row     = Signal(max=max(config.max_headdim, GRANULE + 1))
        self.x         = Signal(16, reset_less=True)
        self.dt        = Signal(16, reset_less=True)
        self.dA        = Signal(16, reset_less=True)
        self.D         = Signal(16, reset_less=True)

        self.B_slot    = Signal()
        self.B_column  = Signal(max=columns)
        self.B         = Signal(NORMALISED_BITS*lanes)

        self.C_slot    = Signal()
        self.C_column  = Signal(max=columns)
        self.C         = Signal(16*lanes)

        # # #

        # Slots. -----------------------------------------------------------------------------------
        occupied     = Signal(2) # From filled to release: a token just taken is still being read.
        fill_slot    = Signal()
        take_slot    = Signal()
        release_slot = Signal()
        filled       = Signal()
        self.sync += [
            If(filled,       fill_slot.eq(~fill_slot)),
            If(self.take,    take_slot.eq(~take_slot)),
            If(self.release, release_slot.eq(~release_slot)),
        ]
        for slot in range(2):
            self.sync += [
                If(self.take    & (take_slot    == slot), self.full[slot].eq(0)),
                If(self.release & (release_slot == slot), occupied[slot].eq(0)),
                If(filled       & (fill_slot    == slot), self.full[slot].eq(1), occupied[slot].eq(1)),
            ]

        # Half beats. ------------------------------------------------------------------------------
        self.converter = converter = stream.Converter(128, 16*GRANULE)
        self.comb += sink.connect(converter.sink)
        granule = converter.source
        index   = Signal(max=max(2*config.max_headdim//8 + 4, 2*config.max_d_state//8 + 2))

        self.fsm = fsm = FSM(reset_state="SCALARS")
        write_scalars = Signal()
        write_x       = Signal()
        write_B       = Signal()
        write_C       = Signal()
        blocked       = Signal()
        taken         = Signal()
        self.comb += [
            blocked.eq((occupied >> fill_slot)[0] | ~tile.valid),
            granule.ready.eq(~blocked),
            taken.eq(granule.valid & granule.ready),
        ]

        def last_index(beats):
            """The index of the last granule of so many beats."""
            index = Signal(len(beats) + 1)
            self.sync += index.eq(Cat(0, beats) - 1)
            return index

        def record(state, write, last, *at_end):
            fsm.act(state,
                write.eq(taken),
                If(taken,
                    NextValue(index, index + 1),
                    If(index == last,
                        NextValue(index, 0),
                        *at_end
                    )
                )
            )
        end     = (NextState("SCALARS"), filled.eq(1))
        x_last  = last_index(self.x_beats)
        bc_last = last_index(self.bc_beats)
        record("SCALARS", write_scalars, 1,       NextState("X"))
        record("X",       write_x,       x_last,  If(tile.same_bc, *end).Else(NextState("B")))
        record("B",       write_B,       bc_last, NextState("C"))
        record("C",       write_C,       bc_last, *end)

        # Slots of B and C. A new one is never that of the token before, which may still be in use; earlier ones are not. --
        token    = Signal(16)
        bc_first = Signal(max=BC_SLOTS) # Of the tile's first token,
        bc_last  = Signal(max=BC_SLOTS) # of the last new one,
        bc_fill  = Signal(max=BC_SLOTS) # of this token,
        bc_slots = Array([Signal(max=BC_SLOTS) for _ in range(2)]) # and of the token in each slot.
        self.comb += [
            bc_fill.eq(Mux(tile.same_bc, bc_first + token[:len(bc_first)], bc_last + 1)),
            tile.ready.eq(filled & (token == (tile.tokens - 1)[:16])),
        ]
        self.sync += [
            If(filled,
                bc_slots[fill_slot].eq(bc_fill),
                token.eq(token + 1),
                If(~tile.same_bc,
                    bc_last.eq(bc_fill),
                    If(token == 0, bc_first.eq(bc_fill)),
                )
            ),
            If(tile.ready, token.eq(0)), # With the last one's filled.
        ]

        # Scalars and x. ---------------------------------------------------------------------------
        scalars = Array([Signal(48, reset_less=True) for _ in range(2)])
        self.sync += If(write_scalars & (index == 0), scalars[fill_slot].eq(granule.data[:48]))

        x_granules = 2*(-(-config.max_headdim//8))
        x_memory   = Memory(16*GRANULE, 2*x_granules)
        x_write    = x_memory.get_port(write_capable=True)
        x_read     = x_memory.get_port()
        self.specials += x_memory, x_write, x_read
        element = Signal(2,  reset_less=True)
        slot_1  = Signal(reset_less=True)
        self.comb += [
            x_write.adr.eq(index + Mux(fill_slot, x_granules, 0)),
            x_write.dat_w.eq(granule.data),
            x_write.we.eq(write_x),
            x_read.adr.eq(self.x_row[2:] + Mux(self.x_slot, x_granules, 0)),
        ]
        self.sync += [
            element.eq(self.x_row[:2]),
            slot_1.eq(self.x_slot),
            Case(element, {n: self.x.eq(x_read.dat_r[16*n:16*(n + 1)]) for n in range(4)}),
            Cat(self.dt, self.dA, self.D).eq(scalars[slot_1]),
        ]

        # B and C: a memory for each group of four lanes. B is written a cycle late; C, which follows it, ends the record. ---
        normalised = []
        for n in range(GRANULE):
            normaliser = Normaliser()
            self.submodules += normaliser
            self.comb += normaliser.sink.eq(granule.data[16*n:16*(n + 1)])
            normalised.append(normaliser.source)
        group_bits = log2_int(lanes//GRANULE)
        bases      = [n*columns for n in range(BC_SLOTS)]
        depth      = BC_SLOTS*columns
        if depth >= BLOCK_DEPTH//2: # Deep enough to be block RAM.
            depth = max(depth, BLOCK_DEPTH)
        C_write = Record([("data", 16*GRANULE),              ("address", bits_for(depth - 1)), ("groups", lanes//GRANULE)])
        B_write = Record([("data", NORMALISED_BITS*GRANULE), ("address", bits_for(depth - 1)), ("groups", lanes//GRANULE)],
            reset_less=True)
        groups  = Signal(lanes//GRANULE) # The one written to.
        self.comb += [
            groups.eq(1 << index[:group_bits] if group_bits else 1),
            C_write.data.eq(granule.data),
            C_write.address.eq(index[group_bits:] + Array(bases)[bc_fill]),
            C_write.groups.eq(Replicate(write_C, len(groups)) & groups),
        ]
        self.sync += [
            B_write.data.eq(Cat(*normalised)),
            B_write.address.eq(C_write.address),
            B_write.groups.eq(Replicate(write_B, len(groups)) & groups),
        ]
        for name, write, slot, column in (
            ("B", B_write, self.B_slot, self.B_column),
            ("C", C_write, self.C_slot, self.C_column)):
            outputs = []
            for group in range(lanes//GRANULE):
                memory     = Memory(len(write.data), depth, name=f"{name}_memory")
                write_port = memory.get_port(write_capable=True)
                read_port  = memory.get_port(mode=READ_FIRST)
                self.specials += memory, write_port, read_port
                self.comb += [
                    write_port.adr.eq(write.address),
                    write_port.dat_w.eq(write.data),
                    write_port.we.eq(write.groups[group]),
                    read_port.adr.eq(column + Array(bases)[bc_slots[slot]]),
                ]
                outputs.append(read_port.dat_r)
            self.comb += getattr(self, name).eq(Cat(*outputs))
