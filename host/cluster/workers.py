#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Where a board's :class:`host.cluster.stage.StageDevice` is: a worker calls its methods, one after the other, in the order in which it was asked.

Here in a thread of this process; :mod:`host.cluster.actors` has Ray's.
"""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from host.cluster.errors import BoardError, board_error

# Workers ------------------------------------------------------------------------------------------

class Worker(Protocol):
    """Attributes: name, of the board."""
    name : str

    def submit(self, method: str, *arguments: Any) -> "Future[Any]":
        """Have a method be called, after those before it."""


class ThreadWorker:
    """Calls an object's methods in a thread."""
    def __init__(self, name: str, stage: Any):
        self.name     = name
        self.stage    = stage
        self.executor = ThreadPoolExecutor(1, f"board {name}")

    def submit(self, method: str, *arguments: Any) -> "Future[Any]":
        return self.executor.submit(getattr(self.stage, method), *arguments)

    def stop(self) -> None:
        """Close the board, as far as it can be reached."""
        self.executor.submit(self.stage.close)
        self.executor.shutdown(wait=True)

# Results ------------------------------------------------------------------------------------------

def gather(calls: Sequence[tuple[Worker, "Future[Any]"]], seconds: float, what: str) -> list[Any]:
    """The results of calls, in their order.

    Raises
    ------
    BoardError : one failed, or has none after so many seconds; what: it was to do.
    """
    waiting = {future for _, future in calls}
    while waiting:
        done, waiting = wait(waiting, seconds, FIRST_COMPLETED)
        for worker, future in calls:
            if future in done and (error := future.exception()) is not None:
                raise board_error(worker.name, error) from None
        if not done:
            name = next(worker.name for worker, future in calls if future in waiting)
            raise BoardError(name, f"waited {seconds:.0f} s for it to {what}.")
    return [future.result() for _, future in calls]
