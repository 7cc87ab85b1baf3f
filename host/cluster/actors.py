#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Workers that are Ray actors, one for each board, in a Ray of this process' own: it is started with them, and ends with them.

An actor takes one of the resource `board`, of which there are as many as boards.
"""

import logging
import os
import signal
import threading

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from host.cluster.boards import Board
from host.cluster.stage import StageDevice

from tools import environment
from tools.errors import CommandError

# Constants ----------------------------------------------------------------------------------------

RESOURCE      = "board"
STORE_BYTES   = 78*2**20 # Of Ray's objects, its least. Images beyond that lie on disk while they are sent.
CLOSE_SECONDS = 10

SETTINGS = { # Ray reads these when it is imported, or started.
    "RAY_USAGE_STATS_ENABLED"            : "0", # It tells nobody that it is used.
    "RAY_worker_niceness"                : "0", # As the command itself: passes are waited for, and simulations are the actors' processes.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" : "0", # Its warning of a change to come, which does not concern actors without a GPU.
}

# Actors -------------------------------------------------------------------------------------------

class RayWorker:
    """A worker (host/cluster/workers.py) whose board is an actor's."""
    def __init__(self, name: str, actor: Any):
        self.name  = name
        self.actor = actor

    def submit(self, method: str, *arguments: Any) -> "Future[Any]":
        try:
            return getattr(self.actor, method).remote(*arguments).future()
        except Exception as error: # Ray's, of an actor that is known to be dead.
            future: Future[Any] = Future()
            future.set_exception(error)
            return future


@contextmanager
def ray_workers(boards: Sequence[Board]) -> Iterator[list[RayWorker]]:
    """Context manager: a worker for each board, none of which is opened. At the end no process is left.

    Raises
    ------
    UsageError   : Ray is not installed.
    CommandError : it does not start.
    """
    environment.require("cluster", "ray")
    os.environ.update(SETTINGS)
    import ray
    workers: list[RayWorker] = []
    handler = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(address="local", num_cpus=1, num_gpus=0, resources={RESOURCE: len(boards)}, object_store_memory=STORE_BYTES,
                include_dashboard=False, log_to_driver=False, configure_logging=True, logging_level=logging.ERROR)
        except Exception as error:
            raise CommandError(f"Ray does not start: {error}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler) # Ray's own would abort.
        kind    = ray.remote(num_cpus=0, resources={RESOURCE: 1}, max_restarts=0, max_task_retries=0)(StageDevice)
        workers = [RayWorker(board.name, kind.remote(board.name, board.options)) for board in boards]
        yield workers
    finally:
        wait([worker.submit("close") for worker in workers], CLOSE_SECONDS) # One that is dead, or does not answer, ends with Ray.
        ray.shutdown()
