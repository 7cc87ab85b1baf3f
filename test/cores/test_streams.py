#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The rule of streams: what is offered stays, with its data, until it is taken. And no beat is lost, doubled or out of order.

In all runs of the cycles that are stated beside each module; what it is given keeps the rule too."""

import pytest

from migen import If, Signal

from litedram.common import LiteDRAMNativePort

from litex.soc.interconnect import stream

from cores.gemv.block_float import BlockQuantiser
from cores.memory.addresses import Addresses
from cores.memory.bursts import BurstGenerator, StridedBursts
from cores.memory.convert import BeatsToWords, WordsToBeats
from cores.memory.dma import DMAReader
from cores.memory.interleaved import InterleavedReader
from cores.memory.move import MoveEngine
from cores.memory.region import Region
from cores.memory.scratchpad import Scratchpad
from cores.vector.functions import FunctionUnit
from cores.vector.residual_add import ResidualAdd
from cores.vector.rsqrt import Rsqrt

from tools.formal import Proof, check, mutant
from tools.paths import ROOT

# Helpers ------------------------------------------------------------------------------------------

REGION = Region(0x4000_0000, 0x4100_0000)


def fields_of(endpoint):
    return [name for name, *_ in endpoint.description.payload_layout] + ["last"]


def signals_of(endpoint):
    return [getattr(endpoint, name) for name in fields_of(endpoint)]


def offered(proof, *endpoints, unless=0):
    """Given to the module, by the rule."""
    for endpoint in endpoints:
        proof.free_all([endpoint.valid, *signals_of(endpoint)])
        proof.assume(proof.holds(endpoint, fields_of(endpoint), unless))


def keeps(proof, *endpoints, unless=0, last=True):
    """The module's own keep it."""
    for n, endpoint in enumerate(endpoints):
        proof.free.append(endpoint.ready)
        fields = fields_of(endpoint)
        proof.must(f"holds{n}", proof.holds(endpoint, fields if last else fields[:-1], unless))


def in_order(proof, sink, source, bits=4):
    """What comes out as the n-th beat is what went in as the n-th, for any n."""
    chosen  = proof.constant(bits, "chosen")
    entered = Signal(bits, name="entered")
    left    = Signal(bits, name="left")
    kept    = Signal(len(sink.data), name="kept")
    there   = Signal(name="there")
    went = proof.let(sink.valid & sink.ready)
    came = proof.let(source.valid & source.ready)
    proof.sync += [
        If(went, entered.eq(entered + 1)),
        If(came, left.eq(left + 1)),
        If(went & (entered == chosen), kept.eq(sink.data), there.eq(1)),
    ]
    proof.must("none_before_its_time", ~(source.valid & (left == chosen)) | there | (went & (entered == chosen)))
    proof.must("the_one_that_went_in", ~(source.valid & (left == chosen)) | ~there | (source.data == kept))

# Modules ------------------------------------------------------------------------------------------

def streams(dut, sinks, sources, **options):
    proof = Proof(dut)
    offered(proof, *sinks)
    keeps(proof, *sources, **options)
    return proof


def burst():
    dut = BurstGenerator(4, 4)
    return streams(dut, [dut.sink], [dut.source])


def strided():
    dut   = StridedBursts({"a": False, "b": True}, 4, 4)
    proof = streams(dut, [dut.sink], [dut.source], last=False)
    proof.constants += [dut.length_a, dut.length_b, dut.stride_a, dut.stride_b]
    proof.assume((dut.length_a != 0) & (dut.length_b != 0))
    return proof


def addresses():
    dut   = Addresses(10, 4, 2)
    proof = streams(dut, [], [dut.source])
    proof.free.append(dut.start)
    proof.assume(~dut.start | ~dut.busy)
    proof.constants += [dut.base, dut.stride, dut.beats, dut.terms]
    return proof


def words_of(kind, beat=32, word=8):
    dut   = kind(beat, word)
    proof = streams(dut, [dut.sink], [dut.source], last=False)
    proof.constants.append(dut.end)
    return proof


def beats(word, beat):
    def make():
        dut = WordsToBeats(word, beat)
        return streams(dut, [dut.sink], [dut.source], last=False)
    return make


def answers(proof, addresses, data):
    """Data comes for an address, after it."""
    pending = Signal(8, name="pending")
    proof.assume(~data.valid | (pending != 0))
    proof.sync += pending.eq(pending + (addresses.valid & addresses.ready) - (data.valid & data.ready))


def memory_port(proof, port):
    """Answers whenever it likes, but not what it was not asked for."""
    pending = Signal(8, name="pending")
    proof.free_all([port.cmd.ready, port.rdata.valid, port.rdata.data])
    proof.assume(~port.rdata.valid | (pending != 0))
    proof.sync += pending.eq(pending + (port.cmd.valid & port.cmd.ready) - port.rdata.valid)


def dma_reader(kind=DMAReader):
    port  = LiteDRAMNativePort("read", address_width=20, data_width=128)
    dut   = kind(port, REGION, 4)
    proof = streams(dut, [dut.sink], [dut.source], last=False, unless=dut.flush)
    proof.free.append(dut.flush)
    memory_port(proof, port)
    return proof


def interleaved():
    ports = [LiteDRAMNativePort("read", address_width=20, data_width=128) for _ in range(2)]
    dut   = InterleavedReader(ports, REGION, 4)
    proof = streams(dut, [dut.sink], [dut.source], last=False)
    for port in ports:
        memory_port(proof, port)
    return proof


def scratchpad(kind=Scratchpad):
    dut = kind(lanes=1, words=8, reads=2, writes=2, banks=2)
    return streams(dut, [*dut.reads, *dut.writes], dut.sources, last=False)


def fifo(depth, buffered):
    def make():
        dut   = stream.SyncFIFO([("data", 2)], depth, buffered=buffered)
        proof = streams(dut, [dut.sink], [dut.source])
        in_order(proof, dut.sink, dut.source)
        return proof
    return make


def buffer(valid, ready, kind=stream.Buffer):
    def make():
        dut   = kind([("data", 2)], pipe_valid=valid, pipe_ready=ready)
        proof = streams(dut, [dut.sink], [dut.source])
        in_order(proof, dut.sink, dut.source)
        return proof
    return make


def unit(make_dut):
    def make():
        dut = make_dut()
        return streams(dut, [dut.sink], [dut.source], last=False)
    return make


def move():
    dut   = MoveEngine(lanes=8, words=64, width=128)
    proof = streams(dut, [dut.sink, dut.read_beat, dut.read_word], [dut.read_address, dut.write_beat, dut.read_word_address, dut.write], last=False)
    answers(proof, dut.read_address, dut.read_beat)
    answers(proof, dut.read_word_address, dut.read_word)
    return proof


MODULES = { # And the cycles of the runs.
    "BurstGenerator"             : (burst, 12),
    "StridedBursts"              : (strided, 12),
    "Addresses"                  : (addresses, 12),
    "BeatsToWords, several"      : (lambda: words_of(BeatsToWords), 12),
    "BeatsToWords, wider"        : (lambda: words_of(BeatsToWords, 8, 32), 12),
    "WordsToBeats, several"      : (beats(8, 32), 12),
    "WordsToBeats, narrower"     : (beats(32, 8), 12),
    "DMAReader"                  : (dma_reader, 12),
    "InterleavedReader"          : (interleaved, 10),
    "Scratchpad"                 : (scratchpad, 12),
    "FIFO of 2"                  : (fifo(2, False), 9),
    "FIFO of 2, buffered"        : (fifo(2, True), 9),
    "Buffer, both ways"          : (buffer(True, True), 9),
    "Buffer, ready alone"        : (buffer(False, True), 9),
    "BlockQuantiser"             : (unit(lambda: BlockQuantiser(lanes=8)), 10),
    "FunctionUnit"               : (unit(FunctionUnit), 10),
    "ResidualAdd"                : (unit(ResidualAdd), 10),
    "Rsqrt"                      : (unit(Rsqrt), 10),
    "MoveEngine"                 : (move, 10),
}

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_streams(name):
    make, cycles = MODULES[name]
    found = check(make(), cycles) # Not in the assert: pytest gives what is made there names that Verilog has not.
    assert found is None


MEMORY = ROOT/"cores"/"memory"


@pytest.mark.slow
@pytest.mark.parametrize("make, file, change, kind, cycles", [
    (dma_reader, "dma.py", {"data.ready.eq(source.ready | self.flush)": "data.ready.eq(1)"}, "DMAReader", 12),
    (scratchpad, "scratchpad.py", {"fifo.source.connect(source)": "(fifo.source.connect(source, omit={'ready'}), fifo.source.ready.eq(1))"}, "Scratchpad", 12),
    (words_of, "convert.py", {"If(source.valid & source.ready, index": "If(source.valid, index"},
        "BeatsToWords", 12),
])
def test_mutants(make, file, change, kind, cycles):
    """The proof notices what is broken."""
    found = check(make(mutant(MEMORY/file, change)[kind]), cycles)
    assert found is not None

