#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Whole programs on the golden machine, against the exact model."""

import numpy as np
import pytest

from models import random_model

from model.exact.head import best
from model.exact.network import ExactNetwork
from model.machine import CANDIDATE, Machine, ProgramError
from model.program import DeviceModel
from model.quantized import quantize_checkpoint

from operations.config import ALIGNMENT, SSMConfig, ceil_multiple
from operations.program import Code, Register, pack

# Helpers ------------------------------------------------------------------------------------------

class Session:
    """A machine with a model in its memory, as firmware would have it."""
    def __init__(self, model, tokens, width=128, seed=None):
        self.device = device = DeviceModel(model, width, SSMConfig(), tokens)
        sizes    = device.sizes
        programs = {("layers", count): device.layers(count) for count in range(1, tokens + 1)}
        programs |= {("head", count): device.head(1, count - 1) for count in range(1, tokens + 1)}
        programs |= {("logits", count): device.all_logits(count) for count in range(1, tokens + 1)}
        programs = {name: np.array(words + device.end(), "<u4").tobytes() for name, words in programs.items()}
        regions  = [(Register.TAPE, device.tape), (Register.PARAMETERS, device.parameters), (Register.STATE_IN, bytes(sizes.state)),
            (Register.WINDOW_IN, bytes(sizes.window)), (Register.RECORDS, device.records),
            (Register.RESULTS, bytes(max(sizes.results, 4*tokens*device.logit_rows))), *programs.items()]
        at, self.places, memory = 0, [], b""
        for _, data in regions:
            self.places.append(at)
            memory += data + bytes(-len(data) % ALIGNMENT)
            at     += ceil_multiple(len(data), ALIGNMENT)
        self.machine  = Machine(np.frombuffer(bytearray(memory), np.uint8), width, SSMConfig(), device.scratch, 512, tokens)
        self.programs = dict(zip(programs, self.places[6:]))
        self.machine.registers = {name: place for (name, _), place in zip(regions[:6], self.places)}
        self.machine.registers[Register.STATE_OUT]  = self.machine.registers[Register.STATE_IN]
        self.machine.registers[Register.WINDOW_OUT] = self.machine.registers[Register.WINDOW_IN]
        self.machine.registers[Register.X_RECORDS]  = self.machine.registers[Register.RECORDS]
        self.machine.registers[Register.BC_RECORDS] = self.machine.registers[Register.RECORDS]
        self.machine.registers[Register.EMBEDDING] = self.machine.registers[Register.TAPE] + device.embedding
        self.seed, self.done = seed, 0

    def take(self, tokens, rng=None):
        """One pass. Returns (logits (tokens, vocabulary), numbers and logits of the candidates after the last one)."""
        machine, device = self.machine, self.device
        machine.tokens[:len(tokens)] = tokens
        machine.seed = None if self.seed is None else self.seed + self.done
        tape, first  = (machine.registers[register] for register in (Register.TAPE, Register.RESULTS))
        results      = {}
        for name, place, size in (("layers", 0, 0), ("head", device.head_at, device.sizes.results),
                ("logits", device.head_at, 4*len(tokens)*device.logit_rows)):
            machine.registers[Register.TAPE] = tape + place
            machine.run(self.programs[name, len(tokens)], rng)
            results[name] = machine.memory[first:first + size].copy()
        machine.registers[Register.TAPE] = tape
        self.done += len(tokens)
        found  = results["head"].view(CANDIDATE)
        logits = results["logits"].view("<f4").reshape(-1, len(tokens), device.width//128).transpose(1, 0, 2).reshape(len(tokens), -1)
        return logits[:, :device.model.vocab_size], found["token"], found["logit"]


def check(model, passes, tokens, width=128, seed=None, rng=None):
    """passes: lists of tokens. Each gives the exact model's candidates, and in the end its state."""
    session  = Session(model, tokens, width, seed)
    network  = ExactNetwork(model, seed=seed)
    states   = None
    done     = 0
    for given in passes:
        logits, states = network(given, states, done)
        done += len(given)
        every, numbers, found = session.take(given, rng)
        assert np.array_equal(every.view(np.uint32), logits.view(np.uint32))
        wanted = best(logits[-1])
        count  = len(wanted[0])
        assert np.array_equal(numbers[:count], wanted[0]) and np.array_equal(found[:count].view(np.uint32), wanted[1].view(np.uint32))
    return session

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", [128, 256, 512])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_passes(kind, tokens, width):
    """Passes of R tokens and of fewer, one after the other."""
    model = random_model(kind=kind)
    check(model, [[3, 1, 4, 1], [5], [69, 2], [0, 7, 1, 8]] if tokens == 4 else [[3], [1], [69]], tokens, width)


@pytest.mark.parametrize("sizes", [dict(ngroups=2), dict(d_conv=1), dict(d_conv=2), dict(headdim=64), dict(d_state=24), dict(d_model=96, headdim=24),
    dict(dt_limit=(0.01, 0.05)), dict(expand=1, headdim=8)])
def test_sizes(sizes):
    check(random_model(**sizes), [[1, 2], [3], [4, 5]], 2)


@pytest.mark.parametrize("d_model, most", [(768, 2**16), (2560, 2**18)])
def test_sizes_of_models(d_model, most):
    """One layer as those of 130M, and of 2.7B. most: elements of the scratchpad."""
    session = check(random_model(kind="q4_0", n_layer=1, d_model=d_model, d_state=128, headdim=64), [[1, 2, 3, 4], [5]], 4)
    assert session.device.scratch <= most


def test_untied():
    check(random_model(tied=False), [[1, 2], [3]], 2)


def test_stochastic():
    check(random_model(), [[1, 2], [3], [5, 6]], 2, seed=7)


@pytest.mark.parametrize("order", range(20))
def test_any_order(order):
    """Of all that the waits allow, each gives the same."""
    rng = np.random.default_rng(order)
    check(random_model(order, n_layer=3), [[1, 2], [3], [4, 5], [6, 7]], 2, rng=rng)


def test_without_waits():
    """Some order then gives something else, so the orders are worth trying."""
    model   = random_model(n_layer=3)
    logits  = ExactNetwork(model)([5])[0][0]
    results = []
    for order in range(20):
        session = Session(model, 1)
        machine = session.machine
        for program in session.programs.values():
            for index in range(len(machine.fetch(program))):
                machine.memory[program + 64*index + 4:][:8] = 255, 255, 255, 255, 255, 0, 0, 0
        try:
            results.append(np.array_equal(session.take([5], np.random.default_rng(order))[2], best(logits)[1]))
        except ProgramError: # A BEST that comes before its logits.
            results.append(False)
    assert not all(results)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_tiny(kind):
    """The repository's model, a text of several passes."""
    check(quantize_checkpoint("tiny", kind), [list(b"In the b"), list(b"eginning")], 8)


def test_wrong_programs():
    """Refused with the descriptor's index."""
    session = Session(random_model(), 1)
    machine = session.machine
    def run(*descriptors):
        words = np.array(sum(descriptors, []) + pack(Code.END), "<u4").tobytes()
        memory = np.concatenate([machine.memory, np.frombuffer(words, np.uint8)])
        other = Machine(memory, 128, SSMConfig(), 1024, 8, 1)
        other.registers = {Register.TAPE: 0}
        return other.run(len(machine.memory))
    move = dict(memory=(Register.TAPE, 0), scratch=0, elements=8)
    assert run(pack(Code.LOAD, **move)) == 2
    for descriptor, text in (
        (pack(Code.LOAD, **{**move, "memory": (Register.STATE_IN, 0)}), "descriptor 1: register 3 must be set."),
        (pack(Code.LOAD, **{**move, "scratch": 1024}), "descriptor 1: elements 1024 to 1031 must lie in the scratchpad's 1024."),
        (pack(Code.LOAD, **{**move, "memory": (Register.TAPE, 2**28 - 64)}), "descriptor 1: bytes 268435392 to .* must lie in the memory's"),
        (pack(Code.LOAD, **move, tokens=2), "descriptor 1: tokens must be 1 to 1, is 2."),
        (pack(Code.QUANTISE, source=0, groups=5), "descriptor 1: columns 0 to 159 must lie in the activations' 128."),
        (pack(Code.MATRIX, groups=1, rows=1, flags=["NARROW"]), "descriptor 1: rows must be a multiple of 2, are 1."),
        (pack(Code.SUM, target=0, a=8, elements=8, low=1), "descriptor 1: low and high must be 0 and 31744 without a function, are 1 and 31744."),
        (pack(Code.NORM, target=0, source=0, weight=0, elements=8, eps_low=0), "descriptor 1: eps must be 1 or more, is 0."),
        (pack(Code.MATRIX, groups=1, rows=1, vocabulary=2, flags=["HEAD"]), "descriptor 1: vocabulary must be 1 to 1, is 2."),
        (pack(Code.BEST, target=(Register.TAPE, 0)), "descriptor 1: a BEST must come after a MATRIX with HEAD"),
        ([99] + [0]*15, "descriptor 1: code must be 0 to 13, is 99."),
        (pack(Code.END)[:15] + [1], "descriptor 1: a descriptor of END must have no other bits than its own, has."),
    ):
        with pytest.raises(ProgramError, match=text):
            run(pack(Code.LOAD, **move), descriptor)
