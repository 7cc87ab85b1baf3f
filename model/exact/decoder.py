#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A text under way on the exact model, as :class:`model.decoder.Decoder` has it on a network of PyTorch."""

import numpy as np

# Constants ----------------------------------------------------------------------------------------

CHUNK = 64 # Tokens of a prompt that are run at once.

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


class ExactDecoder(ChunkedPrefill):
    """A text under way.

    Parameters
    ----------
    network : :class:`model.exact.network.ExactNetwork`.

    Attributes
    ----------
    tokens : All tokens taken so far.
    logits : Of the token after the last one, float32 (vocabulary,); None before the first one.
    """
    blocks = None # The whole model is one.

    def __init__(self, network):
        self.network = network
        self.tokens  = []
        self.logits  = None
        self._states = None

    def take(self, tokens):
        """Take T tokens, in one piece, and set `logits`.

        Raises
        ------
        ValueError : a token is not in the vocabulary, or the logits are not finite.
        """
        logits, states = self.network(list(tokens), self._states, len(self.tokens), last_only=True)
        if not np.isfinite(logits).all():
            raise ValueError(f"the logits of token {len(self.tokens) + len(tokens) - 1} must be finite, are not.")
        self.tokens += map(int, tokens)
        self.logits  = logits[0]
        self._states = states
