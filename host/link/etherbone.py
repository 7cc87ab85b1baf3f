#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Etherbone over UDP, as LiteEth's gateware speaks it.

A datagram holds one record, either writes or reads. Integers are big endian::

    packet header   8 bytes  magic 0x4e6f, version << 4 | flags, address and port size (4 and 4 bytes), 4 zeros
    record header   4 bytes  flags (0), byte enable (0xf), number of writes, number of reads
    writes          base address, then one word each
    reads           base return address, then one address each

A read is answered by a datagram with as many writes; its base address is the read's base return address, which the
gateware does not interpret: it carries the tag by which replies are told apart. Writes are not answered at all: they are
followed by reads, which the gateware does after them. What is read tells whether the writes arrived (host/link/transfer.py).

(A record that holds both writes and reads would save a datagram, but must not be sent: LiteEth 2024.12 takes its base
return address for the first address to read, and its last address for the base address of further writes.)

LiteEth stores a record before it executes it, in a FIFO for `buffer_depth` words and two records. It loses count of the
records when the last word of one has to wait for room, and from then on takes data for addresses, or stops for good. So
does a record that does not fit by itself. The SoCs of this project have soc/etherbone.py, which cures that and says so by
the constant ETHERBONE_WINDOW. Other gateware never gets more than fits: a write with its read, or a read.
"""

import errno
import os
import socket
import struct
import time

from collections.abc import Callable, Iterator

import numpy as np

from host.errors import IntegrityError, LinkError, TransportTimeout
from host.link.congestion import RoundTrip, Window
from host.link.transfer import RECORD_OVERHEAD, Batch, Transfer
from host.link.transport import Check, Meter, Transport

from tools.errors import UsageError

# Protocol -----------------------------------------------------------------------------------------

MAGIC        = 0x4e6f
VERSION      = 1
SIZES        = 0x44   # 4-byte addresses, 4-byte data.
PROBE        = 1 << 0
PROBE_REPLY  = 1 << 1
BYTE_ENABLE  = 0xf
MAX_COUNT    = 255    # The counts of a record are 8 bits.
HEADER       = struct.Struct(">HBB4xBBBBI") # Packet header, record header, base address.
PROBE_HEADER = struct.Struct(">HBB8x")      # Packet header and 4 bytes, the least LiteEth answers.
DEFAULT_PORT = 1234

FRAME_OVERHEAD = 14 + 20 + 8 # Bytes of the Ethernet, IP and UDP headers.
FRAME_MINIMUM  = 60          # Bytes of the shortest frame, without its check sequence.

# What a link that is gone for a while looks like: a loss.
TRANSIENT = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENOBUFS)


def encode_write(address: int, words: np.ndarray) -> bytes:
    """Datagram that writes `words` from `address` on."""
    return HEADER.pack(MAGIC, VERSION << 4, SIZES, 0, BYTE_ENABLE, len(words), 0, address) + \
        words.astype(">u4").tobytes()


def encode_reads(tag: int, addresses: np.ndarray) -> bytes:
    """Datagram that reads the words at `addresses`, to be answered with `tag`."""
    return HEADER.pack(MAGIC, VERSION << 4, SIZES, 0, BYTE_ENABLE, 0, len(addresses), tag) + \
        addresses.astype(">u4").tobytes()


def encode_read(tag: int, address: int, count: int) -> bytes:
    """Datagram that reads `count` words from `address` on, to be answered with `tag`."""
    return encode_reads(tag, np.arange(address, address + 4*count, 4))


def encode_probe() -> bytes:
    """Datagram that asks whether an Etherbone device is there."""
    return PROBE_HEADER.pack(MAGIC, VERSION << 4 | PROBE, SIZES)


def is_probe_reply(datagram: bytes) -> bool:
    """Whether `datagram` answers a probe."""
    if len(datagram) < 8:
        return False
    magic, flags, _ = struct.unpack_from(">HBB", datagram)
    return magic == MAGIC and flags == VERSION << 4 | PROBE_REPLY


def decode_reply(datagram: bytes) -> tuple[int, np.ndarray] | None:
    """(tag, words) of a reply to a read; None for anything else."""
    if len(datagram) < HEADER.size:
        return None
    magic, flags, _, _, _, writes, reads, tag = HEADER.unpack_from(datagram)
    if magic != MAGIC or flags != VERSION << 4 or reads or len(datagram) < HEADER.size + 4*writes:
        return None
    return tag, np.frombuffer(datagram, ">u4", writes, HEADER.size).astype(np.uint32)

# Etherbone ----------------------------------------------------------------------------------------

class Etherbone(Transport):
    """Etherbone over UDP.

    Parameters
    ----------
    ip           : Address of the device.
    port         : UDP port of the device. LiteEth also answers to this port, so the host binds the same number.
    sock         : A UDP socket, bound and connected, instead of `ip` and `port`.
    buffer_depth : Words the gateware's record FIFO holds, LiteEthEtherbone's parameter of this name: 16 is LiteX's
                   default, 256 the most it allows. Never state more than there is. Without meaning with a window.
    window       : Words that may be on their way, the SoC's constant ETHERBONE_WINDOW; 0: gateware without
                   soc/etherbone.py, which gets one batch at a time.
    timeout      : Seconds to wait for the answer to a request before anything is known about how long it takes
                   (:class:`~host.link.congestion.RoundTrip`).
    retries      : Repetitions of a request before giving up; the last one waits for 8 times `timeout`, so that a link
                   may be gone for 30 times `timeout`.
    alive        : As for :class:`~host.link.transport.Transport`.
    clock        : Seconds, as by time.monotonic.

    Raises
    ------
    TransportTimeout : nobody answers the probe.
    LinkError        : the socket cannot be opened.
    """
    name = "etherbone"

    def __init__(self, ip: str | None = None, port: int = DEFAULT_PORT, sock: socket.socket | None = None,
                 buffer_depth: int = 256, window: int = 0, timeout: float = 0.5, retries: int = 8,
                 alive: Callable[[], bool] | None = None, clock: Callable[[], float] = time.monotonic):
        super().__init__(alive)
        if not 4 <= buffer_depth <= 256:
            raise ValueError(f"buffer_depth must be from 4 to 256, is {buffer_depth}.")
        if sock is None:
            if ip is None:
                raise ValueError("ip must be an address where no sock is given, is None.")
            sock = open_socket(ip, port)
        self.batch_words = MAX_COUNT if window else buffer_depth//2 - 1 # A write and its read fit in the FIFO together.
        self.window      = Window(self.batch_words + RECORD_OVERHEAD if window else 1, window)
        self.round_trip  = RoundTrip(timeout)
        self.retries     = retries
        self.clock       = clock
        self._socket     = sock
        self._tag        = int.from_bytes(os.urandom(4), "big") # Replies to an earlier process do not match.
        self.peer        = "{}:{}".format(*self._socket.getpeername()[:2])
        try:
            self._probe()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    # Batches --------------------------------------------------------------------------------------

    def _read(self, address: int, words: np.ndarray, progress: Meter) -> None:
        Transfer(self, self._batches(address, words), progress).run()

    def _write(self, address: int, words: np.ndarray, check: Check, progress: Meter) -> None:
        """With Check.ALL, where anything had to be written again all is read again, until a pass finds nothing: a
        datagram damaged in its address has written somewhere else."""
        rewrites = self.statistics.rewrites
        Transfer(self, self._batches(address, words, check), progress).run()
        for _ in range(self.retries):
            if check is not Check.ALL or self.statistics.rewrites == rewrites:
                return
            rewrites = self.statistics.rewrites
            Transfer(self, self._batches(address, words, check, written=True), lambda size: None).run()
        if self.statistics.rewrites != rewrites:
            raise IntegrityError(f"Of {words.nbytes} bytes from address 0x{address:08x} on, some differed each of "
                f"{self.retries} times all were read: check the network, and test the memory.")

    def _batches(self, address: int, words: np.ndarray, check: Check | None = None, written: bool = False) -> Iterator[Batch]:
        return (Batch(address + 4*i, words[i:i + self.batch_words], check, written)
            for i in range(0, len(words), self.batch_words))

    # For Transfer ---------------------------------------------------------------------------------

    def next_tag(self) -> int:
        """A tag no request has had."""
        self._tag = (self._tag + 1) % 2**32
        return self._tag

    def send_writes(self, address: int, words: np.ndarray) -> None:
        self._send_datagram(encode_write(address, words))

    def send_reads(self, tag: int, addresses: np.ndarray) -> None:
        self._send_datagram(encode_reads(tag, addresses))

    def receive(self, deadline: float) -> tuple[int, np.ndarray] | None:
        """The next reply to a read, as (tag, words), or None at the deadline."""
        while (datagram := self._receive_datagram(deadline)) is not None:
            reply = decode_reply(datagram)
            if reply is not None:
                return reply
            self.statistics.ignored += 1
        return None

    # Datagrams ------------------------------------------------------------------------------------

    def _send_datagram(self, datagram: bytes) -> None:
        self._count(datagram)
        try:
            self._socket.send(datagram)
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise LinkError(f"Cannot send to {self.peer} ({error}): check the network interface.") from error

    def _receive_datagram(self, deadline: float) -> bytes | None:
        """The next datagram, or None at the deadline."""
        while (left := deadline - self.clock()) > 0:
            self._socket.settimeout(left)
            try:
                datagram = self._socket.recv(2048)
                self._count(datagram)
                return datagram
            except TimeoutError:
                break
            except OSError as error:
                if error.errno not in TRANSIENT:
                    raise LinkError(f"Cannot receive from {self.peer} ({error}): check the network interface.") from error
                time.sleep(min(left, 0.01))
        return None

    def _count(self, datagram: bytes) -> None:
        self.statistics.frames     += 1
        self.statistics.wire_bytes += max(FRAME_OVERHEAD + len(datagram), FRAME_MINIMUM)

    def _probe(self) -> None:
        for repetitions in range(self.retries + 1):
            self._send_datagram(encode_probe())
            deadline = self.clock() + self.round_trip.patience(repetitions)
            while (datagram := self._receive_datagram(deadline)) is not None:
                if is_probe_reply(datagram):
                    return
            self.check_alive()
        raise TransportTimeout(f"No Etherbone device answers at {self.peer}: check address, cable and power, and that "
            "gateware with Etherbone is loaded.")


def local_address(ip: str, port: int) -> str:
    """This machine's address on the interface that leads to (ip, port)."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            route.connect((ip, port))
            return route.getsockname()[0]
    except OSError as error:
        raise LinkError(f"No route to {ip}:{port} ({error}): check the address and the network interface.") from error


def open_socket(ip: str, port: int, connect: bool = True) -> socket.socket:
    """A UDP socket to (ip, port), bound to the same port and only on the interface that leads there.

    Without `connect` it may send to any address there, a broadcast address among them.

    Raises
    ------
    UsageError : `port` is none.
    LinkError  : no interface leads there, or the port is taken.
    """
    if not 1 <= port <= 65535:
        raise UsageError(f"UDP port must be an integer from 1 to 65535, is {port}.")
    local = local_address(ip, port)
    sock  = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, not connect)
        sock.bind((local, port))
        if connect:
            sock.connect((ip, port))
    except OSError as error:
        sock.close()
        raise LinkError(f"Cannot use UDP port {port} on {local} ({error}): another host program, or litex_server, may "
            "be using it; end that first.") from error
    return sock
