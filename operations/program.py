#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A program: what the engines do for R tokens, descriptor by descriptor. The only list of descriptors, from which come the
gateware's layouts, the C header, the packer, the checks and docs/program.md (see operations/header.py).

A descriptor is DESCRIPTOR_WORDS words of 32 bits. Its first has the opcode and the flags, the next ones what it waits for, and the rest
the operands, in order, none of them across two words. Descriptors are issued in order, each to the queue of its engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from operations.config import ALIGNMENT
from operations.numerics import VECTOR_TERMS, Function

# Constants ----------------------------------------------------------------------------------------

DESCRIPTOR_WORDS = 16
FIRST_OPERAND    = 3  # Word.
OPERAND_BITS     = 32*(DESCRIPTOR_WORDS - FIRST_OPERAND)
FLAGS_BIT        = 8  # Of word 0, the lowest one of the flags.
WAIT_BITS        = 8
NO_WAIT          = 2**WAIT_BITS - 1
SCRATCH_MULTIPLE = 8  # Elements: what vectors in the scratchpad begin at, whatever its width.
REGISTER_BITS    = 4
OFFSET_BITS      = 28

# Engines ------------------------------------------------------------------------------------------

class Unit(IntEnum):
    """What descriptors run on, each with a queue of its own. The number is the place of its wait."""
    MOVE   = 0 # Between DRAM and scratchpad.
    GEMV   = 1
    VECTOR = 2
    SSM    = 3
    HEAD   = 4 # The best of the logits.


class Register(IntEnum):
    """Base registers of addresses in DRAM, which the firmware sets."""
    TAPE       = 0 # Where the matrices begin; the GEMV engine reads on from there.
    EMBEDDING  = 1
    PARAMETERS = 2
    STATE_IN   = 3 # Of the layers, before the pass
    STATE_OUT  = 4 # and after it; they may be the same.
    WINDOW_IN  = 5 # Likewise, of the convolutions.
    WINDOW_OUT = 6
    RECORDS    = 7 # Inputs and outputs of the SSM core.
    RESULTS    = 8
    X_RECORDS  = 9  # RECORDS, and the x records of the tokens that are deferred: where those of the pass begin;
    BC_RECORDS = 10 # likewise, of BC records.

# Operands -----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Operand:
    """A number of a descriptor.

    Parameters
    ----------
    name     : in C and in Python.
    text     : what it is, as the end of a line.
    bits     : that it takes.
    low      : its least value. The word holds the value less this.
    default  : where none is given; None: one must be.
    multiple : of what it must be one.
    """
    name     : str
    text     : str
    bits     : int        = 16
    low      : int        = 0
    default  : int | None = None
    multiple : int        = 1

    @property
    def limits(self) -> str:
        limits = f"{self.low} to {self.low + 2**self.bits - 1}"
        return limits if self.multiple == 1 else f"{limits}, a multiple of {self.multiple}"

    def encode(self, value: object) -> int:
        """The bits of a value.

        Raises
        ------
        ValueError : it is not within the limits.
        """
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value - self.low < 2**self.bits or value % self.multiple:
            raise ValueError(f"{self.name} must be {self.limits}, is {value!r}.")
        return value - self.low

    def decode(self, bits: int) -> object:
        return bits + self.low


@dataclass(frozen=True)
class Scratch(Operand):
    """An address in the scratchpad, in elements of 16 bits, where a vector begins."""
    bits     : int = 20
    multiple : int = SCRATCH_MULTIPLE


@dataclass(frozen=True)
class Memory(Operand):
    """An address in DRAM: (register, offset), an offset in bytes from a base register."""
    bits     : int = REGISTER_BITS + OFFSET_BITS
    multiple : int = ALIGNMENT

    @property
    def limits(self) -> str:
        return f"a base register and an offset below 2**{OFFSET_BITS} bytes, a multiple of {self.multiple}"

    def encode(self, value: object) -> int:
        match value:
            case (int() as register, int() as offset) if register in list(Register) and 0 <= offset < 2**OFFSET_BITS and \
                    offset % self.multiple == 0:
                return register << OFFSET_BITS | offset
        raise ValueError(f"{self.name} must be {self.limits}, is {value!r}.")

    def decode(self, bits: int) -> object:
        return Register(bits >> OFFSET_BITS), bits & (1 << OFFSET_BITS) - 1


def _stride(name: str, what: str, multiple: int = SCRATCH_MULTIPLE) -> Operand:
    return Operand(f"{name}_stride", f"Elements from {what} to the next.", 20, 0, 0, multiple)


def _elements(of: str) -> Operand:
    return Operand("elements", f"Of {of}.", 15, SCRATCH_MULTIPLE, None, SCRATCH_MULTIPLE)


def _records(name: str, what: str) -> Operand:
    return Operand(name, f"Bytes from {what} to the next.", 20, 0, None, ALIGNMENT)


TOKENS = Operand("tokens", "R, at once.", 3, 1, default=1)

# Descriptors --------------------------------------------------------------------------------------

class Code(IntEnum):
    END      = 0
    LOAD     = 1
    STORE    = 2
    QUANTISE = 3
    MATRIX   = 4
    SUM      = 5
    NORM     = 6
    EMBED    = 7
    ADD      = 8
    ROUND    = 9
    SSM      = 10
    BEST     = 11
    SCATTER  = 12
    LOGITS   = 13


@dataclass(frozen=True)
class Descriptor:
    """What a descriptor of a code does.

    Parameters
    ----------
    code     : its number and name.
    unit     : it runs on; None: on the dispatcher.
    text     : what it does.
    operands : in the order of its words.
    flags    : (name, what it says), from bit 0 on.
    """
    code     : Code
    unit     : Unit | None
    text     : str
    operands : tuple[Operand, ...]         = ()
    flags    : tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.code.name

    def places(self) -> list[tuple[Operand, int, int]]:
        """[(operand, word, its lowest bit)]."""
        word, bit, found = FIRST_OPERAND, 0, []
        for operand in self.operands:
            if bit + operand.bits > 32:
                word, bit = word + 1, 0
            found.append((operand, word, bit))
            bit += operand.bits
        return found


def _moves(elements: Operand | None, memory_multiple: int, row_multiple: int) -> tuple[Operand, ...]:
    """Of a LOAD, STORE or SCATTER: multiples of bytes in DRAM, and of a row's stride in the scratchpad."""
    def bytes_(name: str, what: str) -> Operand:
        return Operand(name, f"Bytes from {what} to the next.", 20, 0, 0, memory_multiple)
    return (
        Memory("memory",           "Where in DRAM.", multiple=memory_multiple),
        Scratch("scratch",         "Where in the scratchpad."),
        *((elements,) if elements else ()),
        Operand("rows",            "Of a token.", 12, 1, 1),
        bytes_("memory_row_stride",   "a row"),
        bytes_("memory_token_stride", "a token"),
        _stride("scratch_row", "a row", row_multiple),
        _stride("scratch_token", "a token"),
        TOKENS,
    )


_MOVES = _moves(Operand("elements", "Of a row, 16 bits each.", 20, SCRATCH_MULTIPLE, None, SCRATCH_MULTIPLE), 2*SCRATCH_MULTIPLE, SCRATCH_MULTIPLE)

_NARROW = ("NARROW", "Q4_0, else Q8_0.")
_STREAM = (
    Scratch("residual",            "The residual stream, binary32: two elements each."),
    _stride("residual", "a token"),
)

DESCRIPTORS = (
    Descriptor(Code.END, None, "Ends the program, when all before it has retired."),
    Descriptor(Code.LOAD,  Unit.MOVE, "Brings rows of DRAM to the scratchpad.", _MOVES),
    Descriptor(Code.STORE, Unit.MOVE, "Brings rows of the scratchpad to DRAM.", _MOVES),
    Descriptor(Code.QUANTISE, Unit.GEMV, "Puts vectors into the activations' memory, in block floating point.", (
        Scratch("source",          "Token 0's vector, binary16."),
        _stride("source", "a token"),
        Operand("groups",          "Of 32 elements.", 9, 1),
        Operand("base",            "Where in the activations' memory, in words of sixteen columns.", 13, default=0),
        TOKENS,
    )),
    Descriptor(Code.MATRIX, Unit.GEMV, "Multiplies the tape's next matrix by the vectors, and rounds: to binary16 into the scratchpad, or "
        "to binary32 for the next BEST.", (
        Scratch("target",          "Token 0's results, a multiple of a block of rows. Nothing with HEAD.", default=0),
        _stride("target", "a token"),
        Operand("groups",          "Of 32 columns.", 9, 1),
        Operand("base",            "Of the vectors in the activations' memory.", 13, default=0),
        TOKENS,
        Operand("rows",            "A multiple of a block of rows.", 20, 1),
        Operand("vocabulary",      "With HEAD, rows that are logits; those after them are left out.", 20, 1, 1),
    ), (_NARROW, ("HEAD", "The results are logits, for BEST."))),
    Descriptor(Code.SUM, Unit.VECTOR, "clip(f(RN16(sum over the terms of a*b))), element by element. The target may "
        "be that of an operand's terms, else the two do not overlap.", (
        Scratch("target",          "Token 0's results, binary16."),
        Operand("low",             "Of what is neither NaN nor negative, the least value, binary16; 0 without a function.", 16, default=0),
        Operand("high",            "The greatest; infinity without a function.", 16, default=0x7c00),
        Scratch("a",               "Token 0's first term."),
        Operand("terms",           "Of a sum.", (VECTOR_TERMS - 1).bit_length(), 1, 1),
        Operand("function",        ", ".join(f"{member.value}: {member.name}" for member in Function) + ".", 2, default=Function.NONE),
        Scratch("b",               "Token 0's first term.", default=0),
        _stride("target", "a token"),
        TOKENS,
        _stride("a", "a token"),
        _stride("b", "a token"),
        _stride("a_term", "a term"),
        _stride("b_term", "a term"),
        Operand("elements",        "Of a token.", 16, 1),
    ), (("ONES", "All b are 1."), ("BIAS", "The last term's a is 1."))),
    Descriptor(Code.NORM, Unit.VECTOR, "RMSNorm of each group.", (
        Scratch("target",          "Token 0's results, binary16."),
        _stride("target", "a token"),
        Scratch("source",          "Token 0's vector, binary16."),
        _stride("source", "a token"),
        Scratch("weight",          "binary16."),
        _elements("a group"),
        Operand("groups",          "Of a vector.", 8, 1, 1),
        TOKENS,
        Operand("eps_low",         "Size times epsilon in units of 2**-48, not 0: the lower word.", 32),
        Operand("eps_high",        "And the upper one.", 32, default=0),
    )),
    Descriptor(Code.EMBED, Unit.VECTOR, "Begins the residual stream: the rows of the embedding that the firmware has named.", (
        *_STREAM,
        Memory("table",            "A matrix as on the tape."),
        Operand("groups",          "Of 32 columns.", 9, 1),
        TOKENS,
    ), (_NARROW,)),
    Descriptor(Code.ADD, Unit.VECTOR, "residual = RN32(residual + source).", (
        *_STREAM,
        Scratch("source",          "Token 0's vector, binary16."),
        _stride("source", "a token"),
        _elements("a token"),
        TOKENS,
    )),
    Descriptor(Code.ROUND, Unit.VECTOR, "target = RN16(residual).", (
        *_STREAM,
        Scratch("target",          "Token 0's vector, binary16."),
        _stride("target", "a token"),
        _elements("a token"),
        TOKENS,
    )),
    Descriptor(Code.SSM, Unit.SSM, "Runs the tokens through the SSM core, all heads, one after the other, after those that are deferred, whose records lie in front; of "
        "these no y is written. Records: docs/numerics.md.", (
        Memory("x",                "x records."),
        Memory("bc",               "BC records."),
        Memory("y",                "y records, of the pass."),
        Memory("state_in",         "Head tiles; not read with ZERO_STATE."),
        Memory("state_out",        "Head tiles; not written with NO_STORE."),
        _records("x_step",         "a head's x record"),
        Operand("heads",           "H.", 10, 1),
        _records("y_step",         "a head's y record"),
        Operand("headdim",         "P.", 10, 1),
        _records("bc_step",        "a group's BC record"),
        Operand("d_state",         "N.", 10, 1),
        _records("state_step",     "a head's tile"),
        Operand("group_heads",     "Heads of a group, a divisor of H.", 10, 1),
        _records("x_stride",       "a token's x records"),
        TOKENS,
        _records("bc_stride",      "a token's BC records"),
        _records("y_stride",       "a token's y records"),
        Operand("seed",            "Of stochastic rounding.", 32, default=0),
    ), (("ZERO_STATE", "Start from a state of zeros."), ("NO_STORE", "Do not store the state."))),
    Descriptor(Code.BEST, Unit.HEAD, "Writes the best candidates of the MATRIX with HEAD before it, of as many tokens: 64 of each, best "
        "first, a token's number and a binary32 each.", (
        Memory("target",           "8 bytes a candidate, 64 a token; of a smaller vocabulary zeros follow."),
        TOKENS,
    )),
    Descriptor(Code.SCATTER, Unit.MOVE, "Brings elements of the scratchpad to DRAM, one to each row.", _moves(None, 2, 1)),
    Descriptor(Code.LOGITS, Unit.HEAD, "Writes all results of the MATRIX with HEAD that comes after it, binary32, as they come: those of "
        "width/128 rows of each token, token by token, then those of the next rows; the last beat is filled up with zeros.", (
        Memory("target",           "4 bytes a row and token."),
    )),
)

BY_CODE = {descriptor.code: descriptor for descriptor in DESCRIPTORS}

# Words --------------------------------------------------------------------------------------------

def pack(code: Code, waits: Mapping[Unit, int] | None = None, flags: Sequence[str] = (), **operands: object) -> list[int]:
    """The words of a descriptor.

    Parameters
    ----------
    waits    : {unit: n}: it is issued when of this unit's descriptors before it all but the last n have retired, n below NO_WAIT.
    flags    : names of those that are set.
    operands : by name.

    Raises
    ------
    ValueError : a name is unknown, an operand is missing or not within its limits.
    """
    if code not in BY_CODE:
        raise ValueError(f"code must be one of {', '.join(known.name for known in BY_CODE)}, is {code!r}.")
    descriptor = BY_CODE[code]
    words      = [int(code)] + [0]*(DESCRIPTOR_WORDS - 1)
    known      = [name for name, _ in descriptor.flags]
    for flag in flags:
        if flag not in known:
            raise ValueError(f"a flag of {descriptor.name} must be one of {', '.join(known) or 'none'}, is {flag!r}.")
        words[0] |= 1 << FLAGS_BIT + known.index(flag)
    for unit in Unit:
        count = (waits or {}).get(unit, NO_WAIT)
        if not 0 <= count <= NO_WAIT:
            raise ValueError(f"a wait must be 0 to {NO_WAIT}, is {count!r}.")
        words[1 + unit//4] |= count << WAIT_BITS*(unit % 4)
    names = [operand.name for operand in descriptor.operands]
    for name in operands:
        if name not in names:
            raise ValueError(f"an operand of {descriptor.name} must be one of {', '.join(names) or 'none'}, is {name!r}.")
    for operand, word, bit in descriptor.places():
        value = operands.get(operand.name, operand.default)
        if value is None:
            raise ValueError(f"{operand.name} must be {operand.limits}, is missing.")
        words[word] |= operand.encode(value) << bit
    return words


def unpack(words: Sequence[int]) -> tuple[Descriptor, dict[Unit, int], list[str], dict[str, object]]:
    """(descriptor, waits, flags, operands) of the words of one.

    Raises
    ------
    ValueError : the code is unknown, or a bit is set that means nothing.
    """
    code = words[0] & 2**FLAGS_BIT - 1
    if code not in list(Code):
        raise ValueError(f"code must be 0 to {len(Code) - 1}, is {code}.")
    descriptor = BY_CODE[Code(code)]
    waits      = {unit: words[1 + unit//4] >> WAIT_BITS*(unit % 4) & NO_WAIT for unit in Unit}
    flags      = [name for n, (name, _) in enumerate(descriptor.flags) if words[0] >> FLAGS_BIT + n & 1]
    operands   = {operand.name: operand.decode(words[word] >> bit & 2**operand.bits - 1) for operand, word, bit in descriptor.places()}
    waits      = {unit: count for unit, count in waits.items() if count != NO_WAIT}
    if pack(descriptor.code, waits, flags, **operands) != list(words):
        raise ValueError(f"a descriptor of {descriptor.name} must have no other bits than its own, has.")
    return descriptor, waits, flags, operands


def fields(descriptor: Descriptor) -> list[tuple[str, int]]:
    """[(name, bits)] of a descriptor's operands from word FIRST_OPERAND on, as they lie, for a record in gateware. What is not used is
    ``reserved``."""
    result: list[tuple[str, int]] = []
    at = 0
    for operand, word, bit in descriptor.places():
        start = 32*(word - FIRST_OPERAND) + bit
        if start > at:
            result.append((f"reserved{at}", start - at))
        result.append((operand.name, operand.bits))
        at = start + operand.bits
    if at < OPERAND_BITS:
        result.append((f"reserved{at}", OPERAND_BITS - at))
    return result
