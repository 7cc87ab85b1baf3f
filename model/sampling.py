#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From logits to the next token, and where a text ends."""

import hashlib
import math
import os

import torch

# Sampler ------------------------------------------------------------------------------------------

class Sampler:
    """Chooses tokens; called as ``sampler(logits, tokens)`` with finite logits and the tokens so far.

    A draw depends on the seed and on how many tokens there are: a text that goes on later draws as one that never stopped.

    Parameters
    ----------
    temperature        : Divides the logits. 0: the likeliest token is taken, the first of several.
    top_k              : Only so many likeliest tokens are drawn from; 0: all.
    top_p              : Only the likeliest tokens that together have this probability are drawn from, at least one.
    seed               : Of the draws.
    repetition_penalty : Logits of tokens that were there before are divided by it where positive, else multiplied
                         (N. S. Keskar et al., "CTRL", 2019, arXiv:1909.05858).

    Raises
    ------
    ValueError : names the parameter, what it must be, and its value.
    """
    def __init__(self, temperature=0.0, top_k=0, top_p=1.0, seed=0, repetition_penalty=1.0):
        for name, value, allowed, wanted in (
            ("temperature",        temperature,        0 <= temperature < math.inf,       "a number of at least 0"),
            ("top_k",              top_k,              top_k >= 0,                        "an integer of at least 0"),
            ("top_p",              top_p,              0 < top_p <= 1,                    "a number above 0, up to 1"),
            ("seed",               seed,               0 <= seed < 2**63,                 "an integer from 0 to 2**63 - 1"),
            ("repetition_penalty", repetition_penalty, 0 < repetition_penalty < math.inf, "a positive number"),
        ):
            if not allowed:
                raise ValueError(f"{name} must be {wanted}, is {value!r}.")
        self.temperature        = temperature
        self.top_k              = top_k
        self.top_p              = top_p
        self.repetition_penalty = repetition_penalty
        self.seed               = seed
        self.generator          = torch.Generator()

    def __call__(self, logits, tokens=()):
        if self.repetition_penalty != 1 and tokens:
            seen         = torch.tensor(sorted(set(tokens)))
            values       = logits[seen]
            logits       = logits.clone()
            logits[seen] = torch.where(values > 0, values/self.repetition_penalty, values*self.repetition_penalty)
        if self.temperature == 0:
            return logits.argmax().item()
        values, order = logits.double().sort(descending=True, stable=True)
        values        = (values - values[0])/self.temperature # None overflows, however low the temperature.
        if self.top_k:
            values = values[:self.top_k]
        probabilities = values.softmax(-1)
        before        = probabilities.cumsum(-1) - probabilities # Probability of the tokens before each.
        probabilities = probabilities.masked_fill(before >= self.top_p, 0)
        place = hashlib.sha256(f"{self.seed} {len(tokens)}".encode()).digest()
        self.generator.manual_seed(int.from_bytes(place[:7], "little"))
        return order[torch.multinomial(probabilities, 1, generator=self.generator)].item()

# Stop Strings -------------------------------------------------------------------------------------

class StopStrings:
    """Lets text through until one of some strings appears. Text that may be a string's beginning is held back.

    Attributes
    ----------
    found : Whether one has appeared; it, and what follows, is not let through.
    """
    def __init__(self, strings=()):
        if not all(strings):
            raise ValueError("stop must be a text, is empty.")
        self.strings = tuple(strings)
        self.held    = ""
        self.found   = False

    def __call__(self, text):
        """The text that may pass, of what was held back and `text`."""
        self.held += text
        ends = [place for place in map(self.held.find, self.strings) if place >= 0]
        if ends:
            self.found = True
            text, self.held = self.held[:min(ends)], ""
            return text
        kept = max((len(os.path.commonprefix((self.held[place:], string))) for string in self.strings
            for place in range(len(self.held)) if string.startswith(self.held[place:])), default=0)
        text, self.held = self.held[:len(self.held) - kept], self.held[len(self.held) - kept:]
        return text

    def flush(self):
        """What was held back, at the end of the text."""
        text, self.held = self.held, ""
        return text
