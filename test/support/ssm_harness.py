#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM peripheral, compiled, with a memory behind its masters and its CSRs within reach: a firmware in Python."""

import numpy as np

from migen import log2_int

from litex.gen import *

from litex.soc.interconnect import csr_bus, wishbone

from litedram.common import LiteDRAMNativePort


from csr_driver import CSRDriver
from memory_model import MemoryModel

from cores.memory.region import Region
from cores.ssm.ssm import SSM, SSMPorts

from model.bitexact import ssm_block

from operations import ssm as layout
from operations.config import ALIGNMENT, ELEMENT_BYTES, SEED_STRIDE, ceil_multiple
from operations.ssm import Geometry

from tools.verilated import VerilatedModule

# Constants ----------------------------------------------------------------------------------------

# The accelerator may use the upper half of the memory.
MEMORY_ORIGIN = 0x4000_0000
MEMORY_BYTES  = 256*1024
REGION_ORIGIN = MEMORY_ORIGIN + MEMORY_BYTES//2
REGION_BYTES  = MEMORY_BYTES//2
PAGE_BEATS    = 8

COUNTERS = ("cycles", "lane_busy", "read_beats", "write_beats", "port_cycles", "wait_state", "wait_input", "wait_output",
    "wait_descriptor")

# Module -------------------------------------------------------------------------------------------

class Wrapper(LiteXModule):
    """Peripheral, memory and CSR bus. `bus`: "native", "paged" (native ports, two for head tiles) or "wishbone"."""
    def __init__(self, config, bus, width):
        beat = width//8
        def port():
            if bus != "wishbone":
                return LiteDRAMNativePort("both", address_width=log2_int(MEMORY_BYTES//beat), data_width=width)
            return wishbone.Interface(data_width=width, address_width=32, addressing="word")
        several     = 2 if bus == "paged" else 1
        reads       = [port() for _ in range(several)]
        writes      = [port() for _ in range(several)]
        inputs, y   = port(), port()
        self.ssm    = SSM(config, SSMPorts(reads, writes, inputs, y, PAGE_BEATS), Region(REGION_ORIGIN, REGION_ORIGIN + REGION_BYTES))
        self.memory = MemoryModel([*reads, inputs, *writes, y], MEMORY_BYTES//beat, MEMORY_ORIGIN//beat,
            (REGION_ORIGIN - MEMORY_ORIGIN)//beat)
        self.csr    = csr_bus.Interface(data_width=32, address_width=14)
        self.banks  = csr_bus.CSRBankArray(self, lambda name, memory: 0, data_width=32, address_width=14)
        self.interconnect = csr_bus.Interconnect(self.csr, self.banks.get_buses())

# SSM Harness --------------------------------------------------------------------------------------

class SSMHarness(CSRDriver):
    """The compiled peripheral and its driver."""
    def __init__(self, config, bus, width=128):
        self.config = config
        self.beat   = width//8
        bench  = Wrapper(config, bus, width)
        memory = bench.memory
        self.compiled = VerilatedModule(bench,
            inputs = {
                "adr"               : bench.csr.adr,
                "re"                : bench.csr.re,
                "we"                : bench.csr.we,
                "dat_w"             : bench.csr.dat_w,
                "duty"              : memory.duty,
                "memory_address"    : memory.address,
                "memory_write"      : memory.write,
                "memory_write_data" : memory.write_data,
            },
            outputs = {
                "dat_r"             : bench.csr.dat_r,
                "irq"               : bench.ssm.ev.irq,
                "memory_read_data"  : memory.read_data,
                "protocol_error"    : memory.protocol_error,
                "outside"           : memory.outside,
            })
        # Registers in the order LiteX gives them, 32 bits to an address, the high word first.
        self.registers = {}
        address = 0
        for register in bench.ssm.get_csrs():
            words = -(-register.size//32)
            self.registers[register.name] = (address, words)
            address += words

    def start(self, rng, duty=256):
        """Everything as after power-up; the memory holds noise."""
        self.compiled.reset()
        self.compiled.poke(duty=duty)
        self.image = np.frombuffer(rng.bytes(MEMORY_BYTES), np.uint8).copy()
        self.load(MEMORY_ORIGIN, self.image.tobytes())

    # Registers. -----------------------------------------------------------------------------------

    def counters(self):
        self.write("counters_latch", 1)
        return {name: self.read(f"counters_{name}") for name in COUNTERS}

    @property
    def errors(self):
        """Names of the errors that are set."""
        names = ("queue_overflow", "bad_geometry", "misaligned", "out_of_range")
        bits  = self.read("errors")
        return {name for bit, name in enumerate(names) if bits >> bit & 1}

    @property
    def busy(self):
        return self.read("status") & 1

    @property
    def queue_free(self):
        return self.read("status") >> 8

    # Memory. --------------------------------------------------------------------------------------

    def load(self, address, data):
        """Puts data into the memory, and into the image of what it should hold."""
        offset = address - MEMORY_ORIGIN
        rows   = np.frombuffer(data, np.uint64).reshape(-1, self.beat//8)
        beats  = offset//self.beat + np.arange(len(rows))
        self.compiled.run(["dat_r"], memory_address=beats, memory_write_data=rows, memory_write=np.ones(len(rows)))
        self.compiled.poke(memory_write=0)
        self.image[offset:offset + len(data)] = np.frombuffer(data, np.uint8)

    def expect(self, address, data):
        """The accelerator should write data to this address."""
        offset = address - MEMORY_ORIGIN
        self.image[offset:offset + len(data)] = np.frombuffer(data, np.uint8)

    def expect_records(self, address, data, size, elements):
        """The accelerator should write these records of `size` bytes, of which so many elements are used: whole beats."""
        used = ceil_multiple(elements*ELEMENT_BYTES, self.beat)
        for first in range(0, len(data), size):
            self.expect(address + first, data[first:first + used])

    def snapshot(self):
        """The memory's bytes."""
        rows = self.compiled.run(["memory_read_data"], memory_address=np.arange(MEMORY_BYTES//self.beat))["memory_read_data"]
        return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)

    def check_memory(self):
        """The whole memory is what it should be, and the ports' rules were kept."""
        differ = np.unique(np.flatnonzero(self.snapshot() != self.image)//self.beat)
        assert [hex(MEMORY_ORIGIN + int(beat)*self.beat) for beat in differ[:8]] == []
        assert not self.compiled.peek("protocol_error")
        assert not self.compiled.peek("outside")

    # Tiles. ---------------------------------------------------------------------------------------

    def set_geometry(self, headdim, d_state, x_stride=ALIGNMENT, bc_stride=ALIGNMENT, y_stride=ALIGNMENT, x_step=ALIGNMENT,
        bc_step=ALIGNMENT, y_step=ALIGNMENT, state_step=ALIGNMENT):
        self.write("headdim",   headdim)
        self.write("d_state",   d_state)
        self.write("x_stride",  x_stride)
        self.write("bc_stride", bc_stride)
        self.write("y_stride",  y_stride)
        self.write("x_step",     x_step)
        self.write("bc_step",    bc_step)
        self.write("y_step",     y_step)
        self.write("state_step", state_step)

    def push(self, x=REGION_ORIGIN, bc=REGION_ORIGIN, y=REGION_ORIGIN, state_in=REGION_ORIGIN, state_out=REGION_ORIGIN,
        tokens=1, first_token=0, zero_state=False, no_store=False, interrupt=False, seed=0, heads=1, group_heads=1):
        self.write("tile_x",         x)
        self.write("tile_bc",        bc)
        self.write("tile_y",         y)
        self.write("tile_state_in",  state_in)
        self.write("tile_state_out", state_out)
        self.write("tile_tokens",    tokens | first_token << 16)
        self.write("tile_heads",     heads | group_heads << 16)
        if self.config.stochastic_rounding:
            self.write("tile_seed",  seed)
        self.write("tile_push",      zero_state | no_store << 1 | interrupt << 2)
        self.compiled.step() # Until it shows in the status.

    def wait(self, condition, cycles=200_000, step=16):
        for _ in range(0, cycles, step):
            if condition():
                return
            self.compiled.step(step)
        raise TimeoutError(f"nothing after {cycles} cycles: status 0x{self.read('status'):x}, "
            f"tiles_done {self.read('tiles_done')}, errors {self.errors}")

    def wait_idle(self):
        self.wait(lambda: not self.busy)

    def place(self, rng, geometry, tokens, values, with_h0=True, first_token=0, no_store=False, in_place=True):
        """Puts a job's records into the memory, and what should come out into the image. Returns its descriptors."""
        H, P, N, G = geometry.heads, geometry.headdim, geometry.d_state, geometry.groups
        draw  = lambda *shape: values(rng, *shape)
        case  = [draw(tokens, H, P), draw(tokens, H), draw(tokens, H), draw(tokens, G, N), draw(tokens, G, N), draw(H)]
        h0    = draw(H, P, N) if with_h0 else None
        x, dt, dA, B, C, D = case
        seed  = int(rng.integers(2**32)) if self.config.stochastic_rounding else None
        y, h  = ssm_block(*case, h0, seed)
        sizes = [tokens*H*geometry.x_record_bytes, tokens*G*geometry.bc_record_bytes, tokens*H*geometry.y_record_bytes,
            H*geometry.tile_bytes, H*geometry.tile_bytes]
        bases = []
        free  = REGION_ORIGIN
        for size in sizes:
            bases.append(free)
            free += size + ALIGNMENT*int(rng.integers(0, 4))
        assert free <= REGION_ORIGIN + REGION_BYTES
        x_base, bc_base, y_base, in_base, out_base = bases
        if in_place:
            out_base = in_base
        self.load(x_base,  layout.pack_x(geometry, x, dt, dA, D))
        self.load(bc_base, layout.pack_bc(geometry, B, C))
        if with_h0:
            self.load(in_base, layout.pack_state(geometry, h0))
        if not no_store:
            self.expect_records(out_base, layout.pack_state(geometry, h), geometry.tile_bytes, P*geometry.d_state_padded)
        y_base += first_token*H*geometry.y_record_bytes # The first one that is written.
        self.expect_records(y_base, layout.pack_y(geometry, y[first_token:]), geometry.y_record_bytes, P)

        self.set_geometry(P, N, H*geometry.x_record_bytes, G*geometry.bc_record_bytes, H*geometry.y_record_bytes,
            geometry.x_record_bytes, geometry.bc_record_bytes, geometry.y_record_bytes, geometry.tile_bytes)
        return [dict(x=x_base + head*geometry.x_record_bytes, bc=bc_base + head//(H//G)*geometry.bc_record_bytes,
            y=y_base + head*geometry.y_record_bytes, state_in=in_base + head*geometry.tile_bytes,
            state_out=out_base + head*geometry.tile_bytes, tokens=tokens, first_token=first_token,
            zero_state=not with_h0, no_store=no_store, seed=((seed or 0) + head*SEED_STRIDE) % 2**32)
            for head in range(H)]

    def run(self, descriptors):
        """Pushes descriptors as the queue has room, and waits for them all."""
        done = self.read("tiles_done")
        for descriptor in descriptors:
            self.wait(lambda: self.queue_free)
            self.push(**descriptor)
        self.wait(lambda: self.read("tiles_done") == done + len(descriptors))
        assert not self.busy


    def run_heads(self, descriptors, groups):
        """The same by one push."""
        done = self.read("tiles_done")
        self.push(**descriptors[0], heads=len(descriptors), group_heads=len(descriptors)//groups)
        self.wait(lambda: self.read("tiles_done") == done + len(descriptors))
        assert not self.busy and self.queue_free == self.config.queue_depth


def job_geometry(rng, config):
    groups = int(rng.integers(1, 3))
    return Geometry(config, groups*int(rng.integers(1, 4)), int(rng.integers(1, config.max_headdim + 1)),
        int(rng.integers(1, config.max_d_state + 1)), groups)
