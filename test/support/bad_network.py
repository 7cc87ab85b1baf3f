#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Bad links, by seeded schedule: before a real socket, and before a device in software, whose time is only counted.

The device in software is written from the gateware's side (soc/etherbone.py, LiteX's Stream2Wishbone) and shares no code
with ``host/``. Nothing here knows of UDP's checksum: what is damaged arrives, as it would where that fails.
"""

import heapq
import random
import struct
import time

from collections import Counter, deque

import numpy as np

# Faults -------------------------------------------------------------------------------------------

class Faults:
    """What happens to each datagram, in both directions.

    Parameters
    ----------
    loss, duplicate, reorder, corrupt, truncate : Share of datagrams that are lost; come twice; come up to `delay` seconds
                                                  later than those sent after them; have a byte changed; are cut short.
    """
    def __init__(self, seed=0, loss=0, duplicate=0, reorder=0, corrupt=0, truncate=0, delay=0.002):
        self.random = random.Random(seed)
        self.shares = {"lost": loss, "duplicated": duplicate, "reordered": reorder, "corrupted": corrupt,
            "truncated": truncate}
        self.delay  = delay
        self.counts = Counter()

    def carry(self, datagram):
        """[(seconds later, datagram)] of what arrives."""
        happens = {name: self.random.random() < share for name, share in self.shares.items()}
        self.counts.update(happens)
        if happens["lost"]:
            return []
        if happens["corrupted"]:
            at = self.random.randrange(len(datagram))
            datagram = datagram[:at] + bytes([datagram[at] ^ self.random.randrange(1, 256)]) + datagram[at + 1:]
        if happens["truncated"]:
            datagram = datagram[:self.random.randrange(len(datagram))]
        late = self.random.uniform(0, self.delay) if happens["reordered"] else 0
        return [(late, datagram)] + [(self.random.uniform(0, self.delay), datagram)]*happens["duplicated"]


class BadSocket:
    """A connected UDP socket, with :class:`Faults` in both directions."""
    def __init__(self, sock, faults):
        self.sock    = sock
        self.faults  = faults
        self.held    = [] # (due time, order, outwards, datagram).
        self.order   = 0
        self.timeout = None

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def settimeout(self, timeout):
        self.timeout = timeout

    def send(self, datagram):
        self._carry(datagram, outwards=True)

    def recv(self, size):
        deadline = time.monotonic() + self.timeout
        while True:
            now = time.monotonic()
            while self.held and self.held[0][0] <= now:
                _, _, outwards, datagram = heapq.heappop(self.held)
                if not outwards:
                    return datagram
                self.sock.send(datagram)
            if now >= deadline:
                raise TimeoutError
            self.sock.settimeout(max(min([deadline, *(entry[0] for entry in self.held[:1])]) - now, 1e-6))
            try:
                self._carry(self.sock.recv(size), outwards=False)
            except TimeoutError:
                pass

    def _carry(self, datagram, outwards):
        for late, data in self.faults.carry(datagram):
            if outwards and not late:
                self.sock.send(data)
            else:
                self.order += 1
                heapq.heappush(self.held, (time.monotonic() + late, self.order, outwards, data))

# Memory -------------------------------------------------------------------------------------------

class Memory:
    """A bus with RAM. Elsewhere reads give all ones, and writes are counted."""
    def __init__(self, size, base=0x4000_0000, seed=1):
        self.base  = base
        self.words = np.random.default_rng(seed).integers(0, 2**32, size//4, np.uint32) # Undefined, as DRAM is.
        self.stray = 0

    def read(self, addresses):
        at     = (addresses.astype(np.int64) - self.base)//4
        inside = (0 <= at) & (at < len(self.words))
        return np.where(inside, self.words[np.where(inside, at, 0)], 0xffff_ffff).astype(np.uint32)

    def write(self, address, words):
        at = (address - self.base)//4
        if 0 <= at <= len(self.words) - len(words):
            self.words[at:at + len(words)] = words
        else:
            self.stray += 1

# Etherbone ----------------------------------------------------------------------------------------

PREAMBLE_CHECK_GAP = 8 + 4 + 12


class EtherboneDevice:
    """A socket to a simulated network with a device that has soc/etherbone.py. Its time is that of `clock`.

    Parameters
    ----------
    memory    : :class:`Memory`.
    faults    : :class:`Faults`.
    rate      : Bits a second of the wire, each way.
    latency   : Seconds from one end to the other.
    write_time, read_time : Seconds the device takes for a word.
    depth     : Words of its buffer: what does not fit is lost.
    down      : [(from, to)]: times at which the wire carries nothing.
    """
    def __init__(self, memory, faults=None, rate=100e6, latency=100e-6, write_time=80e-9, read_time=220e-9, depth=1024,
                 down=()):
        self.memory     = memory
        self.faults     = faults or Faults()
        self.rate       = rate
        self.latency    = latency
        self.times      = (write_time, read_time)
        self.depth      = depth
        self.down       = down
        self.counts     = Counter()
        self.now        = 0.0
        self._events    = []      # (time, order, to the device, datagram).
        self._order     = 0
        self._free      = [0.0]*2 # Time at which the wire to host and device is free,
        self._idle      = 0.0     # and at which the device is.
        self._buffered  = deque() # (time at which it is done, words).

    def clock(self):
        return self.now

    # Socket ---------------------------------------------------------------------------------------

    def getpeername(self):
        return ("the model", 0)

    def close(self):
        pass

    def settimeout(self, timeout):
        self.timeout = timeout

    def send(self, datagram):
        self._transmit(datagram, self.now, inwards=True)

    def recv(self, size):
        deadline = self.now + self.timeout
        while self._events and self._events[0][0] <= deadline:
            self.now, _, inwards, datagram = heapq.heappop(self._events)
            if not inwards:
                return datagram
            self._arrive(datagram)
        self.now = deadline
        raise TimeoutError

    # Wire -----------------------------------------------------------------------------------------

    def _transmit(self, datagram, earliest, inwards):
        start = max(earliest, self._free[inwards])
        end   = start + 8*(max(42 + len(datagram), 60) + PREAMBLE_CHECK_GAP)/self.rate
        self._free[inwards] = end
        if any(low <= start < high for low, high in self.down):
            self.counts["down"] += 1
            return
        for late, data in self.faults.carry(datagram):
            self._order += 1
            heapq.heappush(self._events, (end + self.latency + late, self._order, inwards, data))

    # Device ---------------------------------------------------------------------------------------

    def _arrive(self, datagram):
        while self._buffered and self._buffered[0][0] <= self.now:
            self._buffered.popleft()
        words = len(datagram)//4
        if sum(count for _, count in self._buffered) + words > self.depth:
            self.counts["overflow"] += 1
        elif len(datagram) < 12 or len(datagram) % 4 or (datagram[:2], datagram[2] >> 4, datagram[3]) != (b"No", 1, 0x44):
            self.counts["malformed"] += 1
        elif datagram[2] & 1:
            self._answer(b"\x4e\x6f\x12\x44" + bytes(8), 0)
        else:
            self._execute(datagram, words)

    def _execute(self, datagram, words):
        writes, reads = datagram[10:12]
        if bool(writes) == bool(reads) or words != 4 + writes + reads:
            self.counts["malformed"] += 1
            return
        base, = struct.unpack_from(">I", datagram, 12)
        lists = np.frombuffer(datagram, ">u4", offset=16)
        if writes:
            self.memory.write(base, lists)
            self._take(words, writes*self.times[0])
        else:
            data = self.memory.read(lists).astype(">u4").tobytes()
            self._take(words, reads*self.times[1])
            self._answer(struct.pack(">HBB4xBBBBI", 0x4e6f, 0x10, 0x44, 0, 0xf, reads, 0, base) + data, words)

    def _take(self, words, seconds):
        self._idle = max(self._idle, self.now) + seconds
        self._buffered.append((self._idle, words))

    def _answer(self, datagram, words):
        self._transmit(datagram, max(self._idle, self.now), inwards=False)

# UARTBone -----------------------------------------------------------------------------------------

class UARTBoneDevice:
    """A serial port to a device with LiteX's Stream2Wishbone. Its time is that of `clock`.

    Parameters
    ----------
    lose, corrupt, insert : Share of bytes, in each direction, that get lost, are changed, or that garbage precedes.
    """
    TIMEOUT = 0.1 # Seconds from the first byte of a command.

    def __init__(self, memory, seed=0, lose=0, corrupt=0, insert=0, baudrate=3_000_000, latency=0.001):
        self.memory     = memory
        self.random     = random.Random(seed)
        self.shares     = (lose, corrupt, insert)
        self.byte_time  = 10/baudrate
        self.latency    = latency # Of the USB adapter.
        self.counts     = Counter()
        self.now        = 0.0
        self.timeout    = 0.05
        self._command   = bytearray()
        self._begun     = 0.0
        self._free      = 0.0      # Time at which the line to the device is free,
        self._busy      = 0.0      # and until which the device answers.
        self._answer    = deque()  # (time, byte).

    def clock(self):
        return self.now

    # Port -----------------------------------------------------------------------------------------

    def close(self):
        pass

    @property
    def in_waiting(self):
        return sum(when <= self.now for when, _ in self._answer)

    def write(self, data):
        for when, byte in self._line(data, max(self.now, self._free)):
            self._free = when
            self._take(byte, when)
        self.now = max(self.now, self._free)

    def read(self, size):
        deadline = self.now + self.timeout
        data     = bytearray()
        while len(data) < size and self._answer and self._answer[0][0] <= deadline:
            when, byte = self._answer.popleft()
            self.now   = max(self.now, when)
            data.append(byte)
        if len(data) < size:
            self.now = deadline
        return bytes(data)

    def _line(self, data, when):
        """(time, byte) of what comes out of the line."""
        lose, corrupt, insert = self.shares
        for byte in data:
            when += self.byte_time
            if self.random.random() < lose:
                self.counts["lost"] += 1
                continue
            if self.random.random() < insert:
                self.counts["inserted"] += 1
                yield when, self.random.randrange(256)
            if self.random.random() < corrupt:
                self.counts["corrupted"] += 1
                byte ^= 1 << self.random.randrange(8)
            yield when, byte

    # Bridge ---------------------------------------------------------------------------------------

    def _take(self, byte, when):
        if when < self._busy: # It answers: nothing stores what comes in.
            self.counts["unheard"] += 1
            return
        if self._command and when - self._begun > self.TIMEOUT:
            self.counts["given up"] += 1
            self._command.clear()
        if not self._command:
            self._begun = when
        command = self._command
        command.append(byte)
        if len(command) < 6:
            return
        kind, length, address = struct.unpack(">BBI", command[:6])
        length = length or 256
        if kind == 1:
            if len(command) % 4 == 2 and len(command) > 6:
                at = (len(command) - 10)//4
                self.memory.write(4*(address + at), np.frombuffer(bytes(command[-4:]), ">u4"))
                if at + 1 == length:
                    command.clear()
        else:
            command.clear()
            if kind == 2:
                data = self.memory.read(4*(address + np.arange(length))).astype(">u4").tobytes()
                self._answer.extend((time + self.latency, value) for time, value in self._line(data, when))
                self._busy = when + len(data)*self.byte_time
