#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Both transports on bad links, before a device whose time is counted: seconds of silence take none here."""

import io

from dataclasses import asdict

import numpy as np
import pytest

from bad_network import PREAMBLE_CHECK_GAP, EtherboneDevice, Faults, Memory, UARTBoneDevice

from bench.link import Traffic, entries

from host.errors import IntegrityError, TransportTimeout
from host.link.congestion import RoundTrip, Window
from host.link.etherbone import Etherbone
from host.link.transfer import Batch, Transfer
from host.link.transport import Check, Statistics
from host.link.uartbone import UARTBone

from soc.etherbone import WINDOW

# Helpers ------------------------------------------------------------------------------------------

BASE = 0x4000_0000
BAD  = dict(loss=0.01, duplicate=0.01, reorder=0.01, corrupt=0.001)


def random_words(count, seed=0):
    return np.random.default_rng([seed, 99]).integers(0, 2**32, count, np.uint32)


def ethernet(memory, faults=None, window=WINDOW, **options):
    """A transport and the device it reaches."""
    device = EtherboneDevice(memory, faults, **options)
    return Etherbone(sock=device, window=window, clock=device.clock), device


def uart(memory, baudrate=3_000_000, **options):
    device = UARTBoneDevice(memory, baudrate=baudrate, **options)
    return UARTBone("a model", baudrate, serial_port=device, clock=device.clock), device


def assert_stored(memory, words):
    """`words` are in memory, and nothing else has changed."""
    assert np.array_equal(memory.words[:len(words)], words)
    assert np.array_equal(memory.words[len(words):], Memory(4*len(memory.words)).words[len(words):])

# Good Link ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [1, 254, 255, 256, 5000])
@pytest.mark.parametrize("window", [0, WINDOW])
def test_ethernet(count, window):
    memory       = Memory(0x10000)
    link, device = ethernet(memory, window=window)
    words        = random_words(count)
    link.load_words(BASE, words)
    assert_stored(memory, words)
    words = random_words(count, 1)
    link.write_words(BASE, words)
    assert_stored(memory, words)
    assert np.array_equal(link.read_words(BASE, count), words)
    words = random_words(count, 2)
    link.write_words(BASE, words, readback=False)
    assert_stored(memory, words)
    assert (link.statistics.timeouts, link.statistics.rewrites, link.statistics.ignored) == (0, 0, 0)
    assert not device.counts


def test_bulk_load_takes_little_but_the_payload():
    """1 MiB at 100 Mbit/s, through a switch and a host that take 0.5 ms in all."""
    memory       = Memory(0x10_0000)
    link, device = ethernet(memory, latency=250e-6)
    before, start = asdict(link.statistics), device.now
    words        = random_words(0x4_0000)
    link.load_words(BASE, words)
    frames, wire = (asdict(link.statistics)[name] - before[name] for name in ("frames", "wire_bytes"))
    assert_stored(memory, words)
    assert words.nbytes/wire >= 0.92
    assert words.nbytes/(wire + PREAMBLE_CHECK_GAP*frames) >= 0.9
    assert 8*words.nbytes/(device.now - start) >= 0.9*100e6


@pytest.mark.parametrize("latency, share", [(100e-6, 0.92), (500e-6, 0.9), (4e-3, 0.25)])
def test_read_keeps_the_wire_busy(latency, share):
    """Answers come at the wire's rate as long as the window is longer than the round trip."""
    memory       = Memory(0x10_0000)
    link, device = ethernet(memory, latency=latency)
    start        = device.now
    assert np.array_equal(link.read_words(BASE, 0x4_0000), memory.words)
    assert 8*memory.words.nbytes/(device.now - start) >= share*100e6
    assert not device.counts["overflow"]


def test_window_learns_what_the_device_can_take():
    """A wire 8 times as fast as the device: the buffer overflows until the window is small enough."""
    memory       = Memory(0x10_0000)
    link, device = ethernet(memory, rate=1e9, latency=10e-6)
    words        = random_words(0x4_0000)
    link.load_words(BASE, words)
    assert_stored(memory, words)
    assert 0 < device.counts["overflow"] < 100
    assert link.window.size < WINDOW/2


@pytest.mark.parametrize("baudrate", [9600, 115200, 3_000_000])
def test_uart(baudrate):
    memory       = Memory(0x10000)
    link, device = uart(memory, baudrate)
    words        = random_words(6000)
    start        = device.now
    link.load_words(BASE, words)
    assert 10*words.nbytes/(device.now - start) >= 0.84*baudrate
    assert_stored(memory, words)
    words = random_words(6000, 1)
    link.write_words(BASE, words)
    assert_stored(memory, words)
    assert np.array_equal(link.read_words(BASE, 6000), words)
    assert (link.statistics.timeouts, link.statistics.rewrites) == (0, 0)
    assert not device.counts

# Bad Link -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("faults", [
    dict(loss=0.2), dict(duplicate=0.3), dict(reorder=0.3, delay=0.05), dict(corrupt=0.02), dict(truncate=0.1),
    dict(loss=0.05, duplicate=0.05, reorder=0.05, corrupt=0.01, truncate=0.05), BAD,
], ids=lambda faults: "-".join(faults))
def test_ethernet_on_a_bad_network(faults, seed):
    memory       = Memory(0x4_0000)
    faults       = Faults(seed, **faults)
    link, device = ethernet(memory, faults)
    words        = random_words(60_000, seed)
    link.write_words(BASE, words)
    assert np.array_equal(memory.words[:60_000], words)
    if not faults.shares["corrupted"]: # What is damaged may be written anywhere, and reads are not protected.
        assert_stored(memory, words)
        assert np.array_equal(link.read_words(BASE, len(words)), words)
        words = random_words(60_000, seed + 100)
        link.load_words(BASE, words)
        assert_stored(memory, words)
    for name, share in faults.shares.items():
        assert bool(faults.counts[name]) == bool(share)


@pytest.mark.parametrize("window", [0, WINDOW])
def test_silence_is_outlasted(window):
    """The wire carries nothing for 10 s in the middle of a transfer."""
    memory       = Memory(0x10_0000)
    link, device = ethernet(memory, window=window, down=[(0.005, 10.005)])
    words        = random_words(0x1_0000)
    link.load_words(BASE, words)
    assert_stored(memory, words)
    assert device.now > 10 and device.counts["down"]


def test_silence_for_good_is_an_error_and_the_next_command_works():
    memory       = Memory(0x10_0000)
    link, device = ethernet(memory, down=[(0.005, 100)])
    words        = random_words(0x1_0000)
    with pytest.raises(TransportTimeout, match="No answer from the model:0 to 9 requests for address 0x40.*cable"):
        link.write_words(BASE, words)
    assert 10 < device.now < 60
    device.now = 101
    link.write_words(BASE, words)
    assert_stored(memory, words)


def test_reset_in_the_middle_of_a_transfer():
    """The device is silent for a second, and its memory has changed: what was not verified yet is written again."""
    memory       = Memory(0x10_0000)
    link, device = ethernet(memory, down=[(0.02, 1.02)])
    words        = random_words(0x2_0000)
    execute      = device._execute

    def execute_and_forget(datagram, count):
        if device.now > 1 and not device.counts["reset"]:
            device.counts["reset"] += 1
            memory.words[:] = 0
        execute(datagram, count)

    device._execute = execute_and_forget
    link.write_words(BASE, words)
    assert device.counts["reset"]
    assert np.array_equal(memory.words[:len(words)], words)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("faults", [dict(lose=2e-4), dict(insert=2e-4), dict(corrupt=2e-4),
    dict(lose=1e-4, insert=1e-4, corrupt=1e-4)], ids=lambda faults: "-".join(faults))
def test_uart_on_a_bad_line(faults, seed):
    memory       = Memory(0x10000)
    link, device = uart(memory, seed=seed, **faults)
    link.retries = 12 # A third of all batches is damaged.
    words        = random_words(12_000, seed)
    link.write_words(BASE, words)
    assert np.array_equal(memory.words[:12_000], words)
    assert device.counts and link.statistics.timeouts + link.statistics.rewrites


def test_uart_loads_again_what_lost_its_step():
    memory       = Memory(0x4_0000)
    link, device = uart(memory, seed=4, lose=2e-5)
    words        = random_words(60_000)
    link.load_words(BASE, words)
    assert device.counts["lost"] and link.statistics.timeouts + link.statistics.rewrites
    assert np.array_equal(memory.words[:60_000], words)


def test_uart_finds_its_step_after_garbage():
    memory       = Memory(0x10000)
    link, device = uart(memory)
    device.write(b"\x01\xff\x10\0\0\0\xaa\xbb\xcc") # A write of 255 words that ends after 3 bytes.
    words = random_words(300)
    link.write_words(BASE, words)
    assert np.array_equal(memory.words[:300], words)

# Full Size ----------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20))
def test_64_megabytes_on_a_bad_network(seed):
    """Not one wrong byte: of what is read back, all is proven, damage included."""
    memory       = Memory(0x400_0000)
    faults       = Faults(seed, **BAD)
    link, device = ethernet(memory, faults)
    words        = random_words(0x100_0000, seed)
    link.write_words(BASE, words)
    assert np.array_equal(memory.words, words)
    assert all(faults.counts[name] > 50 for name in ("lost", "duplicated", "reordered", "corrupted"))

# Transfer -----------------------------------------------------------------------------------------

class Script:
    """As much of a link as a Transfer needs, whose answers a function gives: called with each request, it returns
    [(tag, words)] that arrive after it."""
    peer    = "the script"
    retries = 2

    def __init__(self, answer):
        self.answer     = answer
        self.window     = Window(1000, 10_000)
        self.round_trip = RoundTrip(1.0)
        self.statistics = Statistics()
        self.writes     = []
        self.tags       = 0
        self.now        = 0.0
        self.arrived    = []

    def clock(self):
        return self.now

    def check_alive(self):
        pass

    def next_tag(self):
        self.tags += 1
        return self.tags

    def send_writes(self, address, words):
        self.writes.append(address)

    def send_reads(self, tag, addresses):
        self.arrived += self.answer(tag, addresses)

    def receive(self, deadline):
        if self.arrived:
            return self.arrived.pop(0)
        self.now = deadline
        return None


def test_answer_of_another_length_is_no_answer():
    """Neither with a word too few nor too many; the request is repeated, and its late answer counts."""
    words  = random_words(10)
    got    = np.zeros(10, np.uint32)
    script = Script(lambda tag, addresses: [(tag, words[:9]), (tag, np.append(words, 0))] if tag < 3 else [(1, words)])
    Transfer(script, [Batch(BASE, got)], lambda size: None).run()
    assert np.array_equal(got, words)
    assert script.statistics.ignored == 4 and script.statistics.timeouts == 2


def test_late_answer_from_before_a_batch_was_sent_again():
    """It shows what memory held before, and is no reason to send the batch a third time."""
    words, old = random_words(4), np.zeros(4, np.uint32)

    def answer(tag, addresses):
        if tag == 1:
            return []                       # Late.
        if tag == 2:
            return [(2, old)]               # The write was lost; it is sent again,
        return [(1, old), (tag, words)]     # and then the late answer comes.

    script = Script(answer)
    Transfer(script, [Batch(BASE, words, Check.ALL)], lambda size: None).run()
    assert script.writes == [BASE]*2 and script.statistics.rewrites == 1


@pytest.mark.parametrize("check, at", [(Check.ALL, 0), (Check.ALL, 2), (Check.LAST, 3)])
def test_address_that_is_named(check, at):
    """Where a word stays wrong, it is this one's address that is named, whatever part of the batch was read."""
    words     = random_words(4)
    held      = words.copy()
    held[at] ^= 1
    first     = BASE + 0x100
    script    = Script(lambda tag, addresses: [(tag, held[(addresses - first)//4])])
    with pytest.raises(IntegrityError, match=f"Address 0x{first + 4*at:08x} reads 0x{held[at]:08x} after 0x{words[at]:08x} was"):
        Transfer(script, [Batch(first, words, check)], lambda size: None).run()
    assert len(script.writes) == 3 # Once, and `retries` times again.


def test_bytes_of_frames_are_those_of_the_wire():
    """A frame has 60 bytes at least: 14 + 20 + 8 of headers, the datagram, padding."""
    memory  = Memory(0x1000)
    link, _ = ethernet(memory)
    def wire(function):
        before = asdict(link.statistics)
        function()
        after = asdict(link.statistics)
        return after["frames"] - before["frames"], after["wire_bytes"] - before["wire_bytes"]
    assert (link.statistics.frames, link.statistics.wire_bytes) == (2, 60 + 60) # The probe, of 12 bytes, and its answer.
    assert wire(lambda: link.read_words(BASE, 1)) == (2, 2*62)
    assert wire(lambda: link.read_words(BASE, 10)) == (2, 2*(42 + 16 + 40))
    assert wire(lambda: link.load_words(BASE, random_words(255))) == (3, 42 + 16 + 1020 + 2*62)

# Window -------------------------------------------------------------------------------------------

def test_window():
    window = Window(least=10, most=100)
    assert window.size == 40
    window.acknowledged(30)
    assert window.size == 70           # Twice as much each round trip,
    window.acknowledged(50)
    assert window.size == 100
    window.lost(number=5, newest=9)
    assert window.size == 50
    window.lost(number=9, newest=12)   # of the same round trip,
    assert window.size == 50
    window.acknowledged(50)
    assert window.size == 60           # `least` more each round trip.
    window.lost(number=10, newest=19)  # The first of a later one.
    assert window.size == 30
    window.lost(number=19, newest=25)
    assert window.size == 30
    window.lost(number=20, newest=25)
    assert window.size == 15
    for number in range(10, 100, 10):
        window.lost(number, number)
    assert window.size == 10


def test_round_trip():
    trip = RoundTrip(timeout=1.0)
    assert [trip.patience(repetitions) for repetitions in (0, 1, 3, 10)] == [1, 2, 8, 8]
    for _ in range(100):
        trip.sample(0.001)
    assert trip.patience(0) == 0.25
    for seconds in (0.5, 0.7)*50:
        trip.sample(seconds)
    assert 0.7 < trip.patience(0) < 1.2


def test_round_trip_is_that_of_rfc_6298():
    """alpha = 1/8, beta = 1/4, K = 4; the deviation is updated first, by the mean of before."""
    trip = RoundTrip(timeout=1.0)
    trip.sample(1.0)
    assert (trip.mean, trip.deviation, trip.patience(0)) == (1.0, 0.5, 3.0)
    trip.sample(2.0)
    assert (trip.mean, trip.deviation, trip.patience(0)) == (1.125, 0.625, 3.625)
    trip.sample(1.0)
    assert (trip.mean, trip.deviation) == (1.109375, 0.5)
    assert [trip.patience(repetitions) for repetitions in (1, 2)] == [2*3.109375, 8.0]

# Figures ------------------------------------------------------------------------------------------

def traffic(*counts):
    """Of frames and bytes out, frames and bytes in."""
    return Traffic(*counts)


def test_cycles_of_traffic():
    """8 cycles a byte of the busier way, preamble, FCS and gap with it; or the device; and the waits."""
    counts = traffic(10, 1000, 5, 2000) - traffic(0, 0, 0, 0)
    assert (counts.wire("out"), counts.wire("in")) == (1000 + 240, 2000 + 120)
    assert counts.cycles(100) == 8*2120/100
    assert counts.cycles(100, pace=200.0) == 200
    assert counts.cycles(100, waits=5) == 8*2120/100 + 5*50_000/100


def test_entries():
    """By hand: 257 records of 255 words and one of a word carry 65,536 words."""
    data   = 257*(42 + 16 + 1020) + 42 + 16 + 4
    ours   = {"load": traffic(275, data + 17*(42 + 16 + 64), 17, 17*(42 + 16 + 64)), "read": traffic(258, data, 258, data),
        "write": traffic(516, 2*data, 258, data), "wrong": 0}
    litex  = {"wrong": 3, "traffic": {name: asdict(counts) for name, counts in {
        "write_words": traffic(1000, 62_000, 0, 0), "read_words": traffic(1000, 62_000, 1000, 62_000),
        "write_lists": traffic(4, 4232, 0, 0),      "read_lists": traffic(4, 4232, 4, 4232)}.items()}}
    rows   = {row["name"]: row for row in entries({"write": 5.5, "read": 18.0}, ours, litex)}
    value  = {name: row["value"] for name, row in rows.items()}
    assert value["link_efficiency"] == 4*65_536/(data + 2*17*122) and rows["link_efficiency"]["least"] == 0.9
    assert rows["link_efficiency"]["bound"] == pytest.approx(1020/1078)
    assert value["link_efficiency_with_gaps"] == 4*65_536/(data + 2*17*122 + 24*(275 + 17))
    assert value["link_load"] == 8*(data + 17*122 + 24*275)/65_536
    assert rows["link_load"]["bound"] == rows["link_read"]["bound"] == 8*1102/255
    assert value["link_read"] == 8*(data + 24*258)/65_536
    assert value["link_write_read_back"] == 8*(2*data + 24*516)/65_536
    assert (value["link_device_write"], value["link_device_read"]) == (5.5, 18.0)
    assert value["link_litex_write_words"] == 8*(62 + 24)
    assert value["link_litex_read_words"] == 8*(62 + 24) + 50_000
    assert value["link_litex_write_lists"] == 8*(4232 + 96)/1000
    assert value["link_litex_read_lists"] == 8*(4232 + 96)/1000 + 4*50
    for way in ("write", "read"):
        for kind, name in (("words", "ratio"), ("lists", "ratio_lists")):
            own = value["link_load" if way == "write" else "link_read"]
            assert value[f"link_{way}_{name}"] == value[f"link_litex_{way}_{kind}"]/own
        assert rows[f"link_{way}_ratio"]["least"] == 5
    assert value["link_litex_wrong"] == 3
    for row in rows.values():
        assert set(row) == {"name", "value", "unit", "bound", "ratio", "least", "config", "command"}


def test_counts_of_an_interface(monkeypatch):
    """/proc/net/dev: received first, of which bytes first; what the TAP device transmits is what the SoC gets."""
    text = "\n".join(("Inter-|   Receive                                             |  Transmit",
        " face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed",
        "    lo:    1       2    0    0    0     0          0         0     3       4    0    0    0     0       0          0",
        "  tap0: 6127     575    0    1    0     0          0         0  9188     860    0    0    0     0       0          0", ""))
    monkeypatch.setattr("builtins.open", lambda path: io.StringIO(text) if path == "/proc/7/net/dev" else None)
    assert Traffic.now(7) == traffic(860, 9188, 575, 6127)
