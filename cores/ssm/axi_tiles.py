#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Head tiles over AXI4, for an SSM core without LiteX around it: checked, fetched, stored, and answered one by one."""

from functools import reduce
from operator import and_

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.memory.axi import AXIReader, AXIWriter, memory_interface
from cores.ssm.dma import TileDMA
from cores.ssm.layouts import ADDRESSES, command_layout, descriptor_layout, reads_state

from operations.config import ALIGNMENT, BC_SLOTS

# AXI Tiles ----------------------------------------------------------------------------------------

class AXITiles(LiteXModule):
    """Fetches head tiles and their inputs for an :class:`cores.ssm.core.SSMCore` and stores what comes of them, over AXI4.

    ::

        descriptor -> checks -+-> core.command
                              +-> TileDMA <-> AXIReader, AXIWriter <-> state_axi (head tiles)
                              |           <-> AXIReader, AXIWriter <-> token_axi (x, BC and y records)
                              +-> FIFO: was it refused? --> done, refused, failed; in the order of the descriptors

    ``done`` pulses for each descriptor, whatever became of it. With it come

    - ``refused``: something in the descriptor, or headdim, d_state or a stride as they were then, is not legal (:meth:`legal`).
      Nothing was read or written.
    - ``failed``: memory has answered an access with an error, or the tile failed that brought the B and C which this one uses. After a
      read that failed nothing more of the tile is written: not its state, which comes last, and no y but that of tokens before. What
      was written before a write that failed stays.

    The descriptors after it are not touched by either. ``x_stride``, ``bc_stride`` and ``y_stride`` are in bytes.
    """
    def __init__(self, config, core):
        tag_bits = log2_int(config.queue_depth)
        self.descriptor = descriptor = stream.Endpoint(descriptor_layout(config))
        self.x_stride   = Signal(32)
        self.bc_stride  = Signal(32)
        self.y_stride   = Signal(32)
        self.state_axi  = state_axi = memory_interface(core.data_width)
        self.token_axi  = token_axi = memory_interface(core.data_width)
        self.done       = Signal()
        self.refused    = Signal()
        self.failed     = Signal()

        # # #

        # A tile's tag: its place in the queue; whether it uses the B and C of the tile before; and a bit that changes with each
        # tile that brings its own.
        masters = [master(axi, tag_bits + 2) for axi in (state_axi, token_axi) for master in (AXIReader, AXIWriter)]
        self.state_reader, self.state_writer, self.input_reader, self.y_writer = masters
        state_reader, state_writer, input_reader, y_writer = masters
        self.dma = dma = TileDMA(core, {"state_reader": state_reader, "input_reader": input_reader, "state_writer": state_writer,
            "y_writer": y_writer}, config.queue_depth, tag_bits + 2)
        shift = log2_int(ALIGNMENT)
        self.comb += [
            dma.x_stride.eq(self.x_stride[shift:]),
            dma.bc_stride.eq(self.bc_stride[shift:]),
            dma.y_stride.eq(self.y_stride[shift:]),
        ]

        # Descriptors: to the DMA and, as commands, to the core, unless they are refused. ---------------
        self.order = order = stream.SyncFIFO([("refused", 1)], config.queue_depth)
        place      = Signal(tag_bits) # Of the next one.
        parity     = Signal()
        bc_tokens  = Signal(max=BC_SLOTS + 1) # Tokens whose B and C the core holds, if the tile before had few enough.
        legal      = Signal()
        room       = Signal()
        taken      = Signal()
        self.comb += [
            legal.eq(self.legal(config, core, bc_tokens)),
            room.eq(order.sink.ready & (~legal | (dma.descriptor.ready & core.command.ready))),
            taken.eq(descriptor.valid & room),
            descriptor.ready.eq(room),
            order.sink.valid.eq(taken),
            order.sink.refused.eq(~legal),
            dma.descriptor.valid.eq(taken & legal),
            core.command.valid.eq(taken & legal),
            [getattr(dma.descriptor, name).eq(getattr(descriptor, name)[shift:]) for name in ADDRESSES],
            [getattr(dma.descriptor, name).eq(getattr(descriptor, name)) for name, _ in command_layout(config)],
            dma.descriptor.tag.eq(Cat(place, descriptor.same_bc, parity)),
            [getattr(core.command, name).eq(getattr(descriptor, name)) for name, _ in command_layout(config)],
        ]
        self.sync += If(taken,
            place.eq(place + 1),
            bc_tokens.eq(Mux(legal & (descriptor.tokens <= BC_SLOTS), descriptor.tokens, 0)),
            If(legal & ~descriptor.same_bc, parity.eq(~parity)),
        )

        # Errors of the memory, tile by tile. ------------------------------------------------------------
        failed    = Signal(config.queue_depth)
        bc_failed = Signal() # The tile that brought the B and C which the core holds.
        bc_parity = Signal()
        same_bc   = input_reader.tag[tag_bits]
        inputs    = Signal()
        self.comb += [
            inputs.eq(input_reader.error | (input_reader.beat & same_bc & bc_failed)),
            [writer.hold_back.eq(Cat(*[failed]*4)) for writer in (state_writer, y_writer)],
        ]
        self.sync += [
            If(input_reader.beat & ~same_bc,
                bc_parity.eq(input_reader.tag[-1]),
                bc_failed.eq(input_reader.error | (bc_failed & (bc_parity == input_reader.tag[-1]))),
            ),
            [If(error & (master.tag[:tag_bits] == n), failed[n].eq(1)) for n in range(config.queue_depth) for master, error in
                ((state_reader, state_reader.error), (input_reader, inputs),
                 (state_writer, state_writer.error), (y_writer, y_writer.error))],
        ]

        # Answers, in order. -----------------------------------------------------------------------------
        oldest  = Signal(tag_bits)
        retired = Signal(max=2*config.queue_depth) # Tiles that the DMA has done with, and that were not answered yet.
        self.comb += [
            self.done.eq(order.source.valid & (order.source.refused | (retired != 0))),
            self.refused.eq(self.done & order.source.refused),
            self.failed.eq(self.done & (failed >> oldest)[0]),
            order.source.ready.eq(self.done),
        ]
        self.sync += [
            retired.eq(retired + dma.done - (self.done & ~self.refused)),
            If(self.done,
                oldest.eq(oldest + 1),
                [If(oldest == n, failed[n].eq(0)) for n in range(config.queue_depth)],
            )
        ]

    def legal(self, config, core, bc_tokens):
        """Whether sizes and strides are, and all of the descriptor that is used: its addresses, tokens and place on chip; with
        same_bc there must have been a tile before, that was not refused, of as many tokens, BC_SLOTS at most."""
        descriptor = self.descriptor
        shift      = log2_int(ALIGNMENT)
        aligned    = [self.x_stride, self.bc_stride, self.y_stride, descriptor.x]
        used       = [
            (descriptor.bc,        ~descriptor.same_bc),
            (descriptor.y,         descriptor.first_token != descriptor.tokens),
            (descriptor.state_in,  reads_state(descriptor)),
            (descriptor.state_out, ~descriptor.no_store),
        ]
        rules  = [(core.headdim != 0) & (core.headdim <= config.max_headdim)]
        rules += [(core.d_state != 0) & (core.d_state <= config.max_d_state)]
        rules += [(descriptor.tokens != 0) & (descriptor.first_token <= descriptor.tokens)]
        rules += [~descriptor.same_bc | ((bc_tokens != 0) & (descriptor.tokens == bc_tokens))]
        rules += [signal[:shift] == 0 for signal in aligned]
        rules += [(address[:shift] == 0) | ~is_used for address, is_used in used]
        if config.resident_tiles:
            rules += [descriptor.tile < config.resident_tiles]
        return reduce(and_, rules)
