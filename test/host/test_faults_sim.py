#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Faults in the midst of loading a model and of its text, on the simulated SoC: a bad network, a cut link, a reset SoC, a killed command.

What is given out before is always the beginning of the exact model's text, and the next command works.
"""

import signal
import subprocess
import time

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from bad_network import BadSocket, Faults
from models import random_model
from stream_harness import assert_one_line

from host.connect import SIM_TIMEOUT, SIM_TIMEOUT_SCALE
from host.device.csr import CSRMap
from host.device.device import PATIENCE, Device
from host.device.manifest import Manifest
from host.device.model import DeviceDecoder, ModelOnDevice, device_image
from host.errors import DeviceError, LinkError
from host.link.etherbone import Etherbone, encode_write

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, inverse_of
from model.gguf import write_gguf

from operations.config import ProgramConfig, SystemConfig

from soc.etherbone import WINDOW

from targets.sim import stream_command

from tools.command import EXIT_INTERRUPTED
from tools.simulation.runner import Simulation, network_permitted

pytestmark = [pytest.mark.timeout(600), pytest.mark.skipif(not network_permitted(),
    reason="network namespaces and TAP devices are not permitted here")]

# Constants ----------------------------------------------------------------------------------------

PROMPT  = [3, 1, 4, 1, 5]
DRAWS   = Draws(inverse_of(1.3), 30, 5)
TOKENS  = 20 # In several jobs.
BEFORE  = 3  # Tokens given out before the fault.

# Helpers ------------------------------------------------------------------------------------------

class Wire:
    """A socket that can be cut. By its clock, time-outs then take no time."""
    def __init__(self, sock):
        self.sock    = sock
        self.is_cut  = False
        self.skipped = 0.0

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def cut(self):
        self.is_cut = True

    def clock(self):
        return time.monotonic() + self.skipped

    def settimeout(self, timeout):
        self.timeout = timeout
        self.sock.settimeout(timeout)

    def send(self, datagram):
        if not self.is_cut:
            self.sock.send(datagram)

    def recv(self, size):
        if self.is_cut:
            self.skipped += self.timeout
            raise TimeoutError
        return self.sock.recv(size)


@pytest.fixture(scope="module")
def simulation():
    with Simulation(SystemConfig.of(program=ProgramConfig(pass_tokens=1)), "etherbone") as simulation:
        yield simulation


@contextmanager
def connect(simulation, faults=None, timeout=SIM_TIMEOUT, patience=PATIENCE):
    """A booted device, and the faults that can be brought about. patience: while it is booted."""
    csr  = CSRMap.from_csv(simulation.csr_csv)
    wire = Wire(simulation.open_socket())
    sock = BadSocket(wire, faults) if faults else wire
    with Etherbone(sock=sock, timeout=timeout, alive=simulation.alive, window=WINDOW, clock=wire.clock) as link:
        device = Device(link, csr, SIM_TIMEOUT_SCALE, patience)
        device.boot(simulation.firmware)
        device.patience = PATIENCE
        reset = partial(wire.send, encode_write(csr.registers["ctrl_reset"][0], np.ones(1, np.uint32)))
        yield SimpleNamespace(device=device, link=link, cut=wire.cut, close=link.close, reset=reset)


def loaded(device, model, progress=None):
    """The model, after its load was verified."""
    there = ModelOnDevice(device, device_image(device, model))
    there.load(progress)
    manifest = Manifest.fetch(device)
    assert manifest.complete and not manifest.verify(device)
    return there


def text(there):
    """Tokens as they come, in jobs as short as where the host may end the text."""
    decoder = DeviceDecoder(there, DRAWS)
    decoder.prefill(PROMPT)
    return decoder.generate(TOKENS, may_end=True)


def exact_text(model, tokens=TOKENS, draws=DRAWS):
    decoder = ExactDecoder(ExactNetwork(model), draws)
    decoder.prefill(PROMPT)
    return list(decoder.generate(tokens))


def fail_in_text(there, fault, expected):
    """Have a fault in the midst of a text: it ends by one of the errors that are expected."""
    tokens = []
    with pytest.raises(expected) as caught:
        for token in text(there):
            tokens.append(token)
            if len(tokens) == BEFORE:
                fault()
    assert "\n" not in str(caught.value)
    assert BEFORE <= len(tokens) < TOKENS
    assert tokens == exact_text(there.image.model)[:len(tokens)]


def fail_in_load(device, model, fault, expected):
    """Have a fault when half of the model is there."""
    image = device_image(device, model)
    sent  = []

    def progress(size):
        if sum(sent) < image.size//2 <= sum(sent) + size:
            fault()
        sent.append(size)

    with pytest.raises(expected) as caught:
        ModelOnDevice(device, image).load(progress)
    assert "\n" not in str(caught.value)
    assert sum(sent) < image.size


def check_next(simulation, model, patience=PATIENCE):
    """What a new connection loads and has generated. Returns what it had to send."""
    with connect(simulation, patience=patience) as now:
        there = loaded(now.device, model)
        assert list(text(there)) == exact_text(model)
        return there.counts

# Bad Network --------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_bad_network(simulation, seed):
    """Packets get lost, come late and come twice, from the boot on."""
    model  = random_model(10 + seed)
    faults = Faults(seed, loss=0.02, duplicate=0.02, reorder=0.02, delay=0.02)
    with connect(simulation, faults, timeout=0.5) as now:
        there = loaded(now.device, model)
        for _ in range(2):
            assert list(text(there)) == exact_text(model)
    assert faults.counts["lost"] and faults.counts["duplicated"] and faults.counts["reordered"]

# Cut Link -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["cut", "close"])
def test_link_is_cut_in_a_text(simulation, how):
    model = random_model(20)
    with connect(simulation) as now:
        fail_in_text(loaded(now.device, model), getattr(now, how), LinkError)
    assert check_next(simulation, model).moved < 12_288 # What passes write: records and results.


def test_link_is_cut_in_a_load(simulation):
    """The next one goes on where it stopped."""
    model = random_model(21)
    with connect(simulation) as now:
        fail_in_load(now.device, model, now.cut, LinkError)
    counts = check_next(simulation, model)
    assert 0 < counts.moved < counts.size*3//4

# Reset --------------------------------------------------------------------------------------------

# A firmware that is gone is waited for, by the host's patience: a second is enough.

def test_reset_in_a_text(simulation):
    """The device is not waited for any longer."""
    model = random_model(30)
    with connect(simulation) as now:
        fail_in_text(loaded(now.device, model), now.reset, DeviceError)
    check_next(simulation, model, patience=1)


def test_reset_in_a_load(simulation):
    model = random_model(31)
    with connect(simulation) as now:
        fail_in_load(now.device, model, now.reset, (DeviceError, LinkError))
    check_next(simulation, model, patience=1)


def test_reset_while_tokens_are_read(simulation, monkeypatch):
    """Until the BIOS has set it up, all of the DRAM reads as zeros, which would be tokens."""
    model = random_model(32)
    with connect(simulation) as now:
        there = loaded(now.device, model)
        read  = there.device.transport.read_words

        def fault():
            def reset_and_read(address, count, progress=None):
                words = read(address, count, progress)
                if address <= there._output + 4*2:
                    return words
                monkeypatch.undo()
                now.reset()
                return 0*words
            monkeypatch.setattr(there.device.transport, "read_words", reset_and_read)

        fail_in_text(there, fault, DeviceError)
    check_next(simulation, model, patience=1)

# Killed Command -----------------------------------------------------------------------------------

def test_killed_and_interrupted_command(simulation, tmp_path):
    """Each next one finds the device in the midst of a job."""
    model = random_model(40)
    write_gguf(tmp_path/"model.gguf", model)
    before, after = stream_command(simulation)

    def start(tokens):
        command = [*before, "generate", "--model", tmp_path/"model.gguf", "--prompt-tokens", ",".join(map(str, PROMPT)), "--tokens", tokens, *after]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)) # A shell's background jobs ignore it.

    expected = " ".join(map(str, PROMPT + exact_text(model, 400, Draws())))
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, EXIT_INTERRUPTED)):
        process = start(400)
        begun   = ""
        while not begun.endswith(" ") or len(begun.split()) < len(PROMPT) + BEFORE:
            begun += process.stdout.read(1)
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == status
        assert expected.startswith((begun + stdout).rstrip())
        if number == signal.SIGINT:
            assert_one_line(stderr, "stream.py: interrupted")
    process = start(12)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert stdout.split() == expected.split()[:len(PROMPT) + 12]
