#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Programs through the dispatcher, compiled: what is issued, when, and what is refused."""

import numpy as np
import pytest

from cores.program.dispatcher import Dispatcher

from operations.program import (BY_CODE, DESCRIPTOR_WORDS, FIRST_OPERAND, FLAGS_BIT, OFFSET_BITS, Code, Memory, Register, Unit, pack, unpack)

from tools.verilated import VerilatedModule

# Helpers ------------------------------------------------------------------------------------------

BASES = {register: 0x10000000*register + 64*register for register in Register}
UNITS = []


def unit():
    if not UNITS:
        module  = Dispatcher()
        inputs  = {"start": module.start, "sink_valid": module.sink.valid, "sink_data": module.sink.data}
        outputs = {"done": module.done, "error": module.error, "index": module.index, "sink_ready": module.sink.ready}
        for register, signal in module.registers.items():
            inputs[f"base{int(register)}"] = signal
        for number in Unit:
            source = module.sources[number]
            inputs.update({f"ready{int(number)}": source.ready, f"retired{int(number)}": module.retired[number]})
            outputs.update({f"valid{int(number)}": source.valid, f"code{int(number)}": source.code, f"flags{int(number)}": source.flags,
                f"operands{int(number)}": source.operands, f"waiting{int(number)}": module.waiting[number]})
        UNITS.append(VerilatedModule(module, inputs, outputs))
    return UNITS[0]


def number(words):
    return sum(word << 32*n for n, word in enumerate(words))


def resolved(words):
    """The operands as a unit gets them: addresses in place of registers and offsets."""
    words = list(words)
    for operand, word, _ in BY_CODE[Code(words[0] & 255)].places():
        if isinstance(operand, Memory):
            words[word] = BASES[Register(words[word] >> OFFSET_BITS)] + (words[word] & 2**OFFSET_BITS - 1) & 2**32 - 1
    return number(words[FIRST_OPERAND:])


def run(program, rng, pace=0.5, limit=100_000):
    """Descriptors' words to a dispatcher whose units take and retire at random. Checks order and waits of what is issued.

    Returns (error, index, {unit: how many were issued})."""
    compiled = unit()
    compiled.reset()
    for register, base in BASES.items():
        compiled.poke(**{f"base{int(register)}": base})
    given    = [[words for words in program if words[0] & 255 in list(Code) and BY_CODE[Code(words[0] & 255)].unit == which] for which in Unit]
    before   = [] # Of each descriptor, how many each unit had been given.
    counts   = dict.fromkeys(Unit, 0)
    for words in program:
        before.append(dict(counts))
        if words[0] & 255 in list(Code) and BY_CODE[Code(words[0] & 255)].unit is not None:
            counts[BY_CODE[Code(words[0] & 255)].unit] += 1
    places   = {which: [n for n, words in enumerate(program) if words[0] & 255 in list(Code) and BY_CODE[Code(words[0] & 255)].unit == which]
        for which in Unit}
    taken, retired = dict.fromkeys(Unit, 0), dict.fromkeys(Unit, 0)
    at = 0
    compiled.poke(start=1)
    compiled.step()
    compiled.poke(start=0)
    for _ in range(limit):
        offers = {which: int(rng.random() < pace) for which in Unit}
        ends   = {which: int(retired[which] < taken[which] and rng.random() < pace/4) for which in Unit}
        valid  = at < len(program) and rng.random() < 0.8
        compiled.poke(sink_valid=int(valid), **({"sink_data": number(program[at])} if valid else {}))
        for which in Unit:
            compiled.poke(**{f"ready{int(which)}": offers[which], f"retired{int(which)}": ends[which]})
        for which in Unit:
            if offers[which] and compiled.peek(f"valid{int(which)}"):
                words = given[which][taken[which]]
                assert compiled.peek(f"operands{int(which)}") == resolved(words)
                assert compiled.peek(f"code{int(which)}") == words[0] & 255 and compiled.peek(f"flags{int(which)}") == words[0] >> FLAGS_BIT
                place = places[which][taken[which]]
                for other, count in unpack(words)[1].items():
                    assert retired[other] >= before[place][other] - count, (place, which, other)
                taken[which] += 1
        if valid and compiled.peek("sink_ready"):
            at += 1
        done, error, index = (compiled.peek(name) for name in ("done", "error", "index"))
        compiled.step()
        for which in Unit:
            retired[which] += ends[which]
        if done:
            assert taken == retired
            return error, index, taken
    raise AssertionError(f"the dispatcher does not end: descriptor {at} of {len(program)}, taken {taken}, retired {retired}.")


def descriptor(rng, waits):
    code     = Code(int(rng.integers(1, len(Code))))
    operands = {}
    for operand in BY_CODE[code].operands:
        if isinstance(operand, Memory):
            operands[operand.name] = (int(rng.integers(len(Register))), operand.multiple*int(rng.integers(2**28//operand.multiple)))
        else:
            operands[operand.name] = operand.low + int(rng.integers(2**operand.bits))//operand.multiple*operand.multiple
            if operand.multiple > 1 and operand.low % operand.multiple == 0:
                operands[operand.name] = operand.low + int(rng.integers(2**operand.bits//operand.multiple))*operand.multiple
    flags    = [name for name, _ in BY_CODE[code].flags if rng.random() < 0.5]
    return pack(code, {which: int(rng.integers(0, 4)) for which in Unit if rng.random() < waits}, flags, **operands)

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("waits", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("pace", [0.1, 0.5, 1.0])
def test_programs(waits, pace):
    """All are issued, in order and not too early, and it ends."""
    rng     = np.random.default_rng(int(10*waits + 100*pace))
    program = [descriptor(rng, waits) for _ in range(60)] + [pack(Code.END)]
    error, index, taken = run(program, rng, pace)
    assert (error, index, sum(taken.values())) == (0, 60, 60)


@pytest.mark.parametrize("wrong", [
    [len(Code)] + [0]*15, [255] + [0]*15, pack(Code.END)[:15] + [1], [pack(Code.ROUND, residual=0, target=0, elements=8)[0] | 1 << 31] +
    pack(Code.ROUND, residual=0, target=0, elements=8)[1:], pack(Code.END)[:2] + [0x100] + [0]*13])
def test_refused(wrong):
    """Those before it are carried out, nothing after it."""
    rng     = np.random.default_rng(1)
    program = [descriptor(rng, 0.2) for _ in range(5)] + [wrong]
    assert run(program, rng)[:2] == (1, 5)
    assert len(wrong) == DESCRIPTOR_WORDS


def test_depth():
    with pytest.raises(ValueError, match="depth must be an integer from 2 to 16, is 1."):
        Dispatcher(depth=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many(seed):
    rng     = np.random.default_rng(1000 + seed)
    program = [descriptor(rng, float(rng.choice([0.1, 0.5]))) for _ in range(1000)] + [pack(Code.END)]
    assert run(program, rng, float(rng.choice([0.2, 1.0])))[:2] == (0, 1000)
