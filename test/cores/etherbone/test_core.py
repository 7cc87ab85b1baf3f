#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The buffer before Etherbone: sound datagrams pass whole and in order, all others are dropped and counted."""

import random
import struct

import pytest

from migen import run_simulation

from litex.tools.remote.etherbone import EtherbonePacket, EtherboneReads, EtherboneRecord, EtherboneWrites

from cores.etherbone.datagram_buffer import DatagramBuffer

# Datagrams ----------------------------------------------------------------------------------------

def record(writes=None, reads=None):
    """A datagram of LiteX's own."""
    record = EtherboneRecord()
    if writes:
        record.writes = EtherboneWrites(base_addr=0x4000_0000, datas=writes)
    if reads:
        record.reads = EtherboneReads(base_ret_addr=1, addrs=reads)
    packet = EtherbonePacket()
    packet.records = [record]
    packet.encode()
    return bytes(packet.bytes)


PROBE   = bytes.fromhex("4e6f1144 00000000 00000000")
PROBED  = bytes.fromhex("4e6f1144 00000000")
HOST    = 0x0a000001
WRITE   = record(writes=[1, 2, 3])
READ    = record(reads=[4, 8])
LONGEST = record(writes=list(range(255)))

# Bench --------------------------------------------------------------------------------------------

def simulate(datagrams, depth=512, ready=0.7, answer_after=20, seed=0):
    """Send [(datagram, host, options)] and return what comes out, as [(datagram, host, cycle)], and the dropped ones.

    Options: `length` is what the UDP header says, `error` the number of the word that is in error.
    """
    dut    = DatagramBuffer(depth)
    choose = random.Random(seed)
    out    = []
    state  = {"cycle": 0, "sent": False, "answers": []}

    def sender():
        for datagram, host, options in datagrams:
            words = struct.unpack(f"<{-(-len(datagram)//4)}I", datagram.ljust(-(-len(datagram)//4)*4, b"\0"))
            for i, word in enumerate(words):
                while choose.random() < 0.2:
                    yield
                yield dut.sink.data.eq(word)
                yield dut.sink.last.eq(i == len(words) - 1)
                yield dut.sink.error.eq(options.get("error") == i)
                yield dut.sink.length.eq(options.get("length", len(datagram)))
                yield dut.sink.ip_address.eq(host)
                yield dut.sink.valid.eq(1)
                yield
                while not (yield dut.sink.ready):
                    yield
                yield dut.sink.valid.eq(0)
        state["sent"] = True

    def receiver():
        words, idle = [], 0
        while not state["sent"] or idle < 3*answer_after:
            yield dut.source.ready.eq(choose.random() < ready)
            yield dut.answered.eq(bool(state["answers"]) and state["answers"][0] == state["cycle"])
            yield
            state["cycle"] += 1
            if state["answers"] and state["answers"][0] < state["cycle"]:
                state["answers"].pop(0)
            idle  = idle + 1 if state["sent"] else 0
            if (yield dut.source.valid) and (yield dut.source.ready):
                idle = 0
                words.append((yield dut.source.data))
                if (yield dut.source.last):
                    assert (yield dut.source.last_be) == 8
                    assert (yield dut.source.length) == 4*len(words)
                    datagram = struct.pack(f"<{len(words)}I", *words)
                    out.append((datagram, (yield dut.source.ip_address), state["cycle"]))
                    if datagram[2] & 1 or datagram[11]:
                        state["answers"].append(max([state["cycle"], *state["answers"]]) + answer_after)
                    words = []
        state["dropped"] = yield dut.dropped.status

    run_simulation(dut, [sender(), receiver()])
    return out, state["dropped"]

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(2))
def test_sound_datagrams_pass(seed):
    sent = [WRITE, READ, PROBE, LONGEST, record(reads=list(range(255))), record(writes=[7]), PROBE, WRITE]
    out, dropped = simulate([(datagram, HOST, {}) for datagram in sent], depth=1024, seed=seed)
    assert [datagram for datagram, _, _ in out] == sent
    assert all(host == HOST for _, host, _ in out)
    assert dropped == 0


BAD = [
    (WRITE, {"error": 3}),               # What the MAC found: a wrong check sequence.
    (WRITE, {"length": len(WRITE) + 4}), # Cut short on its way.
    (WRITE[:-4], {}),                    # The record's header promises more.
    (WRITE + bytes(4), {}),              # Or less.
    (WRITE[:-1], {}),
    (record(writes=[1], reads=[2]), {}),
    (WRITE[:10] + bytes(2), {}),         # Neither writes nor reads.
    (b"\0" + WRITE[1:], {}),
    (WRITE[:2] + b"\x20" + WRITE[3:], {}), # Another version,
    (WRITE[:3] + b"\x88" + WRITE[4:], {}), # or size.
    (PROBED, {}), (PROBE + bytes(4), {}), (b"x", {}),
    (LONGEST + LONGEST, {}), (bytes(1472), {}),
]


def test_others_are_dropped_whole():
    sent = []
    for number, (bad, options) in enumerate(BAD):
        sent += [(record(writes=[number, 0]), HOST, {}), (bad, HOST, options)]
    out, dropped = simulate(sent + [(LONGEST, HOST, {})], depth=1024)
    assert [datagram for datagram, _, _ in out] == [record(writes=[number, 0]) for number in range(len(BAD))] + [LONGEST]
    assert dropped == len(BAD)


def test_random_bytes_pass_nothing():
    choose = random.Random(5)
    out, dropped = simulate([(choose.randbytes(choose.randrange(1, 100)), HOST, {}) for _ in range(30)])
    assert (out, dropped) == ([], 30)


def test_full_buffer():
    """Six datagrams for a buffer that holds two of them, and is emptied slowly."""
    sent = [record(writes=[number]*250) for number in range(6)]
    out, dropped = simulate([(datagram, HOST, {}) for datagram in sent], ready=0.3)
    passed = [datagram for datagram, _, _ in out]
    assert passed == [datagram for datagram in sent if datagram in passed]
    assert len(passed) + dropped == 6
    assert 1 <= dropped <= 4


def test_another_host_waits_for_the_answers_to_the_last():
    sent = [(READ, HOST, {}), (WRITE, HOST, {}), (PROBE, HOST, {}), (READ, HOST + 1, {}), (WRITE, HOST, {})]
    out, _ = simulate(sent, answer_after=200)
    assert [(datagram, host) for datagram, host, _ in out] == [(datagram, host) for datagram, host, _ in sent]
    times = [cycle for _, _, cycle in out]
    assert times[2] - times[0] < 100               # The same host's do not wait,
    assert times[3] > times[2] + 200 > times[0]    # the other's do,
    assert times[4] > times[3] + 200               # and the first one's again.


@pytest.mark.parametrize("depth", [256, 1000])
def test_depth(depth):
    with pytest.raises(ValueError, match=f"depth must be a power of 2, at least 512, is {depth}."):
        DatagramBuffer(depth)
