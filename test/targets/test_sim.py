#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The simulated SoC: it boots, both transports reach its registers and DRAM, and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

from functools import partial

import numpy as np
import pytest

from host.link.etherbone import Etherbone, decode_reply, encode_read, encode_write
from host.link.uartbone import UARTBone

from operations.config import SystemConfig

from soc.boot import BOOTROM_ORIGIN

from tools.paths import ROOT
from tools.simulation.build import locked, sources_hash
from tools.simulation.runner import Simulation, network_permitted

# Helpers ------------------------------------------------------------------------------------------

CONFIG     = SystemConfig()
TRANSPORTS = ["uart", pytest.param("etherbone", marks=pytest.mark.skipif(not network_permitted(),
    reason="network namespaces and TAP devices are not permitted here"))]


def connect(simulation):
    """The host's transport for a running simulation."""
    if simulation.transport_kind == "etherbone":
        return Etherbone(sock=simulation.open_socket(), alive=simulation.alive)
    return UARTBone("socket://{}:{}".format(*simulation.endpoint), alive=simulation.alive)


def read_map(csr_csv):
    """{name: address} of all registers, memories of registers, and memory regions."""
    with open(csr_csv) as file:
        rows = [line.rstrip("\n").split(",") for line in file]
    return {row[1]: int(row[2], 0) for row in rows if row[0] in ("csr_base", "csr_register", "memory_region")}


def wait_until(condition, timeout=10):
    """Whether `condition()` becomes true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def namespace_of(pid):
    return os.readlink(f"/proc/{pid}/ns/net")


def tap_devices():
    """TAP devices of this namespace."""
    return [name for name in os.listdir("/sys/class/net") if name.startswith("tap")]


def namespaces():
    """Network namespaces that any process is in, and the names of those that have one."""
    found = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(namespace_of(pid))
        except OSError:
            pass
    return found


class Leftovers:
    """What a running model has taken of the system, and whether it still has some of it."""
    def __init__(self, pid):
        self.pid       = pid
        self.namespace = namespace_of(pid)
        assert "Vsim" in os.readlink(f"/proc/{pid}/exe")

    def gone(self):
        own = {namespace_of("self")}
        return not os.path.exists(f"/proc/{self.pid}") and not tap_devices() and \
            self.namespace not in namespaces() - own


@pytest.fixture(scope="module", params=TRANSPORTS)
def simulation(request):
    with Simulation(CONFIG, request.param) as simulation:
        yield simulation


@pytest.fixture(scope="module")
def link(simulation):
    with connect(simulation) as link:
        yield link


@pytest.fixture(scope="module")
def address(simulation):
    return read_map(simulation.csr_csv)

# Transports ---------------------------------------------------------------------------------------

def test_bios_reaches_the_boot_rom(simulation):
    assert f"Executing booted program at 0x{BOOTROM_ORIGIN:08x}" in simulation.console()
    assert "800MT/s" in simulation.console()


def test_identifier(simulation, link, address):
    text = bytes(link.read_words(address["identifier_mem"], 64).astype(np.uint8)).split(b"\0")[0]
    assert text.startswith(b"Mamba-2 SSM accelerator in simulation")


def test_mailbox_clock_counts_and_is_latched(link, address):
    def cycles(name):
        high, low = link.read_words(address[name], 2)
        return int(high) << 32 | int(low)

    link.write_words(address["mailbox_latch"], [1], readback=False)
    first = cycles("mailbox_cycles")
    assert first > 0 and cycles("mailbox_cycles") == first
    link.write_words(address["mailbox_doorbell"], [0])
    link.write_words(address["mailbox_latch"], [1], readback=False)
    assert first < cycles("mailbox_doorbell_cycles") < cycles("mailbox_cycles")


def test_doorbell_raises_its_event(link, address):
    link.write_words(address["mailbox_ev_pending"], [1], readback=False)
    assert link.read_words(address["mailbox_ev_pending"], 1) == 0
    link.write_words(address["mailbox_doorbell"], [0])
    assert link.read_words(address["mailbox_ev_pending"], 1) == 1


@pytest.mark.parametrize("words", (1, 254, 255, 256, 1000))
def test_dram_reads_as_written(link, address, words):
    base = address["main_ram"] + 0x200000
    data = np.random.default_rng(words).integers(0, 2**32, words, dtype=np.uint32)
    link.write_words(base, data)
    assert np.array_equal(link.read_words(base, words), data)


def test_whole_dram_is_mapped(link, address):
    base   = address["main_ram"]
    places = [base + offset for offset in (0, 0x1000000, 0x8000000, 0x10000000 - 4)]
    for n, place in enumerate(places):
        link.write_words(place, [0x1000 + n])
    assert [int(link.read_words(place, 1)[0]) for place in places] == [0x1000 + n for n in range(len(places))]

# Full-size Records --------------------------------------------------------------------------------

@pytest.mark.parametrize("transport", TRANSPORTS[1:])
def test_record_of_255_words(transport):
    """The gateware takes the longest record, writes and reads alike."""
    words = np.arange(255, dtype=np.uint32)*0x01010101
    with Simulation(CONFIG, transport) as simulation, simulation.open_socket() as link:
        base = read_map(simulation.csr_csv)["main_ram"] + 0x300000
        link.settimeout(10)
        link.send(encode_write(base, words))
        link.send(encode_read(7, base, 255))
        tag, back = decode_reply(link.recv(2048))
    assert tag == 7 and np.array_equal(back, words)

# Nothing is Left ----------------------------------------------------------------------------------

@pytest.mark.parametrize("transport", TRANSPORTS)
def test_close_leaves_nothing(transport):
    with Simulation(CONFIG, transport) as simulation:
        leftovers = Leftovers(simulation.process.pid)
        assert simulation.alive() and not leftovers.gone()
    assert not simulation.alive() and leftovers.gone()


def test_an_exception_leaves_nothing():
    with pytest.raises(ZeroDivisionError):
        with Simulation(CONFIG) as simulation:
            leftovers = Leftovers(simulation.process.pid)
            1/0
    assert leftovers.gone()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("signal_number", (signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
def test_a_killed_parent_leaves_nothing(transport, signal_number):
    process = subprocess.Popen([sys.executable, str(ROOT/"targets"/"sim.py"), "--transport", transport], stdout=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)) # A shell's background jobs ignore it.
    with process:
        try:
            for line in process.stdout:
                if match := re.search(r"SoC runs, process (\d+)", line):
                    leftovers = Leftovers(int(match.group(1)))
                if "Ask it" in line:
                    break
            process.send_signal(signal_number)
            process.communicate(timeout=10)
        finally:
            process.kill() # Else a test that fails would wait for it.
    assert process.returncode == {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGKILL: -9}[signal_number]
    assert wait_until(leftovers.gone)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_printed_command_works_as_typed(transport, tmp_path):
    """From any folder; the firmware is loaded, nothing is to be added."""
    with subprocess.Popen([sys.executable, ROOT/"targets"/"sim.py", "--transport", transport], stdout=subprocess.PIPE, text=True,
            cwd=tmp_path) as process:
        try:
            command = next(line.partition(":")[2] for line in process.stdout if "Ask it" in line)
            done    = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert (done.returncode, done.stderr) == (0, "")
            assert re.search(r"board +mamba-2 ssm accelerator in simulation", done.stdout, re.IGNORECASE)
        finally:
            process.terminate()


def test_nobody_reads_what_is_printed():
    """As with | head: it ends, without a word."""
    done = subprocess.run(["bash", "-c", f"{sys.executable} {ROOT/'targets'/'sim.py'} --transport uart | head -n 1; "
        "echo ${PIPESTATUS[0]}"], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"The simulated SoC runs, process \d+. Ctrl-C ends it.\n141\n", done.stdout) and done.stderr == ""


def test_two_simulations_at_once():
    with Simulation(CONFIG) as first, Simulation(CONFIG) as second:
        assert first.endpoint != second.endpoint
        for n, simulation in enumerate((first, second)):
            with connect(simulation) as link:
                base = read_map(simulation.csr_csv)["main_ram"]
                link.write_words(base, [n])
                assert link.read_words(base, 1) == n

# Choice of Transport, Errors -----------------------------------------------------------------------

def test_uart_where_network_namespaces_are_not_permitted(monkeypatch):
    monkeypatch.setattr("tools.simulation.runner.network_permitted", lambda: False)
    assert Simulation(CONFIG).transport_kind == "uart"


def test_transport_is_checked():
    with pytest.raises(ValueError, match="transport must be auto, etherbone or uart, is 'usb'."):
        Simulation(CONFIG, "usb")


@pytest.mark.parametrize("options, message", (
    (["--lanes", "5"],          "invalid choice: 5"),
    (["--max-d-state", "7"],    "max_d_state must be a multiple of 16, is 7."),
    (["--resident-tiles", "1"], "resident_tiles must be an integer from 2 to 256, is 1."),
    (["--max-headdim", "x"],    "argument --max-headdim: invalid int value: 'x'"),
))
def test_command_line_errors(options, message):
    result = subprocess.run([sys.executable, str(ROOT/"targets"/"sim.py"), *options], capture_output=True, text=True)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1

# Build --------------------------------------------------------------------------------------------

def test_lock_excludes(tmp_path):
    entered = threading.Event()

    def enter():
        with locked(tmp_path/"lock"):
            entered.set()

    with locked(tmp_path/"lock"):
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.2)
    thread.join()
    assert entered.is_set()


def test_hash_covers_configuration_and_sources():
    hashes = {sources_hash(sources, config) for sources in (("soc",), ("soc", "cores"), ("soc/boot.py",))
        for config in (SystemConfig.of(8), SystemConfig.of(16))}
    assert len(hashes) == 6
