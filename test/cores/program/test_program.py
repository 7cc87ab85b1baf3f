#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Whole models on the engines, compiled, against the golden machine."""

import functools

import numpy as np
import pytest

from models import random_model
from program_harness import GUARD, ProgramHarness

from model.exact.network import ExactNetwork
from model.exact.tape import tape_beats
from model.program import DeviceModel

from operations.config import ALIGNMENT, ProgramConfig, SSMConfig, ceil_multiple
from operations.program import Code, Register, pack
from operations.ssm import pack_state

from tools.yosys import netlist

# Helpers ------------------------------------------------------------------------------------------

SSM = SSMConfig(lanes=8, max_d_state=64)


@functools.cache
def harness(tokens=1, vector_lanes=4, width=128, bus="native", **options):
    return ProgramHarness(ProgramConfig(tokens, vector_lanes, scratch=16384, activations=32), SSMConfig(**(SSM.__dict__ | options)), bus, width)


class Layout:
    """A model's regions in the memory, and its programs."""
    def __init__(self, device, tokens):
        sizes = device.sizes
        self.at, parts, size = {}, [], 0
        programs = {("layers", count): device.layers(count) for count in range(1, tokens + 1)}
        programs |= {("head", count): device.head(1, count - 1) for count in range(1, tokens + 1)}
        programs |= {("logits", count): device.all_logits(count) for count in range(1, tokens + 1)}
        programs |= {("state", count): device.states(count) for count in range(1, tokens + 1)}
        words = {name: np.array(program + device.end(), "<u4").tobytes() for name, program in programs.items()}
        for name, data in {Register.TAPE: device.tape, Register.PARAMETERS: device.parameters, Register.STATE_IN: bytes(sizes.state),
                Register.WINDOW_IN: bytes(sizes.window), Register.STATE_OUT: bytes(sizes.state), Register.WINDOW_OUT: bytes(sizes.window),
                Register.RECORDS: device.records, Register.RESULTS: bytes(max(sizes.results, 4*tokens*device.logit_rows)), **words}.items():
            self.at[name] = size
            parts.append(data.ljust(ceil_multiple(len(data), ALIGNMENT), b"\0"))
            size += len(parts[-1])
        self.at[Register.EMBEDDING] = device.embedding
        self.at[Register.X_RECORDS] = self.at[Register.BC_RECORDS] = self.at[Register.RECORDS]
        self.lengths = {name: len(data)//64 for name, data in words.items()}
        self.memory  = np.frombuffer(b"".join(parts), np.uint8)
        head         = device.model.head
        self.head    = tape_beats(device.logit_rows, device.layer.d_model, head.type == "q4_0", device.width)
        self.layers  = device.layers_bytes//(device.width//8)
        self.head_at = device.head_at

    def registers(self):
        return {register: self.at[register] for register in Register}


def check(model, unit, passes, duty=256, seed=None, stores=None):
    """Layers and logits of each pass, and the best after the last one. Returns the cycles of each program. stores: of each pass, whether
    it stores the state (default: all do); what is deferred in the end STATE stores, and the state is the exact model's."""
    device = DeviceModel(model, unit.width, unit.ssm, unit.config.pass_tokens)
    layout = Layout(device, unit.config.pass_tokens)
    unit.start(layout.memory, duty)
    machine, cycles = unit.machine, []
    machine.registers = layout.registers()

    def run(kind, count, beats, tape):
        machine.registers[Register.TAPE] = layout.at[Register.TAPE] + tape
        errors, taken = unit.run(layout.at[kind, count], layout.lengths[kind, count], beats)
        assert errors == 0
        machine.run(layout.at[kind, count])
        found = unit.memory()
        wrong = np.flatnonzero(found != machine.memory)
        places = {name: at for name, at in layout.at.items()}
        assert not len(wrong), (kind, count, len(wrong), [max((at, str(name)) for name, at in places.items() if at <= n) + (n,) for n in wrong[:3]])
        cycles.append(taken)
    done = stored = 0
    def set_state(deferred, store):
        machine.deferred, machine.no_store, machine.zero_state = deferred, not store, not stored
        machine.seed = None if seed is None else seed + stored
        machine.registers |= {Register.X_RECORDS: layout.at[Register.RECORDS] + deferred*device.x_stride,
            Register.BC_RECORDS: layout.at[Register.RECORDS] + deferred*device.bc_stride}
    for tokens, store in zip(passes, stores or [True]*len(passes)):
        machine.tokens[:len(tokens)] = tokens
        set_state(done - stored, store)
        run("layers", len(tokens), layout.layers, 0)
        done += len(tokens)
        machine.registers[Register.WINDOW_IN] = layout.at[Register.WINDOW_OUT]
        if store:
            stored = done
            machine.registers[Register.STATE_IN] = layout.at[Register.STATE_OUT]
        run("logits", len(tokens), layout.head, layout.head_at)
    run("head", len(passes[-1]), layout.head, layout.head_at)
    if stored < done:
        set_state(done - stored - 1, True)
        run("state", 1, 0, 0)
    if stores:
        _, states = ExactNetwork(model, seed=seed)([token for tokens in passes for token in tokens])
        for n, state in enumerate(states):
            first = layout.at[Register.STATE_OUT] + n*device.tile_bytes
            assert machine.memory[first:first + device.tile_bytes].tobytes() == pack_state(device.geometry, state.h)
    return cycles

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_model(kind):
    check(random_model(kind=kind), harness(4), [[3], [1], [69]])


SIZES = [dict(ngroups=2), dict(d_conv=1), dict(d_conv=2, tied=False, bias=True), dict(headdim=64), dict(d_state=24), dict(d_model=96, headdim=24, vocab_size=131),
    dict(dt_limit=(0.01, 0.05), kind="q4_0"), dict(expand=1, headdim=8, n_layer=3), dict(d_conv=3, vocab_size=7, kind="q4_0")]


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[2], SIZES[5], *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in SIZES)])
def test_sizes(sizes):
    """Passes of four tokens and of fewer, a memory that makes them wait."""
    check(random_model(**sizes), harness(4), [[1, 2, 3, 4], [5], [6, 0, 1]], duty=128)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
@pytest.mark.parametrize("tokens, vector_lanes, width, bus, options", [
    (2, 4, 256, "native", {"lanes": 16}), (8, 8, 512, "native", {"lanes": 64}), (1, 1, 128, "native", {}), (4, 4, 512, "wishbone", {}),
    (2, 4, 128, "wishbone", {"lanes": 4}), (2, 4, 128, "native", {"stochastic_rounding": True})])
def test_builds(tokens, vector_lanes, width, bus, options, kind):
    unit = harness(tokens, vector_lanes, width, bus, **options)
    seed = 5 if options.get("stochastic_rounding") else None
    for duty in (256, 60):
        check(random_model(kind=kind, ngroups=2, d_state=64), unit, [list(range(tokens)), [5], [6, 1][:tokens]], duty, seed)


@pytest.mark.parametrize("stores", [(0, 0, 0, 0), (0, 1, 0, 1), (0, 0, 1, 0)])
def test_deferred(stores):
    """States that are not stored with each pass."""
    check(random_model(n_layer=2, ngroups=2, d_state=24, kind="q4_0"), harness(4), [[1, 2], [3], [4, 5, 6, 1], [0]], 128, stores=stores)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("family, dsp_bits", [("xilinx", 25), ("ecp5", 18)])
def test_netlist(family, dsp_bits):
    """A whole model on what synthesis makes of all engines, but for block RAM: token by token, and two at once."""
    ssm    = SSMConfig(lanes=4, max_headdim=8, max_d_state=16, dsp_bits=dsp_bits)
    config = ProgramConfig(2, 1, scratch=2048, activations=16, tape_depth=16, dsp_bits=dsp_bits)
    unit   = ProgramHarness(config, ssm, size=2**17, synthesise=functools.partial(netlist, top="engines", family=family))
    for kind in ("q4_0", "q8_0"):
        check(random_model(kind=kind, d_model=32, headdim=8, d_state=16, vocab_size=71), unit, [[3], [1, 70], [69]])


def test_wrong_programs():
    """An error, no beat outside the region, and after a reset all is well."""
    unit    = harness(4)
    load    = pack(Code.LOAD, memory=(Register.TAPE, 0), scratch=0, elements=64)
    outside = {Register.TAPE: 2**20 - GUARD}
    def run(words, descriptors=None, beats=0, registers={}):
        unit.start(np.array(words, "<u4").view(np.uint8))
        unit.machine.registers = dict.fromkeys(Register, 64) | registers
        errors, _ = unit.run(0, descriptors or len(words)//16, beats)
        unit.memory()
        if errors == 1:
            assert unit.read("program_index") == 1
        unit.reset()
        assert unit.read("program_errors") == 0
        return errors
    for _ in range(2): # Also after a reset.
        assert run(load + pack(Code.END)) == 0
        assert run(load + [99] + 15*[0] + pack(Code.END)) == 1
        assert run(load + pack(Code.END), registers=outside) == 2
        assert run(pack(Code.STORE, memory=(Register.TAPE, 64), scratch=0, elements=64) + pack(Code.END),
            registers={Register.TAPE: -GUARD - 64}) == 2
        assert run(load + pack(Code.END) + load) == 4
        assert run(load + pack(Code.END), beats=3) == 4
        unit.start(np.array(load + pack(Code.BEST, target=(Register.RESULTS, 0)) + pack(Code.END), "<u4").view(np.uint8))
        unit.machine.registers = dict.fromkeys(Register, 64)
        with pytest.raises(TimeoutError): # A BEST that no logits come for.
            unit.run(0, 3, 0, limit=5000)
        unit.reset()
    check(random_model(), unit, [[1, 2, 3, 4], [5]])
