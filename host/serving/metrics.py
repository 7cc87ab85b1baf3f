#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What a server tells Prometheus: made from the engine's and the device's counts when it asks."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from host.generate import device_summary
from host.serving.engine import ServingEngine

# Metrics ------------------------------------------------------------------------------------------

class EngineCollector:
    """Collects what a :class:`host.serving.engine.ServingEngine` has counted."""
    def __init__(self, engine: ServingEngine):
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        engine  = self.engine
        figures = engine.batch.figures
        info    = engine.batch.model.device.info
        link    = engine.batch.model.device.transport.statistics
        for name, text, value in (
            ("texts",            "Texts that were asked for.",                                        engine.texts),
            ("prompt_tokens",    "Tokens of their prompts.",                                          engine.prompt_tokens),
            ("reused_tokens",    "Tokens of prompts that were not run: a session was kept that had.", engine.batch.kept.reused),
            ("evicted_sessions", "Sessions that were kept, and made room for others.",                engine.batch.kept.evicted),
            ("generated_tokens", "Tokens that were generated.",                                       engine.generated_tokens),
            ("prefill_cycles",   "Clock cycles of the device that prompts took.",                     figures.prefill_cycles),
            ("decode_cycles",    "Clock cycles of the device that generated tokens took.",            figures.decode_cycles),
            ("decode_passes",    "Passes that decoded; each has a token of each text under way.",     figures.decode_passes),
            ("decode_read_bytes",    "Bytes of DRAM that they read.",                                 figures.decode_read),
            ("decode_written_bytes", "Bytes of DRAM that they wrote.",                                figures.decode_written),
            ("link_timeouts",    "Requests to the device that were repeated because no answer came.", link.timeouts),
            ("link_rewrites",    "Writes that were repeated because they read back differently.",     link.rewrites),
            ("link_ignored",     "Answers that were late, double or damaged.",                        link.ignored),
        ):
            yield CounterMetricFamily(f"mamba2_{name}", text, value=value)
        gauges: tuple[tuple[str, str, float], ...] = (
            ("waiting_texts", "Texts that have not begun.",                                            engine.waiting),
            ("running_texts", "Texts under way.",                                                      engine.running),
            ("sessions",      "Texts that can be under way at once.",                                  engine.batch.sessions),
            ("kept_sessions", "Sessions that are kept for prompts which go on from them.",             len(engine.batch.kept)),
            ("clock_hz",      "The device's clock.",                                                   info.clock_hz),
            ("dram_share",    "Of the bytes that DRAM can move, those of decoding; of all its cycles.", device_summary(figures, info)["dram_share"] or 0),
            ("healthy",       "1 unless the last job failed.",                                         engine.failure is None),
        )
        for name, text, now in gauges:
            yield GaugeMetricFamily(f"mamba2_{name}", text, value=now)


def registry_of(engine: ServingEngine) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    return registry
