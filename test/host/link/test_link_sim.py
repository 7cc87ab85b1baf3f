#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The link to the simulated SoC: with LiteX's own tools in turn, with a second host, on a bad network, cut, and reset."""

import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from bad_network import BadSocket, Faults

from bench.link import measure_litex, measure_ours, measure_pace

from host.connect import SIM_TIMEOUT, SIM_TIMEOUT_SCALE, _resync_time
from host.device.csr import CSRMap
from host.device.device import Device, Job
from host.errors import LinkError
from host.link.etherbone import Etherbone, encode_write
from host.link.uartbone import UARTBone

from operations.config import SystemConfig
from operations.protocol import Opcode

from soc.etherbone import WINDOW

from tools.simulation.runner import TAP, Simulation, network_permitted, open_socket_in

pytestmark = [pytest.mark.timeout(600), pytest.mark.skipif(not network_permitted(),
    reason="network namespaces and TAP devices are not permitted here")]

# Helpers ------------------------------------------------------------------------------------------

OFFSET = 0x80_0000 # Into main RAM.


@pytest.fixture(scope="module")
def simulation():
    with Simulation(SystemConfig(), "etherbone") as simulation:
        yield simulation


def connect(simulation, faults=None, sock=None, timeout=SIM_TIMEOUT):
    sock = sock or simulation.open_socket()
    sock = BadSocket(sock, faults) if faults else sock
    return Etherbone(sock=sock, timeout=timeout, alive=simulation.alive, window=WINDOW)


def main_ram(simulation):
    return CSRMap.from_csv(simulation.csr_csv).memories["main_ram"][0] + OFFSET


def in_network(simulation, *command):
    subprocess.run(["nsenter", f"--net={simulation.endpoint[0]}", *command], check=True)


def random_words(count, seed):
    return np.random.default_rng([seed, 5]).integers(0, 2**32, count, np.uint32)

# Good Link ----------------------------------------------------------------------------------------

def test_in_turn_with_litex(simulation):
    """This transport, litex_server with RemoteClient, this one, LiteX again: on one SoC, and nothing comes back wrong. What is
    counted is what was sent, and does not follow the host."""
    for _ in range(2):
        ours = measure_ours(simulation, 5100)
        assert ours["wrong"] == 0
        if not ours["repeated"]:
            assert ours["read"].frames_out == ours["read"].frames_in == 20
            assert ours["load"].bytes_out >= 20*(42 + 16 + 1020) and 20 < ours["load"].frames_out <= 40
        # It acknowledges no write, and now and then loses one.
        assert any(measure_litex(simulation, 60)["wrong"] == 0 for _ in range(3))


def test_pace(simulation):
    """Of the device alone: faster than a wire of 100 Mbit/s, which brings a word each 34.6 cycles; much the same each time."""
    first, second = measure_pace(simulation), measure_pace(simulation)
    assert 4.3 < first["write"] < 8 and 10 < first["read"] < 25
    assert second == pytest.approx(first, rel=0.05)


def test_garbage_is_dropped_and_counted(simulation):
    """Malformed records, which LiteEth alone executes or hangs on."""
    base    = main_ram(simulation)
    dropped = CSRMap.from_csv(simulation.csr_csv).registers["etherbone_buffer_dropped"][0]
    with connect(simulation) as link:
        words = random_words(1000, 1)
        link.write_words(base, words)
        before = link.read_words(dropped, 1)[0]
        record = encode_write(base, random_words(200, 2))
        bad    = [record[:-4], record + bytes(4), record[:-1], record[:11] + b"\x07" + record[12:], record[:8],
            bytes(1472), b"", record[:2] + b"\x11" + record[3:], np.random.default_rng(3).bytes(700)]
        for datagram in bad:
            link._socket.send(datagram)
        assert np.array_equal(link.read_words(base, 1000), words)
        assert link.read_words(dropped, 1)[0] - before >= len(bad) - 1 # That of no byte does not get so far.


def test_second_host_at_the_same_time(simulation):
    """Each gets its own answers, and all words arrive."""
    base = main_ram(simulation)
    in_network(simulation, "ip", "address", "replace", "192.168.1.101/24", "dev", TAP)
    namespace, *address = simulation.endpoint
    second = open_socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
    second.bind(("192.168.1.101", address[1]))
    second.connect(tuple(address))
    first  = open_socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
    first.bind(("192.168.1.100", address[1]))
    first.connect(tuple(address))
    words  = [random_words(6000, seed) for seed in (1, 2)]
    with connect(simulation, sock=first) as one, connect(simulation, sock=second) as other:
        threads = [threading.Thread(target=link.write_words, args=(base + 0x10_0000*number, words[number]))
            for number, link in enumerate((one, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert np.array_equal(one.read_words(base, 6000), words[0])
        assert np.array_equal(one.read_words(base + 0x10_0000, 6000), words[1])
        assert one.statistics.rewrites == other.statistics.rewrites == 0

UNMAPPED = 0x6000_0000


def test_unmapped_addresses_are_answered_at_once(simulation):
    """By zeros, and without effect; the next host need not wait. On LiteX's bus alone each word takes a million cycles."""
    base = main_ram(simulation)
    csr  = CSRMap.from_csv(simulation.csr_csv)
    with connect(simulation) as link:
        clock = Device(link, csr)
        link.write_words(base, random_words(4, 6))
        before = clock.cycles()
        assert np.array_equal(link.read_words(UNMAPPED, 1000), np.zeros(1000, np.uint32))
        link.write_words(UNMAPPED, random_words(1000, 7), readback=False)
        assert clock.cycles() - before < 20e6
        assert clock.read_csr("ctrl_bus_errors") == 0
        assert link.read_words(csr.registers["ctrl_scratch"][0], 1) == 0x12345678 # What has a slave still has it:
        assert link.read_words(csr.memories["rom"][0], 1) != 0                    # registers, BIOS,
        last = sum(csr.memories["main_ram"]) - 4
        link.write_words(last, [0xcafe])                                          # all of the DRAM.
    with connect(simulation) as link:
        assert np.array_equal(link.read_words(base, 4), random_words(4, 6))


def test_late_doorbell(simulation):
    """A copy of an earlier doorbell comes when all is done: the next host takes the firmware as it is, and its jobs run."""
    csr = CSRMap.from_csv(simulation.csr_csv)
    with connect(simulation) as link:
        device = Device(link, csr, SIM_TIMEOUT_SCALE)
        device.boot(simulation.firmware)
        for _ in range(3):
            device.run(Job(Opcode.NOP))
        device.write_csr("mailbox_doorbell", device.read_csr("mailbox_completed") - 1)
    with connect(simulation) as link:
        device = Device(link, csr, SIM_TIMEOUT_SCALE)
        assert device.boot() is False
        assert device.run(Job(Opcode.NOP)).index == device.read_csr("mailbox_completed") - 1

# Bad Link -----------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_bad_network(simulation, seed):
    base   = main_ram(simulation)
    faults = Faults(seed, loss=0.01, duplicate=0.01, reorder=0.01, corrupt=0.001, truncate=0.001, delay=0.05)
    words  = random_words(0x1_0000, seed)
    with connect(simulation, faults, timeout=1) as link:
        link.write_words(base, words)
    with connect(simulation) as link:
        assert np.array_equal(link.read_words(base, len(words)), words)
    assert faults.counts["lost"] and faults.counts["duplicated"] and faults.counts["reordered"]


@pytest.mark.slow
def test_link_gone_for_ten_seconds(simulation):
    base  = main_ram(simulation)
    words = random_words(0x1_0000, 9)
    cut   = []

    def progress(size):
        if not cut:
            in_network(simulation, "ip", "link", "set", TAP, "down")
            cut.append(threading.Timer(10, in_network, (simulation, "ip", "link", "set", TAP, "up")))
            cut[0].start()

    with connect(simulation) as link:
        link.load_words(base, words, progress)
        assert link.statistics.timeouts
        assert np.array_equal(link.read_words(base, len(words)), words)
    cut[0].join()


def test_reset_in_the_middle_of_a_transfer(simulation):
    """Either all arrives, or the error is clear; and the next command works as soon as the SoC has booted.

    The SoC has lost the host's hardware address and asks for it, while its buffer is full of requests: the simulated network
    must let the reply through.
    """
    csr    = CSRMap.from_csv(simulation.csr_csv)
    reset  = csr.registers["ctrl_reset"][0]
    base   = main_ram(simulation)
    words  = random_words(0x4000, 11)
    booted = simulation.console().count("Liftoff")
    done   = []

    with connect(simulation, timeout=0.5) as link:
        def progress(size):
            done.append(size)
            if len(done) == 20:
                link._socket.send(encode_write(reset, np.ones(1, np.uint32)))
        try:
            link.write_words(base, words, progress=progress)
            complete = True
        except LinkError as error:
            complete = False
            assert "reset the device" in str(error) or "test the memory" in str(error)
        assert len(done) >= 20
        deadline = time.monotonic() + 120
        while simulation.console().count("Liftoff") == booted:
            assert time.monotonic() < deadline, "the SoC was not reset"
            time.sleep(0.1)
        if complete:
            assert np.array_equal(link.read_words(base, len(words)), words)
    with connect(simulation, timeout=0.5) as link:
        link.write_words(base, words[::-1])
        assert np.array_equal(link.read_words(base, len(words)), words[::-1])

# UARTBone -----------------------------------------------------------------------------------------

def test_uart_after_garbage():
    """An earlier host ended in the middle of a command: the next one finds its step by itself. Unmapped addresses answer.

    How many time-outs that takes is a matter of the simulation's speed.
    """
    with Simulation(SystemConfig(), "uart") as simulation:
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulation.open_socket() as earlier:
            earlier.sendall(b"\x01\xff\x10\x20\0\0\xaa\xbb\xcc")
            time.sleep(0.2)
        base  = main_ram(simulation)
        words = random_words(300, 4)
        with UARTBone("socket://{}:{}".format(*simulation.endpoint), timeout=SIM_TIMEOUT, alive=simulation.alive,
                resync_time=_resync_time(csr, SIM_TIMEOUT_SCALE)) as link:
            link.write_words(base, words)
            assert np.array_equal(link.read_words(base, 300), words)
            assert link.statistics.timeouts >= 1
            assert not link.read_words(UNMAPPED, 255).any()


@pytest.mark.slow
def test_uart_load():
    with Simulation(SystemConfig(), "uart") as simulation:
        base  = main_ram(simulation)
        words = random_words(20_000, 3)
        with UARTBone("socket://{}:{}".format(*simulation.endpoint), timeout=SIM_TIMEOUT, alive=simulation.alive) as link:
            link.load_words(base, words)
            assert 4*len(words)/link.statistics.wire_bytes > 0.97
            assert np.array_equal(link.read_words(base, len(words)), words)
            assert link.statistics.timeouts == link.statistics.rewrites == 0
