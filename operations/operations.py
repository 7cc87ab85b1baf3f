#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The operations that a job may ask for: the only list of them, from which come the C header, the host's jobs and
docs/operations.md (see operations/header.py). What an operation does is in firmware/operations.c.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from operations.fields import Address, Count, Field, Flag, Immediate, Size
from operations.image import MAX_DEFERRED, MAX_PASS_TOKENS, MAX_PROMPT_TOKENS, MAX_STOP_TOKENS, MAX_TOKENS

# Engines ------------------------------------------------------------------------------------------

class Engine(IntEnum):
    """Units of the gateware that operations run on, as numbered in the info block."""
    SSM      = 1
    CHECKSUM = 2
    PROGRAM  = 3 # Those that run programs, operations/program.py, taken together.

# Operations ---------------------------------------------------------------------------------------

class Opcode(IntEnum):
    NOP      = 0
    SSM      = 1
    SELFTEST = 2
    CHECKSUM = 3
    GENERATE = 4
    BATCH    = 5
    PASS     = 6


class JobFlag(IntFlag):
    ZERO_STATE = 1 << 0
    NO_STORE   = 1 << 1
    RESIDENT   = 1 << 3
    LOGITS     = 1 << 4
    SPECULATE  = 1 << 5
    CANDIDATES = 1 << 6


@dataclass(frozen=True)
class Operation:
    """What a job with an opcode does.

    Parameters
    ----------
    opcode : its number and name.
    engine : it runs on; None: on the CPU alone. Without its engine an operation is refused.
    text   : what it does.
    fields : its operands, in the order of a job's words.
    flags  : that a job may have.
    units  : what `units` of its result counts.
    """
    opcode : Opcode
    engine : Engine | None
    text   : str
    fields : tuple[Field, ...] = ()
    flags  : tuple[Flag, ...]  = ()
    units  : str | None        = None

    @property
    def name(self) -> str:
        return self.opcode.name


OPERATIONS = (
    Operation(Opcode.NOP, None, "Completes at once."),
    Operation(Opcode.SSM, Engine.SSM, "Runs T tokens of the SSM block.",
        fields = (
            Count("heads",        "H.", high="max_heads"),
            Count("headdim",      "P.", high="max_headdim"),
            Count("d_state",      "N.", high="max_d_state"),
            Count("groups",       "G, a divisor of H.", high="max_groups"),
            Count("tokens",       "T.", high="max_tokens"),
            Address("x_address",  "T*H x records."),
            Address("bc_address", "T*G BC records."),
            Address("y_address",  "T*H y records."),
            Address("state_in",   "H head tiles (not read with ZERO_STATE or RESIDENT)."),
            Address("state_out",  "H head tiles (not written with NO_STORE); may equal state_in."),
            Count("first_token",  "y is written from this token on; earlier tokens only advance the state.", 0, 0, "tokens"),
            Immediate("tile",     "Where on chip head 0's tile lies or comes to lie; head h's is `tile` + h.", 0),
            Immediate("seed",     "Of stochastic rounding: token t of head h takes seed + t + h*SEED_STRIDE.", 0),
        ),
        flags  = (
            Flag("ZERO_STATE", 0, "Start from a state of zeros."),
            Flag("NO_STORE",   1, "Do not store the state."),
            Flag("RESIDENT",   3, "Take the state as a job before has left it on chip (state_in is not read).",
                needs="resident_tiles"),
        ),
        units  = "head tiles"),
    Operation(Opcode.SELFTEST, Engine.SSM, "Runs the firmware's vectors through the core, and where the build runs whole models the "
        "passes of a small one through all engines, using the end of the data region as scratch. An error's detail is the number of a "
        "vector: first those of the core, then that of the model.",
        units  = "head tiles, and tokens of the model"),
    Operation(Opcode.CHECKSUM, Engine.CHECKSUM, "Writes the CRC-32 (zlib's) of each block of a region to a table.",
        fields = (
            Address("region",     "The first block."),
            Size("region_bytes",  "Of all blocks."),
            Size("block_bytes",   "Of a block; the last one may be shorter."),
            Address("table",      "A word for each block.", region="tables"),
        ),
        units  = "blocks"),
    Operation(Opcode.GENERATE, Engine.PROGRAM, "Runs a prompt through the whole model, pass by pass, and then generates tokens, each from "
        "the one before. What lies where: operations/image.py. A token that is generated last is not run: the next job's prompt begins "
        "with it.",
        fields = (
            Address("model",         "The model's image."),
            Address("session_in",    "The session to begin with (with ZERO_STATE it is not read)."),
            Address("session_out",   "The session that is written, pass by pass; may equal session_in."),
            Address("prompt",        "A word for each token of the prompt, then one for each stop token."),
            Count("prompt_tokens",   "Of the prompt.", high=MAX_PROMPT_TOKENS),
            Immediate("place",       "Of the prompt's first token in its text.", 0),
            Count("tokens",          "The most to be generated; 0: the session is written, and no logits.", 0, 0, MAX_TOKENS),
            Address("output",        "The tokens, or with LOGITS the logits."),
            Immediate("inverse",     "2**16/temperature; 0: the best token is taken.", 0),
            Immediate("top",         "Of so many of the best tokens (bits 15:0, 1 to 64); of these the first ones alone whose weights together are "
                "top_p/2**16 of all, or more (bits 31:16; 0: all).", 1),
            Immediate("seed",        "Of the draws, and of stochastic rounding.", 0),
            Count("stop_tokens",     "Tokens that end the text.", 0, 0, MAX_STOP_TOKENS),
            Count("store_every",     "The state is stored with a pass that makes so many tokens since the last time, or more; and at the end. "
                "One more than the image says at most.", 1, 1, MAX_DEFERRED + 1),
        ),
        flags  = (
            Flag("ZERO_STATE", 0, "Start from a state of zeros."),
            Flag("LOGITS",     4, "Write all logits of each token of the prompt; `tokens` is 0 then."),
            Flag("SPECULATE",  5, "Run drafts, what came in the text after the same tokens, in the same pass as a token, and keep those that are "
                "right: the tokens are the same as without. `store_every` counts those."),
        ),
        units  = "tokens run"),
    Operation(Opcode.BATCH, Engine.PROGRAM, "Generates tokens of several sessions together, a token of each in a pass, each as GENERATE would. It "
        "ends when one of them generates a stop token, which is the last one of its own; no token that is generated last is run. There is none "
        "with stochastic rounding, of which a pass has one seed.",
        fields = (
            Address("model",         "The model's image."),
            Address("sessions",      "The sessions, one right after the other; they are overwritten."),
            Address("texts",         "Six words of each session: its last token, which it has not run, that token's place in its text, its seed, 1 if its "
                "text has ended (then it keeps its place among the others, and its token), and inverse and top, as of GENERATE. Then a word for each "
                "stop token."),
            Count("session_count",   "Of sessions.", high=MAX_PASS_TOKENS),
            Count("tokens",          "The most to be generated, of each session.", high=MAX_TOKENS),
            Address("output",        "The tokens."),
            Count("stop_tokens",     "Tokens that end a text.", 0, 0, MAX_STOP_TOKENS),
        ),
        units  = "tokens run"),
    Operation(Opcode.PASS, Engine.PROGRAM, "Runs one pass of a session's tokens through the layers that the image has: of a whole model, or of a stage, some "
        "of its layers, that a chain of devices runs together. The host chooses the tokens.",
        fields = (
            Address("model",         "The image, of a model or a stage."),
            Address("session_in",    "The session to begin with (with ZERO_STATE it is not read)."),
            Address("session_out",   "The session that is written; may equal session_in."),
            Address("input",         "A word for each token; of a stage that is not the first, its residual vector: `residual_bytes` of binary32."),
            Count("tokens",          "Of the pass. No more than the image says.", high=MAX_PASS_TOKENS),
            Immediate("place",       "Of the first token in its text.", 0),
            Immediate("seed",        "Of stochastic rounding.", 0),
            Address("output",        "Of a stage that is not the last, the residual vector of each token; else with CANDIDATES those that follow the last "
                "token, 64 of a token's number and a binary32 each, best first; else nothing."),
        ),
        flags  = (
            Flag("ZERO_STATE", 0, "Start from a state of zeros."),
            Flag("CANDIDATES", 6, "Run the head, and write the candidates: of a whole model, or the last stage."),
        ),
        units  = "tokens run"),
)

BY_OPCODE = {operation.opcode: operation for operation in OPERATIONS}

# Words --------------------------------------------------------------------------------------------

def operand_words(opcode: Opcode, operands: dict[str, int]) -> list[int]:
    """The operands of a job, in the order of its words.

    Raises
    ------
    ValueError : the opcode, or an operand, is unknown, or missing, or no word.
    """
    if opcode not in BY_OPCODE:
        raise ValueError(f"opcode must be one of {', '.join(str(int(known)) for known in BY_OPCODE)}, is {opcode!r}.")
    fields = BY_OPCODE[opcode].fields
    names  = [field.name for field in fields]
    for name in operands:
        if name not in names:
            raise ValueError(f"an operand of {Opcode(opcode).name} must be one of {', '.join(names) or 'none'}, is {name!r}.")
    words = []
    for field in fields:
        value = operands.get(field.name, field.default)
        if value is None:
            raise ValueError(f"{field.name} must be {field.limits}, is missing.")
        field.check(value)
        words.append(int(value))
    return words
