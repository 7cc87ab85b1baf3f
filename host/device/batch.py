#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Several texts at once on one device: each pass has a token of each, so that a weight that was read serves all."""

import time

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

from host.device.kept import KeptSessions
from host.device.model import JOB_TOKENS, Figures, JobOutput, ModelOnDevice
from host.device.scores import LogitsError, Score, Scorer

from model.exact.decoder import check_tokens
from model.exact.sampling import Draws

from operations.config import check_range
from operations.image import MAX_STOP_TOKENS

from tools.errors import CommandError

# Constants ----------------------------------------------------------------------------------------

KEPT_SESSIONS = 64   # At most, where nothing else is said.
HISTORY       = 10.0 # Seconds, at least, whose jobs `history` has.

# Types --------------------------------------------------------------------------------------------

Item = int | Score | CommandError | None # A token; its score; why the text alone has failed; its end.

# Sizes --------------------------------------------------------------------------------------------

def check_sessions(sessions: int, most: int) -> None:
    """Raise ValueError unless so many texts can be written together."""
    if not 1 <= sessions <= most:
        raise ValueError(f"--sessions must be 1 to {most}, is {sessions}: a pass has no more tokens (--pass-tokens), or the scratchpad no more room.")

# Texts --------------------------------------------------------------------------------------------

@dataclass(eq=False)
class BatchText:
    """A text: its prompt, up to `most` tokens that are generated after it, none of `stop_tokens`, and how these are drawn.

    best         : likeliest tokens that each token's score is to have, 0 or more; None: there are no scores. They come when the text has ended.
    score_prompt : the prompt's tokens are scored too.
    ended  : whether it has; set from outside, also by another thread, the text ends with what has come.
    cached : tokens of the prompt that were not run, as a session was kept that had.
    """
    prompt      : list[int]
    most        : int
    draws       : Draws           = Draws()
    stop_tokens : tuple[int, ...] = ()
    best        : int | None      = None
    score_prompt: bool            = False
    cached      : int             = 0
    tokens      : list[int]       = field(default_factory=list)
    ended       : bool            = False
    told        : bool            = False # That it has.
    dropped     : bool            = False # Nobody waits for it.
    scored      : bool            = False # It is, or there is nothing to be.

    def __post_init__(self) -> None:
        self.ended |= not self.most

    def drop(self) -> None:
        """End it, also from another thread; nothing where it is told that it has."""
        if not self.told:
            self.dropped = self.ended = True

# Batch --------------------------------------------------------------------------------------------

class DeviceBatch:
    """Texts that are written together, as many at once as passes have room for; when one ends, the next one takes its place. Each is
    what :class:`host.device.model.DeviceDecoder` would write.

    Texts are begun in the order in which they came.

    Parameters
    ----------
    model    : :class:`host.device.model.ModelOnDevice`, loaded.
    draws    : :class:`model.exact.sampling.Draws` of :meth:`generate`; the seed is that of the first prompt, the n-th one's is n more.
    sessions : texts at once, 1 to the image's `sessions`. None: as many as there can be.
    job_tokens : of each text, that a job generates at most: `figures` are added to when it ends.
    job_seconds : that a job takes at most, by what the one before has taken: so `history` is of the last second. None: as long as may be.
    kept     : sessions that are kept for prompts which go on from them: of prompts, all but the last tokens, and of texts that end. None: as many
        as there is room for, KEPT_SESSIONS at most.

    Attributes
    ----------
    figures : :class:`host.device.model.Figures` of all jobs but those that score; what a pass has decoded is a token of each of its texts.
    history : (start, end, figures after it) of jobs BATCH, times of time.monotonic(): the firmware tells its counters when a job ends. The first is
        no job, but the start.
    kept    : :class:`host.device.kept.KeptSessions`.

    Raises
    ------
    AllocationError, ValueError : there are too many sessions, for the model or the memory; or the device rounds stochastically.
    """
    def __init__(self, model: ModelOnDevice, draws: Draws = Draws(), sessions: int | None = None, job_tokens: int = JOB_TOKENS,
                 job_seconds: float | None = None, kept: int | None = 0):
        if model.device.info.config.stochastic_rounding:
            raise ValueError("rounding of the device must be to nearest for several texts at once, is stochastic: a pass has one seed.")
        most = model.image.device.sessions
        check_sessions(most if sessions is None else sessions, most)
        self.model    = model
        self.draws    = draws
        self.job_tokens = job_tokens
        self.sessions = sessions or most
        self.config   = model.image.model.config
        self.figures  = Figures()
        self.history  = deque([(time.monotonic(), time.monotonic(), Figures())])
        self.job_seconds  = job_seconds
        self.pass_seconds: float | None = None # As the last job took.
        self.address  = model.batch_sessions(self.sessions)
        size  = model.image.session_bytes
        count = min(model.device.room//size, KEPT_SESSIONS) if kept is None else kept
        first = model.device.allocate(count*size, f"{count} kept sessions")
        self.kept     = KeptSessions(range(first, first + count*size, size))
        self.waiting: deque[BatchText] = deque()
        self.scoring: deque[BatchText] = deque() # They have ended, and have no session any more.
        self._scorer: Scorer | None    = None    # Of the text that is scored,
        self._scored: BatchText | None = None    # which is this one.
        self.slots: list[BatchText] = [] # The text in each session.

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int, stop_tokens: Collection[int] = ()) -> Iterator[tuple[int, int | None]]:
        """Yield (number of the text, token) as they come, up to `tokens` of each text, none of `stop_tokens`; and (number, None) where a text
        has ended. If it is closed before, the device ends after its next pass.

        Raises
        ------
        ValueError : a prompt has no tokens, or some that are none of the model's.
        """
        check_range("tokens", tokens, 1, 2**31)
        stop    = tuple(dict.fromkeys(stop_tokens))
        texts   = [BatchText(list(map(int, prompt)), tokens, replace(self.draws, seed=(self.draws.seed + n) % 2**32), stop)
            for n, prompt in enumerate(prompts)]
        for text in texts:
            self.check(text)
        numbers = {id(text): n for n, text in enumerate(texts)}
        self.waiting.extend(texts)
        for text, token in self.run():
            assert token is None or isinstance(token, int)
            yield numbers[id(text)], token

    def check(self, text: BatchText) -> None:
        """Raise ValueError where a text's prompt has no tokens, or some that are none of the model's."""
        check_tokens(text.prompt, self.config.vocab_size)

    def run(self) -> Iterator[tuple[BatchText, Item]]:
        """Yield (text, token) as they come, (text, :class:`host.device.scores.Score`) of all its tokens in turn where that is wanted, and (text, None)
        where a text has ended, or an error where it alone has failed, until there is none left. Texts may be appended to `waiting` meanwhile, also
        by another thread. Of those that are scored it is one at a time, a job of it for each job of the others."""
        try:
            while True:
                yield from self._fill()
                for texts in (self.waiting, self.scoring): # They leave room for others that may wait.
                    for text in [text for text in tuple(texts) if text.dropped or texts is self.waiting and text.ended]:
                        texts.remove(text)
                        yield from self._tell(text)
                for text in self.slots:
                    yield from self._tell(text)
                while self.slots and self.slots[-1].ended: # Those that ended in front of others keep their places.
                    yield from self._tell(self.slots.pop())
                if self.scoring:
                    yield from self._score()
                if self.slots:
                    yield from self._run()
                elif not self.waiting and not self.scoring:
                    return
        except BaseException:
            self.model.give_up()
            self.waiting.clear()
            self.scoring.clear()
            self.slots.clear()
            self._scorer = self._scored = None
            self.kept.clear()
            raise

    def _tell(self, text: BatchText) -> Iterator[tuple[BatchText, Item]]:
        """Yields (text, None), once, if it has ended; one that is to be scored first joins those that are."""
        if not text.ended or text.told:
            return
        if text.best is not None and not text.scored and not text.dropped:
            if text not in self.scoring:
                self.scoring.append(text)
            return
        text.told = True
        yield text, None

    def _score(self) -> Iterator[tuple[BatchText, Item]]:
        """A job of the first one that is scored."""
        text = self.scoring[0]
        if not text.dropped:
            try:
                if self._scorer is None or self._scored is not text:
                    self._scored = text
                    tokens = text.prompt + text.tokens
                    first  = 0 if text.score_prompt else len(text.prompt)
                    source, done = self.kept.find(tokens[:first])
                    assert text.best is not None
                    self._scorer = Scorer(self.model, tokens, first, text.best, self.model.slots[0], source, done)
                for item in self._scorer.step():
                    if isinstance(item, JobOutput):
                        self.figures.add(item, item.run)
                    else:
                        yield text, item
                text.scored = self._scorer.ended
            except LogitsError as error:
                text.told = True
                yield text, error
        if text.scored or text.told or text.dropped:
            self.scoring.popleft()
            yield from self._tell(text)

    def _joins(self) -> bool:
        """Whether the next text may be begun."""
        return bool(self.waiting) and sum(not text.ended for text in self.slots) < self.sessions

    def _fill(self) -> Iterator[tuple[BatchText, Item]]:
        """Begin texts in all sessions that are free: their prompts are run, and give their first tokens."""
        while self._joins():
            text = self.waiting.popleft()
            if text.ended:
                yield from self._tell(text)
                continue
            slot = next((n for n, there in enumerate(self.slots) if there.ended), len(self.slots))
            before, self.slots[slot:slot + 1] = self.slots[slot:slot + 1], [text]
            for there in before:
                yield from self._tell(there)
            yield from self._prefill(text, self.address + slot*self.model.image.session_bytes)

    def _prefill(self, text: BatchText, session: int) -> Iterator[tuple[BatchText, Item]]:
        """All passes of a prompt but the last write a session that is kept, where there is one: the last one reads it, and writes the text's."""
        prompt       = text.prompt
        source, done = self.kept.find(prompt)
        passes       = self.model.image.program.pass_tokens
        last         = done + (len(prompt) - done - 1)//passes*passes
        room         = self.kept.room(prompt[:last]) if last > done else None
        text.cached  = done
        between      = session if room is None else room
        if room is None: # In as few jobs as can be.
            last = done + (len(prompt) - done - 1)//self.model.chunk*self.model.chunk
        while done < last and not text.ended:
            part = prompt[done:min(last, done + self.model.chunk)]
            for item in self.model.generate(part, 0, source, between, text.draws, done):
                assert isinstance(item, JobOutput)
                self.figures.add(item, len(part))
            done  += len(part)
            source = between
        if room is not None and done == last:
            self.kept.keep(prompt[:last], room)
        elif room is not None:
            self.kept.give_back(room)
        if not text.ended:
            part = prompt[done:]
            for item in self.model.generate(part, 1, source, session, text.draws, done, text.stop_tokens[:MAX_STOP_TOKENS]):
                if isinstance(item, JobOutput):
                    self.figures.add(item, len(part))
                    if not item.tokens: # A stop token of the device's.
                        text.ended = True
                    elif text.ended:
                        self._keep(text, prompt, item.tokens[0], session)
                else:
                    yield from self._take(text, item)
        yield from self._tell(text)

    def _keep(self, text: BatchText, run: Sequence[int], token: int, session: int) -> None:
        """Keep the session of a text that has ended, which has run some tokens: a token more is run, that it may be written elsewhere. Not where it
        has run more than the text has, as no prompt goes on so, or where nobody wanted the text."""
        tokens = [*run, token]
        wanted = text.prompt + text.tokens
        if text.dropped or tokens != (wanted if token not in text.stop_tokens else [*wanted, token]):
            return
        room = self.kept.room(tokens)
        if room is None:
            return
        for item in self.model.generate([token], 0, session, room, text.draws, len(run)):
            assert isinstance(item, JobOutput)
            self.figures.add(item, 1)
        self.kept.keep(tokens, room)

    def _take(self, text: BatchText, token: int) -> Iterator[tuple[BatchText, Item]]:
        """Yields the token if it is one of the text, which may end."""
        if not text.ended and token not in text.stop_tokens:
            text.tokens.append(token)
            yield text, token
        if token in text.stop_tokens or len(text.tokens) == text.most:
            text.ended = True
        yield from self._tell(text)

    def _job_most(self) -> int:
        """Tokens of the next job, of each text."""
        if self.job_seconds is None:
            return self.job_tokens
        return 1 if self.pass_seconds is None else min(max(int(self.job_seconds/self.pass_seconds), 1), self.job_tokens)

    def _ended(self, start: float, passes: int) -> None:
        """A job BATCH that began then."""
        now = time.monotonic()
        self.pass_seconds = max((now - start)/passes, 1e-6)
        self.history.append((start, now, deepcopy(self.figures)))
        while len(self.history) > 2 and now - self.history[1][1] > HISTORY:
            self.history.popleft()

    def _run(self) -> Iterator[tuple[BatchText, Item]]:
        """A job: until a text ends, or one can be begun."""
        first   = next((n for n, text in enumerate(self.slots) if not text.ended), len(self.slots))
        texts   = self.slots[first:]
        heads   = [(text.tokens[-1] if text.tokens else text.prompt[-1], len(text.prompt) + len(text.tokens) - 1, text.ended, text.draws)
            for text in texts]
        live    = [text for text, (_, _, ended, _) in zip(texts, heads) if not ended]
        if not live: # Another thread has ended them just now.
            return
        left    = min(text.most - len(text.tokens) for text in live)
        stop    = list(dict.fromkeys(token for text in live for token in text.stop_tokens))
        session = self.address + first*self.model.image.session_bytes
        run     = 0 # Tokens of texts that had not ended.
        rows: list[list[int]] = []
        cancels = False
        start   = time.monotonic()
        for item in self.model.batch(heads, min(left, self._job_most(), JOB_TOKENS//len(texts)), session, stop[:MAX_STOP_TOKENS]):
            if isinstance(item, JobOutput):
                self.figures.add(item, tokens=run)
                self._ended(start, len(rows))
                continue
            rows.append(item)
            for text, token in zip(texts, item):
                if not text.told:
                    run += 1
                    yield from self._take(text, token)
            if not cancels and (any(text.ended for text in (*live, *tuple(self.waiting))) or self._joins()): # By a stop token that only the host knows, it may be.
                self.model.cancel()
                cancels = True
        for n, (text, (token, place, ended, _)) in enumerate(zip(texts, heads)):
            if text.ended and not ended: # The next job would write its session.
                ran = (text.prompt + text.tokens)[:place] + [token] + [row[n] for row in rows]
                self._keep(text, ran[:-1], ran[-1], session + n*self.model.image.session_bytes)
