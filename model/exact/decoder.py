#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A text under way on the exact model, token for token and bit for bit as a device carries it on."""

import numpy as np

from model.exact.head import best
from model.exact.sampling import Draws, sample

# Constants ----------------------------------------------------------------------------------------

CHUNK = 64 # Tokens of a prompt that are run at once.

# Tokens -------------------------------------------------------------------------------------------

def check_tokens(tokens, vocab_size):
    """Raise ValueError unless there are tokens, all of them in the vocabulary."""
    if not len(tokens):
        raise ValueError("tokens must be one or more, are none.")
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise ValueError(f"token must be a number from 0 to {vocab_size - 1}, is {token}.")

# Decoder ------------------------------------------------------------------------------------------

class ChunkedPrefill:
    """What a decoder with a `network` and `take` makes of a prompt."""
    def prefill(self, tokens, progress=lambda done: None):
        """Take the tokens of a prompt, CHUNK at a time; `progress` is called with the number of each chunk's tokens."""
        self.network.check_tokens(tokens)
        for first in range(0, len(tokens), CHUNK):
            chunk = tokens[first:first + CHUNK]
            self.take(chunk)
            progress(len(chunk))


class ExactDecoder:
    """A text under way. Its state is that after all tokens but the last, which the next step runs.

    Parameters
    ----------
    network : :class:`model.exact.network.ExactNetwork`.
    draws   : :class:`model.exact.sampling.Draws`.

    Attributes
    ----------
    tokens : All tokens so far.
    """
    def __init__(self, network, draws=Draws()):
        self.network = network
        self.config  = network.config
        self.draws   = draws
        self.restore([], None)

    def restore(self, tokens, states):
        """To a text with the states after all its tokens but the last; None: before the first."""
        self.tokens  = list(tokens)
        self._states = states
        self._done   = 0 if states is None else len(tokens) - 1

    def prefill(self, tokens):
        """Add a prompt; it is run with what follows."""
        self.network.check_tokens(tokens)
        self.tokens += map(int, tokens)

    def settle(self):
        """Run all tokens but the last."""
        while self._done < len(self.tokens) - 1:
            chunk = self.tokens[self._done:min(self._done + CHUNK, len(self.tokens) - 1)]
            _, self._states = self.network(chunk, self._states, self._done, last_only=True)
            self._done += len(chunk)

    def states(self):
        """After all tokens but the last: [:class:`model.exact.network.LayerState`]."""
        self.settle()
        return self._states or self.network.initial_state()

    def generate(self, tokens, stop_tokens=(), may_end=False):
        """Yield up to `tokens` tokens, none of `stop_tokens`. It may be closed at any token, which then is the last.

        Raises
        ------
        ValueError : the best logit is not finite, or there are no tokens.
        """
        if not self.tokens:
            raise ValueError("tokens must be one or more, are none.")
        self.settle()
        for _ in range(tokens):
            logits, states = self.network(self.tokens[-1:], self._states, self._done)
            numbers, found = best(logits[0])
            if not np.isfinite(found[0]):
                raise ValueError(f"the logits of token {self._done} must be finite, are not.")
            draws = self.draws
            token = sample(numbers, found, draws.inverse, draws.top_k, draws.seed, len(self.tokens), draws.top_p)
            if token in stop_tokens:
                return
            self._states, self._done = states, len(self.tokens)
            self.tokens.append(token)
            yield token
