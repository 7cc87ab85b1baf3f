#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Both transports against a device in software, on good and bad links."""

import socket
import threading
import time
import types

import numpy as np
import pytest

from serial.urlhandler import protocol_socket

from litex.tools.remote.etherbone import EtherbonePacket, EtherboneReads, EtherboneRecord, EtherboneWrites

from fake_device import RAM_BASE, EtherboneServer, FakeDevice, UARTBoneServer

from host.errors import IntegrityError, LinkError, TransportTimeout
from host.link import etherbone, uartbone
from host.link.etherbone import Etherbone
from host.link.uartbone import UARTBone

# Helpers ------------------------------------------------------------------------------------------

@pytest.fixture
def device():
    with FakeDevice() as device:
        yield device


@pytest.fixture(autouse=True)
def close_without_rest(monkeypatch):
    """pyserial sleeps 0.3 s after it closed a socket."""
    monkeypatch.setattr(protocol_socket, "time", types.SimpleNamespace(time=time.time, sleep=lambda seconds: None))


@pytest.fixture(params=["etherbone", "uart"])
def link(request, device):
    """A transport on a good link."""
    if request.param == "etherbone":
        with EtherboneServer(device) as server, Etherbone(server.ip, server.port) as transport:
            yield transport
    else:
        with UARTBoneServer(device) as server, UARTBone(server.port) as transport:
            yield transport


def random_words(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)


def stored(device, words):
    return device.ram[:len(words)]

# Both Transports ----------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [1, 2, 126, 127, 128, 255, 256, 1000])
def test_words_written_are_stored_and_read(link, device, count):
    words = random_words(count, count)
    guard = device.ram[count]
    link.write_words(RAM_BASE, words)
    assert np.array_equal(stored(device, words), words)
    assert device.ram[count] == guard
    read = link.read_words(RAM_BASE, count)
    assert read.dtype == np.uint32
    assert np.array_equal(read, words)
    assert link.statistics.verified_bytes == link.statistics.read_bytes == 4*count
    assert (link.statistics.timeouts, link.statistics.rewrites) == (0, 0)


def test_bytes_are_little_endian_words(link, device):
    link.write_bytes(RAM_BASE, bytes(range(8)))
    assert list(device.ram[:2]) == [0x03020100, 0x07060504]
    assert link.read_bytes(RAM_BASE, 8) == bytes(range(8))


def test_nothing_is_a_transfer_too(link):
    link.write_words(RAM_BASE, [])
    assert len(link.read_words(RAM_BASE, 0)) == 0


def test_progress_adds_up(link):
    done = []
    link.write_words(RAM_BASE, random_words(600), progress=done.append)
    assert sum(done) == 2400 and len(done) > 1
    done.clear()
    link.read_words(RAM_BASE, 600, progress=done.append)
    assert sum(done) == 2400 and len(done) > 1


def test_write_without_readback_is_not_counted_as_verified(link, device):
    link.write_words(RAM_BASE, [5, 6], readback=False)
    assert list(device.ram[:2]) == [5, 6]
    assert link.statistics.verified_bytes == 0


@pytest.mark.parametrize("address, count", [(2, 1), (-4, 1), (2**32, 1), (2**32 - 4, 2)])
def test_bad_address(link, address, count):
    with pytest.raises(ValueError, match=f"address must be a multiple of 4, .*, is 0x.* with {count} words."):
        link.read_words(address, count)
    with pytest.raises(ValueError, match=f"address must be a multiple of 4, .*, is 0x.* with {count} words."):
        link.write_words(address, [0]*count)


def test_bad_data(link):
    with pytest.raises(ValueError, match="words must be from 0 to .* - 1, are from -1 to -1."):
        link.write_words(RAM_BASE, [-1])
    with pytest.raises(ValueError, match="data must be of a multiple of 4 bytes, is of 5."):
        link.write_bytes(RAM_BASE, bytes(5))
    with pytest.raises(ValueError, match="size must be a multiple of 4, is 6."):
        link.read_bytes(RAM_BASE, 6)


def test_memory_that_does_not_keep_what_is_written(link, device):
    device.stuck = RAM_BASE + 8
    link.retries = 2
    if link.name == "uart":
        link.resync_time = 0.01
    with pytest.raises(IntegrityError, match="0x40000008 reads 0x00000000 after 0x00000007 was written 3 times"):
        link.write_words(RAM_BASE, [5, 6, 7, 8])
    assert link.statistics.rewrites == 3
    assert link.statistics.verified_bytes == 0


def test_close_twice(link):
    """The second time does nothing; and what is closed neither sends nor answers."""
    link.read_words(RAM_BASE, 1)
    link.close()
    link.close()
    sent = link.statistics.wire_bytes
    for use in (lambda: link.read_words(RAM_BASE, 1), lambda: link.write_words(RAM_BASE, [1])):
        with pytest.raises(LinkError, match="Cannot (send to|receive from) .*: check the"):
            use()
    assert link.statistics.read_bytes == 4 and link.statistics.written_bytes == 0
    assert link.statistics.timeouts == 0 and sent > 0

# Etherbone ----------------------------------------------------------------------------------------

def litex_datagram(record):
    packet = EtherbonePacket()
    packet.records = [record]
    packet.encode()
    return bytes(packet.bytes)


def test_etherbone_datagrams_are_litex_datagrams():
    words  = random_words(5)
    record = EtherboneRecord()
    record.writes = EtherboneWrites(base_addr=0x40001000, datas=list(map(int, words)))
    assert etherbone.encode_write(0x40001000, words) == litex_datagram(record)
    record = EtherboneRecord()
    record.reads = EtherboneReads(addrs=[0xfffffff8, 0xfffffffc])
    record.reads.base_ret_addr = 0xdeadbeef
    assert etherbone.encode_read(0xdeadbeef, 0xfffffff8, 2) == litex_datagram(record)
    probe = EtherbonePacket()
    probe.pf = 1
    probe.encode()
    assert etherbone.encode_probe() == bytes(probe.bytes) + bytes(4)


def test_etherbone_replies_are_decoded():
    words = random_words(3)
    reply = etherbone.encode_write(0xcafe0001, words)
    tag, decoded = etherbone.decode_reply(reply)
    assert tag == 0xcafe0001
    assert np.array_equal(decoded, words)
    for bad in (b"", reply[:-1], reply[:15], b"\0" + reply[1:], etherbone.encode_probe(),
                etherbone.encode_read(1, 0, 1), reply[:2] + b"\x12" + reply[3:]):
        assert etherbone.decode_reply(bad) is None
    assert not etherbone.is_probe_reply(reply)
    assert not etherbone.is_probe_reply(b"Not")


@pytest.mark.parametrize("depth", [4, 16, 64, 256])
def test_etherbone_respects_the_gateware_buffer(device, depth):
    words = random_words(500)
    with EtherboneServer(device, buffer_depth=depth) as server, \
         Etherbone(server.ip, server.port, buffer_depth=depth) as transport:
        transport.write_words(RAM_BASE, words)
        assert np.array_equal(transport.read_words(RAM_BASE, 500), words)
        assert transport.batch_words == depth//2 - 1
        assert server.counts["writes"] == -(-500//transport.batch_words)


@pytest.mark.parametrize("depth", [3, 257])
def test_etherbone_buffer_out_of_range(depth):
    with pytest.raises(ValueError, match=f"buffer_depth must be from 4 to 256, is {depth}."):
        Etherbone("127.0.0.1", buffer_depth=depth)


def test_etherbone_needs_an_address_or_a_socket():
    with pytest.raises(ValueError, match="ip must be an address where no sock is given, is None."):
        Etherbone()


@pytest.mark.parametrize("seed", range(4))
def test_etherbone_on_a_bad_network(device, seed):
    words = random_words(5000, seed)
    with EtherboneServer(device, seed, loss=0.1, duplicate=0.1, late=0.1) as server, \
         Etherbone(server.ip, server.port, timeout=0.02, retries=20) as transport:
        transport.write_words(RAM_BASE, words)
        assert np.array_equal(transport.read_words(RAM_BASE, len(words)), words)
        for count in ("lost", "duplicated", "late"):
            assert server.counts[count], count
        assert transport.statistics.timeouts and transport.statistics.rewrites and transport.statistics.ignored
    assert np.array_equal(stored(device, words), words)


def test_etherbone_writes_again_what_was_damaged(device):
    words = random_words(5000)
    with EtherboneServer(device, flip=0.2) as server, Etherbone(server.ip, server.port) as transport:
        transport.write_words(RAM_BASE, words)
        assert server.counts["flipped"] == transport.statistics.rewrites > 0
    assert np.array_equal(stored(device, words), words)


def test_etherbone_takes_an_answer_to_an_earlier_request(device):
    """All answers come later than the host waits: without accepting those to earlier requests it would never end."""
    words = random_words(300)
    with EtherboneServer(device, late=1, delay=0.05) as server, \
         Etherbone(server.ip, server.port, timeout=0.005) as transport:
        transport.write_words(RAM_BASE, words)
        assert np.array_equal(transport.read_words(RAM_BASE, 300), words)
        assert transport.statistics.timeouts


def test_etherbone_repeats_within_a_bound(device):
    with EtherboneServer(device) as server, Etherbone(server.ip, server.port, timeout=0.01, retries=3) as transport:
        server.loss = 1
        with pytest.raises(TransportTimeout, match=r"No answer from 127.0.0.2:\d+ to 4 requests for address 0x4000000"):
            transport.read_words(RAM_BASE, 1)
        with pytest.raises(TransportTimeout, match="check cable and power"):
            transport.write_words(RAM_BASE, [1])
        server.loss = 0
        time.sleep(0.1)
        assert transport.read_words(RAM_BASE, 1)[0] == device.ram[0]


def test_etherbone_ignores_strange_datagrams(device):
    with EtherboneServer(device) as server, Etherbone(server.ip, server.port) as transport:
        peer = transport._socket.getsockname()
        for strange in (b"", b"garbage", etherbone.encode_write(0x1234, random_words(1)), etherbone.encode_probe()):
            server.socket.sendto(strange, peer)
        assert np.array_equal(transport.read_words(RAM_BASE, 10), device.ram[:10])
        assert transport.statistics.ignored == 4


def test_etherbone_probe_is_repeated(device):
    server = EtherboneServer(device)
    late   = threading.Timer(0.1, server.__enter__)
    late.start()
    with Etherbone(server.ip, server.port, timeout=0.05) as transport:
        assert transport.read_words(RAM_BASE, 1)[0] == device.ram[0]
    late.join()
    server.__exit__()


def test_etherbone_nobody_there():
    with pytest.raises(TransportTimeout, match="No Etherbone device answers at 127.0.0.3:1234: check address"):
        Etherbone("127.0.0.3", timeout=0.01, retries=2)


def test_etherbone_port_taken():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(LinkError, match=f"Cannot use UDP port {port} on 127.0.0.1"):
            Etherbone("127.0.0.2", port)


def test_dead_simulation_is_not_waited_for(device):
    alive = True
    with EtherboneServer(device) as server, \
         Etherbone(server.ip, server.port, timeout=0.05, alive=lambda: alive) as transport:
        alive       = False
        server.loss = 1
        with pytest.raises(LinkError, match="The simulation ended"):
            transport.read_words(RAM_BASE, 1)
        assert transport.statistics.timeouts == 0

# UARTBone -----------------------------------------------------------------------------------------

def test_uart_on_a_bad_line(device):
    words = random_words(2000)
    with UARTBoneServer(device, seed=1, timeout=0.02, lose=0.1, garbage=0.1) as server, \
         UARTBone(server.port, timeout=0.05, retries=10, resync_time=0.06) as transport:
        transport.write_words(RAM_BASE, words)
        assert np.array_equal(stored(device, words), words)
        assert np.array_equal(transport.read_words(RAM_BASE, len(words)), words)
        assert server.counts["lost"] and server.counts["garbage"]
        assert transport.statistics.timeouts


def test_uart_silence(device):
    with UARTBoneServer(device, lose=1, timeout=0.01) as server, \
         UARTBone(server.port, timeout=0.02, retries=2, resync_time=0.02) as transport:
        with pytest.raises(TransportTimeout, match="to 3 requests for address 0x40000000: check the cable and the"):
            transport.read_words(RAM_BASE, 1)


def test_uart_finds_its_step_again_after_an_interruption(device):
    with UARTBoneServer(device) as server, UARTBone(server.port) as transport:
        transport._receive = lambda size, deadline: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            transport.read_words(RAM_BASE, 200)
        del transport._receive
        assert np.array_equal(transport.read_words(RAM_BASE, 10), device.ram[:10])


def test_uart_nobody_there():
    with pytest.raises(LinkError, match="Cannot open /dev/nonexistent .*check its name"):
        UARTBone("/dev/nonexistent")
    with pytest.raises(LinkError, match="Cannot open socket://127.0.0.1:1"):
        UARTBone("socket://127.0.0.1:1")


def test_uart_peer_gone(device):
    with UARTBoneServer(device) as server:
        transport = UARTBone(server.port, retries=0)
        transport.read_words(RAM_BASE, 1)
    with pytest.raises(LinkError):
        transport.read_words(RAM_BASE, 1)
    transport.close()


@pytest.mark.parametrize("baudrate, words", [(9600, 12), (115200, 144), (1_000_000, 255), (3_000_000, 255)])
def test_uart_batches_stay_below_the_gateware_timeout(monkeypatch, baudrate, words):
    monkeypatch.setattr(uartbone.serial, "serial_for_url", lambda *args, **options: None)
    transport = UARTBone("/dev/null", baudrate)
    assert transport.batch_words == words
    assert (len(uartbone.encode_write(0, random_words(words))))*transport.byte_time < uartbone.GATEWARE_TIMEOUT
