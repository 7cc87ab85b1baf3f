#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Drafts of the tokens that follow, from the text itself: what came after the same tokens before ("prompt lookup decoding").

Where a text repeats itself drafts are often right; whether they are, the model tells, which runs several tokens in one pass.
"""

from operations.image import DRAFT_LEAST, DRAFT_MOST, HISTORY

# Drafts -------------------------------------------------------------------------------------------

class History:
    """The last tokens of a text that goes on from job to job, HISTORY at most. tokens: these."""
    def __init__(self):
        self.tokens = []
        self.end    = 0 # The place behind them.

    def begin(self, place, anew):
        """The text goes on from a place, or anew: tokens from there on are forgotten, all where it is none of these."""
        behind = (self.end - place) % 2**32
        self.tokens = [] if anew or behind > len(self.tokens) else self.tokens[:len(self.tokens) - behind]
        self.end    = place

    def add(self, *tokens):
        self.tokens = [*self.tokens, *tokens][-HISTORY:]
        self.end    = (self.end + len(tokens)) % 2**32


def draft(tokens, count):
    """`count` tokens that may follow a text's tokens, or none.

    Of the places behind which the text's last tokens have come before, within its last HISTORY tokens, the one that most of them come
    before (DRAFT_LEAST to DRAFT_MOST), of these the last one; what follows there, and then what follows that.
    """
    text        = list(tokens[-HISTORY:])
    best, match = None, DRAFT_LEAST - 1
    for place in range(len(text) - 1, 0, -1):
        same = 0
        while same < min(DRAFT_MOST, place) and text[place - 1 - same] == text[-1 - same]:
            same += 1
        if same > match:
            best, match = place, same
        if match == DRAFT_MOST:
            break
    if best is None:
        return []
    for n in range(count):
        text.append(text[best + n])
    return text[len(text) - count:] if count else []
