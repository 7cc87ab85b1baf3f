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
gateware does not interpret: it carries the tag by which replies are told apart. Writes are not answered at all. A write
is therefore followed by a read of the same words, and counts as done when that comes back equal.

(A record that holds both writes and reads would save a datagram, but must not be sent: LiteEth 2024.12 takes its base
return address for the first address to read, and its last address for the base address of further writes.)

LiteEth stores a record before it executes it, in a FIFO for `buffer_depth` words and two records. What does not fit is
lost where the network cannot wait, and a record that does not fit by itself blocks the gateware for good. In the
simulation, where the network waits, three reads of 127 words sent at once block it, too, and eight of 10 words do not.
So the host never has more on its way than fits: a write with its read, or two reads.
"""

import os
import socket
import struct
import time

from collections import deque

import numpy as np

from host.errors import IntegrityError, LinkError, TransportTimeout
from host.transport import Transport

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

BUFFER_RECORDS = 2 # Records the gateware's FIFO holds.


def encode_write(address, words):
    """Datagram that writes `words` from `address` on."""
    return HEADER.pack(MAGIC, VERSION << 4, SIZES, 0, BYTE_ENABLE, len(words), 0, address) + \
        words.astype(">u4").tobytes()


def encode_read(tag, address, count):
    """Datagram that reads `count` words from `address` on, to be answered with `tag`."""
    addresses = np.arange(address, address + 4*count, 4, dtype=np.uint64).astype(">u4")
    return HEADER.pack(MAGIC, VERSION << 4, SIZES, 0, BYTE_ENABLE, 0, count, tag) + addresses.tobytes()


def encode_probe():
    """Datagram that asks whether an Etherbone device is there."""
    return PROBE_HEADER.pack(MAGIC, VERSION << 4 | PROBE, SIZES)


def is_probe_reply(datagram):
    """Whether `datagram` answers a probe."""
    if len(datagram) < 8:
        return False
    magic, flags, _ = struct.unpack_from(">HBB", datagram)
    return magic == MAGIC and flags == VERSION << 4 | PROBE_REPLY


def decode_reply(datagram):
    """(tag, words) of a reply to a read; None for anything else."""
    if len(datagram) < HEADER.size:
        return None
    magic, flags, _, _, _, writes, reads, tag = HEADER.unpack_from(datagram)
    if magic != MAGIC or flags != VERSION << 4 or reads or len(datagram) < HEADER.size + 4*writes:
        return None
    return tag, np.frombuffer(datagram, ">u4", writes, HEADER.size).astype(np.uint32)

# Burst --------------------------------------------------------------------------------------------

class Burst:
    """One record's worth of words on its way: a read, or a write with the read that confirms it."""
    def __init__(self, address, words, write=False, readback=False):
        self.address  = address
        self.words    = words    # A view: where to put what is read, or what is to be written.
        self.write    = write
        self.readback = readback
        self.tags     = []       # Of all reads sent for it; the last one is the current one.
        self.timeouts = 0
        self.rewrites = 0
        self.deadline = 0

    @property
    def read_count(self):
        """Words the read asks for. Without read-back it asks for one: a sign of life and of order, not a proof."""
        return len(self.words) if self.readback or not self.write else 1

    @property
    def records(self):
        return 2 if self.write else 1

    @property
    def buffered_words(self):
        """Words in the gateware's FIFO: those of each record and its base address."""
        return self.read_count + 1 + (len(self.words) + 1 if self.write else 0)

    def datagrams(self, tag):
        """What to send, in order, so that the answer comes with `tag`."""
        if self.write:
            yield encode_write(self.address, self.words)
        yield encode_read(tag, self.address, self.read_count)

# Etherbone ----------------------------------------------------------------------------------------

class Etherbone(Transport):
    """Etherbone over UDP.

    Parameters
    ----------
    ip           : Address of the device.
    port         : UDP port of the device. LiteEth also answers to this port, so the host binds the same number.
    sock         : A UDP socket, bound and connected, instead of `ip` and `port`.
    buffer_depth : Words the gateware's record FIFO holds, LiteEthEtherbone's parameter of this name; 256, the most it
                   allows, is what this project's SoCs have, 16 is LiteX's default. Never state more than there is.
    timeout      : Seconds to wait for the answer to a request; each repetition waits twice as long, up to 8 times.
    retries      : Repetitions before giving up.
    alive        : As for :class:`~host.transport.Transport`.

    Raises
    ------
    TransportTimeout : nobody answers the probe.
    LinkError        : the socket cannot be opened.
    """
    name = "etherbone"

    def __init__(self, ip=None, port=DEFAULT_PORT, sock=None, buffer_depth=256, timeout=0.5, retries=8, alive=None):
        super().__init__(alive)
        if not 4 <= buffer_depth <= 256:
            raise ValueError(f"buffer_depth = {buffer_depth} is not allowed: 4 to 256 is.")
        self.buffer_depth = buffer_depth
        self.burst_words  = min(MAX_COUNT, buffer_depth//2 - 1) # A write and its read fit in the FIFO together.
        self.timeout      = timeout
        self.retries      = retries
        self._socket      = sock or open_socket(ip, port)
        self._tag         = int.from_bytes(os.urandom(4), "big") # Replies to an earlier process do not match.
        self.peer         = "{}:{}".format(*self._socket.getpeername()[:2])
        try:
            self._probe()
        except BaseException:
            self.close()
            raise

    def close(self):
        self._socket.close()

    # Bursts ---------------------------------------------------------------------------------------

    def _read(self, address, words, progress):
        self._run(deque(Burst(address + 4*i, words[i:i + self.burst_words])
            for i in range(0, len(words), self.burst_words)), progress)

    def _write(self, address, words, readback, progress):
        self._run(deque(Burst(address + 4*i, words[i:i + self.burst_words], write=True, readback=readback)
            for i in range(0, len(words), self.burst_words)), progress)

    def _run(self, waiting, progress):
        """Carry out all bursts, as many at a time as the gateware can hold."""
        flying = {} # Burst by each of its tags.
        active = [] # Bursts in `flying`, oldest first.
        while waiting or active:
            while waiting and self._fits(active, waiting[0]):
                burst = waiting.popleft()
                active.append(burst)
                self._send(burst, flying)
            deadline = min(burst.deadline for burst in active)
            reply    = self._receive(deadline)
            if reply is None:
                for burst in active:
                    if time.monotonic() >= burst.deadline:
                        self._note_timeout(burst)
                        self._send(burst, flying)
                continue
            tag, words = reply
            burst = flying.get(tag)
            if burst is None or len(words) != burst.read_count:
                self.statistics.ignored += 1
                continue
            if burst.readback and not np.array_equal(words, burst.words):
                if tag == burst.tags[-1]: # Else: read before what was sent last; that answer is still to come.
                    self._note_rewrite(burst, words)
                    self._send(burst, flying)
                continue
            if not burst.write:
                burst.words[:] = words
            for tag in burst.tags:
                del flying[tag]
            active.remove(burst)
            progress(4*len(burst.words))

    def _fits(self, active, burst):
        """Whether the gateware can hold `burst` besides those on their way. Alone, any does."""
        words   = sum(other.buffered_words for other in active) + burst.buffered_words
        records = sum(other.records        for other in active) + burst.records
        return not active or (words <= self.buffer_depth and records <= BUFFER_RECORDS)

    def _note_timeout(self, burst):
        self._check_alive()
        self.statistics.timeouts += 1
        burst.timeouts           += 1
        if burst.timeouts > self.retries:
            raise TransportTimeout(f"No answer from {self.peer} to {burst.timeouts} requests for address "
                f"0x{burst.address:08x}: check cable and power, or reset the device.")

    def _note_rewrite(self, burst, words):
        self.statistics.rewrites += 1
        burst.rewrites           += 1
        if burst.rewrites > self.retries:
            at = int(np.flatnonzero(words != burst.words)[0])
            raise IntegrityError(f"Address 0x{burst.address + 4*at:08x} reads 0x{words[at]:08x} after 0x"
                f"{burst.words[at]:08x} was written {burst.rewrites} times: check that it is RAM, and test the memory.")

    # Datagrams ------------------------------------------------------------------------------------

    def _send(self, burst, flying):
        self._tag = (self._tag + 1) % 2**32
        burst.tags.append(self._tag)
        flying[self._tag] = burst
        for datagram in burst.datagrams(self._tag):
            self._send_datagram(datagram)
        burst.deadline = time.monotonic() + self._patience(burst.timeouts)

    def _patience(self, timeouts):
        return self.timeout*min(2**timeouts, 8)

    def _send_datagram(self, datagram):
        try:
            self._socket.send(datagram)
        except ConnectionRefusedError:
            pass # The answer to an earlier datagram: nobody listened then. Treated as a loss.
        except OSError as error:
            raise LinkError(f"Cannot send to {self.peer} ({error}): check the network interface.") from error

    def _receive_datagram(self, deadline):
        """The next datagram, or None at the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                return self._socket.recv(2048)
            except ConnectionRefusedError:
                time.sleep(min(left, 0.01)) # Nobody listens yet.
            except TimeoutError:
                break
            except OSError as error:
                raise LinkError(f"Cannot receive from {self.peer} ({error}): check the network interface.") from error
        return None

    def _receive(self, deadline):
        """The next reply to a read, or None at the deadline."""
        while (datagram := self._receive_datagram(deadline)) is not None:
            reply = decode_reply(datagram)
            if reply is not None:
                return reply
            self.statistics.ignored += 1
        return None

    def _probe(self):
        for timeouts in range(self.retries + 1):
            self._send_datagram(encode_probe())
            deadline = time.monotonic() + self._patience(timeouts)
            while (datagram := self._receive_datagram(deadline)) is not None:
                if is_probe_reply(datagram):
                    return
            self._check_alive()
        raise TransportTimeout(f"No Etherbone device answers at {self.peer}: check address, cable and power, and that "
            "gateware with Etherbone is loaded.")


def open_socket(ip, port):
    """A UDP socket to (ip, port), bound to the same port and only on the interface that leads there."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.connect((ip, port))
            local = route.getsockname()[0]
    except OSError as error:
        raise LinkError(f"No route to {ip}:{port} ({error}): check the address and the network interface.") from error
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((local, port))
        sock.connect((ip, port))
    except OSError as error:
        sock.close()
        raise LinkError(f"Cannot use UDP port {port} on {local} ({error}): another host program, or litex_server, may "
            "be using it; end that first.") from error
    return sock
