#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Build-time configuration of the accelerator: the one place where its sizes are stated.

Everything that needs a size takes it from here: the gateware, the C header of the firmware
(:func:`operations.header.c_header`), the host and the bit-accurate model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

# Constants ----------------------------------------------------------------------------------------

VERSION          = "0.2.0" # Of the project: package, gateware and firmware.
GATEWARE_VERSION = int("".join(f"{int(part):02x}" for part in VERSION.split(".")), 16) # 0xMMmmpp: major, minor, patch.

ELEMENT_BYTES = 2   # IEEE-754 binary16.
DATA_WIDTHS   = (128, 256, 512) # Bits of a memory port.

# Bytes: each record in memory begins at a multiple of this, whatever the port's width. So records begin with a beat at every
# width, and the same bytes serve them all.
ALIGNMENT = max(DATA_WIDTHS)//8

LANES         = (4, 8, 16, 32, 64)
DSP_BITS      = (18, 25)
MIN_D_STATE_MULTIPLE = 8 # See SSMConfig.d_state_multiple.
SMALL_LANES   = 8   # As many at most are for a small FPGA, see SystemConfig.of.

BC_SLOTS      = 4   # Tokens whose B and C the core holds, for the next tile of the group.

# Stochastic rounding, see cores/arith/rng.py and model/bitexact.py.
RANDOM_BITS    = 10         # Of each state element.
HASH_WORD_BITS = 24
HASH_ROUNDS    = 4          # For the row, and as many for HASH_LANES lanes.
HASH_LANES     = 4
HASH_CONSTANT  = 0x9e3779   # 2**24 over the golden ratio.
SEED_STRIDE    = 0x9e3779b9 # From a head's seed to the next one's: no two heads meet for millions of tokens.

# Helpers ------------------------------------------------------------------------------------------

def ceil_multiple(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is not below `value`."""
    return -(-value//multiple)*multiple


def check_range(name: str, value: object, low: int, high: int) -> None:
    """Raise :class:`ValueError` unless `value` is an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, is {value!r}.")


def check_choice(name: str, value: object, choices: Sequence[int] | Sequence[str]) -> None:
    """Raise :class:`ValueError` unless `value` is one of the integers, or one of the words, `choices`."""
    if type(value) is not type(choices[0]) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, is {value!r}.")

def check_flag(name: str, value: object) -> None:
    """Raise :class:`ValueError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, is {value!r}.")

# Memory -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class MemoryConfig:
    """The accelerator's ports to memory.

    Parameters
    ----------
    data_width        : Bits of a port, 128, 256 or 512. None: as LiteDRAM's ports have it; narrower ones are converted to 128.
    state_write_ports : Ports that write head tiles, in turn (1 or 2; two read them). The last one writes y as well.
    input_port        : Whether the inputs have a port of their own; else they share the second that reads head tiles.

    Raises
    ------
    ValueError : names the parameter, its value and what is allowed.
    """
    data_width        : int | None = None
    state_write_ports : int  = 2
    input_port        : bool = True

    def __post_init__(self) -> None:
        if self.data_width is not None:
            check_choice("data_width", self.data_width, DATA_WIDTHS)
        check_choice("state_write_ports", self.state_write_ports, (1, 2))
        check_flag("input_port", self.input_port)

# SSM ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class SSMConfig:
    """What is fixed when the SSM core is built.

    Parameters
    ----------
    lanes       : State elements updated in a cycle (4, 8, 16, 32 or 64).
    max_headdim : Largest P, the head dimension.
    max_d_state : Largest N, the state size (a multiple of the lanes and of 8).
    max_heads   : Largest H. Heads are tiles in DRAM; they cost no gateware.
    max_groups  : Largest G. Likewise.
    max_tokens  : Largest T, the tokens of a job.
    queue_depth : Tile descriptors the gateware holds (a power of two).
    pipelined   : False: the stages run one after the other, for comparison only; the bits are the same.
    resident_tiles : Head tiles kept on chip (2 to 256), for layers whose state stays there; 0: two, to work on in turn.
    dsp_bits    : Bits of the signed numbers that a DSP block of the FPGA multiplies: 25, or 18 (Lattice's ECP5).
    dsp_shift   : Whether DSP blocks of 25 bits also shift, and multiply what all lanes share. It spares LUTs where there are more
        DSP blocks than the lanes take.
    stochastic_rounding : How the state is rounded: False, to nearest even; True, stochastically, by a seed.

    Raises
    ------
    ValueError : names the parameter, its value and what is allowed.
    """
    lanes       : int = 16
    max_headdim : int = 64
    max_d_state : int = 128
    max_heads   : int = 256
    max_groups  : int = 64
    max_tokens  : int = 65535
    queue_depth : int = 8
    pipelined   : bool = True
    resident_tiles : int = 0
    dsp_bits    : int = 25
    dsp_shift   : bool = False
    stochastic_rounding : bool = False

    def __post_init__(self) -> None:
        check_choice("lanes", self.lanes, LANES)
        check_range("max_headdim", self.max_headdim, 1,   256)
        check_range("max_d_state", self.max_d_state, 1,   512)
        check_range("max_heads",   self.max_heads,   1, 65535)
        check_range("max_groups",  self.max_groups,  1, 65535)
        check_range("max_tokens",  self.max_tokens,  1, 65535)
        if self.max_d_state % self.d_state_multiple:
            raise ValueError(f"max_d_state must be a multiple of {self.d_state_multiple}, is {self.max_d_state}.")
        check_choice("queue_depth", self.queue_depth, (2, 4, 8, 16, 32))
        check_choice("dsp_bits",    self.dsp_bits,    DSP_BITS)
        if type(self.resident_tiles) is not int or self.resident_tiles != 0:
            check_range("resident_tiles", self.resident_tiles, 2, 256)
        for name in ("pipelined", "dsp_shift", "stochastic_rounding"):
            check_flag(name, getattr(self, name))
        if self.dsp_shift and self.dsp_bits != 25:
            raise ValueError(f"dsp_bits must be 25 with dsp_shift, is {self.dsp_bits}.")

    @property
    def d_state_multiple(self) -> int:
        """B, C and the rows of the state are padded to a multiple of this many elements."""
        return max(self.lanes, MIN_D_STATE_MULTIPLE)

    @property
    def max_tile_words(self) -> int:
        """Words of `lanes` elements in the largest head tile."""
        return self.max_headdim*self.max_d_state//self.lanes


# Constants of a SoC from which the firmware is built: SSM_LANES and so on.
FIRMWARE_CONSTANTS = {f"SSM_{field.name.upper()}": field for field in fields(SSMConfig)}

# Programs -----------------------------------------------------------------------------------------

PASS_TOKENS  = (1, 2, 4, 8)
VECTOR_LANES = (1, 2, 4, 8)
UNITS        = ("MOVE", "GEMV", "VECTOR", "SSM", "HEAD") # As operations.program.Unit has them.

@dataclass(frozen=True)
class ProgramConfig:
    """What is fixed when the engines that run a whole model's programs are built, beside the SSM core.

    Parameters
    ----------
    pass_tokens  : R, the most tokens of a pass (1, 2, 4 or 8).
    vector_lanes : V, elements of the vector unit in a cycle (1, 2, 4 or 8; at least data_width/128).
    scratch      : Elements of the scratchpad, a multiple of 1024. None: 32768 for one token, twice as many for more, and again for 8.
    activations  : Words of sixteen columns of the activations' memory (a power of two, 16 to 2048).
    tape_depth   : Beats of the tape that may have been read ahead (16 to 16384).
    units        : Names of those that are built, of operations.program.Unit; the SSM is that of the SSM core.
    dsp_bits     : As the SSMConfig's.

    Raises
    ------
    ValueError : names the parameter, its value and what is allowed.
    """
    pass_tokens  : int        = 1
    vector_lanes : int        = 4
    scratch      : int | None = None
    activations  : int        = 256
    tape_depth   : int        = 2048
    units        : tuple[str, ...] = UNITS
    dsp_bits     : int        = 25

    def __post_init__(self) -> None:
        check_choice("pass_tokens",  self.pass_tokens,  PASS_TOKENS)
        check_choice("vector_lanes", self.vector_lanes, VECTOR_LANES)
        if self.scratch is not None:
            check_range("scratch", self.scratch, 1024, 2**20)
            if self.scratch % 1024:
                raise ValueError(f"scratch must be a multiple of 1024, is {self.scratch}.")
        check_choice("activations", self.activations, [2**n for n in range(4, 12)])
        check_range("tape_depth", self.tape_depth, 16, 2**14)
        check_choice("dsp_bits", self.dsp_bits, DSP_BITS)
        if not self.units or len(set(self.units)) != len(self.units) or not set(self.units) <= set(UNITS):
            raise ValueError(f"units must be some of {', '.join(UNITS)}, are {self.units!r}.")

    @property
    def elements(self) -> int:
        """Of the scratchpad."""
        return self.scratch or {1: 2**15, 8: 2**17}.get(self.pass_tokens, 2**16)


# System -------------------------------------------------------------------------------------------

# Of the VexRiscv. All have interrupts and a multiplier; where they have a data cache, it writes through.
CPU_VARIANTS = ("lite", "standard", "imac", "full", "linux")

@dataclass(frozen=True)
class SystemConfig:
    """An accelerated SoC: its memory ports, its engines (None: it has none of this kind), and the VexRiscv's variant. program: the
    engines that run a whole model.

    Raises
    ------
    ValueError : names the parameter, its value and what is allowed.
    """
    memory      : MemoryConfig = MemoryConfig()
    ssm         : SSMConfig    = SSMConfig()
    cpu_variant : str          = "standard"
    program     : ProgramConfig | None = None

    def __post_init__(self) -> None:
        check_choice("cpu_variant", self.cpu_variant, CPU_VARIANTS)
        width = self.memory.data_width or min(DATA_WIDTHS)
        if self.program is not None and self.program.vector_lanes < width//128:
            raise ValueError(f"vector_lanes must be at least {width//128} with data_width = {width}, is {self.program.vector_lanes}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SystemConfig":
        """The inverse of :func:`dataclasses.asdict`, also of what went through JSON."""
        program = values["program"] and ProgramConfig(**values["program"] | {"units": tuple(values["program"]["units"])})
        return cls(MemoryConfig(**values["memory"]), SSMConfig(**values["ssm"]), values["cpu_variant"], program)

    @classmethod
    def of(cls, lanes: int = SSMConfig.lanes, data_width: int | None = MemoryConfig.data_width, program: ProgramConfig | None = None,
           **options: Any) -> "SystemConfig":
        """The configuration for so many lanes: with SMALL_LANES or less everything is made for a small FPGA.

        There the CPU has no data cache, there are fewer ports, and DSP blocks, of which the lanes leave some over, spare LUTs.

        Parameters
        ----------
        options : of :class:`SSMConfig`.
        """
        small = lanes <= SMALL_LANES
        return cls(
            memory      = MemoryConfig(data_width, state_write_ports=1 if small else 2, input_port=not small),
            ssm         = SSMConfig(lanes=lanes, dsp_shift=small and options.get("dsp_bits", 25) == 25, **options),
            cpu_variant = "lite" if small else "standard",
            program     = program)
