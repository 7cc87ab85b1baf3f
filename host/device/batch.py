#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Several texts at once on one device: each pass has a token of each, so that a weight that was read serves all."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

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

@dataclass
class BatchText:
    """A text: its prompt, what was generated after it, and the seed of its draws."""
    prompt : list[int]
    seed   : int       = 0
    tokens : list[int] = field(default_factory=list)
    ended  : bool      = False

# Batch --------------------------------------------------------------------------------------------

class DeviceBatch:
    """Texts that are written together, as many at once as passes have room for; when one ends, the next one takes its place. Each is
    what :class:`host.device.model.DeviceDecoder` would write.

    Parameters
    ----------
    model    : :class:`host.device.model.ModelOnDevice`, loaded.
    draws    : :class:`model.exact.sampling.Draws`; the seed is that of the first prompt, the n-th one's is n more.
    sessions : texts at once, 1 to the image's `sessions`. None: as many as there can be.

    Attributes
    ----------
    figures : :class:`host.device.model.Figures` of all jobs; what a pass has decoded is a token of each of its texts.

    Raises
    ------
    AllocationError, ValueError : there are too many sessions, for the model or the memory; or the device rounds stochastically.
    """
    def __init__(self, model: ModelOnDevice, draws: Draws = Draws(), sessions: int | None = None):
        if model.device.info.config.stochastic_rounding:
            raise ValueError("rounding of the device must be to nearest for several texts at once, is stochastic: a pass has one seed.")
        most = model.image.device.sessions
        check_sessions(most if sessions is None else sessions, most)
        self.model    = model
        self.draws    = draws
        self.sessions = sessions or most
        self.config   = model.image.model.config
        self.figures  = Figures()
        self.address  = model.batch_sessions(self.sessions)

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int, stop_tokens: Collection[int] = ()) -> Iterator[tuple[int, int | None]]:
        """Yield (number of the text, token) as they come, up to `tokens` of each text, none of `stop_tokens`; and (number, None) where a text
        has ended. If it is closed before, the device ends after its next pass.

        Raises
        ------
        ValueError : a prompt has no tokens, or some that are none of the model's.
        """
        for prompt in prompts:
            check_tokens(prompt, self.config.vocab_size)
        check_range("tokens", tokens, 1, 2**31)
        stop    = list(dict.fromkeys(stop_tokens))
        texts   = [BatchText(list(map(int, prompt)), (self.draws.seed + n) % 2**32) for n, prompt in enumerate(prompts)]
        waiting = list(range(len(texts)))
        slots: list[int] = [] # The number of the text in each session.
        try:
            while True:
                yield from self._fill(texts, waiting, slots, tokens, stop)
                while slots and texts[slots[-1]].ended: # Those that ended in front of others keep their places.
                    slots.pop()
                if not slots:
                    return
                yield from self._run(texts, slots, tokens, stop)
        finally:
            self.model.give_up()

    def _fill(self, texts: list[BatchText], waiting: list[int], slots: list[int], tokens: int, stop: list[int]) \
            -> Iterator[tuple[int, int | None]]:
        """Begin texts in all sessions that are free: their prompts are run, and give their first tokens."""
        for slot in range(self.sessions):
            while waiting and (slot >= len(slots) or texts[slots[slot]].ended):
                number = waiting.pop(0)
                slots[slot:slot + 1] = [number]
                session = self.address + slot*self.model.image.session_bytes
                yield from ((number, token) for token in self._prefill(texts[number], session, tokens, stop))

    def _prefill(self, text: BatchText, session: int, tokens: int, stop: list[int]) -> Iterator[int | None]:
        draws = Draws(self.draws.inverse, self.draws.top_k, text.seed)
        done  = 0
        while done < len(text.prompt):
            part = text.prompt[done:done + self.model.chunk]
            last = done + len(part) == len(text.prompt)
            for item in self.model.generate(part, int(last), session if done else None, session, draws, done, stop[:MAX_STOP_TOKENS]):
                if isinstance(item, JobOutput):
                    self.figures.add(item, len(part))
                    if last and not item.tokens: # A stop token of the device's.
                        text.ended = True
                        yield None
                else:
                    yield from self._take(text, item, tokens, stop)
            done += len(part)

    @staticmethod
    def _take(text: BatchText, token: int, tokens: int, stop: Collection[int]) -> Iterator[int | None]:
        """Yields the token if it is one of the text, and None if that ends."""
        if text.ended:
            return
        if token not in stop:
            text.tokens.append(token)
            yield token
        if token in stop or len(text.tokens) == tokens:
            text.ended = True
            yield None

    def _run(self, texts: list[BatchText], slots: list[int], tokens: int, stop: list[int]) -> Iterator[tuple[int, int | None]]:
        """A job: until a text ends."""
        first   = next(n for n, number in enumerate(slots) if not texts[number].ended)
        numbers = slots[first:]
        rows    = [texts[number] for number in numbers]
        live    = [text for text in rows if not text.ended]
        left    = min(tokens - len(text.tokens) for text in live)
        heads   = [(text.tokens[-1] if text.tokens else text.prompt[-1], len(text.prompt) + len(text.tokens) - 1, text.seed, text.ended) for text in rows]
        session = self.address + first*self.model.image.session_bytes
        run     = 0 # Tokens of texts that had not ended.
        for item in self.model.batch(heads, min(left, JOB_TOKENS//len(rows)), session, self.draws, stop[:MAX_STOP_TOKENS]):
            if isinstance(item, JobOutput):
                self.figures.add(item, tokens=run)
                continue
            for number, text, token in zip(numbers, rows, item):
                run += not text.ended
                yield from ((number, taken) for taken in self._take(text, token, tokens, stop))
            if any(text.ended for text in live):
                self.model.cancel() # It may have been by a stop token that only the host knows.

