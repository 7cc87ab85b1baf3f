#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Progress bars of the commands."""

import sys

from tqdm import tqdm

from host.link.transport import Meter

# Progress -----------------------------------------------------------------------------------------

class Progress:
    """Shows bars with rate and time left on a terminal, nothing elsewhere; called as progress(what, done, total)."""
    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.what: str | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.bar is None or what != self.what:
            self.close()
            unit      = {"unit": "job"} if what == "jobs" else {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
            self.bar  = tqdm(desc=what, total=total, leave=False, file=sys.stderr, disable=None, **unit)
            self.what = what
        self.bar.update(done - self.bar.n)

    def meter(self, what: str, total: int) -> Meter:
        """A callable that takes the bytes of each batch."""
        done = 0
        def add(size: int) -> None:
            nonlocal done
            done += size
            self(what, done, total)
        return add

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = self.what = None
