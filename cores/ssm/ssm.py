#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM accelerator as a LiteX peripheral: core, DMA, descriptor queue, counters, CSRs and interrupt."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream
from litex.soc.interconnect.csr import *
from litex.soc.interconnect.csr_eventmanager import *
from litex.soc.integration.doc import AutoDoc, ModuleDoc

from cores.memory.dma import DMAReader, DMAWriter
from cores.memory.interleaved import InterleavedReader, InterleavedWriter
from cores.memory.region import Region
from cores.ssm.core import SSMCore, command_layout
from cores.ssm.dma import TileDMA
from cores.ssm.heads import ADDRESSES, HeadExpander

from operations.config import BEAT_BYTES, GATEWARE_VERSION

# Constants ----------------------------------------------------------------------------------------

BEAT_SHIFT = log2_int(BEAT_BYTES)

COUNTER_BITS = 40 # 3 hours at 100 MHz.

# Counters -----------------------------------------------------------------------------------------

class Counters(LiteXModule):
    """Event counters of COUNTER_BITS bits, which wrap, cleared together and read from one common snapshot.

    events : {name: (Signal, description)}; a counter adds its signal each cycle.
    """
    def __init__(self, events):
        self.latch = CSRStorage(1, name="latch", description="A write copies all counters to their registers at once.")
        self.clear = CSRStorage(1, name="clear", description="A write sets all counters to 0.")

        # # #

        for name, (event, description) in events.items():
            step   = Signal(len(event), name=f"{name}_step") # Of all counters a cycle late.
            count  = Signal(COUNTER_BITS, name=f"{name}_count")
            status = CSRStatus(COUNTER_BITS, name=name, description=description)
            setattr(self, name, status)
            self.sync += [
                step.eq(event),
                count.eq(count + step),
                If(self.clear.re, count.eq(0)),
                If(self.latch.re, status.status.eq(count)),
            ]

# SSM ----------------------------------------------------------------------------------------------

class SSM(LiteXModule, AutoDoc):
    """SSM accelerator.

    ::

                       +---------------------------------------------+
        CSRs --------->| descriptor queue                            |
                       |    |                                         |
        memory <------>| TileDMA <-- 128-bit streams --> SSMCore     |
        (4 masters)    |                                             |
                       +---------------------------------------------+--> interrupt

    Parameters
    ----------
    config      : :class:`operations.config.SSMConfig`.
    read_ports  : masters for head tiles, then one for inputs: LiteDRAM native ports or Wishbone interfaces of 128 bits.
    write_ports : masters for head tiles, then one for y, likewise.
    origin, size: the memory region on the bus, in bytes. Nothing outside it is read or written.
    page_beats  : beats of a DRAM page, where several masters share the head tiles, page by page in turn.
    """
    def __init__(self, config, read_ports, write_ports, origin, size, page_beats=None):
        self.intro = ModuleDoc("""SSM accelerator

    Runs the state-space block of Mamba-2 on head tiles in memory: for each tile, T tokens of
    ``h = dA*h + dt*x*B`` and ``y = sum(h*C) + D*x``.

    To run tiles, the CPU

    - writes the geometry (``headdim``, ``d_state``), the strides and the steps, while ``status.busy`` is 0,
    - writes the ``tile_*`` registers of the first head's tile, and how many heads there are; then, if
      ``status.queue_free`` is not 0, the flags to ``tile_push``. The descriptors of all heads enter the queue from there, as
      it has room; ``queue_free`` is 0 until all are in,
    - waits for ``tiles_done``, which counts tiles whose y and state are in memory, or for the ``done`` interrupt.

    All addresses are byte addresses on the bus and, as strides and steps, multiples of 16. A descriptor with an error
    is dropped, with those of the heads after it, and sets a bit in ``errors``; ``control.reset`` clears errors, queue and core.
    What the records look like is documented in ``operations/config.py``.
    """)
        # Information.
        self._version      = CSRStatus(32, description="Gateware version: major[23:16], minor[15:8], patch[7:0].")
        self._capabilities = CSRStatus(description="What was built.", fields=[
            CSRField("lanes",       size=8,  offset=0,  description="State elements a cycle, L."),
            CSRField("max_headdim", size=10, offset=8,  description="Largest head dimension."),
            CSRField("max_d_state", size=10, offset=18, description="Largest state size."),
            CSRField("queue_depth", size=4,  offset=28, description="log2 of the descriptors in flight."),
        ])

        # Control and status.
        self._control = CSRStorage(description="Control.", fields=[
            CSRField("reset", size=1, pulse=True, description="""Write 1: queue, core and DMA go idle; tiles in flight
                are lost, errors cleared, ``tiles_done`` set to 0. ``status.busy`` is 1 until memory is quiet."""),
        ])
        self._status = CSRStatus(description="Status.", fields=[
            CSRField("busy",       size=1, offset=0, description="Tiles are in flight, or a reset is under way."),
            CSRField("queue_free", size=8, offset=8, description="Room in the queue; 0 while heads of the last push wait."),
        ])
        self._errors = CSRStatus(description="Errors since the last reset.", fields=[
            CSRField("queue_overflow", size=1, description="``tile_push`` was written with ``queue_free`` 0."),
            CSRField("bad_geometry",   size=1, description="""headdim or d_state is 0 or above its maximum, tokens is 0,
                first_token is above tokens, or tile is not one of those on chip."""),
            CSRField("misaligned",     size=1, description="An address or stride is not a multiple of 16."),
            CSRField("out_of_range",   size=1, description="An address is outside the memory region."),
        ])
        self._tiles_done = CSRStatus(32, description="Tiles completed since the last reset; wraps.")

        # Geometry and strides.
        self._headdim   = CSRStorage(10, description="Head dimension P. Change while not busy.")
        self._d_state   = CSRStorage(10, description="State size N. Change while not busy.")
        self._x_stride  = CSRStorage(32, description="Bytes from a token's x record to the next one's.")
        self._bc_stride = CSRStorage(32, description="Bytes from a token's BC record to the next one's.")
        self._y_stride  = CSRStorage(32, description="Bytes from a token's y record to the next one's.")

        self._x_step     = CSRStorage(32, description="Bytes from a head's x record to the next one's.")
        self._bc_step    = CSRStorage(32, description="Bytes from a group's BC record to the next one's.")
        self._y_step     = CSRStorage(32, description="Bytes from a head's y record to the next one's.")
        self._state_step = CSRStorage(32, description="Bytes from a head's tile to the next one's.")

        # Descriptor: that of the first head.
        self._tile_x         = CSRStorage(32, description="Address of token 0's x record.")
        self._tile_bc        = CSRStorage(32, description="Address of token 0's BC record.")
        self._tile_y         = CSRStorage(32, description="Address of token 0's y record.")
        self._tile_state_in  = CSRStorage(32, description="Address the tile is loaded from.")
        self._tile_state_out = CSRStorage(32, description="Address the tile is stored to.")
        self._tile_tokens    = CSRStorage(description="Tokens.", fields=[
            CSRField("tokens",      size=16, offset=0,  description="Tokens T to run, 1 or more."),
            CSRField("first_token", size=16, offset=16, description="y is written from this token on: 0 .. T."),
        ])
        self._tile_heads     = CSRStorage(description="Heads.", fields=[
            CSRField("heads",       size=16, offset=0,  reset=1, description="Heads, each with a tile, 1 or more."),
            CSRField("group_heads", size=16, offset=16, reset=1, description="Heads that share a BC record, 1 or more."),
        ])
        on_chip = []
        if config.resident_tiles:
            on_chip = [
                CSRField("resident", size=1, offset=3, description="Take the state as it lies on chip; do not read it."),
                CSRField("tile",     size=8, offset=8, description="""Where on chip the first head's state lies, or comes to lie;
                    the next one's is next to it, after the last place the first one."""),
            ]
        if config.stochastic_rounding:
            self._tile_seed = CSRStorage(32, description="""Seed of the first head's stochastic rounding; token t takes seed + t,
                the next head 0x9e3779b9 more.""")
        self._tile_push = CSRStorage(description="A write queues the descriptors of all heads.", fields=[
            CSRField("zero_state", size=1, description="Start from a state of zeros; do not read ``tile_state_in``."),
            CSRField("no_store",   size=1, description="Do not write ``tile_state_out``."),
            CSRField("interrupt",  size=1, description="Raise ``done`` when the last head's tile is completed."),
            *on_chip,
        ])

        # Events.
        self.ev       = EventManager()
        self.ev.done  = EventSourcePulse(description="A tile with the flag ``interrupt`` is completed.")
        self.ev.error = EventSourcePulse(description="A bit of ``errors`` was set.")
        self.ev.finalize()

        # # #

        # Information. -----------------------------------------------------------------------------
        self.comb += [
            self._version.status.eq(GATEWARE_VERSION),
            self._capabilities.fields.lanes.eq(config.lanes),
            self._capabilities.fields.max_headdim.eq(config.max_headdim),
            self._capabilities.fields.max_d_state.eq(config.max_d_state),
            self._capabilities.fields.queue_depth.eq(log2_int(config.queue_depth)),
        ]

        # Memory masters. --------------------------------------------------------------------------
        region = Region(origin, size)
        *state_reads,  input_read = read_ports
        *state_writes, y_write    = write_ports
        self.state_reader = state_reader = (DMAReader(*state_reads, region) if len(state_reads) == 1 else
            InterleavedReader(state_reads, region, page_beats))
        self.state_writer = state_writer = (DMAWriter(*state_writes, region) if len(state_writes) == 1 else
            InterleavedWriter(state_writes, region, page_beats))
        self.input_reader = input_reader = DMAReader(input_read, region)
        self.y_writer     = y_writer     = DMAWriter(y_write, region)
        readers = (state_reader, input_reader)
        writers = (state_writer, y_writer)

        # Core and DMA. ----------------------------------------------------------------------------
        clocks = ("sys", "datapath") if config.gated_clock else ("sys",)
        self.core = core = ResetInserter(clocks)(SSMCore(config))
        self.dma  = dma  = ResetInserter()(
            TileDMA(config, state_reader, input_reader, state_writer, y_writer, config.queue_depth))
        self.comb += [
            dma.state_source.connect(core.state_sink),
            dma.input_source.connect(core.input_sink),
            core.state_source.connect(dma.state_sink),
            core.y_source.connect(dma.y_sink),
            core.headdim.eq(self._headdim.storage),
            core.d_state.eq(self._d_state.storage),
            dma.stored.eq(core.stored),
            dma.tile_beats.eq(core.tile_beats),
            dma.x_beats.eq(core.row_beats + 1),
            dma.bc_beats.eq(core.bc_beats << 1),
            dma.y_beats.eq(core.row_beats),
            dma.x_stride.eq(self._x_stride.storage[BEAT_SHIFT:]),
            dma.bc_stride.eq(self._bc_stride.storage[BEAT_SHIFT:]),
            dma.y_stride.eq(self._y_stride.storage[BEAT_SHIFT:]),
        ]

        # Reset: core and DMA at once, then wait until memory is quiet. ----------------------------
        resetting = Signal()
        settle    = Signal(max=32)
        quiet     = Signal()
        self.comb += [
            quiet.eq(state_reader.idle & input_reader.idle & state_writer.idle & y_writer.idle),
            [getattr(core, f"reset_{clock}").eq(resetting) for clock in clocks],
            dma.reset.eq(resetting),
            [reader.flush.eq(resetting) for reader in readers],
        ]
        self.sync += [
            If(self._control.fields.reset,
                resetting.eq(1),
                settle.eq(31),
            ).Elif(settle != 0,
                settle.eq(settle - 1),
            ).Elif(quiet,
                resetting.eq(0),
            )
        ]

        # Queue. -----------------------------------------------------------------------------------
        self.queue = queue = ResetInserter()(stream.SyncFIFO(command_layout(config), config.queue_depth))
        in_flight  = Signal(max=config.queue_depth + 1)
        accept     = Signal()
        errors     = Signal(4)
        self.heads = heads = HeadExpander(config)
        self.comb += [
            heads.push.eq(self._tile_push.re & ~resetting),
            heads.reset.eq(resetting),
            heads.room.eq(in_flight != config.queue_depth),
            [getattr(heads.first, name).eq(getattr(self, f"_tile_{name}").storage[BEAT_SHIFT:]) for name in ADDRESSES],
            heads.first.tokens.eq(self._tile_tokens.fields.tokens),
            heads.first.first_token.eq(self._tile_tokens.fields.first_token),
            [getattr(heads.first, name).eq(getattr(self._tile_push.fields, name)) for name in
                ("zero_state", "no_store", "interrupt") + (("resident", "tile") if config.resident_tiles else ())],
            heads.first.seed.eq(self._tile_seed.storage) if config.stochastic_rounding else [],
            heads.heads.eq(self._tile_heads.fields.heads),
            heads.group_heads.eq(self._tile_heads.fields.group_heads),
            [getattr(heads, f"{name}_step").eq(getattr(self, f"_{name}_step").storage[BEAT_SHIFT:])
                for name in ("x", "bc", "y", "state")],
        ]

        # Checks: what is the same for all heads with the push, the rest head by head.
        tile       = heads.source
        tokens     = self._tile_tokens.fields
        flags      = self._tile_push.fields
        multiples  = [register.storage[:BEAT_SHIFT] for register in (self._x_stride, self._bc_stride, self._y_stride,
            self._x_step, self._bc_step, self._y_step, self._state_step, self._tile_x, self._tile_bc, self._tile_y)]
        fetched    = ~flags.zero_state
        tile_read  = ~tile.zero_state
        tile_legal = 1
        if config.resident_tiles:
            fetched    = fetched & ~flags.resident
            tile_read  = tile_read & ~tile.resident
            tile_legal = flags.tile < config.resident_tiles
        multiples += [
            self._tile_state_in.storage[:BEAT_SHIFT]  & Replicate(fetched, BEAT_SHIFT),
            self._tile_state_out.storage[:BEAT_SHIFT] & Replicate(~flags.no_store, BEAT_SHIFT),
        ]
        used       = dict.fromkeys(ADDRESSES, 1) | {"state_in": tile_read, "state_out": ~tile.no_store}
        self.comb += [
            queue.reset.eq(resetting),
            If(heads.push,
                errors[0].eq(heads.posting | ~heads.room),
                errors[1].eq(
                    (self._headdim.storage == 0) | (self._headdim.storage > config.max_headdim) |
                    (self._d_state.storage == 0) | (self._d_state.storage > config.max_d_state) |
                    (tokens.tokens == 0) | (tokens.first_token > tokens.tokens) | ~tile_legal |
                    (heads.heads == 0) | (heads.group_heads == 0)),
                errors[2].eq(Cat(*multiples) != 0),
            ),
            If(tile.valid,
                errors[3].eq(Cat(*[~region.contains(getattr(tile, name)) & used[name] for name in ADDRESSES]) != 0),
            ),
            heads.refuse.eq(errors[:3] != 0),
            heads.stop.eq(errors[3]),
            accept.eq(tile.valid & (errors[3] == 0)),
            queue.sink.valid.eq(accept),
            [getattr(queue.sink, name).eq(getattr(tile, name)) for name, _ in command_layout(config)],
            queue.source.connect(core.command),
            dma.descriptor.valid.eq(accept),
            [getattr(dma.descriptor, name).eq(getattr(tile, name)) for name in
                (*ADDRESSES, "tokens", "first_token", "no_store", "same_bc", "interrupt")],
            dma.descriptor.zero_state.eq(~tile_read),
        ]

        # Status. ----------------------------------------------------------------------------------
        stray  = Signal() # A beat outside the region: only a record that runs over its end gets that far.
        busy   = Signal()
        sticky = Signal(4)
        self.comb += [
            self._errors.fields.queue_overflow.eq(sticky[0]),
            self._errors.fields.bad_geometry.eq(sticky[1]),
            self._errors.fields.misaligned.eq(sticky[2]),
            self._errors.fields.out_of_range.eq(sticky[3]),
            stray.eq(Cat(*[master.out_of_range for master in readers + writers]) != 0),
            busy.eq((in_flight != 0) | heads.posting | resetting),
            self._status.fields.busy.eq(busy),
            self._status.fields.queue_free.eq(Mux(heads.posting, 0, config.queue_depth - in_flight)),
            self.ev.done.trigger.eq(dma.done & dma.done_interrupt & ~resetting),
            self.ev.error.trigger.eq((errors != 0) | (stray & ~resetting)),
        ]
        self.sync += [
            If(resetting,
                in_flight.eq(0),
                self._tiles_done.status.eq(0),
                sticky.eq(0),
            ).Else(
                in_flight.eq(in_flight + accept - dma.done),
                self._tiles_done.status.eq(self._tiles_done.status + dma.done),
                sticky.eq(sticky | errors | Cat(Constant(0, 3), stray)),
            )
        ]

        # Counters. --------------------------------------------------------------------------------
        vectors = core.sequencer
        idle    = ~(in_flight != 0)
        ports   = Signal(4) # Masters with something to do: a beat asked for or under way.
        self.comb += ports.eq(Cat(*[~master.idle | master.sink.valid for master in readers + writers]))
        self.counters = Counters({
            "cycles"         : (in_flight != 0,        "Cycles with tiles in flight."),
            "lane_busy"      : (vectors.valid,         "Cycles in which the lanes took a vector."),
            "read_beats"     : (state_reader.beat + input_reader.beat, "Beats of 16 bytes read from memory."),
            "write_beats"    : (state_writer.beat + y_writer.beat,     "Beats of 16 bytes written to memory."),
            "port_cycles"    : (ports != 0, "Cycles in which a memory port had a beat waiting or under way."),
            "wait_state"     : (vectors.wait_state,    "Cycles in which the lanes waited for a head tile."),
            "wait_input"     : (vectors.wait_input,    "Cycles in which the lanes waited for inputs."),
            "wait_output"    : (vectors.wait_output,   "Cycles in which the lanes waited for room for y."),
            "wait_descriptor": (vectors.wait_descriptor & ~idle,
                "Cycles in which the lanes had no tile while others were still being stored."),
        })
