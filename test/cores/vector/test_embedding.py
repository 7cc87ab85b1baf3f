#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The vector engine's EMBED on a scratchpad and a memory, compiled, against the golden machine."""

import numpy as np
import pytest

from migen import If

from litex.gen import LiteXModule

from litex.soc.interconnect import stream

from pads import dump, fill, given, pad_ports, until_idle

from cores.memory.scratchpad import Scratchpad
from cores.vector.embedding import EmbeddingReader
from cores.vector.engine import VectorEngine

from model.exact.tape import pack_matrix
from model.machine import Machine

from operations.program import BY_CODE, Code, Register, pack

from tools.verilated import stream_module

# Helpers ------------------------------------------------------------------------------------------

ELEMENTS = 4096  # Of the scratchpad,
BYTES    = 65536 # and of the memory.
TOKENS   = 4
LANES    = 4
UNITS    = {}


class Harness(LiteXModule):
    """The engine, its scratchpad, another one as its memory, and the tokens' numbers."""
    def __init__(self, width):
        self.engine     = engine     = VectorEngine(LANES, ELEMENTS//LANES, width, TOKENS)
        self.scratchpad = scratchpad = Scratchpad(LANES, ELEMENTS//LANES, reads=3, writes=2)
        self.memory     = memory     = Scratchpad(width//16, 8*BYTES//width, reads=2, writes=1)
        self.rows       = rows       = stream.Endpoint([(f"row{n}", 20) for n in range(TOKENS)])
        shift = (width//8).bit_length() - 1
        for n in range(2):
            self.comb += [
                engine.read_addresses[n].connect(scratchpad.reads[n]),
                scratchpad.sources[n].connect(engine.read_words[n]),
            ]
        self.comb += [
            engine.write.connect(scratchpad.writes[0]),
            engine.read_address.connect(memory.reads[0], omit={"address"}),
            memory.reads[0].address.eq(engine.read_address.address >> shift),
            memory.sources[0].connect(engine.read_beat),
            rows.ready.eq(1),
        ]
        self.sync += If(rows.valid, [row.eq(getattr(rows, f"row{n}")) for n, row in enumerate(engine.rows)])


def unit(width):
    if width not in UNITS:
        module = Harness(width)
        UNITS[width] = stream_module(module, [("sink", module.engine.sink, ("code", "flags", "operands"), False),
            ("rows", module.rows, [f"row{n}" for n in range(TOKENS)], False), *pad_ports("scratch", module.scratchpad),
            *pad_ports("memory", module.memory)], {"idle": module.engine.idle})
    return UNITS[width]


def check(rng, rows, columns, narrow, width, duty=256):
    """Rows drawn from a random matrix. Returns the cycles."""
    limits   = (-8, 8) if narrow else (-127, 128)
    integers = rng.integers(*limits, (rows, columns)).astype(np.int8)
    scales   = (rng.standard_normal((rows, columns//32))*2.0**rng.integers(-20, 8, (rows, columns//32))).astype(np.float16)
    memory   = rng.integers(0, 256, BYTES).astype(np.uint8)
    tape     = pack_matrix(integers, scales, narrow, width).reshape(-1)
    table    = 64*int(rng.integers(0, 8))
    memory[table:table + len(tape)] = tape
    count    = int(rng.integers(1, TOKENS + 1))
    words    = pack(Code.EMBED, flags=["NARROW"] if narrow else [], residual=8*int(rng.integers(8)), residual_stride=2*columns + 8*int(rng.integers(3)),
        table=(Register.EMBEDDING, table), groups=columns//32, tokens=count)
    machine  = Machine(np.concatenate([memory, np.frombuffer(np.array(words + pack(Code.END), "<u4").tobytes(), np.uint8)]), width,
        scratch=ELEMENTS, tokens=TOKENS)
    machine.registers[Register.EMBEDDING] = 0
    machine.scratch[:] = rng.integers(0, 2**16, ELEMENTS)
    machine.tokens     = rng.integers(0, rows, TOKENS).tolist()
    compiled = unit(width)
    compiled.reset()
    fill(compiled, "scratch", machine.scratch.view(np.uint8), 16*LANES)
    fill(compiled, "memory", memory, width)
    machine.run(BYTES)
    plain  = [word if n != place_of_table() else table for n, word in enumerate(words)] # As the dispatcher has it.
    compiled.streams({"rows": {f"row{n}": [row] for n, row in enumerate(machine.tokens)}}, {}, 10)
    cycles = compiled.streams({"sink": given([plain])}, {}, 100_000, duty)[1] + until_idle(compiled, 100_000)
    found  = dump(compiled, "scratch", 2*ELEMENTS, 16*LANES).view(np.uint16)
    assert np.array_equal(found, machine.scratch)
    return cycles/count


def place_of_table():
    return next(word for operand, word, _ in BY_CODE[Code.EMBED].places() if operand.name == "table")

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", [128, pytest.param(256, marks=pytest.mark.slow), pytest.param(512, marks=pytest.mark.slow)])
def test_against_the_machine(width):
    rng = np.random.default_rng(width)
    for _ in range(60):
        columns = 32*int(rng.integers(1, 9))
        check(rng, int(rng.integers(1, 80)), columns, bool(rng.integers(2)), width, int(rng.choice([256, 100])))


def test_cycles():
    """An element a cycle."""
    assert check(np.random.default_rng(1), 64, 256, True, 128) <= 256 + 80


def test_refused():
    with pytest.raises(ValueError, match="width must be one of 128, 256, 512, is 64."):
        EmbeddingReader(64)
