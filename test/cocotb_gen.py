#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What cocotb runs in Icarus Verilog, for test_gen.py: generated Verilog with cocotbext-axi against the model.

Run as a program with a Verilog file and a folder, it simulates the file in that folder. The environment's EXAMPLE names the
configuration that the Verilog was made from.

Tiles: one from zeros that is not stored, one whose y is wanted from token 1 on, one plain.
"""

import itertools
import os
import random
import sys

from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import cocotb
import numpy as np

from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotb_tools.runner import get_runner
from cocotbext.axi import AxiBus, AxiRam, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from cases import assert_same_bits, random_case
from cores.ssm import layout
from cores.ssm.config import BEAT_BYTES, SEED_STRIDE, Geometry
from cores.ssm.gen import load_config
from model.bitexact import ssm_block

# Constants ----------------------------------------------------------------------------------------

NAME, MEMORY, CONFIG = load_config(os.environ["EXAMPLE"])

HEADS, HEADDIM, D_STATE, TOKENS = 3, 5, 11, 3

SEED = 2**32 - 2 # Where the state is rounded stochastically.

# first_token, zero_state, no_store of each head tile.
FLAGS = [(0, 1, 1), (1, 0, 0), (0, 0, 0)]

# Case ---------------------------------------------------------------------------------------------

class Case:
    """Records to send and what must come back."""
    def __init__(self):
        self.geometry = geometry = Geometry(CONFIG, HEADS, HEADDIM, D_STATE)
        case = random_case(np.random.default_rng(7), TOKENS, HEADS, HEADDIM, D_STATE, infinities=0.005)
        case["h0"][0] = 0
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
            tiles = state.ljust(HEADS*len(state), b"\0")
            assert_same_bits(layout.unpack_state(self.geometry, tiles)[0], self.h[head])


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
    case, geometry = Case(), Case().geometry

    def endpoint(kind, name, seed):
        stream = kind(AxiStreamBus.from_prefix(dut, name), dut.aclk, dut.aresetn, reset_active_level=False)
        stream.set_pause_generator(pauses(seed))
        return stream

    command = endpoint(AxiStreamSource, "s_axis_command", 1)
    state   = endpoint(AxiStreamSource, "s_axis_state",   2)
    inputs  = endpoint(AxiStreamSource, "s_axis_input",   3)
    stored  = endpoint(AxiStreamSink,   "m_axis_state",   4)
    y       = endpoint(AxiStreamSink,   "m_axis_y",       5)
    await start(dut)

    for head, (first, zero_state, no_store) in enumerate(FLAGS):
        word = TOKENS | first << 16 | zero_state << 32 | no_store << 33
        if CONFIG.stochastic_rounding:
            word |= (SEED + head*SEED_STRIDE) % 2**32 << 35
        await command.send(AxiStreamFrame(word.to_bytes(len(dut.s_axis_command_tdata)//8, "little")))
        if not zero_state:
            size = geometry.tile_bytes
            await state.send(AxiStreamFrame(case.states[head*size:(head + 1)*size]))
        for token in range(TOKENS):
            size, bc_size = geometry.x_record_bytes, geometry.bc_record_bytes
            at = (token*HEADS + head)*size
            await inputs.send(AxiStreamFrame(case.x_records[at:at + size]))
            await inputs.send(AxiStreamFrame(case.bc_records[token*bc_size:(token + 1)*bc_size]))

    for head, (first, _, no_store) in enumerate(FLAGS):
        records = [bytes((await y.recv()).tdata) for _ in range(first, TOKENS)]
        assert all(len(record) == geometry.y_record_bytes for record in records)
        case.check(head, b"".join(records), None if no_store else bytes((await stored.recv()).tdata))
    assert y.empty() and stored.empty()

# Memory -------------------------------------------------------------------------------------------

@cocotb.test(timeout_time=1, timeout_unit="ms", skip=MEMORY != "axi4")
async def memory(dut):
    case, geometry = Case(), Case().geometry
    sizes  = {"x": geometry.x_record_bytes, "bc": geometry.bc_record_bytes, "y": geometry.y_record_bytes}
    counts = {"x": HEADS, "bc": 1, "y": HEADS}
    bases  = {"x": 0x0fd0, "bc": 0x4000, "y": 0x7ff0, "state_in": 0xaf00, "state_out": 0xdff0} # Across pages of 4 KiB.
    first  = AxiRam(AxiBus.from_prefix(dut, "m_axi_state"), dut.aclk, dut.aresetn, reset_active_level=False, size=2**16)
    second = AxiRam(AxiBus.from_prefix(dut, "m_axi_token"), dut.aclk, dut.aresetn, reset_active_level=False,
        mem=first.mem)
    for seed, ram in enumerate((first, second)):
        for n, channel in enumerate((ram.write_if.aw_channel, ram.write_if.w_channel, ram.write_if.b_channel,
            ram.read_if.ar_channel, ram.read_if.r_channel)):
            channel.set_pause_generator(pauses(10*seed + n))
    first.write(bases["x"],        case.x_records)
    first.write(bases["bc"],       case.bc_records)
    first.write(bases["state_in"], case.states)
    for name, size in sizes.items():
        getattr(dut, f"{name}_stride").value = size*counts[name]
    descriptor = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_descriptor"), dut.aclk, dut.aresetn,
        reset_active_level=False)
    await start(dut)

    for head, (first_token, zero_state, no_store) in enumerate(FLAGS):
        words = [bases["x"] + head*sizes["x"], bases["bc"], bases["y"] + head*sizes["y"],
            bases["state_in"] + head*geometry.tile_bytes, bases["state_out"] + head*geometry.tile_bytes,
            TOKENS | first_token << 16, zero_state | no_store << 1]
        await descriptor.send(AxiStreamFrame(b"".join(word.to_bytes(4, "little") for word in words)[:25]))
    done = 0
    while done < HEADS:
        await RisingEdge(dut.aclk)
        done += int(dut.done.value)
    assert not int(dut.error.value)

    for head, (first_token, _, no_store) in enumerate(FLAGS):
        y = b"".join(bytes(first.read(bases["y"] + (token*HEADS + head)*sizes["y"], sizes["y"]))
            for token in range(first_token, TOKENS))
        state = bytes(first.read(bases["state_out"] + head*geometry.tile_bytes, geometry.tile_bytes))
        case.check(head, y, state)
        if no_store:
            assert not any(state)
        for token in range(first_token):
            assert not any(first.read(bases["y"] + (token*HEADS + head)*sizes["y"], sizes["y"]))

# Main ---------------------------------------------------------------------------------------------

def main(source, folder):
    runner = get_runner("icarus")
    runner.build(sources=[source], hdl_toplevel=NAME, build_dir=folder, always=True, timescale=("1ns", "1ps"))
    runner.test(hdl_toplevel=NAME, test_module=Path(__file__).stem, build_dir=folder, test_dir=folder,
        results_xml=str(Path(folder)/"results.xml"))


if __name__ == "__main__":
    main(*sys.argv[1:])
