#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The vector engine on a scratchpad, compiled, against the golden machine."""

import numpy as np
import pytest

from litex.gen import LiteXModule

import exact

from pads import dump, fill, given, pad_ports, until_idle

from cores.memory.scratchpad import Scratchpad
from cores.vector.engine import VectorEngine

from model.exact.norm import eps_units
from model.machine import Machine

from operations.config import ALIGNMENT
from operations.program import Code, pack

from tools.verilated import stream_module

# Helpers ------------------------------------------------------------------------------------------

ELEMENTS = 4096
RESIDUAL = 1024 # The residual stream's share, at the beginning.
UNITS    = {}


class Harness(LiteXModule):
    """The engine, its scratchpad, and ports to fill and to read it."""
    def __init__(self, lanes):
        self.engine     = engine     = VectorEngine(lanes, ELEMENTS//lanes)
        self.scratchpad = scratchpad = Scratchpad(lanes, ELEMENTS//lanes, reads=3, writes=2)
        for n in range(2):
            self.comb += [
                engine.read_addresses[n].connect(scratchpad.reads[n]),
                scratchpad.sources[n].connect(engine.read_words[n]),
            ]
        self.comb += engine.write.connect(scratchpad.writes[0])


def unit(lanes):
    if lanes not in UNITS:
        module  = Harness(lanes)
        UNITS[lanes] = stream_module(module, [("sink", module.engine.sink, ("code", "flags", "operands"), False),
            *pad_ports("scratch", module.scratchpad)], {"idle": module.engine.idle})
    return UNITS[lanes]


def check(scratch, descriptors, lanes, duty=256, seed=1):
    """scratch: uint16 (ELEMENTS,), what is there before. descriptors: words. Returns the cycles that the engine takes."""
    memory   = np.frombuffer(np.array([*sum(descriptors, []), *pack(Code.END)], "<u4").tobytes(), np.uint8)
    machine  = Machine(memory, scratch=ELEMENTS)
    machine.scratch[:] = scratch
    machine.run(0)
    compiled = unit(lanes)
    compiled.reset()
    fill(compiled, "scratch", scratch.view(np.uint8), 16*lanes)
    limit    = 100_000*len(descriptors)
    cycles   = compiled.streams({"sink": given(descriptors)}, {}, limit, duty, seed)[1] + until_idle(compiled, limit)
    found    = dump(compiled, "scratch", 2*ELEMENTS, 16*lanes).view(np.uint16)
    wrong    = np.flatnonzero(found != machine.scratch)
    assert not len(wrong), (len(wrong), wrong[0], hex(found[wrong[0]]), hex(machine.scratch[wrong[0]]), scratch[wrong[0]])
    return cycles


def contents(rng):
    """The residual stream, and numbers of all classes, few of them infinities or NaN."""
    bits     = exact.operands(rng, ELEMENTS)
    bits     = np.where((bits & 0x7c00 == 0x7c00) & (rng.random(ELEMENTS) < 0.98), bits & 0x83ff, bits)
    near     = (rng.standard_normal(ELEMENTS)*2).astype(np.float16).view(np.uint16)
    bits     = np.where(rng.random() < 0.7, near, bits).astype(np.uint16)
    residual = (rng.integers(-2**24, 2**24, RESIDUAL//2)*2.0**rng.integers(-24, -10, RESIDUAL//2)).astype(np.float32)
    bits[:RESIDUAL] = residual.view(np.uint16)
    return bits


def descriptor(rng):
    """A random one. Vectors of one descriptor lie in quarters of their own, but for targets that are an operand."""
    code     = rng.choice([Code.SUM, Code.NORM, Code.ADD, Code.ROUND])
    tokens   = int(rng.integers(1, 5))
    quarters = (RESIDUAL + 768*rng.permutation(4)).tolist()
    place    = lambda n: quarters[n] + 8*int(rng.integers(0, 4))
    stride   = 8*int(rng.integers(8, 14))
    size     = 8*int(rng.integers(1, 9))
    stream   = {"residual": 8*int(rng.integers(0, 4)), "residual_stride": 128 + 8*int(rng.integers(0, 4)), "elements": size, "tokens": tokens}
    if code == Code.SUM:
        terms = int(rng.integers(1, 6))
        flags = [name for name in ("ONES", "BIAS") if rng.random() < 0.4]
        function = int(rng.integers(4))
        limits   = {} if function == 3 or rng.random() < 0.5 else {"low": 0x1000, "high": 0x3c00}
        a        = place(1)
        same     = rng.random() < 0.3 # The target is the operand.
        terms    = 1 if same else terms
        return pack(code, {}, flags, target=a if same else place(0), target_stride=stride, a=a, a_stride=stride, a_term_stride=8*int(rng.integers(0, 9)),
            b=place(2), b_stride=stride*int(rng.integers(0, 2)), b_term_stride=8*int(rng.integers(0, 9)), terms=terms,
            elements=int(rng.integers(1, size + 1)), tokens=tokens, function=function, **limits)
    if code == Code.NORM:
        groups = int(rng.integers(1, 64//size + 1))
        units  = eps_units(size, float(rng.choice([1e-5, 1e-12, 10])))
        return pack(code, target=place(0), target_stride=stride, source=place(1), source_stride=stride, weight=place(2), elements=size, groups=groups,
            tokens=tokens, eps_low=units & 2**32 - 1, eps_high=units >> 32)
    if code == Code.ADD:
        return pack(code, **stream, source=place(0), source_stride=stride)
    return pack(code, **stream, target=place(0), target_stride=stride)

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lanes", [1, 4, pytest.param(2, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_against_the_machine(lanes):
    rng = np.random.default_rng(lanes)
    for n in range(40):
        check(contents(rng), [descriptor(rng) for _ in range(8)], lanes, duty=int(rng.choice([256, 60])), seed=n)


def test_cycles():
    """Of 768 elements: what the vector unit takes, and a start."""
    rng   = np.random.default_rng(1)
    lanes = 4
    plain = pack(Code.SUM, target=1024, a=1792, b=2560, elements=768)
    assert check(contents(rng), [plain], lanes) <= 768//lanes + 30
    assert check(contents(rng), [pack(Code.SUM, target=1024, a=1792, elements=768, flags=["ONES"], function=2)], lanes) <= 768 + 40
    assert check(contents(rng), [pack(Code.NORM, target=1024, source=1792, weight=2560, elements=768, eps_low=1 << 20)], lanes) <= 2*768//lanes + 260
    assert check(contents(rng), [pack(Code.ADD, residual=0, source=1024, elements=512)], lanes) <= 512 + 30


def test_refused():
    with pytest.raises(ValueError, match="lanes must be one of 1, 2, 4, 8, is 16."):
        VectorEngine(16)
    assert ALIGNMENT == 64


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many(seed):
    rng = np.random.default_rng(1000 + seed)
    for n in range(500):
        check(contents(rng), [descriptor(rng) for _ in range(8)], 4, duty=int(rng.choice([256, 60])), seed=n)
