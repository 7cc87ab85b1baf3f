#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM accelerator as a LiteX peripheral: core, DMA, descriptor queue, counters, CSRs and interrupt."""

from dataclasses import dataclass

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream
from litex.soc.interconnect.csr import *
from litex.soc.integration.doc import ModuleDoc

from cores.common.counters import Counters
from cores.common.engine import Engine
from cores.memory.dma import DMAReader, DMAWriter
from cores.memory.interleaved import InterleavedReader, InterleavedWriter
from cores.ssm.core import SSMCore
from cores.ssm.dma import TileDMA
from cores.ssm.heads import HeadExpander
from cores.ssm.layouts import ADDRESSES, command_layout, reads_state, tile_layout
from cores.ssm.unit import SSMUnit

from operations.config import ALIGNMENT
from operations.image import MAX_DEFERRED
from operations.ssm import ADDRESS_FIELDS, command_fields

# Constants ----------------------------------------------------------------------------------------

RECORD_SHIFT = log2_int(ALIGNMENT)

STEPS = ("x", "bc", "y", "state") # Of the addresses, from head to head.

# Ports --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class SSMPorts:
    """The memory ports of the accelerator: LiteDRAM native ports or Wishbone interfaces, all of one width.

    state_reads, state_writes : lists, of those for head tiles; of several, the pages of the DRAM go to each in turn.
    inputs, y                 : those for x and BC records, and for y records.
    page_beats                : beats of a page of the DRAM, where there are several for head tiles.
    """
    state_reads  : list
    state_writes : list
    inputs       : object
    y            : object
    page_beats   : int = None

# SSM ----------------------------------------------------------------------------------------------

class SSM(Engine):
    """SSM accelerator.

    ::

                       +---------------------------------------------+
        CSRs --------->| descriptor queue                            |
                       |    |                                         |
        memory <------>| TileDMA <-- streams --> SSMCore             |
        (4 masters)    |                                             |
                       +---------------------------------------------+--> interrupt

    Parameters
    ----------
    config : :class:`operations.config.SSMConfig`.
    ports  : :class:`SSMPorts`.
    region : :class:`cores.memory.region.Region`: nothing outside it is read or written.
    unit   : Whether programs run on it, too: ``unit`` is a :class:`cores.ssm.unit.SSMUnit` then, ``unit_seed`` is added to its seeds, and
        ``unit_zero_state`` has it begin with states of zeros, ``unit_no_store`` not store them; ``unit_deferred`` tokens are run before its own,
        without their y.
    """
    def __init__(self, config, ports, region, unit=False):
        self.intro = ModuleDoc("""SSM accelerator

    Runs the state-space block of Mamba-2 on head tiles in memory: for each tile, T tokens of
    ``h = dA*h + dt*x*B`` and ``y = sum(h*C) + D*x``.

    To run tiles, the CPU

    - writes the geometry (``headdim``, ``d_state``), the strides and the steps, while ``status.busy`` is 0,
    - writes the ``tile_*`` registers of the first head's tile, and how many heads there are; then, if
      ``status.queue_free`` is not 0, the flags to ``tile_push``. The descriptors of all heads enter the queue from there, as
      it has room; ``queue_free`` is 0 until all are in,
    - waits for ``tiles_done``, which counts tiles whose y and state are in memory, or for the ``done`` interrupt.

    All addresses are byte addresses on the bus and, as strides and steps, multiples of 64. A descriptor with an error
    is dropped, with those of the heads after it, and sets a bit in ``errors``; ``control.reset`` clears errors, queue and core.
    What the records look like is documented in ``operations/ssm.py``.
    """)
        self.config = config
        self.unit   = ResetInserter()(SSMUnit()) if unit else None
        self.add_registers("tiles", {
            "queue_overflow": "``tile_push`` was written with ``queue_free`` 0.",
            "bad_geometry"  : """headdim or d_state is 0 or above its maximum, tokens is 0, first_token is above tokens, or tile is
                not one of those on chip.""",
            "misaligned"    : f"An address or stride is not a multiple of {ALIGNMENT}.",
            "out_of_range"  : "An address is outside the memory region.",
        })
        self.add_status()
        self.add_geometry()
        self.add_descriptor()

        # # #

        self.choose_job()
        self.add_masters(ports, region)
        self.core  = core  = SSMCore(config, ports.y.data_width)
        self.dma   = dma   = ResetInserter()(TileDMA(core, self.masters, config.queue_depth))
        self.heads = heads = HeadExpander(config)
        self.queue = queue = ResetInserter()(stream.SyncFIFO(command_layout(config), config.queue_depth))
        self.add_reset((core, dma, heads, queue, *([self.unit] if self.unit else [])), self.readers, self.writers)
        self.comb += [
            core.headdim.eq(self.job.headdim),
            core.d_state.eq(self.job.d_state),
            [getattr(dma, f"{name}_stride").eq(getattr(self.job, f"{name}_stride")[RECORD_SHIFT:]) for name in ("x", "bc", "y")],
        ]
        self.in_flight = Signal(max=config.queue_depth + 1)
        self.connect_heads()
        self.connect_tiles(region)
        self.connect_status()
        self.add_counters()

    # Registers ------------------------------------------------------------------------------------

    def add_status(self):
        config = self.config
        self._capabilities = CSRStatus(description="What was built.", fields=[
            CSRField("lanes",       size=8,  offset=0,  description="State elements a cycle, L."),
            CSRField("max_headdim", size=10, offset=8,  description="Largest head dimension."),
            CSRField("max_d_state", size=10, offset=18, description="Largest state size."),
            CSRField("queue_depth", size=4,  offset=28, description="log2 of the descriptors in flight."),
        ])
        self._status = CSRStatus(description="Status.", fields=[
            CSRField("busy",       size=1, offset=0, description="Tiles are in flight, or a reset is under way."),
            CSRField("queue_free", size=8, offset=8, description="Room in the queue; 0 while heads of the last push wait."),
        ])
        self._tiles_done = CSRStatus(32, description="Tiles completed since the last reset; wraps.")

        # # #

        self.comb += [
            self._capabilities.fields.lanes.eq(config.lanes),
            self._capabilities.fields.max_headdim.eq(config.max_headdim),
            self._capabilities.fields.max_d_state.eq(config.max_d_state),
            self._capabilities.fields.queue_depth.eq(log2_int(config.queue_depth)),
        ]

    def add_geometry(self):
        self._headdim   = CSRStorage(10, description="Head dimension P. Change while not busy.")
        self._d_state   = CSRStorage(10, description="State size N. Change while not busy.")
        self._x_stride  = CSRStorage(32, description="Bytes from a token's x record to the next one's.")
        self._bc_stride = CSRStorage(32, description="Bytes from a token's BC record to the next one's.")
        self._y_stride  = CSRStorage(32, description="Bytes from a token's y record to the next one's.")

        self._x_step     = CSRStorage(32, description="Bytes from a head's x record to the next one's.")
        self._bc_step    = CSRStorage(32, description="Bytes from a group's BC record to the next one's.")
        self._y_step     = CSRStorage(32, description="Bytes from a head's y record to the next one's.")
        self._state_step = CSRStorage(32, description="Bytes from a head's tile to the next one's.")

    def add_descriptor(self):
        """That of the first head."""
        config = self.config
        text   = {field.name: field.text for field in command_fields(config)}
        for field in ADDRESS_FIELDS:
            setattr(self, f"_tile_{field.name}", CSRStorage(field.bits, name=f"tile_{field.name}", description=field.text))
        self._tile_tokens    = CSRStorage(description="Tokens.", fields=[
            CSRField("tokens",      size=16, offset=0,  description=text["tokens"]),
            CSRField("first_token", size=16, offset=16, description=text["first_token"]),
        ])
        self._tile_heads     = CSRStorage(description="Heads.", fields=[
            CSRField("heads",       size=16, offset=0,  reset=1, description="Heads, each with a tile, 1 or more."),
            CSRField("group_heads", size=16, offset=16, reset=1, description="Heads that share a BC record, 1 or more."),
        ])
        on_chip = []
        if config.resident_tiles:
            on_chip = [
                CSRField("resident", size=1, offset=3, description=text["resident"]),
                CSRField("tile",     size=8, offset=8, description=f"{text['tile']} The first head's; the next one's is next to it, "
                    "after the last place the first one."),
            ]
        if config.stochastic_rounding:
            self._tile_seed = CSRStorage(32, description=f"{text['seed']} The first head's; the next one's is 0x9e3779b9 more.")
        self._tile_push = CSRStorage(description="A write queues the descriptors of all heads.", fields=[
            CSRField("zero_state", size=1, description=text["zero_state"]),
            CSRField("no_store",   size=1, description=text["no_store"]),
            CSRField("interrupt",  size=1, description="Raise ``done`` when the last head's tile is completed."),
            *on_chip,
        ])

    def choose_job(self):
        """What runs next: what the registers hold, or while it is active the unit's descriptor."""
        config = self.config
        names  = ["headdim", "d_state", *(f"{name}_stride" for name in ("x", "bc", "y")), *(f"{name}_step" for name in STEPS), *ADDRESSES]
        flags  = ["zero_state", "no_store", "interrupt"] + (["resident", "tile"] if config.resident_tiles else [])
        parts  = {"tokens": self._tile_tokens, "first_token": self._tile_tokens, "heads": self._tile_heads, "group_heads": self._tile_heads}
        values = {name: getattr(self, f"_tile_{name}" if name in ADDRESSES else f"_{name}").storage for name in names}
        values |= {name: getattr(register.fields, name) for name, register in parts.items()}
        values |= {name: getattr(self._tile_push.fields, name) for name in flags}
        values |= {"seed": self._tile_seed.storage} if config.stochastic_rounding else {}
        values |= {"push": self._tile_push.re}
        self.job = job = Record([(name, len(value)) for name, value in values.items()], name="job")
        self.comb += [getattr(job, name).eq(value) for name, value in values.items()]
        if self.unit is None:
            return
        self.unit_seed       = Signal(32)
        self.unit_zero_state = Signal()
        self.unit_no_store   = Signal()
        self.unit_deferred   = Signal(max=MAX_DEFERRED + 1)
        unit  = self.unit
        asked = unit.job | {"tokens": unit.job["tokens"] + self.unit_deferred, "first_token": self.unit_deferred,
            "zero_state": unit.zero_state | self.unit_zero_state, "no_store": unit.no_store | self.unit_no_store,
            "interrupt": 0, "resident": 0, "tile": 0, "seed": unit.job["seed"] + self.unit_seed, "push": unit.push}
        self.comb += If(unit.active, [getattr(job, name).eq(asked[name]) for name in values])

    # Memory ---------------------------------------------------------------------------------------

    def add_masters(self, ports, region):
        reads, writes = ports.state_reads, ports.state_writes
        self.state_reader = (DMAReader(*reads, region) if len(reads) == 1 else
            InterleavedReader(reads, region, ports.page_beats))
        self.state_writer = (DMAWriter(*writes, region) if len(writes) == 1 else
            InterleavedWriter(writes, region, ports.page_beats))
        self.input_reader = DMAReader(ports.inputs, region)
        self.y_writer     = DMAWriter(ports.y, region)
        self.masters      = {name: getattr(self, name) for name in ("state_reader", "input_reader", "state_writer", "y_writer")}
        self.readers      = (self.state_reader, self.input_reader)
        self.writers      = (self.state_writer, self.y_writer)

    # Queue ----------------------------------------------------------------------------------------

    def connect_heads(self):
        """The descriptors of all heads, from that of the first one."""
        config, heads, job = self.config, self.heads, self.job
        self.comb += [
            heads.push.eq(job.push & ~self.resetting),
            heads.room.eq(self.in_flight != config.queue_depth),
            [getattr(heads.first, name).eq(getattr(job, name)[RECORD_SHIFT:]) for name in ADDRESSES],
            [getattr(heads.first, name).eq(getattr(job, name)) for name, _ in tile_layout(config)
                if name not in ADDRESSES and name != "same_bc"],
            heads.heads.eq(job.heads),
            heads.group_heads.eq(job.group_heads),
            [getattr(heads, f"{name}_step").eq(getattr(job, f"{name}_step")[RECORD_SHIFT:]) for name in STEPS],
        ]

    def connect_tiles(self, region):
        """Checks, what is the same for all heads with the push, the rest head by head; what passes goes to core and DMA."""
        config, heads, core, dma, queue = self.config, self.heads, self.core, self.dma, self.queue
        tile, job  = heads.source, self.job
        tile_legal = job.tile < config.resident_tiles if config.resident_tiles else 1
        multiples  = [getattr(job, name)[:RECORD_SHIFT] for name in ("x", "bc", "y", "x_stride", "bc_stride", "y_stride", "x_step", "bc_step",
            "y_step", "state_step")]
        multiples += [
            job.state_in[:RECORD_SHIFT]  & Replicate(reads_state(job), RECORD_SHIFT),
            job.state_out[:RECORD_SHIFT] & Replicate(~job.no_store, RECORD_SHIFT),
        ]
        used    = dict.fromkeys(ADDRESSES, 1) | {"state_in": reads_state(tile), "state_out": ~tile.no_store}
        outside = [~region.contains(Cat(Constant(0, RECORD_SHIFT), getattr(tile, name))) & used[name] for name in ADDRESSES]
        stray   = [master.out_of_range for master in self.readers + self.writers] # Only a record that runs over its end.
        overflow, geometry, misaligned, left = (Signal() for _ in range(4))
        self.accept = accept = Signal()
        self.comb += [
            If(heads.push,
                overflow.eq(heads.posting | ~heads.room),
                geometry.eq(
                    (job.headdim == 0) | (job.headdim > config.max_headdim) |
                    (job.d_state == 0) | (job.d_state > config.max_d_state) |
                    (job.tokens == 0) | (job.first_token > job.tokens) | ~tile_legal |
                    (heads.heads == 0) | (heads.group_heads == 0)),
                misaligned.eq(Cat(*multiples) != 0),
            ),
            left.eq(tile.valid & (Cat(*outside) != 0)),
            heads.refuse.eq(overflow | geometry | misaligned),
            heads.stop.eq(left),
            accept.eq(tile.valid & ~left),
            queue.sink.valid.eq(accept),
            [getattr(queue.sink, name).eq(getattr(tile, name)) for name, _ in command_layout(config)],
            queue.source.connect(core.command),
            dma.descriptor.valid.eq(accept),
            [getattr(dma.descriptor, name).eq(getattr(tile, name)) for name, _ in tile_layout(config)],
        ]
        self.add_errors({"queue_overflow": overflow, "bad_geometry": geometry, "misaligned": misaligned,
            "out_of_range": left | (Cat(*stray) != 0)})

    # Status ---------------------------------------------------------------------------------------

    def connect_status(self):
        config, heads, dma, in_flight = self.config, self.heads, self.dma, self.in_flight
        self.comb += [
            self._status.fields.busy.eq((in_flight != 0) | heads.posting | self.resetting | (self.unit.active if self.unit else 0)),
            self._status.fields.queue_free.eq(Mux(heads.posting, 0, config.queue_depth - in_flight)),
            self.unit.busy.eq((in_flight != 0) | heads.posting) if self.unit else [],
            self.ev.done.trigger.eq(dma.done & dma.done_interrupt & ~self.resetting),
        ]
        self.sync += [
            If(self.resetting,
                in_flight.eq(0),
                self._tiles_done.status.eq(0),
            ).Else(
                in_flight.eq(in_flight + self.accept - dma.done),
                self._tiles_done.status.eq(self._tiles_done.status + dma.done),
            )
        ]

    def add_counters(self):
        in_flight = self.in_flight
        vectors   = self.core.sequencer
        masters   = self.readers + self.writers
        ports     = Signal(len(masters)) # Masters with something to do: a beat asked for or under way.
        self.comb += ports.eq(Cat(*[~master.idle | master.sink.valid for master in masters]))
        self.counters = Counters({
            "cycles"         : (in_flight != 0,        "Cycles with tiles in flight."),
            "lane_busy"      : (vectors.valid,         "Cycles in which the lanes took a vector."),
            "read_beats"     : (self.state_reader.beat + self.input_reader.beat, "Beats read from memory, of the port's width."),
            "write_beats"    : (self.state_writer.beat + self.y_writer.beat,     "Beats written to memory, likewise."),
            "port_cycles"    : (ports != 0, "Cycles in which a memory port had a beat waiting or under way."),
            "wait_state"     : (vectors.wait_state,    "Cycles in which the lanes waited for a head tile."),
            "wait_input"     : (vectors.wait_input,    "Cycles in which the lanes waited for inputs."),
            "wait_output"    : (vectors.wait_output,   "Cycles in which the lanes waited for room for y."),
            "wait_descriptor": (vectors.wait_descriptor & (in_flight != 0),
                "Cycles in which the lanes had no tile while others were still being stored."),
        })
