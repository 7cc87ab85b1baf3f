#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Several texts at once on one device: each pass has a token of each, so that a weight that was read serves all."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from host.device.model import JOB_TOKENS, Figures, JobOutput, ModelOnDevice

from model.exact.decoder import check_tokens
from model.exact.sampling import Draws

from operations.config import check_range
from operations.image import MAX_STOP_TOKENS

# Sizes --------------------------------------------------------------------------------------------

def check_sessions(sessions: int, most: int) -> None:
    """Raise ValueError unless so many texts can be written together."""
    if not 1 <= sessions <= most:
        raise ValueError(f"--sessions must be 1 to {most}, is {sessions}: a pass has no more tokens (--pass-tokens), or the scratchpad no more room.")

# Texts --------------------------------------------------------------------------------------------

@dataclass(eq=False)
class BatchText:
    """A text: its prompt, up to `most` tokens that are generated after it, none of `stop_tokens`, and how these are drawn.

    ended : whether it has; set from outside, also by another thread, the text ends with what has come.
    """
    prompt      : list[int]
    most        : int
    draws       : Draws           = Draws()
    stop_tokens : tuple[int, ...] = ()
    tokens      : list[int]       = field(default_factory=list)
    ended       : bool            = False
    told        : bool            = False # That it has.
    dropped     : bool            = False # Nobody waits for it.

    def drop(self) -> None:
        """End it, also from another thread."""
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

    Attributes
    ----------
    figures : :class:`host.device.model.Figures` of all jobs; what a pass has decoded is a token of each of its texts.

    Raises
    ------
    AllocationError, ValueError : there are too many sessions, for the model or the memory; or the device rounds stochastically.
    """
    def __init__(self, model: ModelOnDevice, draws: Draws = Draws(), sessions: int | None = None, job_tokens: int = JOB_TOKENS):
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
        self.address  = model.batch_sessions(self.sessions)
        self.waiting: deque[BatchText] = deque()
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
        yield from ((numbers[id(text)], token) for text, token in self.run())

    def check(self, text: BatchText) -> None:
        """Raise ValueError where a text's prompt has no tokens, or some that are none of the model's."""
        check_tokens(text.prompt, self.config.vocab_size)

    def run(self) -> Iterator[tuple[BatchText, int | None]]:
        """Yield (text, token) as they come, and (text, None) where a text has ended, until there is none left. Texts may be appended to
        `waiting` meanwhile, also by another thread."""
        try:
            while True:
                yield from self._fill()
                for text in [text for text in tuple(self.waiting) if text.ended]: # They leave room for others that may wait.
                    self.waiting.remove(text)
                    yield from self._tell(text)
                for text in self.slots:
                    yield from self._tell(text)
                while self.slots and self.slots[-1].ended: # Those that ended in front of others keep their places.
                    yield from self._tell(self.slots.pop())
                if self.slots:
                    yield from self._run()
                elif not self.waiting:
                    return
        except BaseException:
            self.model.give_up()
            self.waiting.clear()
            self.slots.clear()
            raise

    @staticmethod
    def _tell(text: BatchText) -> Iterator[tuple[BatchText, int | None]]:
        """Yields (text, None), once, if it has ended."""
        if text.ended and not text.told:
            text.told = True
            yield text, None

    def _joins(self) -> bool:
        """Whether the next text may be begun."""
        return bool(self.waiting) and sum(not text.ended for text in self.slots) < self.sessions

    def _fill(self) -> Iterator[tuple[BatchText, int | None]]:
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

    def _prefill(self, text: BatchText, session: int) -> Iterator[tuple[BatchText, int | None]]:
        done = 0
        while done < len(text.prompt) and not text.ended:
            part = text.prompt[done:done + self.model.chunk]
            last = done + len(part) == len(text.prompt)
            for item in self.model.generate(part, int(last), session if done else None, session, text.draws, done, text.stop_tokens[:MAX_STOP_TOKENS]):
                if isinstance(item, JobOutput):
                    self.figures.add(item, len(part))
                    if last and not item.tokens: # A stop token of the device's.
                        text.ended = True
                else:
                    yield from self._take(text, item)
            done += len(part)
        yield from self._tell(text)

    def _take(self, text: BatchText, token: int) -> Iterator[tuple[BatchText, int | None]]:
        """Yields the token if it is one of the text, which may end."""
        if not text.ended and token not in text.stop_tokens:
            text.tokens.append(token)
            yield text, token
        if token in text.stop_tokens or len(text.tokens) == text.most:
            text.ended = True
        yield from self._tell(text)

    def _run(self) -> Iterator[tuple[BatchText, int | None]]:
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
        cancels = False
        for item in self.model.batch(heads, min(left, self.job_tokens, JOB_TOKENS//len(texts)), session, stop[:MAX_STOP_TOKENS]):
            if isinstance(item, JobOutput):
                self.figures.add(item, tokens=run)
                continue
            for text, token in zip(texts, item):
                if not text.told:
                    run += 1
                    yield from self._take(text, token)
            if not cancels and (any(text.ended for text in (*live, *tuple(self.waiting))) or self._joins()): # By a stop token that only the host knows, it may be.
                self.model.cancel()
                cancels = True
