#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""How much may be on its way, and how long to wait for an answer: both learned from the answers that come, as by TCP."""

# Window -------------------------------------------------------------------------------------------

class Window:
    """Words that may be on their way.

    It doubles each round trip until something gets lost, then is halved, and grows by `least` each round trip (additive
    increase, multiplicative decrease).

    Parameters
    ----------
    least, most : Bounds, in words.
    """
    def __init__(self, least: int, most: int):
        self.least     = least
        self.most      = max(least, most)
        self.size: float = min(4*least, self.most)
        self._doubling = True
        self._halved   = 0

    def acknowledged(self, words: int) -> None:
        """So many words have arrived."""
        step      = words if self._doubling else words*self.least/self.size
        self.size = min(self.size + step, self.most)

    def lost(self, number: int, newest: int) -> None:
        """What was sent as `number` got lost; `newest` is the last number sent. One loss counts in a round trip."""
        if number >= self._halved:
            self.size      = max(self.size/2, self.least)
            self._doubling = False
            self._halved   = newest + 1

# Round Trip ---------------------------------------------------------------------------------------

class RoundTrip:
    """Time from a request to its answer, smoothed, and its deviation (Jacobson's estimator, RFC 6298).

    Parameters
    ----------
    timeout : Seconds to wait before the first answer has come. Later it is a quarter of that at least, and 8 times
              that at most.
    """
    def __init__(self, timeout: float):
        self.timeout   = timeout
        self.mean: float | None = None # Before the first answer.
        self.deviation = 0.0

    def sample(self, seconds: float) -> None:
        """An answer came after so many seconds."""
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds/2
        else:
            self.deviation += (abs(seconds - self.mean) - self.deviation)/4
            self.mean      += (seconds - self.mean)/8

    def patience(self, repetitions: int) -> float:
        """Seconds to wait for the answer to a request that was repeated so many times without one."""
        wait = self.timeout if self.mean is None else max(self.mean + 4*self.deviation, self.timeout/4)
        return min(wait*2**min(repetitions, 16), 8*self.timeout)
