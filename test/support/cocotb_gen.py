#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What cocotb runs in Icarus Verilog, for test_gen.py: generated Verilog with cocotbext-axi against the model.

Run as a program with a Verilog file and a folder, it simulates the file in that folder. The environment's EXAMPLE names the
configuration that the Verilog was made from.

Tiles: one from zeros that is not stored, one whose y is wanted from token 1 on, one plain. With memory, also those that are not
legal, and accesses that the memory answers with an error.
"""

import functools
import itertools
import os
import random
import sys

from pathlib import Path

import cocotb
import numpy as np

from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotb_tools.runner import get_runner
from cocotbext.axi import AxiBus, AxiSlave, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource, MemoryRegion

from cases import assert_same_bits, random_case

from cores.ssm.gen import load_config

from model.bitexact import ssm_block

from operations import ssm as layout
from operations.config import SEED_STRIDE, ceil_multiple
from operations.ssm import Geometry

# Constants ----------------------------------------------------------------------------------------

NAME, MEMORY, DATA_WIDTH, CONFIG = load_config(os.environ["EXAMPLE"])

HEADS, HEADDIM, D_STATE, TOKENS = 3, 5, 11, 3

SEED = 2**32 - 2 # Where the state is rounded stochastically.

# first_token, zero_state, no_store of each head tile.
FLAGS = [(0, 1, 1), (1, 0, 0), (0, 0, 0)]

# Records ------------------------------------------------------------------------------------------

class Records:
    """Records to send and what must come back."""
    def __init__(self):
        self.geometry = geometry = Geometry(CONFIG, HEADS, HEADDIM, D_STATE)
        case = random_case(np.random.default_rng(7), TOKENS, HEADS, HEADDIM, D_STATE, infinities=0.005)
        case["h0"][0] = 0
        self.case = case
        self.y, self.h = ssm_block(**case, seed=SEED if CONFIG.stochastic_rounding else None)
        self.x_records  = layout.pack_x(geometry, case["x"], case["dt"], case["dA"], case["D"])
        self.bc_records = layout.pack_bc(geometry, case["B"], case["C"])
        self.states     = layout.pack_state(geometry, case["h0"])

    def check(self, head, y, state):
        """Bytes of the y records from the first token on, and of the new state (None: not stored)."""
        first, _, no_store = FLAGS[head]
        size = len(y)//(TOKENS - first)
        for token in range(first, TOKENS):
            record = np.frombuffer(y[(token - first)*size:(token - first + 1)*size], np.float16)
            assert_same_bits(record[:HEADDIM], self.y[token, head])
            assert not record[HEADDIM:].any()
        if not no_store:
            tiles = state.ljust(self.geometry.tile_bytes, b"\0").ljust(HEADS*self.geometry.tile_bytes, b"\0")
            assert_same_bits(layout.unpack_state(self.geometry, tiles)[0], self.h[head])


def padded(values, size):
    """Bytes of float16 values, padded with zeros to so many."""
    return values.astype("<f2").tobytes().ljust(2*size, b"\0")


def pauses(seed):
    """Cycles in which a stream is halted."""
    generator = random.Random(seed)
    return (generator.random() < 0.4 for _ in itertools.count())


async def start(dut):
    cocotb.start_soon(Clock(dut.aclk, 10, "ns").start())
    dut.headdim.value = HEADDIM
    dut.d_state.value = D_STATE
    dut.aresetn.value = 0
    for _ in range(4):
        await RisingEdge(dut.aclk)
    dut.aresetn.value = 1
    for _ in range(4):
        await RisingEdge(dut.aclk)

# Streams ------------------------------------------------------------------------------------------

@cocotb.test(timeout_time=1, timeout_unit="ms", skip=MEMORY != "none")
async def streams(dut):
    expected, geometry = Records(), Records().geometry
    tile_bytes         = ceil_multiple(2*HEADDIM*geometry.d_state_padded, DATA_WIDTH//8)

    def endpoint(kind, name, seed):
        stream = kind(AxiStreamBus.from_prefix(dut, name), dut.aclk, dut.aresetn, reset_active_level=False)
        stream.set_pause_generator(pauses(seed))
        return stream

    command = endpoint(AxiStreamSource, "s_axis_command", 1)
    state   = endpoint(AxiStreamSource, "s_axis_state",   2)
    scalars = endpoint(AxiStreamSource, "s_axis_scalars", 3)
    x       = endpoint(AxiStreamSource, "s_axis_x",       6)
    bc      = endpoint(AxiStreamSource, "s_axis_bc",      7)
    stored  = endpoint(AxiStreamSink,   "m_axis_state",   4)
    y       = endpoint(AxiStreamSink,   "m_axis_y",       5)
    await start(dut)

    for head, (first, zero_state, no_store) in enumerate(FLAGS):
        word = TOKENS | first << 16 | zero_state << 32 | no_store << 33
        if CONFIG.stochastic_rounding:
            word |= (SEED + head*SEED_STRIDE) % 2**32 << 35
        await command.send(AxiStreamFrame(word.to_bytes(len(dut.s_axis_command_tdata)//8, "little")))
        if not zero_state:
            at = head*geometry.tile_bytes
            await state.send(AxiStreamFrame(expected.states[at:at + tile_bytes]))
        arrays = expected.case
        for token in range(TOKENS):
            await scalars.send(AxiStreamFrame(np.array([arrays["dt"][token, head], arrays["dA"][token, head], arrays["D"][head]],
                "<f2").tobytes()))
            await x.send(AxiStreamFrame(padded(arrays["x"][token, head], geometry.headdim_padded)))
            await bc.send(AxiStreamFrame(padded(arrays["B"][token, 0], geometry.d_state_padded)
                + padded(arrays["C"][token, 0], geometry.d_state_padded)))

    for head, (first, _, no_store) in enumerate(FLAGS):
        records = [bytes((await y.recv()).tdata) for _ in range(first, TOKENS)]
        assert all(len(record) == 2*geometry.headdim_padded for record in records)
        expected.check(head, b"".join(records), None if no_store else bytes((await stored.recv()).tdata))
    assert y.empty() and stored.empty()

# Memory -------------------------------------------------------------------------------------------

BASES = {"x": 0x0fc0, "bc": 0x4000, "y": 0x7fc0, "state_in": 0xaf00, "state_out": 0xdfc0} # Across pages of 4 KiB.


class FaultyMemory(MemoryRegion):
    """Answers an access to one of the `faulty` addresses with an error."""
    def __init__(self):
        super().__init__(2**16)
        self.faulty = set()

    async def _read(self, address, length, **options):
        self.check(address, length)
        return await super()._read(address, length, **options)

    async def _write(self, address, data, **options):
        self.check(address, len(data))
        await super()._write(address, data, **options)

    def check(self, address, size):
        if any(address <= faulty < address + size for faulty in self.faulty):
            raise IOError("faulty")


class MemoryBench:
    """The core with memory on both ports, and the records of a case in it."""
    def __init__(self, dut):
        self.dut      = dut
        self.records  = Records()
        self.geometry = geometry = self.records.geometry
        self.sizes    = {"x": geometry.x_record_bytes, "bc": geometry.bc_record_bytes, "y": geometry.y_record_bytes}
        self.memory   = FaultyMemory()
        self.answers  = [] # (refused, failed) of each done.
        for seed, name in enumerate(("m_axi_state", "m_axi_token")):
            slave = AxiSlave(AxiBus.from_prefix(dut, name), dut.aclk, dut.aresetn, reset_active_level=False, target=self.memory)
            for n, channel in enumerate((slave.write_if.aw_channel, slave.write_if.w_channel, slave.write_if.b_channel,
                slave.read_if.ar_channel, slave.read_if.r_channel)):
                channel.set_pause_generator(pauses(10*seed + n))
        self.clear()
        for name, count in (("x", HEADS), ("bc", 1), ("y", HEADS)):
            getattr(dut, f"{name}_stride").value = self.sizes[name]*count
        self.descriptors = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_descriptor"), dut.aclk, dut.aresetn,
            reset_active_level=False)

    def clear(self):
        """Memory as before the first tile; no answers yet."""
        self.answers.clear()
        self.memory.faulty.clear()
        self.memory[:] = bytes(len(self.memory))
        for name, data in (("x", self.records.x_records), ("bc", self.records.bc_records), ("state_in", self.records.states)):
            self.memory[BASES[name]:BASES[name] + len(data)] = data

    def read(self, address, size):
        return bytes(self.memory[address:address + size])

    def y_address(self, head, token):
        return BASES["y"] + (token*HEADS + head)*self.sizes["y"]

    def state_address(self, head, name="state_out"):
        return BASES[name] + head*self.geometry.tile_bytes

    async def start(self):
        await start(self.dut)
        cocotb.start_soon(self.watch())

    async def watch(self):
        while True:
            await RisingEdge(self.dut.aclk)
            if int(self.dut.done.value):
                self.answers.append((int(self.dut.refused.value), int(self.dut.failed.value)))
            else:
                assert not int(self.dut.refused.value) and not int(self.dut.failed.value)

    async def send(self, head, same_bc=0, **changes):
        """A head's descriptor, of whose fields some are changed."""
        first_token, zero_state, no_store = FLAGS[head]
        fields = {
            "x"        : BASES["x"] + head*self.sizes["x"],
            "bc"       : BASES["bc"],
            "y"        : self.y_address(head, first_token),
            "state_in" : self.state_address(head, "state_in"),
            "state_out": self.state_address(head),
            "tokens"   : TOKENS,
            "first_token": first_token,
            "zero_state" : zero_state,
            "no_store"   : no_store,
        } | changes
        flags = fields["zero_state"] | fields["no_store"] << 1 | same_bc << 2
        words = [*list(fields.values())[:5], fields["tokens"] | fields["first_token"] << 16, flags]
        content = b"".join(word.to_bytes(4, "little") for word in words).ljust(64, b"\0")
        await self.descriptors.send(AxiStreamFrame(content[:len(self.dut.s_axis_descriptor_tdata)//8]))

    async def wait(self, answers):
        while len(self.answers) < answers:
            await RisingEdge(self.dut.aclk)
        for _ in range(100): # There are no more.
            await RisingEdge(self.dut.aclk)
        assert len(self.answers) == answers

    def check(self, *heads):
        """These heads' y and state are right, and where nothing was to be written is nothing."""
        for head in heads:
            first_token, _, no_store = FLAGS[head]
            y     = [self.read(self.y_address(head, token), self.sizes["y"]) for token in range(TOKENS)]
            state = self.read(self.state_address(head), self.geometry.tile_bytes)
            self.records.check(head, b"".join(y[first_token:]), state)
            assert not any(b"".join(y[:first_token])) and not (no_store and any(state))

    def check_untouched(self, head, first_token=0):
        """Of this head no state was written, and no y from a token on."""
        assert not any(self.read(self.state_address(head), self.geometry.tile_bytes))
        for token in range(first_token, TOKENS):
            assert not any(self.read(self.y_address(head, token), self.sizes["y"]))


memory_test = functools.partial(cocotb.test, timeout_time=1, timeout_unit="ms", skip=MEMORY != "axi4")


@memory_test()
async def memory(dut):
    bench = MemoryBench(dut)
    await bench.start()
    for head in range(HEADS):
        await bench.send(head)
    await bench.wait(HEADS)
    assert bench.answers == HEADS*[(0, 0)]
    bench.check(*range(HEADS))


@memory_test()
async def illegal_descriptors(dut):
    """Each is refused, and nothing of it is written; those between them are right."""
    bench = MemoryBench(dut)
    await bench.start()
    illegal = [{"tokens": 0, "first_token": 0}, {"first_token": TOKENS + 1}, {"first_token": 2**16 - 1},
        *({name: BASES[name] + 32} for name in BASES), {"same_bc": 1}, {"same_bc": 1, "tokens": 2, "first_token": 0}]
    legal = [{"no_store": 1, "state_out": 3}, {"zero_state": 1, "state_in": 5, "no_store": 1, "first_token": TOKENS, "y": 7},
        {"same_bc": 1, "bc": 1, "no_store": 1, "first_token": TOKENS}] # What is not used may be anything.
    await bench.send(0)
    for changes in illegal[:-2]:
        await bench.send(1, **changes)
    await bench.send(1, **illegal[-2]) # Behind one that was refused there are no B and C.
    await bench.send(1)
    await bench.send(2, **illegal[-1]) # Of another number of tokens.
    for changes in legal:
        await bench.send(2, **changes)
    await bench.wait(len(illegal) + len(legal) + 2)
    refused = [0] + (len(illegal) - 1)*[1] + [0, 1, 0, 0, 0]
    assert bench.answers == [(flag, 0) for flag in refused], bench.answers
    bench.check(0, 1)
    right = {name: int(getattr(dut, name).value) for name in ("headdim", "d_state", "x_stride", "bc_stride", "y_stride")}
    for name, value in (("headdim", 0), ("headdim", CONFIG.max_headdim + 1), ("d_state", 0), ("d_state", CONFIG.max_d_state + 1),
        ("x_stride", 8), ("bc_stride", 4), ("y_stride", 1)):
        bench.answers.clear()
        getattr(dut, name).value = value
        await bench.send(2)
        await bench.wait(1)
        assert bench.answers == [(1, 0)], name
        getattr(dut, name).value = right[name]
    bench.answers.clear()
    await bench.send(2)
    await bench.wait(1)
    assert bench.answers == [(0, 0)]
    bench.check(0, 1, 2)


@memory_test()
async def errors_of_the_memory(dut):
    """The tile whose access was answered with an error is not written, and those around it are right."""
    bench = MemoryBench(dut)
    await bench.start()
    for access, faulty, untouched in ( # Of head 1, and the first token whose y may not be there; None: state and y may.
        ("state is read",    bench.state_address(1, "state_in") + 32,     0),
        ("x is read",        BASES["x"] + (2*HEADS + 1)*bench.sizes["x"], 2),
        ("y is written",     bench.y_address(1, 1),                       None),
        ("state is written", bench.state_address(1),                      None)):
        bench.clear()
        bench.memory.faulty.add(faulty)
        for _ in range(2): # More than the queue holds.
            for head in range(HEADS):
                await bench.send(head)
        await bench.wait(2*HEADS)
        assert bench.answers == 2*[(0, 0), (0, 1), (0, 0)], (access, bench.answers)
        bench.check(0, 2)
        if untouched is not None:
            bench.check_untouched(1, untouched)
        bench.clear()
        for head in range(HEADS):
            await bench.send(head)
        await bench.wait(HEADS)
        assert bench.answers == HEADS*[(0, 0)]
        bench.check(*range(HEADS))
    # B and C that came with a tile that failed are not used.
    bench.clear()
    bench.memory.faulty.add(BASES["bc"] + bench.sizes["bc"])
    await bench.send(1)
    await bench.send(2, same_bc=1)
    await bench.wait(2)
    bench.memory.faulty.clear()
    await bench.send(1)
    await bench.send(2, same_bc=1)
    await bench.wait(4)
    assert bench.answers == [(0, 1), (0, 1), (0, 0), (0, 0)]
    bench.check(1, 2)

# Main ---------------------------------------------------------------------------------------------

def main(source, folder):
    runner = get_runner("icarus")
    runner.build(sources=[source], hdl_toplevel=NAME, build_dir=folder, always=True, timescale=("1ns", "1ps"))
    runner.test(hdl_toplevel=NAME, test_module=Path(__file__).stem, build_dir=folder, test_dir=folder,
        results_xml=str(Path(folder)/"results.xml"))


if __name__ == "__main__":
    main(*sys.argv[1:])
