#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The head engine, compiled, against the golden machine."""

import numpy as np
import pytest

from litex.gen import LiteXModule

from pads import dump, fill, given, pad_ports, port_rows, until_idle

from cores.head.engine import HeadEngine
from cores.memory.scratchpad import Scratchpad

from model.machine import Machine

from operations.program import FIRST_OPERAND, OFFSET_BITS, Code, Register, pack

from tools.verilated import stream_module

# Helpers ------------------------------------------------------------------------------------------

BYTES = 8192
UNITS = {}


class Harness(LiteXModule):
    """The engine, and a scratchpad as its memory."""
    def __init__(self, width, tokens):
        self.engine = engine = HeadEngine(width, tokens)
        self.memory = memory = Scratchpad(width//16, 8*BYTES//width, reads=1, writes=2)
        self.comb  += [
            engine.write_beat.connect(memory.writes[0], omit={"address"}),
            memory.writes[0].address.eq(engine.write_beat.address >> (width//8).bit_length() - 1),
            memory.writes[0].mask.eq(2**(width//16) - 1),
            engine.settled.eq(~memory.writes[0].valid),
        ]


def unit(width, tokens):
    if (width, tokens) not in UNITS:
        module = Harness(width, tokens)
        engine = module.engine
        compiled = stream_module(module, [("sink", engine.sink, ("code", "flags", "operands"), False),
            ("logits", engine.logits, ("data", "last"), False), *pad_ports("memory", module.memory)], {"idle": engine.idle},
            {"tokens": engine.tokens, "vocabulary": engine.vocabulary})
        UNITS[width, tokens] = compiled
    return UNITS[width, tokens]


def check(rng, width, tokens, count, vocabulary, duty=256):
    """The logits of one head, and its BEST."""
    rows   = width//128
    padded = -(-vocabulary//rows)*rows
    logits = (rng.integers(-500, 500, (count, padded))/8).astype(np.float32)
    logits = np.where(rng.random(logits.shape) < 0.1, rng.choice(np.array([np.nan, np.inf, -np.inf, 0, -0.0], np.float32), logits.shape), logits)
    words  = pack(Code.BEST, target=(Register.RESULTS, 64*int(rng.integers(0, 8))), tokens=count)
    memory = np.zeros(BYTES, np.uint8)
    machine = Machine(np.concatenate([memory, np.frombuffer(np.array(words + pack(Code.END), "<u4").tobytes(), np.uint8)]), width, tokens=tokens)
    machine.registers = {Register.RESULTS: 0}
    machine.logits    = logits[:, :vocabulary]
    machine.run(BYTES)
    compiled = unit(width, tokens)
    compiled.reset()
    fill(compiled, "memory", memory, width)
    compiled.poke(tokens=count - 1, vocabulary=vocabulary)
    beats    = np.ascontiguousarray(logits.reshape(count, -1, rows).transpose(1, 0, 2)).view(np.uint8)
    last     = np.arange(beats.shape[0]*count) == beats.shape[0]*count - 1
    beats_of = given([[*words[:FIRST_OPERAND], words[FIRST_OPERAND] & 2**OFFSET_BITS - 1, *words[FIRST_OPERAND + 1:]]]) # The register is 0.
    compiled.streams({"logits": {"data": port_rows(beats.reshape(-1), 32*rows), "last": last}, "sink": beats_of}, {}, 200*logits.size + 10_000, duty,
        int(rng.integers(1000)))
    until_idle(compiled, 100_000)
    found    = dump(compiled, "memory", BYTES, width)
    wrong    = np.flatnonzero(found != machine.memory[:BYTES])
    assert not len(wrong), (vocabulary, count, len(wrong), wrong[:8], found[wrong[:8]], machine.memory[wrong[:8]])

def check_all(rng, width, tokens, count, vocabulary, duty=256):
    """The logits of one head as they are, and then the best of another one's."""
    rows   = width//128
    padded = -(-vocabulary//rows)*rows
    logits = rng.standard_normal((count, padded)).astype(np.float32)
    words  = pack(Code.LOGITS, target=(Register.RESULTS, 64))
    beats  = np.ascontiguousarray(logits.reshape(count, -1, rows).transpose(1, 0, 2)).view(np.uint8).reshape(-1)
    wanted = np.zeros(BYTES, np.uint8)
    wanted[64:64 + len(beats)] = beats
    compiled = unit(width, tokens)
    compiled.reset()
    fill(compiled, "memory", np.concatenate([np.zeros(64, np.uint8), np.full(len(beats) + -len(beats) % (width//8), 255, np.uint8),
        np.zeros(BYTES, np.uint8)])[:BYTES], width)
    compiled.poke(tokens=count - 1, vocabulary=vocabulary)
    last = np.arange(padded//rows*count) == padded//rows*count - 1
    compiled.streams({"sink": given([[*words[:FIRST_OPERAND], 64, *words[FIRST_OPERAND + 1:]]])}, {}, 100)
    compiled.streams({"logits": {"data": port_rows(beats, 32*rows), "last": last}}, {}, 200*logits.size + 10_000, duty, int(rng.integers(1000)))
    until_idle(compiled, 100_000)
    assert np.array_equal(dump(compiled, "memory", BYTES, width), wanted)

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width, tokens", [(128, 4), (256, 4),
    pytest.param(128, 1, marks=pytest.mark.slow), pytest.param(512, 2, marks=pytest.mark.slow)])
def test_against_the_machine(width, tokens):
    rng = np.random.default_rng(width + tokens)
    for vocabulary in (1, 3, 63, 64, 65, 300, 1000):
        for count in {1, tokens}:
            check(rng, width, tokens, count, vocabulary, int(rng.choice([256, 60])))
            if count*vocabulary < 1900:
                check_all(rng, width, tokens, count, vocabulary, int(rng.choice([256, 60])))


def test_refused():
    with pytest.raises(ValueError, match="width must be one of 128, 256, 512, is 64."):
        HeadEngine(64)
