#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The interface of all transports: reads and writes of 32-bit words on the device's bus."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Self

import numpy as np

from numpy.typing import ArrayLike

from host.errors import LinkError

# Types --------------------------------------------------------------------------------------------

Meter = Callable[[int], None] # Called with bytes as they are moved.

# Statistics ---------------------------------------------------------------------------------------

@dataclass
class Statistics:
    """What a transport did since it was opened: bytes of payload, repetitions, and what that took on the wire."""
    read_bytes     : int = 0
    written_bytes  : int = 0
    verified_bytes : int = 0 # Written, read back and found equal.
    timeouts       : int = 0 # Requests repeated because no answer came.
    rewrites       : int = 0 # Batches written again because they read back differently.
    ignored        : int = 0 # Answers dropped: late, duplicate, or malformed.
    frames         : int = 0 # Sent and received; of a UART none.
    wire_bytes     : int = 0 # Sent and received: whole Ethernet frames but for preamble, check sequence and gap.

# Check --------------------------------------------------------------------------------------------

class Check(Enum):
    """How it is made sure that a batch was written."""
    ALL  = "all words are read back"
    LAST = "its last word is read back"
    NONE = "a word is read, a sign of life and of order"

# Transport ----------------------------------------------------------------------------------------

class Transport(ABC):
    """A link to the device's bus.

    Reads and writes are synchronous: when a call returns, its words have been transferred; when it raises, an unknown
    part of them has. A transport repeats what gets lost, so **a word may be written more than once**. That is harmless
    for memory, and for registers whose writes are absolute (the doorbell holds the number of all jobs so far, not
    "one more"); registers that count or push must not be written through a transport. And where a network delivers
    datagrams out of order, a copy may arrive after the call has returned: memory that the device writes while the host
    uses it should not be memory that the host has just written.

    Parameters
    ----------
    alive : Called on each time-out; False means that the device is gone for good (a simulation that ended), so that
            nobody waits for it any longer. None: assumed alive.

    Attributes
    ----------
    name       : "etherbone" or "uart".
    peer       : The other end, as messages name it.
    statistics : :class:`Statistics`.
    """
    name : str
    peer : str

    def __init__(self, alive: Callable[[], bool] | None = None):
        self.alive      = alive
        self.statistics = Statistics()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Interface ------------------------------------------------------------------------------------

    def read_words(self, address: int, count: int, progress: Meter | None = None) -> np.ndarray:
        """Words from `address` on, as a numpy.uint32 array.

        Parameters
        ----------
        address  : In bytes, a multiple of 4.
        count    : Number of words.
        progress : Called with the number of bytes of each batch that has come in.
        """
        self._check(address, count)
        words = np.zeros(count, np.uint32)
        if count:
            self._read(address, words, progress or _no_progress)
        self.statistics.read_bytes += 4*count
        return words

    def write_words(self, address: int, words: ArrayLike, readback: bool = True, progress: Meter | None = None) -> None:
        """Write `words` from `address` on.

        Parameters
        ----------
        address  : In bytes, a multiple of 4.
        words    : Anything numpy can turn into unsigned 32-bit integers.
        readback : Read every word back, and write again what differs. With False, for registers that need not read as
                   they were written, a lost or damaged write goes unnoticed: the caller must look for its effect.
        progress : Called with the number of bytes of each batch that is done.

        Raises
        ------
        IntegrityError : some words still differ after all retries.
        """
        words = _as_words(words)
        self._check(address, words.size)
        if words.size:
            self._write(address, words, Check.ALL if readback else Check.NONE, progress or _no_progress)
        self.statistics.written_bytes += words.nbytes
        if readback:
            self.statistics.verified_bytes += words.nbytes

    def load_words(self, address: int, words: ArrayLike, progress: Meter | None = None) -> None:
        """Write to memory as fast as the link allows; arguments as of :meth:`write_words`.

        Batches are acknowledged by their last words: one that got lost is noticed by it, and sent again. That is no
        proof: a last word may be what memory held before, and other words may be damaged. Whoever loads has the device
        compute a checksum of what it holds.

        Raises
        ------
        IntegrityError : the last word of a batch still differs after all retries.
        """
        words = _as_words(words)
        self._check(address, words.size)
        if words.size:
            self._write(address, words, Check.LAST, progress or _no_progress)
        self.statistics.written_bytes += words.nbytes

    def read_bytes(self, address: int, size: int, progress: Meter | None = None) -> bytes:
        """`size` bytes, a multiple of 4; as :meth:`read_words`."""
        if size % 4:
            raise ValueError(f"size must be a multiple of 4, is {size}.")
        return self.read_words(address, size//4, progress).astype("<u4").tobytes()

    def write_bytes(self, address: int, data: bytes, readback: bool = True, progress: Meter | None = None) -> None:
        """Write bytes, a multiple of 4 of them; as :meth:`write_words`."""
        self.write_words(address, _words_of(data), readback, progress)

    def load_bytes(self, address: int, data: bytes, progress: Meter | None = None) -> None:
        """Write bytes, a multiple of 4 of them; as :meth:`load_words`."""
        self.load_words(address, _words_of(data), progress)

    @abstractmethod
    def close(self) -> None:
        """Release the link. May be called twice."""

    # For Implementations --------------------------------------------------------------------------

    @abstractmethod
    def _read(self, address: int, words: np.ndarray, progress: Meter) -> None:
        """Fill the array `words` from `address` on."""

    @abstractmethod
    def _write(self, address: int, words: np.ndarray, check: Check, progress: Meter) -> None:
        """Write the array `words` from `address` on; `check` is a :class:`Check`."""

    def check_alive(self) -> None:
        """Raise LinkError when the device is known to be gone."""
        if self.alive is not None and not self.alive():
            raise LinkError("The simulation ended while the host was waiting for it: its log says why.")

    @staticmethod
    def _check(address: int, count: int) -> None:
        if address % 4 or not 0 <= address <= 2**32 - 4*count:
            raise ValueError(f"address must be a multiple of 4, all words below 2**32, is 0x{address:x} with {count} words.")


def _as_words(words: ArrayLike) -> np.ndarray:
    words = np.atleast_1d(np.asarray(words))
    if words.size and not (0 <= int(words.min()) and int(words.max()) < 2**32):
        raise ValueError(f"words must be from 0 to 2**32 - 1, are from {words.min()} to {words.max()}.")
    return words.astype(np.uint32)


def _words_of(data: bytes) -> np.ndarray:
    if len(data) % 4:
        raise ValueError(f"data must be of a multiple of 4 bytes, is of {len(data)}.")
    return np.frombuffer(data, "<u4")


def _no_progress(size: int) -> None:
    """What is called when the caller does not want to know."""
