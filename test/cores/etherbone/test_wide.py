#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Etherbone with a 32-bit datapath, as the ECPIX-5 has it: its registers before the bus, and the whole in simulation."""

import numpy as np
import pytest

from migen import *

from litex.soc.interconnect import wishbone

from cores.common.wishbone_slice import WishboneSlice

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.csr import CSRMap
from host.device.device import Device, Job

from operations.config import SystemConfig
from operations.protocol import Opcode

from tools.simulation.runner import Simulation, network_permitted

# Wishbone Slice -----------------------------------------------------------------------------------

@pytest.mark.parametrize("wait", (0, 1, 3))
def test_wishbone_slice(wait):
    """Reads and writes reach a memory that answers at once or late, each exactly once; so does an error."""
    master = wishbone.Interface(data_width=32, adr_width=30)
    dut    = WishboneSlice(master)
    memory, accesses, results = {}, [], []

    @passive
    def slave():
        while True:
            if (yield dut.bus.cyc) and (yield dut.bus.stb):
                for _ in range(wait):
                    yield
                address, sel = (yield dut.bus.adr), (yield dut.bus.sel)
                accesses.append(address)
                if address == 7:
                    yield dut.bus.err.eq(1)
                else:
                    if (yield dut.bus.we):
                        memory[address] = (yield dut.bus.dat_w)
                        assert sel == 0xf
                    yield dut.bus.dat_r.eq(memory.get(address, 0))
                    yield dut.bus.ack.eq(1)
                yield
                yield dut.bus.ack.eq(0)
                yield dut.bus.err.eq(0)
            yield

    def access(address, write=None):
        yield master.adr.eq(address)
        yield master.sel.eq(0xf)
        yield master.we.eq(write is not None)
        yield master.dat_w.eq(write or 0)
        yield master.cyc.eq(1)
        yield master.stb.eq(1)
        for _ in range(30):
            yield
            if (yield master.ack) or (yield master.err):
                break
        else:
            raise TimeoutError(f"no answer at address {address}")
        results.append("error" if (yield master.err) else (yield master.dat_r))
        yield master.cyc.eq(0)
        yield master.stb.eq(0)
        yield

    def host():
        yield from access(3, 0xcafe)
        yield from access(4, 0xbeef)
        yield from access(7)
        yield from access(3)
        yield from access(4)

    run_simulation(dut, [host(), slave()])
    assert accesses == [3, 4, 7, 3, 4] and memory == {3: 0xcafe, 4: 0xbeef}
    assert results[2:] == ["error", 0xcafe, 0xbeef]

# Simulated SoC ------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.skipif(not network_permitted(), reason="network namespaces and TAP devices are not permitted here")
def test_simulated_soc(tmp_path):
    """The host boots it, runs the self-test and moves a megabyte, as with the other Etherbone."""
    with Simulation(SystemConfig.of(4), "etherbone", build_dir=tmp_path, wide=True) as simulation:
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, SIM_TIMEOUT_SCALE)
            device.boot(simulation.firmware)
            device.wait(device.submit(Job(Opcode.SELFTEST)))
            data    = np.random.default_rng(1).bytes(1 << 20)
            address = device.ram + (64 << 20)
            transport.write_bytes(address, data)
            assert transport.read_bytes(address, len(data)) == data
            assert device.upload(address, data[::-1]).moved == len(data)
