#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Many bursts of words on their way over a link that loses, repeats, delays, re-orders and damages datagrams."""

from collections import deque

import numpy as np

from host.errors import IntegrityError, TransportTimeout
from host.link.transport import Check

# Constants ----------------------------------------------------------------------------------------

RECORD_OVERHEAD = 4  # Words of a datagram besides its list.
MOST_ASKED      = 16 # Bursts that one request acknowledges,
PASSED          = 2  # and how many later requests may be answered before it counts as lost.

# Burst, Request -----------------------------------------------------------------------------------

class Burst:
    """One record's worth of words: to be read, or to be written and checked.

    Parameters
    ----------
    words   : A view: where to put what is read, or what is to be written.
    check   : :class:`~host.link.transport.Check` of a write; None: a read.
    written : Nothing is sent unless memory differs, twice: a damaged answer is no damaged memory.
    """
    __slots__ = ("address", "words", "check", "written", "doubted", "waiting", "done", "sent", "asked", "timeouts",
        "rewrites")

    def __init__(self, address, words, check=None, written=False):
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
    def size(self):
        """Words it takes on its way."""
        count = len(self.words) + RECORD_OVERHEAD
        return 2*count if self.check is Check.ALL else count

    @property
    def slice(self):
        """The words that are read, of all."""
        if self.check is Check.LAST:
            return slice(len(self.words) - 1, len(self.words))
        return slice(0, 1 if self.check is Check.NONE else len(self.words))

    def take(self, words):
        """Take what was read; whether it is what it should be."""
        if self.check is None:
            self.words[:] = words
            return True
        return self.check is Check.NONE or np.array_equal(words, self.words[self.slice])


class Request:
    """A read record on its way: of the words of a burst, or of a word of each of several."""
    __slots__ = ("bursts", "counts", "number", "time", "deadline", "passed")

    def __init__(self, bursts, number, time, deadline):
        self.bursts   = bursts
        self.counts   = [burst.slice.stop - burst.slice.start for burst in bursts]
        self.number   = number
        self.time     = time
        self.deadline = deadline
        self.passed   = 0 # Later requests that were answered.

# Transfer -----------------------------------------------------------------------------------------

class Transfer:
    """Carries out bursts, as many at a time as the window allows.

    Write records are followed by requests that read words of each, which the device does after the writes before them. An
    answer tells which were lost: these alone are sent again. A request that is not answered is sent again with a new tag;
    a late answer to the old one counts all the same.

    Parameters
    ----------
    link     : :class:`~host.link.etherbone.Etherbone`: its datagrams, window and time-outs.
    bursts   : The :class:`Burst` objects, in order.
    progress : Called with the bytes of each burst that is done.
    """
    def __init__(self, link, bursts, progress):
        self.link     = link
        self.progress = progress
        self.waiting  = deque(bursts)
        self.left     = len(self.waiting)
        self.flying   = 0  # Words on their way.
        self.unasked  = [] # Bursts sent, with no request after them.
        self.requests = {} # By tag, oldest first,
        self.expired  = {} # and those that were repeated.
        self.number   = 0  # Of the last thing sent.

    def run(self):
        while self.left:
            self._fill()
            reply = self.link.receive(min(request.deadline for request in self.requests.values()))
            if reply is not None:
                self._take(*reply)
            self._expire()

    # Sending --------------------------------------------------------------------------------------

    def _fill(self):
        """Send what the window allows, and ask for it."""
        link = self.link
        while self.waiting and (not self.flying or self.flying + self.waiting[0].size <= link.window.size):
            burst = self.waiting.popleft()
            burst.waiting = False
            self.flying  += burst.size
            self.number  += 1
            burst.sent    = self.number
            if not burst.written:
                link.send_writes(burst.address, burst.words)
            self.unasked.append(burst)
            if burst.check in (None, Check.ALL) or len(self.unasked) >= self._group(burst):
                self._ask_unasked()
        if self.unasked and (not self.requests or not self.waiting):
            self._ask_unasked()

    def _group(self, burst):
        """Bursts to ask for at once: twice a window."""
        return max(1, min(MOST_ASKED, int(self.link.window.size)//(2*burst.size)))

    def _ask_unasked(self):
        bursts, self.unasked = self.unasked, []
        self._ask(bursts)

    def _ask(self, bursts):
        link = self.link
        self.number += 1
        for burst in bursts:
            burst.asked = self.number
        addresses = [np.arange(burst.slice.start, burst.slice.stop)*4 + burst.address for burst in bursts]
        now       = link.clock()
        patience  = link.round_trip.patience(max(burst.timeouts for burst in bursts))
        tag       = link.next_tag()
        self.requests[tag] = Request(bursts, self.number, now, now + patience)
        link.send_reads(tag, np.concatenate(addresses))

    # Answers --------------------------------------------------------------------------------------

    def _take(self, tag, words):
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
        for burst, count in zip(request.bursts, request.counts):
            part = words[at:at + count]
            at  += count
            if burst.done or burst.waiting:
                continue
            if burst.take(part):
                self._finish(burst)
            elif burst.sent > request.number or burst.asked > request.number:
                pass # It was sent, or asked for, since: that answer is still to come.
            elif not burst.doubted:
                burst.doubted = True
                doubtful.append(burst)
            else:
                self._note_rewrite(burst, part)
                self._send_again(burst)
        if doubtful:
            self._ask(doubtful)

    def _finish(self, burst):
        burst.done   = True
        self.left   -= 1
        self.flying -= burst.size
        self.link.window.acknowledged(burst.size)
        self.progress(4*len(burst.words))

    def _send_again(self, burst):
        self.link.window.lost(burst.sent, self.number)
        self.flying  -= burst.size
        burst.waiting = True
        burst.written = burst.check is None
        self.waiting.appendleft(burst)

    def _note_rewrite(self, burst, words):
        link = self.link
        link.statistics.rewrites += 1
        burst.rewrites           += 1
        if burst.rewrites > link.retries:
            expected = burst.words[burst.slice]
            at       = int(np.flatnonzero(words != expected)[0])
            address  = burst.address + 4*(burst.slice.start + at)
            raise IntegrityError(f"Address 0x{address:08x} reads 0x{words[at]:08x} after 0x{expected[at]:08x} was "
                f"written {burst.rewrites} times: check that it is RAM, and test the memory.")

    # Time-outs ------------------------------------------------------------------------------------

    def _expire(self):
        """Repeat requests that wait for too long, or that later ones have passed."""
        now = self.link.clock()
        for tag, request in list(self.requests.items()):
            if now < request.deadline and request.passed < PASSED:
                continue
            self.expired[tag] = self.requests.pop(tag)
            bursts = [burst for burst in request.bursts
                if not burst.done and not burst.waiting and burst.asked == request.number]
            if not bursts:
                continue
            self.link.window.lost(request.number, self.number)
            self._note_timeout(bursts, counts=now >= request.deadline)
            if bursts[0].check is Check.NONE: # Nothing tells whether the write was lost.
                for burst in bursts:
                    self._send_again(burst)
            else:
                self._ask(bursts)

    def _note_timeout(self, bursts, counts):
        link = self.link
        link.check_alive()
        link.statistics.timeouts += 1
        for burst in bursts:
            burst.timeouts += counts
            if burst.timeouts > link.retries:
                raise TransportTimeout(f"No answer from {link.peer} to {burst.timeouts} requests for address "
                    f"0x{burst.address:08x}: check cable and power, or reset the device.")
