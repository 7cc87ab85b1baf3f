#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""UARTBone, LiteX's Wishbone bridge on a serial line (litex.soc.cores.uart.Stream2Wishbone).

A command and its answer; integers are big endian, addresses count words, not bytes::

    write  0x01, number of words (1 to 255), address (4 bytes), the words
    read   0x02, number of words (1 to 255), address (4 bytes)              answer: the words

There is neither checksum nor acknowledgement. A write is therefore followed by a read of the same words, and counts as
done when that comes back equal. A read by itself is protected by nothing but the number of its bytes. Where memory is
loaded, several writes follow each other at once, and one read of the last word follows them: a byte too few or too many
in any of them moves all that comes after it. That is also the danger in it: what moves is taken for commands, and may be
written anywhere. A line that loses bytes wants a lower baud rate.

The bridge gives a command up 100 ms after its first byte, whatever state it is in. That is how the two ends find each
other again after a lost byte: the host stays silent for longer than that and drops what still comes in. It is also why
a batch must not take long: at low baud rates batches are shorter. The bridge has no receive buffer while it answers, so
the host sends nothing before the answer is complete.
"""

import struct
import time

from collections.abc import Callable

import numpy as np
import serial

from host.errors import IntegrityError, LinkError, TransportTimeout
from host.link.transport import Check, Meter, Transport

# Protocol -----------------------------------------------------------------------------------------

WRITE            = 0x01 # Of words one after the other.
READ             = 0x02
MAX_COUNT        = 255
COMMAND          = struct.Struct(">BBI")
BITS_PER_BYTE    = 10   # Start bit, 8 bits, stop bit.
GATEWARE_TIMEOUT = 0.1  # Seconds from a command's first byte.
LOADED_BATCHES   = 16   # Batches at once where memory is loaded.
DEFAULT_BAUDRATE = 115200


def encode_write(address: int, words: np.ndarray) -> bytes:
    """Command that writes `words` from `address` (in bytes) on."""
    return COMMAND.pack(WRITE, len(words), address//4) + words.astype(">u4").tobytes()


def encode_read(address: int, count: int) -> bytes:
    """Command that reads `count` words from `address` (in bytes) on."""
    return COMMAND.pack(READ, count, address//4)

# UARTBone -----------------------------------------------------------------------------------------

class UARTBone(Transport):
    """UARTBone over a serial port or a TCP socket.

    Parameters
    ----------
    port        : A serial port ("/dev/ttyUSB1", "COM3") or a URL pyserial knows ("socket://127.0.0.1:4321").
    baudrate    : As the gateware was built for. Without meaning for a socket.
    timeout     : Seconds to wait for an answer, beyond the time the bytes take on the line.
    retries     : Repetitions before giving up.
    resync_time : Seconds of silence after which the bridge is ready again: its 100 ms and a margin on a board, what it
                  takes to simulate 100 ms in a simulation.
    alive       : As for :class:`~host.link.transport.Transport`.
    serial_port : An open port, as pyserial's, instead of the one `port` names.
    clock       : Seconds, as by time.monotonic.

    Raises
    ------
    LinkError : the port cannot be opened.
    """
    name = "uart"

    def __init__(self, port: str, baudrate: int = DEFAULT_BAUDRATE, timeout: float = 0.5, retries: int = 5,
                 resync_time: float = 1.5*GATEWARE_TIMEOUT, alive: Callable[[], bool] | None = None,
                 serial_port: serial.SerialBase | None = None, clock: Callable[[], float] = time.monotonic):
        super().__init__(alive)
        self.peer        = port
        self.timeout     = timeout
        self.retries     = retries
        self.resync_time = resync_time
        self.clock       = clock
        is_socket        = "://" in port
        self.byte_time   = 0 if is_socket else BITS_PER_BYTE/baudrate
        self.batch_words = MAX_COUNT
        if self.byte_time: # At most half of what the bridge allows.
            self.batch_words = max(1, min(MAX_COUNT, int(GATEWARE_TIMEOUT/2/self.byte_time/4)))
        try:
            self._port = serial_port or serial.serial_for_url(port, baudrate=baudrate, timeout=0.05, write_timeout=5,
                **({} if is_socket else {"exclusive": True}))
        except (OSError, ValueError) as error: # SerialException is an OSError.
            raise LinkError(f"Cannot open {port} ({error}): check its name and that no other program, such as "
                "litex_term or litex_server, uses it.") from error
        self._in_step = True # No command is half sent or half answered.

    def close(self) -> None:
        self._port.close()

    # Batches --------------------------------------------------------------------------------------

    def _read(self, address: int, words: np.ndarray, progress: Meter) -> None:
        for i in range(0, len(words), self.batch_words):
            batch    = words[i:i + self.batch_words]
            batch[:] = self._exchange(b"", address + 4*i, len(batch))
            progress(batch.nbytes)

    def _write(self, address: int, words: np.ndarray, check: Check, progress: Meter) -> None:
        """With Check.ALL, where anything had to be written again all is read again, until a pass finds nothing: a
        command damaged in its address has written somewhere else."""
        rewrites = self.statistics.rewrites
        size     = self.batch_words*(LOADED_BATCHES if check is Check.LAST else 1)
        for i in range(0, len(words), size):
            self._write_batch(address + 4*i, words[i:i + size], check)
            progress(words[i:i + size].nbytes)
        for _ in range(self.retries):
            if check is not Check.ALL or self.statistics.rewrites == rewrites:
                return
            rewrites = self.statistics.rewrites
            for i in range(0, len(words), size):
                self._write_batch(address + 4*i, words[i:i + size], check, written=True)
        if self.statistics.rewrites != rewrites:
            raise IntegrityError(f"Of {words.nbytes} bytes from address 0x{address:08x} on, some differed each of "
                f"{self.retries} times all were read: check the line with a lower baud rate, and test the memory.")

    def _write_batch(self, address: int, words: np.ndarray, check: Check, written: bool = False) -> None:
        """Write and check; with `written` write only what differs, twice: a damaged answer is no damaged memory."""
        command = b"".join(encode_write(address + 4*i, words[i:i + self.batch_words])
            for i in range(0, len(words), self.batch_words))
        count   = len(words) if check is Check.ALL else 1
        first   = len(words) - 1 if check is Check.LAST else 0 # A word is read in any case, a sign of life.
        differs = 0
        for _ in range(self.retries + 1 + 2*written):
            back = self._exchange(command if differs >= 2*written else b"", address + 4*first, count)
            if check is Check.NONE or np.array_equal(back, words[first:first + count]):
                return
            if differs >= 2*written:
                self.statistics.rewrites += 1
            differs      += 1
            self._in_step = False # A byte too few and one too many look like that, too.
        at = int(np.flatnonzero(back != words[first:first + count])[0])
        raise IntegrityError(f"Address 0x{address + 4*(first + at):08x} reads 0x{back[at]:08x} after "
            f"0x{words[first + at]:08x} was written {self.retries + 1} times: check that it is RAM, and the line with a "
            "lower baud rate.")

    def _exchange(self, command: bytes, address: int, count: int) -> np.ndarray:
        """Send `command` and a read of `count` words from `address` on until the read is answered; return its words."""
        request = command + encode_read(address, count)
        for _ in range(self.retries + 1):
            if not self._in_step:
                self._resynchronize()
            self._in_step = False
            self._send(request)
            answer = self._receive(4*count, self.clock() + self.timeout + (len(request) + 4*count)*self.byte_time)
            if len(answer) == 4*count and not self._port.in_waiting:
                self._in_step = True
                return np.frombuffer(answer, ">u4").astype(np.uint32)
            self.check_alive()
            self.statistics.timeouts += 1
        raise TransportTimeout(f"No complete answer from {self.peer} to {self.retries + 1} requests for address "
            f"0x{address:08x}: check the cable and the baud rate, or reset the device.")

    # Bytes ----------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self.statistics.wire_bytes += len(data)
        try:
            self._port.write(data)
        except OSError as error:
            raise LinkError(f"Cannot send to {self.peer} ({error}): check the cable.") from error

    def _receive(self, size: int, deadline: float) -> bytes:
        """`size` bytes, or fewer at the deadline."""
        data = bytearray()
        try:
            while len(data) < size and self.clock() < deadline:
                data += self._port.read(size - len(data))
        except OSError as error:
            self.check_alive()
            raise LinkError(f"Cannot receive from {self.peer} ({error}): check the cable.") from error
        self.statistics.wire_bytes += len(data)
        return bytes(data)

    def _resynchronize(self) -> None:
        """Wait until the bridge has given up whatever it was doing, and drop what it still sent."""
        silent_since = self.clock()
        while self.clock() < silent_since + self.resync_time:
            self.statistics.ignored += len(self._receive(4096, self.clock() + self.resync_time/4))
            self.check_alive()
