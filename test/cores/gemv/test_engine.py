#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The GEMV engine on a scratchpad, compiled, against the golden machine."""

import numpy as np
import pytest

from litex.gen import LiteXModule

import exact

from pads import dump, fill, given, pad_ports, port_rows, until_idle

from cores.gemv.engine import GEMVEngine
from cores.memory.scratchpad import Scratchpad

from model.exact.tape import block_rows, pack_matrix
from model.machine import Machine

from operations.numerics import GROUP
from operations.program import Code, Register, pack

from tools.verilated import stream_module

# Helpers ------------------------------------------------------------------------------------------

ELEMENTS    = 4096
ACTIVATIONS = 64 # Words.
UNITS       = {}


class Harness(LiteXModule):
    """The engine, its scratchpad, and ports to fill and to read it."""
    def __init__(self, width, tokens, lanes):
        self.engine     = engine     = GEMVEngine(width, tokens, lanes, ELEMENTS//lanes, ACTIVATIONS)
        self.scratchpad = scratchpad = Scratchpad(lanes, ELEMENTS//lanes, reads=2, writes=2)
        self.comb += [
            engine.read_address.connect(scratchpad.reads[0]),
            scratchpad.sources[0].connect(engine.read_word),
            engine.write.connect(scratchpad.writes[0]),
        ]


def unit(width, tokens, lanes):
    if (width, tokens, lanes) not in UNITS:
        module  = Harness(width, tokens, lanes)
        UNITS[width, tokens, lanes] = stream_module(module, [("sink", module.engine.sink, ("code", "flags", "operands"), False),
            ("tape", module.engine.tape, ("data",), False), ("logits", module.engine.logits, ("data",), True),
            *pad_ports("scratch", module.scratchpad)], {"idle": module.engine.idle})
    return UNITS[width, tokens, lanes]


def check(rng, count, width, tokens, lanes, duty=256):
    """`count` matrices, each after its vectors were quantised."""
    scratch  = exact.operands(rng, ELEMENTS)
    scratch  = np.where((scratch & 0x7c00 == 0x7c00) & (rng.random(ELEMENTS) < 0.999), scratch & 0x83ff, scratch).astype(np.uint16)
    programs, tape, logits = [], [], []
    for n in range(count):
        narrow, head = (bool(bit) for bit in rng.integers(0, 2, 2))
        groups  = int(rng.integers(1, 5))
        taken   = int(rng.integers(1, tokens + 1))
        block   = block_rows(narrow, width)
        rows    = block*int(rng.integers(1, 64//block + 1))
        base    = int(rng.integers(0, ACTIVATIONS - 2*groups + 1))
        limits  = (-8, 8) if narrow else (-128, 128)
        scales  = (rng.standard_normal((rows, groups))/16).astype(np.float16)
        tape.append(pack_matrix(rng.integers(*limits, (rows, groups*GROUP)).astype(np.int8), scales, narrow, width))
        programs.append(pack(Code.QUANTISE, source=8*int(rng.integers(0, 128)), source_stride=8*int(rng.integers(0, 17)), groups=groups, base=base,
            tokens=taken))
        programs.append(pack(Code.MATRIX, {}, [name for name, flag in (("NARROW", narrow), ("HEAD", head)) if flag],
            target=2048 + 8*int(rng.integers(0, 64)), target_stride=8*int(rng.integers(8, 17)), groups=groups, base=base, tokens=taken, rows=rows,
            vocabulary=rows))
    # The golden machine, one after the other, for the logits of each.
    weights  = np.concatenate(tape)
    program  = np.array(sum(programs, []) + pack(Code.END), "<u4").tobytes()
    machine  = Machine(np.concatenate([weights.reshape(-1), np.frombuffer(program, np.uint8)]), width, scratch=ELEMENTS, words=ACTIVATIONS,
        tokens=tokens)
    machine.registers = {Register.TAPE: 0}
    machine.scratch[:] = scratch
    fetched  = machine.fetch(weights.size)
    machine.tape = None
    for index, (descriptor, _, flags, operands) in enumerate(fetched[:-1]):
        machine.execute(index, descriptor, flags, operands)
        if "HEAD" in flags:
            logits.append(machine.logits.view(np.uint32).reshape(operands["tokens"], -1, width//128).transpose(1, 0, 2).reshape(-1, width//128))
    logits   = np.concatenate(logits) if logits else np.zeros((0, width//128), np.uint32)

    compiled = unit(width, tokens, lanes)
    compiled.reset()
    fill(compiled, "scratch", scratch.view(np.uint8), 16*lanes)
    out, _   = compiled.streams({"sink": given(programs), "tape": {"data": port_rows(weights, width)}}, {"logits": (("data",), len(logits))},
        1_000_000, duty, int(rng.integers(1000)))
    found    = np.ascontiguousarray(out["logits"]["data"]).view(np.uint32).reshape(len(logits), max(width//128, 2))[:, :width//128]
    assert np.array_equal(found, logits)
    until_idle(compiled, 10_000)
    found    = dump(compiled, "scratch", 2*ELEMENTS, 16*lanes).view(np.uint16)
    wrong    = np.flatnonzero(found != machine.scratch)
    assert not len(wrong), (len(wrong), wrong[0], hex(found[wrong[0]]), hex(machine.scratch[wrong[0]]))

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width, tokens, lanes", [(128, 4, 4), (512, 1, 4),
    pytest.param(128, 1, 1, marks=pytest.mark.slow), pytest.param(256, 2, 8, marks=pytest.mark.slow)])
def test_against_the_machine(width, tokens, lanes):
    rng = np.random.default_rng(width + tokens)
    for _ in range(20):
        check(rng, 5, width, tokens, lanes, int(rng.choice([256, 100])))


def test_refused():
    with pytest.raises(ValueError, match="lanes must be one of 4, 8, is 2."):
        GEMVEngine(512, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many(seed):
    rng = np.random.default_rng(1000 + seed)
    for _ in range(300):
        check(rng, 5, 128, 4, 4, int(rng.choice([256, 100])))
