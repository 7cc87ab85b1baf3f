#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sessions that are kept in the device's memory for prompts that begin with the tokens that they have run."""

from collections import OrderedDict
from collections.abc import Sequence

# Sessions -----------------------------------------------------------------------------------------

class KeptSessions:
    """Which tokens have been run in which session. What was not used for longest goes first.

    Attributes
    ----------
    evicted  : How many have gone.
    reused   : Tokens that :meth:`find` has spared.
    """
    def __init__(self, addresses: Sequence[int]):
        self.evicted    = 0
        self.reused     = 0
        self._addresses = addresses
        self._free      = list(addresses)
        self._kept: OrderedDict[tuple[int, ...], int] = OrderedDict() # Tokens, and the session's address; the one used last at the end.

    @property
    def capacity(self) -> int:
        """Sessions that there is room for."""
        return len(self._addresses)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, tokens: Sequence[int]) -> tuple[int | None, int]:
        """(address, tokens that it has run) of the longest one that `tokens` go on from, by one token or more; (None, 0): there is none."""
        wanted = tuple(tokens)
        found  = max((kept for kept in self._kept if len(kept) < len(wanted) and kept == wanted[:len(kept)]), key=len, default=None)
        if found is None:
            return None, 0
        self._kept.move_to_end(found)
        self.reused += len(found)
        return self._kept[found], len(found)

    def room(self, tokens: Sequence[int]) -> int | None:
        """Address for the session of these tokens, to be told :meth:`keep` or :meth:`give_back`; None: they are kept already, or none can be. It
        may be that which was found last: a job may read and write the same."""
        if tuple(tokens) in self._kept:
            self._kept.move_to_end(tuple(tokens))
            return None
        if not self._free and self._kept:
            self._free.append(self._kept.popitem(last=False)[1])
            self.evicted += 1
        return self._free.pop() if self._free else None

    def keep(self, tokens: Sequence[int], address: int) -> None:
        """The session at an address of :meth:`room` has run these tokens."""
        self._kept[tuple(tokens)] = address

    def give_back(self, address: int) -> None:
        """The address of :meth:`room` was not used."""
        self._free.append(address)

    def clear(self) -> None:
        """What lies at all addresses is nothing."""
        self._kept.clear()
        self._free = list(self._addresses)
