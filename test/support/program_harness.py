#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The engines of a whole model and the SSM core, compiled, with a memory behind their ports and their CSRs within reach."""

import numpy as np

from migen import ClockDomain, ClockSignal, Instance, ResetSignal, Signal, log2_int
from migen.fhdl.tools import list_targets

from litex.gen import LiteXModule
from litex.gen.fhdl import verilog

from litex.soc.interconnect import csr_bus, wishbone

from litedram.common import LiteDRAMNativePort

from csr_driver import CSRDriver
from memory_model import MemoryModel

from cores.memory.region import Region
from cores.program.program import Program, ProgramPorts
from cores.ssm.ssm import SSM, SSMPorts

from model.machine import Machine

from operations.program import Register

from tools.verilated import VerilatedModule

# Constants ----------------------------------------------------------------------------------------

ORIGIN     = 0x4000_0000
GUARD      = 4096 # Bytes of the memory in front of the region that the engines may use.
PAGE_BEATS = 8
BANK_WORDS = 512  # Of CSRs.

# Module -------------------------------------------------------------------------------------------

class Engines(LiteXModule):
    """Peripherals and their CSR bus, with memory ports. `bus`: "native" or "wishbone"."""
    def __init__(self, config, ssm, bus, width, size):
        self.ports = ports = []
        def port():
            ports.append(LiteDRAMNativePort("both", address_width=log2_int(size//(width//8)), data_width=width) if bus == "native" else
                wishbone.Interface(data_width=width, address_width=32, addressing="word"))
            return ports[-1]
        region       = Region(ORIGIN + GUARD, ORIGIN + size, ORIGIN)
        tape         = [port(), port()] if bus == "native" else [port()]
        self.ssm     = SSM(ssm, SSMPorts([port()], [port()], port(), port(), PAGE_BEATS), region, unit=True)
        self.program = Program(config, ProgramPorts(tape, port(), port(), port(), port(), port(), PAGE_BEATS), region, self.ssm)
        self.csr     = csr_bus.Interface(data_width=32, address_width=14)
        self.irq     = Signal()
        self.banks   = csr_bus.CSRBankArray(self, lambda name, memory: ("ssm", "program").index(name), data_width=32, address_width=14)
        self.interconnect = csr_bus.Interconnect(self.csr, self.banks.get_buses())
        self.comb += self.irq.eq(self.program.ev.irq)

    def signals(self):
        """{name: signal} of ports and bus."""
        records = [("csr", self.csr), *((f"port{n}_{kind}", getattr(port, kind)) for n, port in enumerate(self.ports) for kind in ("cmd", "wdata", "rdata"))]
        found   = {f"{name}_{number}": signal for name, record in records for number, signal in enumerate(record.flatten())}
        return found | {f"port{n}_{name}": getattr(port, name) for n, port in enumerate(self.ports) for name in ("flush", "lock")} | {"irq": self.irq}


class Wrapper(LiteXModule):
    """An :class:`Engines` and its memory. `synthesise`: the engines' Verilog, a module `engines`, to a netlist of that name, which is then here in
    their place, its Verilog in `netlist`."""
    def __init__(self, engines, width, size, synthesise=None):
        beat        = width//8
        self.memory = MemoryModel(engines.ports, size//beat, ORIGIN//beat, 0, masked=True, first=GUARD//beat)
        if synthesise is None:
            self.engines = engines
            return
        engines.clock_domains.cd_sys = clock = ClockDomain("sys")
        fragment = engines.get_fragment()
        driven   = set().union(*map(list_targets, (fragment.comb, *fragment.sync.values())))
        signals  = engines.signals()
        for name, signal in signals.items():
            signal.name_override = name
        source   = str(verilog.convert(fragment, ios={clock.clk, clock.rst, *signals.values()}, name="engines"))
        self.netlist   = synthesise("\n".join(line for line in source.splitlines() if not line.startswith("//")))
        self.specials += Instance("engines", i_sys_clk=ClockSignal(), i_sys_rst=ResetSignal(),
            **{f"{'o' if signal in driven else 'i'}_{name}": signal for name, signal in signals.items()})

# Harness ------------------------------------------------------------------------------------------

class ProgramHarness(CSRDriver):
    """The compiled peripherals, a driver, and the golden machine beside them."""
    def __init__(self, config, ssm, bus="native", width=128, size=2**20, synthesise=None):
        self.config, self.ssm, self.width, self.size = config, ssm, width, size
        engines = Engines(config, ssm, bus, width, size)
        bench   = Wrapper(engines, width, size, synthesise)
        memory  = bench.memory
        csr     = engines.csr
        self.compiled = VerilatedModule(bench,
            inputs  = {"adr": csr.adr, "re": csr.re, "we": csr.we, "dat_w": csr.dat_w, "duty": memory.duty,
                "memory_address": memory.address, "memory_write": memory.write, "memory_write_data": memory.write_data},
            outputs = {"dat_r": csr.dat_r, "memory_read_data": memory.read_data, "protocol_error": memory.protocol_error,
                "outside": memory.outside, "irq": engines.irq},
            transform = lambda source: source + getattr(bench, "netlist", ""))
        self.registers = {}
        for bank, name in enumerate(("ssm", "program")):
            address = bank*BANK_WORDS
            for register in getattr(engines, name).get_csrs():
                words = -(-register.size//32)
                self.registers[f"{name}_{register.name}"] = (address, words)
                address += words

    def start(self, memory, duty=256):
        """Everything as after power-up. memory: uint8, of the region from its beginning on."""
        self.compiled.reset()
        self.compiled.poke(duty=duty)
        whole = np.zeros(self.size, np.uint8)
        whole[GUARD:GUARD + len(memory)] = memory
        whole[:GUARD] = 0xa5
        rows  = whole.view(np.uint64).reshape(-1, self.width//64)
        self.compiled.run(["dat_r"], memory_address=np.arange(len(rows)), memory_write_data=rows, memory_write=np.ones(len(rows)))
        self.compiled.poke(memory_write=0)
        self.machine = Machine(whole[GUARD:].copy(), self.width, self.ssm, self.config.elements, self.config.activations,
            self.config.pass_tokens)

    def memory(self):
        """uint8: what the region holds."""
        rows  = self.compiled.run(["memory_read_data"], memory_address=np.arange(8*self.size//self.width))["memory_read_data"]
        whole = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        assert (whole[:GUARD] == 0xa5).all() and not self.compiled.peek("outside") and not self.compiled.peek("protocol_error")
        return whole[GUARD:]

    def counters(self):
        self.write("program_counters_latch", 1)
        return {name.removeprefix("program_counters_"): self.read(name) for name in self.registers
            if name.startswith("program_counters_") and not name.endswith(("latch", "clear"))}

    def run(self, address, descriptors, tape_beats, limit=2_000_000):
        """Run the program at an address of the region, with the machine's registers, tokens and seed. Returns the bits of its errors, and
        the cycles."""
        machine = self.machine
        for register in Register:
            self.write(f"program_base_{register.name.lower()}", ORIGIN + GUARD + machine.registers.get(register, 0))
        for place, token in enumerate(machine.tokens[:self.config.pass_tokens]):
            self.write("program_token", token | place << 24)
        self.write("program_seed", machine.seed or 0)
        self.write("program_address", ORIGIN + GUARD + address)
        self.write("program_descriptors", descriptors)
        self.write("program_tape_beats", tape_beats)
        self.write("program_counters_clear", 1)
        self.write("program_start", machine.zero_state | machine.no_store << 1 | machine.deferred << 8)
        for _ in range(0, limit, 64):
            if not self.read("program_status") & 1:
                return self.read("program_errors") | self.read("ssm_errors") << 16, self.counters()["cycles"]
            self.compiled.step(64)
        raise TimeoutError(f"nothing after {limit} cycles, at descriptor {self.read('program_index')}: {self.counters()}")

    def reset(self):
        for name in ("program", "ssm"):
            self.write(f"{name}_control", 1)
        for _ in range(10_000):
            if not (self.read("program_status") | self.read("ssm_status")) & 1:
                return
            self.compiled.step()
        raise TimeoutError("no end of the reset.")
