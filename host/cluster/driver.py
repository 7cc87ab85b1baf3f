#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Texts that boards write, which run a model together stage by stage, or each by itself, or both: pipelines of boards.

::

    texts --> sessions of a pipeline --> stage 0 --> stage 1 --> ... --> candidates --> the next token, drawn here
                                            ^                                               |
                                            +-----------------------------------------------+

A token has to go through all stages before the next one of its text is known; so that all stages have work, each pipeline runs several texts at
once, and a prompt's passes follow each other through the stages. A stage has at most AHEAD passes waiting at its board, so that texts take turns.

A text's tokens depend on its prompt, how they are drawn, and their places alone. So where a board fails, the texts of its pipeline are run again
on another one, from their prompts and what has come of them; where there is none left, they end with the error, which names the board.
"""

import time

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from host.cluster.errors import BoardError, board_error
from host.cluster.stage import PassResult
from host.cluster.workers import Worker

from model.exact.decoder import check_tokens
from model.exact.sampling import Draws, sample
from model.machine import CANDIDATE

from tools.errors import CommandError, UsageError

# Constants ----------------------------------------------------------------------------------------

AHEAD = 2    # Passes at a board: one runs, one waits, so that it need not wait for this host.
POLL  = 0.05 # Seconds after which a text that was ended from outside is looked for.

# Types --------------------------------------------------------------------------------------------

@dataclass(eq=False)
class ClusterText:
    """A text: its prompt, up to `most` tokens that are generated after it, none of `stop_tokens`, and how these are drawn.

    ended : whether it has; set from outside, also by another thread, the text ends with what has come.
    error : why it ended early, if it did.
    runs  : how often it was begun.
    """
    prompt      : list[int]
    most        : int
    draws       : Draws               = Draws()
    stop_tokens : tuple[int, ...]     = ()
    tokens      : list[int]           = field(default_factory=list)
    ended       : bool                = False
    error       : CommandError | None = None
    runs        : int                 = 0


@dataclass
class Stage:
    """A board of a pipeline.

    worker  : reaches it.
    seconds : {tokens: after so many a pass has surely ended, or its board has said why not}.
    layers  : (first, end).
    """
    worker  : Worker
    seconds : dict[int, float]
    layers  : tuple[int, int]
    passes  : dict[int, int] = field(default_factory=dict) # By their tokens: how many,
    cycles  : dict[int, int] = field(default_factory=dict) # and their cycles.
    read    : int = 0
    written : int = 0
    waiting : "deque[_Pass]" = field(default_factory=deque)

    def count(self, tokens: int, result: PassResult) -> None:
        self.passes[tokens] = self.passes.get(tokens, 0) + 1
        self.cycles[tokens] = self.cycles.get(tokens, 0) + result.cycles
        self.read    += result.read
        self.written += result.written

    def cycles_per_pass(self, tokens: int = 1) -> float | None:
        """The mean of passes of so many tokens; None: there were none."""
        return self.cycles[tokens]/self.passes[tokens] if self.passes.get(tokens) else None


@dataclass(eq=False)
class _Session:
    """A text that a pipeline runs. slot: its number on the boards; sent: its tokens that are under way, or have been run."""
    text : ClusterText
    slot : int
    sent : int = 0


@dataclass
class _Pass:
    """Of a session: what is under way at a stage."""
    session    : _Session
    tokens     : int
    place      : int
    candidates : bool
    future     : "Future[Any]"
    start      : float # When it was the first one of those that wait there.


class Pipeline:
    """Boards that run a model together, and the texts they have.

    Parameters
    ----------
    stages      : [:class:`Stage`], first to last.
    sessions    : texts at once; of as many the boards have made room.
    pass_tokens : of a pass, at most.

    Attributes
    ----------
    failed : the :class:`BoardError` after which it runs nothing; None: it runs.
    """
    def __init__(self, stages: Sequence[Stage], sessions: int, pass_tokens: int):
        self.stages      = list(stages)
        self.pass_tokens = pass_tokens
        self.free        = list(range(sessions))
        self.sessions: list[_Session]  = []
        self.ready: deque[_Session]    = deque() # Those whose next tokens are known.
        self.failed: BoardError | None = None

    def begin(self, text: ClusterText) -> None:
        """Take a text; there is a free session."""
        session = _Session(text, self.free.pop(0))
        text.runs += 1
        self.sessions.append(session)
        self.ready.append(session)

    def _end(self, session: _Session) -> None:
        self.sessions.remove(session)
        self.free.append(session.slot)

    def feed(self) -> None:
        """Give the first stage passes."""
        while self.ready and len(self.stages[0].waiting) < AHEAD:
            session = self.ready.popleft()
            text    = session.text
            known   = (text.prompt + text.tokens)[session.sent:]
            part    = known[:self.pass_tokens]
            place   = session.sent
            session.sent += len(part)
            self._send(0, session, np.array(part, "<u4").tobytes(), len(part), place, len(part) == len(known))
            if len(part) < len(known):
                self.ready.append(session)

    def _send(self, number: int, session: _Session, data: bytes, tokens: int, place: int, candidates: bool) -> None:
        stage  = self.stages[number]
        last   = number == len(self.stages) - 1
        future = stage.worker.submit("run", session.slot, data, tokens, place, session.text.draws.seed, place == 0, candidates and last)
        stage.waiting.append(_Pass(session, tokens, place, candidates, future, time.monotonic()))

    def take(self) -> list[tuple[_Session, bytes]]:
        """Bring what is done on. Returns the candidates that have come: (session, bytes).

        Raises
        ------
        BoardError : a board failed, or did not answer in time.
        """
        found = []
        for number, stage in enumerate(self.stages):
            while stage.waiting and stage.waiting[0].future.done():
                run   = stage.waiting.popleft()
                error = run.future.exception()
                if error is not None:
                    raise board_error(stage.worker.name, error)
                result = run.future.result()
                stage.count(run.tokens, result)
                if stage.waiting:
                    stage.waiting[0].start = time.monotonic()
                if number + 1 < len(self.stages):
                    self._send(number + 1, run.session, result.data, run.tokens, run.place, run.candidates)
                elif run.candidates:
                    found.append((run.session, result.data))
            if stage.waiting:
                first = stage.waiting[0]
                limit = stage.seconds[first.tokens]
                if time.monotonic() - first.start > limit:
                    raise BoardError(stage.worker.name, f"waited {limit:.0f} s for a pass of {first.tokens} tokens.")
        return found

    def futures(self) -> list["Future[Any]"]:
        """That may be done next."""
        return [stage.waiting[0].future for stage in self.stages if stage.waiting]

    def fail(self, error: BoardError) -> list[ClusterText]:
        """Run nothing any more. Returns the texts that were under way."""
        self.failed = error
        texts = [session.text for session in self.sessions]
        self.sessions.clear()
        self.ready.clear()
        for stage in self.stages:
            stage.waiting.clear()
        return texts

    def next_token(self, session: _Session) -> None:
        """A token was added to a session's text; or the text has ended."""
        if session.text.ended:
            self._end(session)
        else:
            self.ready.append(session)

# Driver -------------------------------------------------------------------------------------------

class Driver:
    """Texts on pipelines that all have the same model.

    Parameters
    ----------
    vocab_size : of the model.

    Attributes
    ----------
    failed : [:class:`BoardError`] so far.
    """
    def __init__(self, pipelines: Sequence[Pipeline], vocab_size: int):
        self.pipelines  = list(pipelines)
        self.vocab_size = vocab_size
        self.texts: deque[ClusterText] = deque() # That no pipeline has yet.
        self.failed: list[BoardError]  = []

    @property
    def live(self) -> list[Pipeline]:
        return [pipeline for pipeline in self.pipelines if pipeline.failed is None]

    def add(self, text: ClusterText) -> None:
        """A text, behind those before it.

        Raises
        ------
        UsageError, ValueError : it has no prompt, or tokens that are none.
        """
        if not text.prompt:
            raise UsageError("a prompt must have one token or more, has none.")
        check_tokens(text.prompt, self.vocab_size)
        self.texts.append(text)

    def run(self) -> Iterator[tuple[ClusterText, int | None]]:
        """Write all texts, also those that are added meanwhile: yields (text, token) as tokens come, and (text, None) when one has ended.

        A text whose error is set ended with it. What this is closed at stays on the boards.
        """
        while True:
            yield from self._begin()
            busy = [pipeline for pipeline in self.live if pipeline.sessions]
            if not busy and not self.texts:
                return
            for pipeline in busy:
                pipeline.feed()
            wait([future for pipeline in busy for future in pipeline.futures()], POLL, FIRST_COMPLETED)
            for pipeline in busy:
                try:
                    found = pipeline.take()
                except BoardError as error:
                    self.failed.append(error)
                    self.texts.extendleft(reversed(pipeline.fail(error)))
                    continue
                for session, data in found:
                    yield from self._take(pipeline, session, data)

    def _begin(self) -> Iterator[tuple[ClusterText, int | None]]:
        """Spread the texts that wait over the pipelines, evenly."""
        while self.texts:
            text = self.texts[0]
            if not self.live:
                text.ended, text.error = True, text.error or self.failed[-1]
            if text.ended or len(text.tokens) >= text.most:
                text.ended = True
                self.texts.popleft()
                yield text, None
                continue
            free = [pipeline for pipeline in self.live if pipeline.free]
            if not free:
                return
            min(free, key=lambda pipeline: len(pipeline.sessions)).begin(self.texts.popleft())

    def _take(self, pipeline: Pipeline, session: _Session, data: bytes) -> Iterator[tuple[ClusterText, int | None]]:
        """The token that follows, by the rule of the firmware."""
        text, draws = session.text, session.text.draws
        found = np.frombuffer(data, CANDIDATE)[:self.vocab_size]
        token = None
        if not np.isfinite(found["logit"][0]):
            text.ended = True
            text.error = CommandError(f"the best logit after {len(text.prompt) + len(text.tokens)} tokens is not a finite number: the model is not right.")
        elif not text.ended:
            token = sample(found["token"], found["logit"], draws.inverse, draws.top_k, draws.seed, (len(text.prompt) + len(text.tokens)) % 2**32,
                draws.top_p)
        if token is not None and token not in text.stop_tokens:
            text.tokens.append(token)
            yield text, token
        if token in text.stop_tokens or len(text.tokens) >= text.most:
            text.ended = True
        pipeline.next_token(session)
        if text.ended:
            yield text, None
