#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the page shows of the machine: the last jobs' cycles and bytes, texts under way, and what lies in the memory. Ready for JSON."""

import time

from collections.abc import Sequence
from typing import Any

from host.device.model import Figures, job_bytes
from host.generate import device_summary
from host.serving.engine import ServingEngine

from model.image import SESSIONS

from operations.image import CAUSES

# Constants ----------------------------------------------------------------------------------------

WINDOW = 2.0 # Seconds.

# Status -------------------------------------------------------------------------------------------

def recent(history: Sequence[tuple[float, float, Figures]], now: float) -> tuple[float, Figures]:
    """(decoded tokens a second, figures) of the jobs that ended in the last WINDOW seconds, or of the last one where none has.

    history : as of :class:`host.device.batch.DeviceBatch`.
    """
    last = len(history) - 1
    at   = max((n for n, (_, end, _) in enumerate(history) if end <= now - WINDOW), default=0) # The last one before these.
    if at == last:
        return 0.0, history[last][2] - history[max(last - 1, 0)][2]
    new = history[last][2] - history[at][2]
    return new.decode_tokens/(now - history[at + 1][0]), new


def machine_status(engine: ServingEngine, name: str) -> dict[str, Any]:
    """All of it; shares are null where nothing was decoded."""
    model = engine.batch.model
    image = model.image
    info  = model.device.info
    rate, figures = recent(list(engine.batch.history), time.monotonic())
    summary = device_summary(figures, info)
    cycles  = summary["cycles_per_token"]
    peak    = cycles and cycles*summary["peak_bytes_per_cycle"]
    return {
        "model"   : name,
        "failure" : None if engine.failure is None else str(engine.failure),
        "device"  : {"clock_hz": info.clock_hz, "lanes": info.lanes, "data_width": info.data_width, "pass_tokens": image.program.pass_tokens},
        "texts"   : {"running": engine.running, "waiting": engine.waiting, "queue": engine.queue, "sessions": engine.batch.sessions, "total": engine.texts},
        "tokens"  : {"generated": engine.generated_tokens, "per_second": rate,
            "per_second_of_clock": info.clock_hz/cycles if cycles else None, "cycles": cycles or None},
        "dram"    : {"read": summary["read_bytes"]/peak if peak else None, "written": summary["write_bytes"]/peak if peak else None},
        "waits"   : {cause: summary["wait_cycles"][cause]/cycles if cycles else None for cause in CAUSES},
        "memory"  : {"size": info.data_size, "parts": [
            {"name": "weights and programs", "bytes": image.constant_bytes},
            {"name": "a pass's records",     "bytes": image.size - image.constant_bytes},
            {"name": "sessions",             "bytes": (SESSIONS + engine.batch.sessions)*image.session_bytes},
            {"name": "kept sessions",        "bytes": engine.batch.kept.capacity*image.session_bytes},
            {"name": "prompts and output",   "bytes": job_bytes(image)}]},
        "kept"     : {"sessions": len(engine.batch.kept), "most": engine.batch.kept.capacity, "reused": engine.batch.kept.reused},
        "sessions" : [None if text is None else {"prompt": len(text.prompt), "tokens": len(text.tokens), "most": text.most} for text in engine.under_way()],
    }
