#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""UARTBone, LiteX's Wishbone bridge on a serial line (litex.soc.cores.uart.Stream2Wishbone).

A command and its answer; integers are big endian, addresses count words, not bytes::

    write  0x01, number of words (1 to 255), address (4 bytes), the words
    read   0x02, number of words (1 to 255), address (4 bytes)              answer: the words

There is neither checksum nor acknowledgement. A write is therefore followed by a read of the same words, and counts as
done when that comes back equal. A read by itself is protected by nothing but the number of its bytes.

The bridge gives a command up 100 ms after its first byte, whatever state it is in. That is how the two ends find each
other again after a lost byte: the host stays silent for longer than that and drops what still comes in. It is also why
a burst must not take long: at low baud rates bursts are shorter. The bridge has no receive buffer while it answers, so
the host sends nothing before the answer is complete.
"""

import struct
import time

import numpy as np
import serial

from host.errors import IntegrityError, LinkError, TransportTimeout
from host.transport import Transport

# Protocol -----------------------------------------------------------------------------------------

WRITE            = 0x01 # Burst, address counts up.
READ             = 0x02
MAX_COUNT        = 255
COMMAND          = struct.Struct(">BBI")
BITS_PER_BYTE    = 10   # Start bit, 8 bits, stop bit.
GATEWARE_TIMEOUT = 0.1  # Seconds from a command's first byte.
DEFAULT_BAUDRATE = 115200


def encode_write(address, words):
    """Command that writes `words` from `address` (in bytes) on."""
    return COMMAND.pack(WRITE, len(words), address//4) + words.astype(">u4").tobytes()


def encode_read(address, count):
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
    alive       : As for :class:`~host.transport.Transport`.

    Raises
    ------
    LinkError : the port cannot be opened.
    """
    name = "uart"

    def __init__(self, port, baudrate=DEFAULT_BAUDRATE, timeout=0.5, retries=5, resync_time=1.5*GATEWARE_TIMEOUT,
                 alive=None):
        super().__init__(alive)
        self.peer        = port
        self.timeout     = timeout
        self.retries     = retries
        self.resync_time = resync_time
        is_socket        = "://" in port
        self.byte_time   = 0 if is_socket else BITS_PER_BYTE/baudrate
        self.burst_words = MAX_COUNT
        if self.byte_time: # At most half of what the bridge allows.
            self.burst_words = max(1, min(MAX_COUNT, int(GATEWARE_TIMEOUT/2/self.byte_time/4)))
        try:
            self._port = serial.serial_for_url(port, baudrate=baudrate, timeout=0.05, write_timeout=5,
                **({} if is_socket else {"exclusive": True}))
        except (OSError, ValueError) as error: # SerialException is an OSError.
            raise LinkError(f"Cannot open {port} ({error}): check its name and that no other program, such as "
                "litex_term or litex_server, uses it.") from error
        self._in_step = True # No command is half sent or half answered.

    def close(self):
        self._port.close()

    # Bursts ---------------------------------------------------------------------------------------

    def _read(self, address, words, progress):
        for i in range(0, len(words), self.burst_words):
            burst    = words[i:i + self.burst_words]
            burst[:] = self._exchange(b"", address + 4*i, len(burst))
            progress(burst.nbytes)

    def _write(self, address, words, readback, progress):
        for i in range(0, len(words), self.burst_words):
            self._write_burst(address + 4*i, words[i:i + self.burst_words], readback)
            progress(4*len(words[i:i + self.burst_words]))

    def _write_burst(self, address, words, readback):
        """Without read-back, one word is read all the same: a sign of life, not a proof."""
        command = encode_write(address, words)
        for _ in range(self.retries + 1):
            back = self._exchange(command, address, len(words) if readback else 1)
            if not readback or np.array_equal(back, words):
                return
            self.statistics.rewrites += 1
            self._in_step = False # A byte too few and one too many look like that, too.
        at = int(np.flatnonzero(back != words)[0])
        raise IntegrityError(f"Address 0x{address + 4*at:08x} reads 0x{back[at]:08x} after 0x{words[at]:08x} was "
            f"written {self.retries + 1} times: check that it is RAM, and the line with a lower baud rate.")

    def _exchange(self, command, address, count):
        """Send `command` and a read of `count` words from `address` on until the read is answered; return its words."""
        request = command + encode_read(address, count)
        for _ in range(self.retries + 1):
            if not self._in_step:
                self._resynchronize()
            self._in_step = False
            self._send(request)
            answer = self._receive(4*count, time.monotonic() + self.timeout + (len(request) + 4*count)*self.byte_time)
            if len(answer) == 4*count and not self._port.in_waiting:
                self._in_step = True
                return np.frombuffer(answer, ">u4").astype(np.uint32)
            self._check_alive()
            self.statistics.timeouts += 1
        raise TransportTimeout(f"No complete answer from {self.peer} to {self.retries + 1} requests for address "
            f"0x{address:08x}: check the cable and the baud rate, or reset the device.")

    # Bytes ----------------------------------------------------------------------------------------

    def _send(self, data):
        try:
            self._port.write(data)
        except OSError as error:
            raise LinkError(f"Cannot send to {self.peer} ({error}): check the cable.") from error

    def _receive(self, size, deadline):
        """`size` bytes, or fewer at the deadline."""
        data = bytearray()
        try:
            while len(data) < size and time.monotonic() < deadline:
                data += self._port.read(size - len(data))
        except OSError as error:
            self._check_alive()
            raise LinkError(f"Cannot receive from {self.peer} ({error}): check the cable.") from error
        return bytes(data)

    def _resynchronize(self):
        """Wait until the bridge has given up whatever it was doing, and drop what it still sent."""
        silent_since = time.monotonic()
        while time.monotonic() < silent_since + self.resync_time:
            self.statistics.ignored += len(self._receive(4096, time.monotonic() + self.resync_time/4))
            self._check_alive()
