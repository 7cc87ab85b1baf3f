#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A whole model in the device's DRAM: its image, its sessions, and what a job GENERATE writes.

An image begins with its header: the words of IMAGE_HEAD, then an entry of PROGRAM_ENTRY for each kind of program and each number of
tokens 1 to MAX_PASS_TOKENS, kind by kind; those above ``pass_tokens`` are zeros. What is called a place is bytes from the image's
beginning on, a multiple of ALIGNMENT; so an image may lie anywhere. All of it is only read, except records and results.

An image may be that of a stage: of some of a model's layers, which a chain of devices runs together, a pass at a time (PASS). The first stage has
the embedding, the last one the head; what a stage has not is a place all the same, and nothing is there. The only programs of a stage are LAYERS,
and of the last one HEAD. In place of the tokens, LAYERS of one that is not the first loads `residual_bytes` a token from the register EMBEDDING on, and
that of one that is not the last stores as many from RESULTS on: the residual stream, binary32, as the scratchpad has it.

A session is a region of its own: ``state_bytes`` of head tiles, layer by layer, then ``window_bytes`` of the convolutions' windows, each
with room behind it: where drafts are run, for the window after each token of a pass.

What GENERATE and BATCH write begins with the words of OUTPUT_HEAD, zeros when it begins; the tokens follow from byte OUTPUT_HEAD_BYTES on, a
word each, written before `count` counts it; with BATCH a token of each session, then the next one of each. With LOGITS there are, for each pass, the logits as the descriptor LOGITS has them (docs/program.md): of all passes of `pass_tokens`
tokens, and then of one with the rest, each of 4*logit_rows bytes a token, filled up to a multiple of ALIGNMENT.

All words are 32 bits, little endian.
"""

from collections.abc import Sequence
from enum import IntEnum, IntFlag

from operations.config import ALIGNMENT, ceil_multiple

# Image --------------------------------------------------------------------------------------------

IMAGE_MAGIC     = 0x4932424d # "MB2I".
IMAGE_VERSION   = 4
MAX_PASS_TOKENS = 8
MAX_DEFERRED    = 7

IMAGE_HEAD = (
    "magic",          # IMAGE_MAGIC.
    "version",        # IMAGE_VERSION.
    "image_bytes",    # Of the whole image, a multiple of ALIGNMENT.
    "data_width",     # Of the tape's beats, bits.
    "lanes",          # L, that head tiles are packed for.
    "pass_tokens",    # R, the most tokens of a pass.
    "scratch",        # Elements of the scratchpad that the programs use.
    "activations",    # Words of sixteen columns that they use of the activations' memory.
    "vocabulary",
    "logit_rows",     # Rows of the head's matrix on the tape, `vocabulary` or a few more.
    "state_bytes",    # Of a session.
    "window_bytes",   # Of a session.
    "window_step",    # Bytes from the window after a token to that after the next, in what DRAFTS stores.
    "sessions",       # The most of a BATCH.
    "deferred",       # The most tokens that may be deferred: the state that a pass begins with is the one before them.
    "x_stride",       # Bytes from a token's x records to the next one's,
    "bc_stride",      # and from its BC records.
    "stage",          # Stage: what it has not.
    "residual_bytes", # Of a token's residual vector.
    "tape",           # Place of the matrices.
    "embedding",      # Place of the embedding.
    "parameters",     # Place of the other weights.
    "records",        # Place of the SSM core's records, which every pass overwrites.
    "results",        # Place of the candidates of each token of a pass, likewise.
    "zero_window",    # Place of window_bytes of zeros.
)


class Stage(IntFlag):
    """What a stage's image has not. A whole model's has all."""
    NO_EMBEDDING = 1 << 0 # There are stages in front of it.
    NO_HEAD      = 1 << 1 # There are stages behind it.


class ProgramKind(IntEnum):
    """Programs of a pass of r tokens."""
    LAYERS = 0 # From the tokens to the residual stream after the last layer.
    HEAD   = 1 # After it: the candidates that follow the last of the r tokens.
    LOGITS = 2 # After it: all logits of the r tokens.
    STATE  = 3 # The SSM core alone: where r and more tokens are deferred, their state is stored, and the window put in its place.
    DRAFTS = 4 # As LAYERS, but stores the window after each of the r tokens.
    BATCH  = 5 # As LAYERS, but the tokens are of r sessions, one of each; these lie one right after the other.
    EACH   = 6 # As HEAD, but the candidates that follow each of the r tokens.


PROGRAM_ENTRY = (
    "program",        # Place of its descriptors.
    "descriptors",    # How many, with END.
    "tape_place",     # Place of the first matrix that it reads.
    "tape_beats",     # Beats that it reads from there.
)
PROGRAMS    = len(ProgramKind)*MAX_PASS_TOKENS
IMAGE_WORDS = len(IMAGE_HEAD) + PROGRAMS*len(PROGRAM_ENTRY)
HEADER_BYTES = ceil_multiple(4*IMAGE_WORDS, ALIGNMENT)


def stage_kinds(stage: int) -> tuple[ProgramKind, ...]:
    """The programs of an image whose word `stage` this is."""
    if not stage:
        return tuple(ProgramKind)
    return (ProgramKind.LAYERS,) if stage & Stage.NO_HEAD else (ProgramKind.LAYERS, ProgramKind.HEAD)


def program_number(kind: ProgramKind, tokens: int) -> int:
    """Which of an image's programs."""
    return kind*MAX_PASS_TOKENS + tokens - 1

# Output -------------------------------------------------------------------------------------------

class Reason(IntEnum):
    """Why there are no more tokens."""
    NONE      = 0 # There may be more, or none were asked for.
    LENGTH    = 1 # There are as many as were asked for.
    STOP      = 2 # A stop token came; it is not among the tokens.
    CANCELLED = 3 # The host wanted no more: all is as if fewer had been asked for.


_WIDE = ("prefill_cycles", "prefill_read", "prefill_written", "decode_cycles", "decode_read", "decode_written")
CAUSES = ("move", "gemv", "vector", "ssm", "head", "tape") # Whom the dispatcher waited for; or the GEMV engine for the tape.

# Of the prompt's passes, and of those of the tokens after it: cycles from the first one's start to the last one's end, bytes read and
# written; and in how many of decoding's cycles whom was waited for. 64 bits each, the low word first.
OUTPUT_WIDE = (*_WIDE, *(f"decode_wait_{cause}" for cause in CAUSES))
OUTPUT_COUNTS = (
    "count",          # Tokens so far. Written after each.
    "reason",         # Reason.
    "passes",         # After the prompt's,
    "drafted",        # and of their tokens those that were drafts. Both are written at the end.
)
OUTPUT_HEAD = (
    *OUTPUT_COUNTS,
    *(f"{name}_{half}" for name in OUTPUT_WIDE for half in ("low", "high")),
)
OUTPUT_HEAD_BYTES = 2*ALIGNMENT
assert 4*len(OUTPUT_HEAD) <= OUTPUT_HEAD_BYTES


def unpack_output(words: Sequence[int]) -> tuple[dict[str, int], dict[str, int]]:
    """The values of OUTPUT_COUNTS and of OUTPUT_WIDE, by name. words: of OUTPUT_HEAD."""
    first = len(OUTPUT_COUNTS)
    return dict(zip(OUTPUT_COUNTS, words)), {name: words[first + 2*n] | words[first + 1 + 2*n] << 32 for n, name in enumerate(OUTPUT_WIDE)}

TEXT_WORDS = 6 # Of each session of a BATCH: token, place, seed, ended, inverse, top.

# Limits -------------------------------------------------------------------------------------------

MAX_PROMPT_TOKENS = 2**20
MAX_TOKENS        = 2**20 # That a job generates.
MAX_STOP_TOKENS   = 16
HISTORY           = 1024  # Of a text's last tokens, also of such jobs before, that drafts come from (model/exact/drafts.py):
DRAFT_LEAST       = 2     # from where so many are the same as the last ones,
DRAFT_MOST        = 4     # or more, up to so many.
MAX_VOCABULARY    = 2**20
MAX_RESIDUAL      = 2**16 # Bytes of a token's residual vector.
MAX_RECORDS       = 2**24 # Bytes of a token's x records of a layer, or BC records.
