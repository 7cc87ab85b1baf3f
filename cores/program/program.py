#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The engines of a whole model as a LiteX peripheral: dispatcher, weight tape, scratchpad, CSRs and interrupt."""

from dataclasses import dataclass
from functools import reduce
from operator import or_

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream
from litex.soc.interconnect.csr import *
from litex.soc.integration.doc import ModuleDoc

from cores.common.counters import Counters
from cores.common.engine import Engine
from cores.gemv.engine import GEMVEngine
from cores.head.engine import HeadEngine
from cores.memory.bursts import BurstGenerator
from cores.memory.dma import DMAReader, DMAWriter
from cores.memory.interleaved import InterleavedReader
from cores.memory.move import MoveEngine
from cores.memory.region import beat_shift
from cores.memory.scratchpad import Scratchpad
from cores.program.dispatcher import Dispatcher
from cores.vector.engine import VectorEngine

from operations.config import ALIGNMENT, DSP_BITS
from operations.image import MAX_DEFERRED
from operations.numerics import LANE_BITS
from operations.program import DESCRIPTOR_WORDS, Register, Unit

# Constants ----------------------------------------------------------------------------------------

RECORD_SHIFT = log2_int(ALIGNMENT)
PROGRAM_BITS = 16 # Of the number of descriptors.
TAPE_BITS    = 28 # Of the number of the tape's beats.
UNDER_WAY    = 16 # Beats of a small reader or writer.

# Ports --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ProgramPorts:
    """Memory ports, LiteDRAM native ports or Wishbone interfaces, all of one width.

    tape       : a list; of several, the pages of the DRAM go to each in turn.
    descriptors, loads, embedding : of readers.
    stores, results               : of writers.
    page_beats : beats of a page of the DRAM, where there are several for the tape.
    """
    tape        : list
    descriptors : object
    loads       : object
    embedding   : object
    stores      : object
    results     : object
    page_beats  : int = None

# Program ------------------------------------------------------------------------------------------

class Program(Engine):
    """Runs programs of descriptors.

    ::

        descriptors -> Dispatcher -+-> MoveEngine ---- loads, stores
                                   +-> GEMVEngine ---- tape
                                   +-> VectorEngine -- embedding       all of these on the scratchpad
                                   +-> HeadEngine ---- results         (logits from the GEMVEngine)
                                   +-> SSM core

    Parameters
    ----------
    config : :class:`operations.config.ProgramConfig`.
    ports  : :class:`ProgramPorts`.
    region : :class:`cores.memory.region.Region`: nothing outside it is read or written.
    ssm    : :class:`cores.ssm.ssm.SSM` with a unit; None: descriptors SSM are errors.

    Raises
    ------
    ValueError : the vector unit is too narrow for the port, or the units do not go together.
    """
    def __init__(self, config, ports, region, ssm=None):
        self.intro = ModuleDoc("""Programs

    Runs a program of descriptors (docs/program.md), as one pass of tokens through a model is.

    To run one, the CPU, while ``status.busy`` is 0,

    - writes ``address``, ``descriptors``, ``tape_beats``, the base registers, the tokens' numbers and the ``seed``,
    - writes ``start``,
    - waits for the ``done`` interrupt, or until ``status.busy`` is 0.

    After an error, ``control.reset`` clears errors and engines; the SSM core has a reset of its own.
    """)
        width = ports.descriptors.data_width
        shift = beat_shift(ports.descriptors)
        units = [Unit[name] for name in config.units if Unit[name] != Unit.SSM or ssm is not None]
        rows  = width//LANE_BITS
        if config.vector_lanes < rows:
            raise ValueError(f"vector_lanes must be at least {rows} with ports of {width} bits, is {config.vector_lanes}.")
        if Unit.HEAD in units and Unit.GEMV not in units:
            raise ValueError("units must have GEMV where they have HEAD, have not.")
        self.config = config
        self.units  = units
        self.add_registers("programs", {
            "bad_descriptor": "Descriptor ``index`` has an unknown code, or one of a unit that is not there, or bits that mean nothing.",
            "out_of_range"  : "A beat lay outside the memory region. It was not written, or another one was read.",
            "left"          : "The program ended before its last descriptor, or before its last beat of the tape.",
        })
        self.add_program()

        # # #

        self.dispatcher = dispatcher = ResetInserter()(Dispatcher(units))
        self.busy       = {} # Of each unit: it carries out a descriptor,
        self.writes     = {} # and a word that it wrote is not in the scratchpad yet.
        self.parts      = [dispatcher]
        self.readers    = []
        self.writers    = []
        self.start      = start = Signal()
        words           = config.elements//config.vector_lanes

        # Descriptors. -----------------------------------------------------------------------------
        beats = Signal(PROGRAM_BITS + log2_int(DESCRIPTOR_WORDS*32//width))
        fetch = self.add_burst("fetch", shift, len(beats), self._address.storage, beats)
        self.comb += beats.eq(self._descriptors.storage << log2_int(DESCRIPTOR_WORDS*32//width))
        self.fetched = fetched = ResetInserter()(stream.Converter(width, 32*DESCRIPTOR_WORDS))
        self.parts.append(fetched)
        reader = self.add_reader("fetch_reader", DMAReader(ports.descriptors, region, UNDER_WAY), fetch.source)
        self.comb += [
            reader.source.connect(fetched.sink),
            fetched.source.connect(dispatcher.sink),
            dispatcher.start.eq(start),
            [signal.eq(self.bases[register].storage) for register, signal in dispatcher.registers.items()],
        ]

        # Engines, and what they read and write. ---------------------------------------------------
        options = dict(lanes=config.vector_lanes, words=words)
        if Unit.MOVE in units:
            self.move = move = self.add_engine(Unit.MOVE, MoveEngine(width=width, **options))
            self.add_memory("move", move, ports.loads, ports.stores, region, masked=True)
        if Unit.GEMV in units:
            self.gemv = gemv = self.add_engine(Unit.GEMV, GEMVEngine(width=width, tokens=config.pass_tokens,
                activations=config.activations, packed=config.dsp_bits == max(DSP_BITS), **options))
            self.add_tape(gemv, ports, region, shift)
        if Unit.VECTOR in units:
            self.vector = vector = self.add_engine(Unit.VECTOR, VectorEngine(width=width, tokens=config.pass_tokens, **options))
            self.add_memory("embedding", vector, ports.embedding, None, region)
            self.comb += [row.eq(number) for row, number in zip(vector.rows, self.tokens)]
        if Unit.HEAD in units:
            self.head = head = self.add_engine(Unit.HEAD, HeadEngine(width, config.pass_tokens))
            self.add_memory("head", head, None, ports.results, region)
            self.comb += [
                gemv.logits.connect(head.logits),
                head.tokens.eq(gemv.tokens),
                head.vocabulary.eq(gemv.vocabulary),
            ]
        elif Unit.GEMV in units:
            self.comb += gemv.logits.ready.eq(1)
        if Unit.SSM in units:
            self.connect_engine(Unit.SSM, ssm.unit)
            self.comb += [
                ssm.unit_seed.eq(self._seed.storage),
                ssm.unit_zero_state.eq(self._start.fields.zero_state),
                ssm.unit_no_store.eq(self._start.fields.no_store),
                ssm.unit_deferred.eq(self._start.fields.deferred),
            ]
        self.connect_scratchpad(words)
        self.add_reset(self.parts, self.readers, self.writers)
        self.connect_status()

    # Registers ------------------------------------------------------------------------------------

    def add_program(self):
        config = self.config
        self._capabilities = CSRStatus(description="What was built.", fields=[
            CSRField("pass_tokens",  size=4, offset=0,  description="Most tokens of a pass, R."),
            CSRField("vector_lanes", size=4, offset=4,  description="Elements of the vector unit in a cycle, V."),
            CSRField("units",        size=8, offset=8,  description="A bit for each unit that there is."),
        ])
        self._address     = CSRStorage(32, description=f"Of the program's first descriptor, a multiple of {ALIGNMENT}.")
        self._descriptors = CSRStorage(PROGRAM_BITS, description="How many the program has, its END included.")
        self._tape_beats  = CSRStorage(TAPE_BITS, description="Beats that it reads from the tape, from ``base_tape`` on.")
        self._token       = CSRStorage(description="A write sets the number of a token of the pass.", fields=[
            CSRField("token", size=20, offset=0,  description="The token's number."),
            CSRField("place", size=3,  offset=24, description="Which token of the pass."),
        ])
        self._seed        = CSRStorage(32, description="Of stochastic rounding, of the pass's first token.")
        self._start       = CSRStorage(description="A write starts the program.", fields=[
            CSRField("zero_state", size=1, offset=0, description="The SSM core begins with states of zeros."),
            CSRField("no_store",   size=1, offset=1, description="It does not store them."),
            CSRField("deferred",   size=bits_for(MAX_DEFERRED), offset=8, description="Tokens that it runs before those of the pass, whose y it does not write."),
        ])
        self._status      = CSRStatus(description="Status.", fields=[
            CSRField("busy", size=1, description="A program runs, or a reset is under way."),
        ])
        self._index       = CSRStatus(16, description="Number of the descriptor that is to be issued next, or was the last one.")
        self.bases        = {}
        for register in Register:
            name = f"base_{register.name.lower()}"
            self.bases[register] = base = CSRStorage(32, name=name, description=f"Base register {register.name}.")
            setattr(self, f"_{name}", base)

        # # #

        self.tokens     = [Signal(20, reset_less=True, name=f"token{n}") for n in range(config.pass_tokens)]
        self.sync += [If(self._token.re & (self._token.fields.place == n), token.eq(self._token.fields.token))
            for n, token in enumerate(self.tokens)]
        self.comb += [
            self._capabilities.fields.pass_tokens.eq(config.pass_tokens),
            self._capabilities.fields.vector_lanes.eq(config.vector_lanes),
            self._capabilities.fields.units.eq(sum(1 << unit for unit in self.units)),
        ]

    # Engines --------------------------------------------------------------------------------------

    def add_engine(self, unit, engine):
        engine = ResetInserter()(engine)
        self.parts.append(engine)
        self.connect_engine(unit, engine)
        return engine

    def connect_engine(self, unit, engine):
        """From its queue; it has carried out a descriptor when it is idle again."""
        self.busy[unit]   = busy   = Signal(name=f"{unit.name.lower()}_busy")
        self.writes[unit] = writes = Signal(name=f"{unit.name.lower()}_writes")
        source = self.dispatcher.sources[unit]
        self.comb += [
            source.connect(engine.sink, omit={"valid", "ready"}),
            engine.sink.valid.eq(source.valid & ~writes),
            source.ready.eq(engine.sink.ready & ~writes),
            self.dispatcher.retired[unit].eq(busy & engine.idle & ~writes),
        ]
        self.sync += If(self.resetting,
            busy.eq(0),
        ).Elif(engine.sink.valid & engine.sink.ready,
            busy.eq(1),
        ).Elif(engine.idle & ~writes,
            busy.eq(0),
        )

    def add_buffer(self, name, endpoint, pipe_valid=True):
        """Registers behind a stream, in both directions or for ``ready`` alone: whether its beats are taken is not in the paths of what gives them.
        The module."""
        buffer = ResetInserter()(stream.Buffer(endpoint.description, pipe_valid=pipe_valid, pipe_ready=True))
        self.add_module(name=f"{name}_buffer", module=buffer)
        self.parts.append(buffer)
        self.comb += endpoint.connect(buffer.sink)
        return buffer

    # Memory ---------------------------------------------------------------------------------------

    def add_burst(self, name, shift, bits, address, length):
        """Addresses of so many beats from an address on, with each start."""
        burst = ResetInserter()(BurstGenerator(shift, bits))
        setattr(self, name, burst)
        self.parts.append(burst)
        asking = Signal(name=f"{name}_asking")
        self.comb += [
            burst.sink.valid.eq(asking),
            burst.sink.record.eq(address[RECORD_SHIFT:]),
            burst.sink.length.eq(length),
        ]
        self.sync += If(self.resetting,
            asking.eq(0),
        ).Elif(self.start,
            asking.eq(length != 0),
        ).Elif(burst.sink.valid & burst.sink.ready,
            asking.eq(0),
        )
        return burst

    def add_reader(self, name, reader, addresses):
        setattr(self, name, reader)
        self.readers.append(reader)
        self.comb += addresses.connect(reader.sink, keep={"valid", "ready", "address"})
        return reader

    def add_memory(self, name, engine, read_port, write_port, region, masked=False):
        """An engine's own reader and writer."""
        if read_port is not None:
            addresses = self.add_buffer(f"{name}_address", engine.read_address).source
            reader    = self.add_reader(f"{name}_reader", DMAReader(read_port, region, UNDER_WAY), addresses)
            self.comb += reader.source.connect(engine.read_beat)
        if write_port is not None:
            beats  = self.add_buffer(f"{name}_beat", engine.write_beat).source
            writer = DMAWriter(write_port, region, UNDER_WAY, masked)
            setattr(self, f"{name}_writer", writer)
            self.writers.append(writer)
            self.comb += [
                beats.connect(writer.sink),
                engine.settled.eq(writer.idle & ~beats.valid),
            ]

    def add_tape(self, gemv, ports, region, shift):
        """It is read ahead as far as there is room: while the GEMV engine waits for its vectors, the memory goes on."""
        burst  = self.add_burst("tape", shift, TAPE_BITS, self._base_tape.storage, self._tape_beats.storage)
        reader = (DMAReader(*ports.tape, region) if len(ports.tape) == 1 else InterleavedReader(ports.tape, region, ports.page_beats))
        self.add_reader("tape_reader", reader, self.add_buffer("tape_address", burst.source).source)
        self.tape_fifo = fifo = ResetInserter()(stream.SyncFIFO(reader.source.description, self.config.tape_depth, buffered=True))
        self.parts.append(fifo)
        self.tape_left = left = Signal(TAPE_BITS)
        self.comb += [
            reader.source.connect(fifo.sink),
            fifo.source.connect(gemv.tape),
        ]
        self.sync += If(self.resetting,
            left.eq(0),
        ).Elif(self.start,
            left.eq(self._tape_beats.storage),
        ).Elif(gemv.tape.valid & gemv.tape.ready,
            left.eq(left - 1),
        )

    def connect_scratchpad(self, words):
        """Its ports are those of the engines that there are."""
        reads, writes = [], {}
        if Unit.GEMV in self.units:
            reads.append((self.gemv.read_address, self.gemv.read_word))
            writes[Unit.GEMV] = self.gemv.write
        if Unit.VECTOR in self.units:
            reads += zip(self.vector.read_addresses, self.vector.read_words)
            writes[Unit.VECTOR] = self.vector.write
        if Unit.MOVE in self.units:
            reads.append((self.move.read_word_address, self.move.read_word))
            writes[Unit.MOVE] = self.move.write
        if not reads:
            return
        self.scratchpad = scratchpad = ResetInserter()(Scratchpad(self.config.vector_lanes, words, len(reads), len(writes)))
        self.parts.append(scratchpad)
        # The words too: that an engine takes one is not in the paths of the scratchpad.
        for n, ((address, word), port, source) in enumerate(zip(reads, scratchpad.reads, scratchpad.sources)):
            buffer = self.add_buffer(f"scratchpad_read{n}", address)
            words  = self.add_buffer(f"scratchpad_words{n}", source, pipe_valid=False)
            self.comb += buffer.source.connect(port), words.source.connect(word)
        for (unit, write), port in zip(writes.items(), scratchpad.writes):
            buffer = self.add_buffer(f"{unit.name.lower()}_write", write)
            self.comb += buffer.source.connect(port), self.writes[unit].eq(buffer.source.valid)

    # Status ---------------------------------------------------------------------------------------

    def connect_status(self):
        dispatcher = self.dispatcher
        busy, left = Signal(), Signal()
        unread     = Signal() # A cycle late, which is long before the program ends.
        stray      = Signal() # A cycle late: addresses are compared at the end of long paths.
        tape_left  = (self.tape_left != 0) if Unit.GEMV in self.units else (self._tape_beats.storage != 0)
        self.comb += [
            busy.eq(dispatcher.busy | self.resetting | self.start),
            self._status.fields.busy.eq(busy),
            self._index.status.eq(dispatcher.index),
            self.ev.done.trigger.eq(dispatcher.done & ~self.resetting),
            left.eq(dispatcher.done & ~dispatcher.error & unread),
        ]
        self.sync += [
            self.start.eq(self._start.re & ~busy),
            stray.eq(reduce(or_, [master.out_of_range for master in self.readers + self.writers])),
            unread.eq(tape_left | (dispatcher.index + 1 != self._descriptors.storage)),
        ]
        self.add_errors({"bad_descriptor": dispatcher.done & dispatcher.error, "out_of_range": stray, "left": left})

        tape   = self.gemv.tape if Unit.GEMV in self.units else None
        events = {
            "cycles"      : (dispatcher.busy, "Cycles in which a program ran."),
            "read_beats"  : (reduce(lambda a, b: a + b, [reader.beat for reader in self.readers]), "Beats read from memory, of the port's width; without the SSM core's."),
            "write_beats" : (reduce(lambda a, b: a + b, [writer.beat for writer in self.writers], Constant(0)), "Beats written to memory, likewise."),
            "tape_beats"  : (tape.valid & tape.ready if tape is not None else Constant(0), "Beats of the tape that the GEMV engine took."),
            "tape_wait"   : (tape.ready & ~tape.valid & dispatcher.busy if tape is not None else Constant(0),
                "Cycles in which the GEMV engine waited for the tape."),
        }
        for unit in Unit:
            events[f"wait_{unit.name.lower()}"] = (dispatcher.waiting[unit] if unit in self.units else Constant(0),
                f"Cycles in which the next descriptor waited for {unit.name}.")
        self.counters = Counters(events)
