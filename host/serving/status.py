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

WINDOW = 10.0 # Seconds, of whose jobs figures are.

# Status -------------------------------------------------------------------------------------------

class Recent:
    """Figures of the jobs of the last seconds: what has been added since the oldest snapshot that is kept."""
    def __init__(self, engine: ServingEngine):
        self.engine    = engine
        self.snapshots = deque([(time.monotonic(), 0, Figures())])
        self.lock      = threading.Lock()

    def __call__(self) -> tuple[float, int, Figures, Figures]:
        """(seconds, tokens generated in them, figures before, figures now)."""
        now     = time.monotonic()
        figures = deepcopy(self.engine.batch.figures)
        with self.lock:
            if now - self.snapshots[-1][0] > 0.2: # Several pages ask.
                self.snapshots.append((now, self.engine.generated_tokens, figures))
            while len(self.snapshots) > 2 and now - self.snapshots[1][0] > WINDOW:
                self.snapshots.popleft()
            start, tokens, before = self.snapshots[0]
            return now - start, self.engine.generated_tokens - tokens, before, figures


def machine_status(engine: ServingEngine, recent: Recent, name: str) -> dict[str, Any]:
    """All of it; shares are null where nothing was decoded."""
    model = engine.batch.model
    image = model.image
    info  = model.device.info
    seconds, tokens, before, now = recent()
    cycles  = now.decode_cycles  - before.decode_cycles
    peak    = cycles*(info.data_width//8)
    share   = lambda new, old: (new - old)/peak if peak else None
    decoded = now.decode_tokens - before.decode_tokens
    return {
        "model"   : name,
        "failure" : None if engine.failure is None else str(engine.failure),
        "device"  : {"clock_hz": info.clock_hz, "lanes": info.lanes, "data_width": info.data_width, "pass_tokens": image.program.pass_tokens},
        "texts"   : {"running": engine.running, "waiting": engine.waiting, "queue": engine.queue, "sessions": engine.batch.sessions, "total": engine.texts},
        "tokens"  : {"generated": engine.generated_tokens, "per_second": tokens/seconds if seconds else None,
            "per_second_of_clock": info.clock_hz*decoded/cycles if cycles else None, "cycles": cycles/decoded if decoded else None},
        "dram"    : {"read": share(now.decode_read, before.decode_read), "written": share(now.decode_written, before.decode_written)},
        "waits"   : {cause: (now.waits[cause] - before.waits[cause])/cycles if cycles else None for cause in CAUSES},
        "memory"  : {"size": info.data_size, "parts": [
            {"name": "weights and programs", "bytes": image.constant_bytes},
            {"name": "a pass's records",     "bytes": image.size - image.constant_bytes},
            {"name": "sessions",             "bytes": (SESSIONS + engine.batch.sessions)*image.session_bytes},
            {"name": "prompts and output",   "bytes": job_bytes(image)}]},
        "sessions" : [None if text is None else {"prompt": len(text.prompt), "tokens": len(text.tokens), "most": text.most} for text in engine.under_way()],
    }
