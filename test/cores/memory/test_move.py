#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The move engine between a scratchpad and a memory, compiled, against the golden machine."""

import numpy as np
import pytest

from litex.gen import LiteXModule

from pads import dump, fill, given, pad_ports, until_idle

from cores.memory.move import MoveEngine
from cores.memory.scratchpad import Scratchpad

from model.machine import Machine

from operations.program import Code, Register, pack

from tools.verilated import stream_module

# Helpers ------------------------------------------------------------------------------------------

ELEMENTS = 4096 # Of the scratchpad,
BYTES    = 8192 # and of the memory.
UNITS    = {}


class Harness(LiteXModule):
    """The engine, its scratchpad, another one as its memory, and ports to fill and to read both."""
    def __init__(self, width, lanes):
        self.engine     = engine     = MoveEngine(width, lanes, ELEMENTS//lanes)
        self.scratchpad = scratchpad = Scratchpad(lanes, ELEMENTS//lanes, reads=2, writes=2)
        self.memory     = memory     = Scratchpad(width//16, 8*BYTES//width, reads=2, writes=2)
        shift = (width//8).bit_length() - 1
        self.comb += [
            engine.read_word_address.connect(scratchpad.reads[0]),
            scratchpad.sources[0].connect(engine.read_word),
            engine.write.connect(scratchpad.writes[0]),
            engine.read_address.connect(memory.reads[0], omit={"address"}),
            memory.reads[0].address.eq(engine.read_address.address >> shift),
            memory.sources[0].connect(engine.read_beat),
            engine.write_beat.connect(memory.writes[0], omit={"address"}),
            memory.writes[0].address.eq(engine.write_beat.address >> shift),
            engine.settled.eq(~memory.writes[0].valid),
        ]


def unit(width, lanes):
    if (width, lanes) not in UNITS:
        module = Harness(width, lanes)
        UNITS[width, lanes] = stream_module(module, [("sink", module.engine.sink, ("code", "flags", "operands"), False),
            *pad_ports("scratch", module.scratchpad), *pad_ports("memory", module.memory)], {"idle": module.engine.idle})
    return UNITS[width, lanes]


def check(rng, descriptors, width, lanes, duty=256):
    """Returns the cycles."""
    scratch  = rng.integers(0, 2**16, ELEMENTS).astype(np.uint16)
    memory   = rng.integers(0, 2**8, BYTES).astype(np.uint8)
    program  = np.frombuffer(np.array([*sum(descriptors, []), *pack(Code.END)], "<u4").tobytes(), np.uint8)
    machine  = Machine(np.concatenate([memory, program]), width, scratch=ELEMENTS)
    machine.registers  = {Register.TAPE: 0}
    machine.scratch[:] = scratch
    machine.run(BYTES)
    compiled = unit(width, lanes)
    compiled.reset()
    fill(compiled, "scratch", scratch.view(np.uint8), 16*lanes)
    fill(compiled, "memory",  memory, width)
    limit    = 100_000*len(descriptors)
    cycles   = compiled.streams({"sink": given(descriptors)}, {}, limit, duty, int(rng.integers(1000)))[1] + until_idle(compiled, limit)
    for name, wanted, bits in (("scratch", machine.scratch.view(np.uint8), 16*lanes), ("memory", machine.memory[:BYTES], width)):
        found = dump(compiled, name, wanted.size, bits)
        wrong = np.flatnonzero(found != wanted)
        assert not len(wrong), (name, len(wrong), wrong[:4], found[wrong[0]], wanted[wrong[0]])
    return cycles


def descriptor(rng):
    """A random one. Rows do not overlap in what they are written to."""
    code   = rng.choice([Code.LOAD, Code.STORE, Code.SCATTER])
    rows, tokens = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    if code == Code.SCATTER:
        memory = {"memory": (Register.TAPE, 2*int(rng.integers(0, 256))), "memory_row_stride": 2*int(rng.integers(1, 90)), "memory_token_stride": 1024}
        return pack(code, **memory, scratch=8*int(rng.integers(0, 64)), scratch_row_stride=int(rng.integers(0, 20)),
            scratch_token_stride=8*int(rng.integers(0, 64)), rows=rows, tokens=tokens)
    elements = 8*int(rng.integers(1, 17))
    row      = elements + 8*int(rng.integers(0, 8))
    token    = row*rows + 8*int(rng.integers(0, 8))
    return pack(code, memory=(Register.TAPE, 16*int(rng.integers(0, 16))), memory_row_stride=2*row, memory_token_stride=2*token,
        scratch=8*int(rng.integers(0, 16)), scratch_row_stride=row, scratch_token_stride=token, elements=elements, rows=rows, tokens=tokens)

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width, lanes", [(128, 4), (128, 8), (512, 8),
    *(pytest.param(*build, marks=pytest.mark.slow) for build in ((128, 1), (256, 2), (512, 4)))])
def test_against_the_machine(width, lanes):
    rng = np.random.default_rng(width + lanes)
    for _ in range(40):
        check(rng, [descriptor(rng) for _ in range(10)], width, lanes, int(rng.choice([256, 60])))


@pytest.mark.parametrize("width, lanes", [(128, 4), (128, 8), (512, 8)])
@pytest.mark.parametrize("code", [Code.LOAD, Code.STORE])
def test_cycles(code, width, lanes):
    """Long rows: a word a cycle; short ones: a few cycles each."""
    rng = np.random.default_rng(1)
    assert check(rng, [pack(code, memory=(Register.TAPE, 0), scratch=0, elements=2048)], width, lanes) <= 2048//lanes + 30
    rows = dict(rows=24, memory_row_stride=192, scratch_row_stride=64, elements=64)
    assert check(rng, [pack(code, memory=(Register.TAPE, 16), scratch=0, **rows)], width, lanes) <= 24*(64//lanes + 3) + 30


def test_refused():
    with pytest.raises(ValueError, match="width must be one of 128, 256, 512, is 64."):
        MoveEngine(64)
    with pytest.raises(ValueError, match="lanes must be one of 1, 2, 4, 8, is 3."):
        MoveEngine(128, 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("width, lanes", [(128, 4), (512, 8)])
def test_many(width, lanes, seed):
    rng = np.random.default_rng(1000 + seed)
    for _ in range(300):
        check(rng, [descriptor(rng) for _ in range(10)], width, lanes, int(rng.choice([256, 60])))
