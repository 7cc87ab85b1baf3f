#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the page shows of the machine: the last jobs' cycles and bytes, texts under way, and what lies in the memory. Ready for JSON."""

import threading
import time

from collections import deque
from copy import deepcopy
from typing import Any

from host.device.model import Figures, job_bytes
from host.serving.engine import ServingEngine

from model.image import SESSIONS

from operations.image import CAUSES

# Constants ----------------------------------------------------------------------------------------

WINDOW = 10.0 # Seconds, of which the tokens are counted, and whose jobs figures are of; of the last job, where none has ended in them.

# Status -------------------------------------------------------------------------------------------

class Recent:
    """What the last seconds brought, from what was there whenever it was asked for."""
    def __init__(self, engine: ServingEngine):
        self.engine  = engine
        self.lock    = threading.Lock()
        self.tokens  = deque([(time.monotonic(), 0)])
        self.figures = deque([(time.monotonic(), Figures())]) # Each time that a job had ended.

    @staticmethod
    def _drop(entries: deque[tuple[float, Any]], now: float) -> None:
        while len(entries) > 2 and now - entries[1][0] > WINDOW:
            entries.popleft()

    def __call__(self) -> tuple[float, Figures, Figures]:
        """(tokens a second, figures before the jobs, figures after them)."""
        now     = time.monotonic()
        figures = deepcopy(self.engine.batch.figures)
        with self.lock: # Several pages ask.
            if figures != self.figures[-1][1]:
                self.figures.append((now, figures))
            if now - self.tokens[-1][0] > 0.2:
                self.tokens.append((now, self.engine.generated_tokens))
            self._drop(self.figures, now)
            self._drop(self.tokens, now)
            seconds = self.tokens[-1][0] - self.tokens[0][0]
            rate    = (self.tokens[-1][1] - self.tokens[0][1])/seconds if seconds else 0.0
            return rate, self.figures[0][1], self.figures[-1][1]


def machine_status(engine: ServingEngine, recent: Recent, name: str) -> dict[str, Any]:
    """All of it; shares are null where nothing was decoded."""
    model = engine.batch.model
    image = model.image
    info  = model.device.info
    rate, before, now = recent()
    cycles  = now.decode_cycles  - before.decode_cycles
    peak    = cycles*(info.data_width//8)
    share   = lambda new, old: (new - old)/peak if peak else None
    decoded = now.decode_tokens - before.decode_tokens
    return {
        "model"   : name,
        "failure" : None if engine.failure is None else str(engine.failure),
        "device"  : {"clock_hz": info.clock_hz, "lanes": info.lanes, "data_width": info.data_width, "pass_tokens": image.program.pass_tokens},
        "texts"   : {"running": engine.running, "waiting": engine.waiting, "queue": engine.queue, "sessions": engine.batch.sessions, "total": engine.texts},
        "tokens"  : {"generated": engine.generated_tokens, "per_second": rate,
            "per_second_of_clock": info.clock_hz*decoded/cycles if cycles else None, "cycles": cycles/decoded if decoded else None},
        "dram"    : {"read": share(now.decode_read, before.decode_read), "written": share(now.decode_written, before.decode_written)},
        "waits"   : {cause: (now.waits[cause] - before.waits[cause])/cycles if cycles else None for cause in CAUSES},
        "memory"  : {"size": info.data_size, "parts": [
            {"name": "weights and programs", "bytes": image.constant_bytes},
            {"name": "a pass's records",     "bytes": image.size - image.constant_bytes},
            {"name": "sessions",             "bytes": (SESSIONS + engine.batch.sessions)*image.session_bytes},
            {"name": "kept sessions",        "bytes": engine.batch.kept.capacity*image.session_bytes},
            {"name": "prompts and output",   "bytes": job_bytes(image)}]},
        "kept"     : {"sessions": len(engine.batch.kept), "most": engine.batch.kept.capacity, "reused": engine.batch.kept.reused},
        "sessions" : [None if text is None else {"prompt": len(text.prompt), "tokens": len(text.tokens), "most": text.most} for text in engine.under_way()],
    }
