#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Stages of a cluster on golden devices, without any link, and pipelines of them."""

import threading

from golden_session import GoldenSession

from host.cluster.driver import Pipeline, Stage
from host.cluster.stage import PassResult
from host.cluster.workers import ThreadWorker
from host.errors import LinkError

from operations.operations import JobFlag

# Stage --------------------------------------------------------------------------------------------

class GoldenStage:
    """As :class:`host.cluster.stage.StageDevice`.

    Attributes
    ----------
    fails_at : number of the pass that fails; None: none does.
    hangs_at : likewise, that does not end before `go_on` is set.
    """
    def __init__(self, model, layers, sessions, pass_tokens, **options):
        self.golden   = GoldenSession(model, pass_tokens, sessions=sessions, layers=layers, **options)
        self.runs     = []
        self.fails_at = self.hangs_at = None
        self.go_on    = threading.Event()
        self.closed   = False

    def run(self, session, data, tokens, place, seed, zero, candidates):
        number = len(self.runs)
        self.runs.append((session, tokens, place))
        if number == self.hangs_at:
            self.go_on.wait(60)
        if number == self.fails_at:
            raise LinkError("the cable is out.")
        flags = (JobFlag.ZERO_STATE if zero else 0) | (JobFlag.CANDIDATES if candidates else 0)
        found = self.golden.run_pass(data, tokens, session, flags, place=place, seed=seed)
        return PassResult(found if candidates or not self.golden.image.device.has_head else b"", 100*tokens, 10, 1)

    def close(self):
        self.closed = True


def golden_pipeline(model, cuts=(), sessions=2, pass_tokens=2, seconds=60, name="board", **options):
    """A :class:`Pipeline` of stages that end before these layers."""
    ends   = (0, *cuts, model.n_layer)
    stages = [GoldenStage(model, layers, sessions, pass_tokens, **options) for layers in zip(ends, ends[1:])]
    made   = [Stage(ThreadWorker(f"{name} {n}", stage), dict.fromkeys(range(1, pass_tokens + 1), seconds), layers)
        for n, (stage, layers) in enumerate(zip(stages, zip(ends, ends[1:])))]
    return Pipeline(made, sessions, pass_tokens)
