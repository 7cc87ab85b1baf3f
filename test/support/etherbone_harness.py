#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""LiteEth's Etherbone, compiled, bare or guarded: UDP payloads in, bus accesses and replies out, and what they should be."""

import struct

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from litex.gen import *

from litex.soc.interconnect import stream

from liteeth.common import eth_udp_user_description
from liteeth.frontend.etherbone import LiteEthEtherbone

from cores.etherbone.core import Etherbone

from tools.verilated import VerilatedModule, stream_ports

# Constants ----------------------------------------------------------------------------------------

BUFFER_DEPTH = 256
UDP_PORT     = 1234
KEY          = 0x5a5a_5a5a # The bus reads as its word address, exclusive or this.
HEADER       = b"\x4e\x6f\x10\x44\0\0\0\0"
PROBE        = b"\x4e\x6f\x11\x44" + bytes(8)

# Datagrams ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Datagram:
    """A UDP payload as it reaches Etherbone. `length`: what the UDP header says, if not the truth."""
    payload : bytes
    ip      : int  = 0x0a00_0001
    length  : int  = None
    error   : bool = False # The Ethernet checksum was wrong.


def record(writes=0, reads=0, flags=0, byte_enable=0xf):
    return struct.pack(">BBBB", flags, byte_enable, writes, reads)


def write(address, words, **fields):
    return HEADER + record(writes=len(words), **fields) + struct.pack(f">I{len(words)}I", address, *words)


def read(tag, addresses, **fields):
    return HEADER + record(reads=len(addresses), **fields) + struct.pack(f">I{len(addresses)}I", tag, *addresses)

# Expectation --------------------------------------------------------------------------------------

def expected(datagram):
    """(bus accesses (we, word address, data, byte enable), reply or None) of a datagram; nothing of one to be dropped."""
    data, nothing = datagram.payload, ([], None)
    if datagram.error or len(data) % 4 or datagram.length not in (None, len(data)) or len(data) < 12:
        return nothing
    magic, version, flags, sizes = struct.unpack(">HBBxxxx", data[:8])[0], data[2] >> 4, data[2] & 0xf, data[3]
    if magic != 0x4e6f or version != 1 or flags & 2 or sizes != 0x44:
        return nothing
    if flags & 1:
        reply = b"\x4e\x6f" + bytes([0x12 | flags & 4]) + b"\x44" + bytes(4) + data[8:]
        return ([], reply) if len(data) == 12 else nothing
    flags, byte_enable, writes, reads = data[8:12]
    count = writes + reads
    if flags & ~0x10 or bool(writes) == bool(reads) or len(data) != 16 + 4*count or count >= BUFFER_DEPTH:
        return nothing
    base, *words = struct.unpack(f">{1 + count}I", data[12:])
    enable = byte_enable & 0xf
    if writes:
        return [(1, (base//4 + n) % 2**30, word, enable) for n, word in enumerate(words)], None
    accesses = [(0, word//4, 0, enable) for word in words]
    values   = [word//4 ^ KEY for word in words]
    return accesses, HEADER + record(writes=count, byte_enable=enable) + struct.pack(f">I{count}I", base, *values)

# Bench --------------------------------------------------------------------------------------------

class _UDP:
    """A UDP core with one port."""
    def __init__(self):
        self.crossbar, self.dw = self, 8
        self.port = SimpleNamespace(
            source = stream.Endpoint(eth_udp_user_description(32)),
            sink   = stream.Endpoint(eth_udp_user_description(32)))

    def get_port(self, udp_port, dw, cd):
        return self.port


class Bench(LiteXModule):
    def __init__(self, guarded):
        udp       = _UDP()
        self.sink = sink = stream.Endpoint(eth_udp_user_description(32))
        source    = udp.port.source
        allowed   = Signal(reset=1) # A datagram may come.
        within    = Signal()
        self.comb += [
            sink.connect(source, omit={"valid", "ready"}),
            source.valid.eq(sink.valid & (within | allowed)),
            sink.ready.eq(source.ready & (within | allowed)),
        ]
        self.sync += If(source.valid & source.ready, within.eq(~source.last))
        self.reply = udp.port.sink
        if guarded:
            self.core = core = Etherbone(udp, UDP_PORT)
            self.comb += allowed.eq(~core.buffer.filling) # It loses those that do not fit.
        else:
            self.core = core = LiteEthEtherbone(udp, UDP_PORT, buffer_depth=BUFFER_DEPTH)
        bus = core.wishbone.bus
        self.accesses = accesses = stream.Endpoint([("we", 1), ("adr", 30), ("dat", 32), ("sel", 4)])
        self.comb += [
            accesses.valid.eq(bus.cyc & bus.stb),
            accesses.we.eq(bus.we),
            accesses.adr.eq(bus.adr),
            accesses.dat.eq(Mux(bus.we, bus.dat_w, 0)),
            accesses.sel.eq(bus.sel),
            bus.ack.eq(accesses.valid & accesses.ready),
            bus.dat_r.eq(bus.adr ^ KEY),
        ]


class EtherboneBench:
    """The compiled bench and its driver."""
    def __init__(self, guarded=True):
        bench = Bench(guarded)
        inputs, outputs = {}, {}
        for prefix, endpoint, payloads, drives in (
            ("in",     bench.sink,  ("data", "last", "last_be", "error", "length", "ip_address"), False),
            ("reply",  bench.reply, ("data", "last", "ip_address"), True),
            ("access", bench.accesses,   ("we", "adr", "dat", "sel"), True),
        ):
            new = stream_ports(prefix, endpoint, payloads, drives)
            inputs.update(new[0])
            outputs.update(new[1])
        self.compiled = VerilatedModule(bench, inputs, outputs)

    def run(self, datagrams, duty=256, seed=1, limit=None):
        """Sends datagrams; compares every access and every reply with what is expected.

        A probe is answered at once, so its reply may come before those to reads sent earlier.

        Raises TimeoutError when one of them does not come.
        """
        accesses, replies, rows = [], [], []
        for datagram in datagrams:
            payload, length = datagram.payload, datagram.length
            padded = payload.ljust(-(-len(payload)//4)*4, b"\0")
            words  = np.frombuffer(padded, "<u4")
            beats  = np.zeros((len(words), 6), np.uint64)
            beats[:, 0]  = words
            beats[-1, 1] = 1
            beats[-1, 2] = 1 << (len(payload) - 1) % 4
            beats[-1, 3] = 0xf if datagram.error else 0
            beats[:, 4]  = len(payload) if length is None else length
            beats[:, 5]  = datagram.ip
            rows.append(beats)
            expected_accesses, reply = expected(datagram)
            accesses += expected_accesses
            if reply is not None:
                replies.append((datagram.ip, reply))
        rows   = np.concatenate(rows)
        names  = ("data", "last", "last_be", "error", "length", "ip_address")
        words  = sum(len(reply)//4 for _, reply in replies)
        limit  = limit or 5000 + 40*256*(len(rows) + len(accesses) + words)//(duty if isinstance(duty, int)
            else min(duty.values()))
        result, _ = self.compiled.streams({"in": {name: rows[:, n] for n, name in enumerate(names)}},
            {"reply": (("data", "last", "ip_address"), words), "access": (("we", "adr", "dat", "sel"), len(accesses))},
            limit, duty, seed)
        came = list(zip(*(column.tolist() for column in result["access"].values())))
        _compare("access", came, accesses)
        came = _packets(result["reply"])
        for probes in (False, True):
            _compare("reply", *([reply for reply in packets if bool(reply[1][2] & 2) == probes]
                for packets in (came, replies)))
        self.compiled.poke(reply_ready=1, access_ready=1)
        for _ in range(60): # Nothing more comes.
            self.compiled.step()
            if self.compiled.peek("reply_valid") or self.compiled.peek("access_valid"):
                raise AssertionError("more accesses or replies than expected")
        self.compiled.poke(reply_ready=0, access_ready=0)


def _packets(beats):
    """[(IP address, payload)] from the beats of a stream."""
    packets, words = [], []
    for word, last, ip in zip(*(beats[name].tolist() for name in ("data", "last", "ip_address"))):
        words.append(word)
        if last:
            packets.append((ip, struct.pack(f"<{len(words)}I", *words)))
            words = []
    return packets


def _compare(what, came, should):
    for n, (one, other) in enumerate(zip(came, should)):
        if one != other:
            raise AssertionError(f"{what} {n} of {len(should)}: {one} instead of {other}")
    if len(came) != len(should):
        raise AssertionError(f"{what}: {len(came)} instead of {len(should)}")

# Random Datagrams ---------------------------------------------------------------------------------

def _count(random):
    return random.choice((1, 1, 2, 3, random.randrange(1, 20), random.randrange(1, 256) if random.random() < 0.1 else 1))


def good_payload(random):
    count = _count(random)
    kind  = random.random()
    if kind < 0.05:
        return PROBE[:8] + random.randbytes(4)
    if kind < 0.5:
        return write(random.getrandbits(32), struct.unpack(f"{count}I", random.randbytes(4*count)),
            byte_enable=random.choice((0xf, 0xf, random.getrandbits(8))), flags=random.choice((0, 0x10)))
    return read(random.getrandbits(32), struct.unpack(f"{count}I", random.randbytes(4*count)))


def random_datagram(random):
    """Garbage, what was good before something happened to it, or good."""
    ip   = random.choice((0x0a00_0001, 0x0a00_0001, 0x0a00_0001, 0x0a00_0002))
    kind = random.randrange(10)
    if kind == 0:
        return Datagram(random.randbytes(random.randrange(1, 40)), ip)
    data = bytearray(good_payload(random))
    if kind == 1: # Bits of the headers.
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(12)] ^= 1 << random.randrange(8)
    elif kind == 2: # Too short.
        del data[random.randrange(1, len(data)):]
    elif kind == 3: # Too long.
        data += random.randbytes(random.choice((1, 4, 8, random.randrange(1, 64), random.randrange(1, 1460))))
    elif kind == 4: # Wrong counts.
        data[10:12] = random.choice((0, 1, data[10], 255)), random.choice((0, 1, data[11], 255))
    elif kind == 5:
        return Datagram(bytes(data), ip, error=True)
    elif kind == 6:
        return Datagram(bytes(data), ip, length=random.choice((0, len(data) - 1, len(data) + 4, random.getrandbits(16))))
    elif kind == 7: # Another record behind.
        data += good_payload(random)[8:]
    return Datagram(bytes(data[:1472]), ip)
