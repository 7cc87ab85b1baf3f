#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Log probabilities of a text's tokens, from all logits of the device: its head's best candidates do not give the normaliser."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from host.device.model import JobOutput, ModelOnDevice

from model.exact.head import best
from model.exact.sampling import Draws

from tools.errors import CommandError

# Scores -------------------------------------------------------------------------------------------

class LogitsError(CommandError):
    """Logits are not finite: the model computes no text there."""


@dataclass(frozen=True)
class Score:
    """Of a token, natural logarithms of probabilities at temperature 1.

    logprob : its own; None: no token is before it.
    best    : (token, logprob) of the likeliest ones in its place, best first; of equal ones the lower number first.
    """
    token   : int
    logprob : float | None = None
    best    : tuple[tuple[int, float], ...] = ()


def token_scores(logits: np.ndarray, tokens: Sequence[int], count: int) -> list[Score]:
    """logits: float32 (T, vocabulary), finite; tokens: the T that came. The log softmax is computed in float64."""
    scores = []
    for row, token in zip(logits, tokens, strict=True):
        wide   = row.astype(np.float64)
        wide  -= wide.max()
        wide  -= np.log(np.exp(wide).sum())
        scores.append(Score(token, float(wide[token]), tuple((int(there), float(wide[there])) for there in best(row, count)[0])))
    return scores

# Scorer -------------------------------------------------------------------------------------------

class Scorer:
    """Scores a text, a job at a time, so that others' jobs may run between.

    Parameters
    ----------
    model   : :class:`host.device.model.ModelOnDevice`, loaded.
    tokens  : of the text.
    first   : number of the first token that is scored.
    count   : likeliest tokens of each place.
    session : address of one that the text may overwrite, until it is scored.
    source  : address of the session to begin with, which has run `done` tokens, fewer than `first`; None: zeros.
    """
    def __init__(self, model: ModelOnDevice, tokens: Sequence[int], first: int, count: int, session: int, source: int | None = None, done: int = 0):
        self.model   = model
        self.tokens  = list(tokens)
        self.first   = first
        self.count   = count
        self.session = session
        self.source  = source
        self.done    = done
        self.begun   = False

    @property
    def ended(self) -> bool:
        return self.begun and max(self.done + 1, self.first) >= len(self.tokens)

    def step(self) -> Iterator[JobOutput | Score]:
        """Run a job: yields its output, unless it gave logits, and the tokens' scores.

        Raises
        ------
        LogitsError : logits are not finite.
        DeviceError, DeviceTimeout : the job failed, or did not go on.
        """
        if not self.begun and self.first == 0:
            yield Score(self.tokens[0])
        self.begun = True
        if self.ended:
            return
        logits = self.done >= self.first - 1
        end    = min(self.done + self.model.logit_chunk, len(self.tokens) - 1) if logits else min(self.done + self.model.chunk, self.first - 1)
        part   = self.tokens[self.done:end]
        for item in self.model.generate(part, 0, self.source, self.session, Draws(), self.done, logits=logits):
            if isinstance(item, JobOutput) and not logits:
                yield item
        if logits:
            found  = self.model.read_logits(len(part))
            finite = np.isfinite(found).all(-1)
            if not finite.all():
                raise LogitsError(f"the logits of token {self.done + finite.argmin()} must be finite, are not.")
            yield from token_scores(found, self.tokens[self.done + 1:end + 1], self.count)
        self.source, self.done = self.session, end
