#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Many batches of words on their way over a link that loses, repeats, delays, re-orders and damages datagrams."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from host.errors import IntegrityError, TransportTimeout
from host.link.transport import Check, Meter

if TYPE_CHECKING: # Which itself imports this file.
    from host.link.etherbone import Etherbone

# Constants ----------------------------------------------------------------------------------------

RECORD_OVERHEAD = 4  # Words of a datagram besides its list.
MOST_ASKED      = 16 # Batches that one request acknowledges,
PASSED          = 2  # and how many later requests may be answered before it counts as lost.

# Batch, Request -----------------------------------------------------------------------------------

class Batch:
    """One record's worth of words: to be read, or to be written and checked.

    Parameters
    ----------
    words   : A view: where to put what is read, or what is to be written.
    check   : :class:`~host.link.transport.Check` of a write; None: a read.
    written : Nothing is sent unless memory differs, twice: a damaged answer is no damaged memory.
    """
    __slots__ = ("address", "words", "check", "written", "doubted", "waiting", "done", "sent", "asked", "timeouts",
        "rewrites")

    def __init__(self, address: int, words: np.ndarray, check: Check | None = None, written: bool = False):
        self.address  = address
        self.words    = words
        self.check    = check
        self.written  = written or check is None
        self.doubted  = not written
        self.waiting  = True # To be sent.
        self.done     = False
        self.sent     = 0    # The number under which it was last sent,
        self.asked    = 0    # and the one of the last request for it.
        self.timeouts = 0
        self.rewrites = 0

    @property
    def size(self) -> int:
        """Words it takes on its way."""
        count = len(self.words) + RECORD_OVERHEAD
        return 2*count if self.check is Check.ALL else count

    @property
    def span(self) -> slice:
        """The words that are read, of all."""
        if self.check is Check.LAST:
            return slice(len(self.words) - 1, len(self.words))
        return slice(0, 1 if self.check is Check.NONE else len(self.words))

    def take(self, words: np.ndarray) -> bool:
        """Take what was read; whether it is what it should be."""
        if self.check is None:
            self.words[:] = words
            return True
        return self.check is Check.NONE or np.array_equal(words, self.words[self.span])


class Request:
    """A read record on its way: of the words of a batch, or of a word of each of several."""
    __slots__ = ("batches", "counts", "number", "time", "deadline", "passed")

    def __init__(self, batches: Sequence[Batch], number: int, time: float, deadline: float):
        self.batches  = batches
        self.counts   = [batch.span.stop - batch.span.start for batch in batches]
        self.number   = number
        self.time     = time
        self.deadline = deadline
        self.passed   = 0 # Later requests that were answered.

# Transfer -----------------------------------------------------------------------------------------

class Transfer:
    """Carries out batches, as many at a time as the window allows.

    Write records are followed by requests that read words of each, which the device does after the writes before them. An
    answer tells which were lost: these alone are sent again. A request that is not answered is sent again with a new tag;
    a late answer to the old one counts all the same.

    Parameters
    ----------
    link     : :class:`~host.link.etherbone.Etherbone`: its datagrams, window and time-outs.
    batches  : The :class:`Batch` objects, in order.
    progress : Called with the bytes of each batch that is done.
    """
    def __init__(self, link: "Etherbone", batches: Iterable[Batch], progress: Meter):
        self.link     = link
        self.progress = progress
        self.waiting  = deque(batches)
        self.left     = len(self.waiting)
        self.flying   = 0  # Words on their way.
        self.unasked: list[Batch] = [] # Batches sent, with no request after them.
        self.requests: dict[int, Request] = {} # By tag, oldest first,
        self.expired: dict[int, Request]  = {} # and those that were repeated.
        self.number   = 0  # Of the last thing sent.

    def run(self) -> None:
        while self.left:
            self._fill()
            reply = self.link.receive(min(request.deadline for request in self.requests.values()))
            if reply is not None:
                self._take(*reply)
            self._expire()

    # Sending --------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Send what the window allows, and ask for it."""
        link = self.link
        while self.waiting and (not self.flying or self.flying + self.waiting[0].size <= link.window.size):
            batch = self.waiting.popleft()
            batch.waiting = False
            self.flying  += batch.size
            self.number  += 1
            batch.sent    = self.number
            if not batch.written:
                link.send_writes(batch.address, batch.words)
            self.unasked.append(batch)
            if batch.check in (None, Check.ALL) or len(self.unasked) >= self._group(batch):
                self._ask_unasked()
        if self.unasked and (not self.requests or not self.waiting):
            self._ask_unasked()

    def _group(self, batch: Batch) -> int:
        """Batches to ask for at once: twice a window."""
        return max(1, min(MOST_ASKED, int(self.link.window.size)//(2*batch.size)))

    def _ask_unasked(self) -> None:
        batches, self.unasked = self.unasked, []
        self._ask(batches)

    def _ask(self, batches: Sequence[Batch]) -> None:
        link = self.link
        self.number += 1
        for batch in batches:
            batch.asked = self.number
        addresses = [np.arange(batch.span.start, batch.span.stop)*4 + batch.address for batch in batches]
        now       = link.clock()
        patience  = link.round_trip.patience(max(batch.timeouts for batch in batches))
        tag       = link.next_tag()
        self.requests[tag] = Request(batches, self.number, now, now + patience)
        link.send_reads(tag, np.concatenate(addresses))

    # Answers --------------------------------------------------------------------------------------

    def _take(self, tag: int, words: np.ndarray) -> None:
        """Take an answer."""
        link    = self.link
        request = self.requests.get(tag) or self.expired.get(tag)
        if request is None or len(words) != sum(request.counts):
            link.statistics.ignored += 1
            return
        self.requests.pop(tag, None)
        self.expired.pop(tag, None)
        link.round_trip.sample(link.clock() - request.time)
        for other in self.requests.values():
            other.passed += other.number < request.number
        at, doubtful = 0, []
        for batch, count in zip(request.batches, request.counts):
            part = words[at:at + count]
            at  += count
            if batch.done or batch.waiting:
                continue
            if batch.take(part):
                self._finish(batch)
            elif batch.sent > request.number or batch.asked > request.number:
                pass # It was sent, or asked for, since: that answer is still to come.
            elif not batch.doubted:
                batch.doubted = True
                doubtful.append(batch)
            else:
                self._note_rewrite(batch, part)
                self._send_again(batch)
        if doubtful:
            self._ask(doubtful)

    def _finish(self, batch: Batch) -> None:
        batch.done   = True
        self.left   -= 1
        self.flying -= batch.size
        self.link.window.acknowledged(batch.size)
        self.progress(4*len(batch.words))

    def _send_again(self, batch: Batch) -> None:
        self.link.window.lost(batch.sent, self.number)
        self.flying  -= batch.size
        batch.waiting = True
        batch.written = batch.check is None
        self.waiting.appendleft(batch)

    def _note_rewrite(self, batch: Batch, words: np.ndarray) -> None:
        link = self.link
        link.statistics.rewrites += 1
        batch.rewrites           += 1
        if batch.rewrites > link.retries:
            expected = batch.words[batch.span]
            at       = int(np.flatnonzero(words != expected)[0])
            address  = batch.address + 4*(batch.span.start + at)
            raise IntegrityError(f"Address 0x{address:08x} reads 0x{words[at]:08x} after 0x{expected[at]:08x} was "
                f"written {batch.rewrites} times: check that it is RAM, and test the memory.")

    # Time-outs ------------------------------------------------------------------------------------

    def _expire(self) -> None:
        """Repeat requests that wait for too long, or that later ones have passed."""
        now = self.link.clock()
        for tag, request in list(self.requests.items()):
            if now < request.deadline and request.passed < PASSED:
                continue
            self.expired[tag] = self.requests.pop(tag)
            batches = [batch for batch in request.batches
                if not batch.done and not batch.waiting and batch.asked == request.number]
            if not batches:
                continue
            self.link.window.lost(request.number, self.number)
            self._note_timeout(batches, counts=now >= request.deadline)
            if batches[0].check is Check.NONE: # Nothing tells whether the write was lost.
                for batch in batches:
                    self._send_again(batch)
            else:
                self._ask(batches)

    def _note_timeout(self, batches: Sequence[Batch], counts: bool) -> None:
        link = self.link
        link.check_alive()
        link.statistics.timeouts += 1
        for batch in batches:
            batch.timeouts += counts
            if batch.timeouts > link.retries:
                raise TransportTimeout(f"No answer from {link.peer} to {batch.timeouts} requests for address "
                    f"0x{batch.address:08x}: check cable and power, or reset the device.")
