#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Build-time configuration of the accelerator: the one place where its sizes are stated.

Everything that needs a size takes it from here: the gateware, the C header of the firmware
(:func:`operations.protocol.c_header`), the host and the bit-accurate model.
"""

from dataclasses import dataclass, fields

# Constants ----------------------------------------------------------------------------------------

VERSION          = "0.2.0" # Of the project: package, gateware and firmware.
GATEWARE_VERSION = int("".join(f"{int(part):02x}" for part in VERSION.split(".")), 16) # 0xMMmmpp: major, minor, patch.

ELEMENT_BYTES = 2   # IEEE-754 binary16.
BEAT_BYTES    = 16  # A DMA beat: one 128-bit word of a LiteDRAM native port on DDR3-16 at 1:4.
BEAT_ELEMENTS = BEAT_BYTES//ELEMENT_BYTES

LANES         = (4, 8, 16, 32)

BC_SLOTS      = 4   # Tokens whose B and C the core holds, for the next tile of the group.

# Stochastic rounding, see cores/arith/rng.py and model/bitexact.py.
RANDOM_BITS    = 10         # Of each state element.
HASH_WORD_BITS = 24
HASH_ROUNDS    = 4          # For the row, and as many for HASH_LANES lanes.
HASH_LANES     = 4
HASH_CONSTANT  = 0x9e3779   # 2**24 over the golden ratio.
SEED_STRIDE    = 0x9e3779b9 # From a head's seed to the next one's: no two heads meet for millions of tokens.

# Helpers ------------------------------------------------------------------------------------------

def ceil_multiple(value, multiple):
    """Smallest multiple of `multiple` that is not below `value`."""
    return -(-value//multiple)*multiple


def check_range(name, value, low, high):
    """Raise :class:`ValueError` unless `value` is an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, is {value!r}.")


def check_choice(name, value, choices):
    """Raise :class:`ValueError` unless `value` is one of the integers, or one of the words, `choices`."""
    if type(value) is not type(choices[0]) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, is {value!r}.")

# SSMConfig ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class SSMConfig:
    """What is fixed when the core is built.

    Parameters
    ----------
    lanes       : State elements updated in a cycle (4, 8, 16 or 32).
    max_headdim : Largest P, the head dimension.
    max_d_state : Largest N, the state size (a multiple of the lanes and of 8).
    max_heads   : Largest H. Heads are tiles in DRAM; they cost no gateware.
    max_groups  : Largest G. Likewise.
    max_tokens  : Largest T, the tokens of a job.
    queue_depth : Tile descriptors the gateware holds (a power of two).
    pipelined   : False: the stages run one after the other, for comparison only; the bits are the same.
    resident_tiles : Head tiles kept on chip (2 to 256), for layers whose state stays there; 0: two, to work on in turn.
    dsp_bits    : Bits of the signed numbers that a DSP block of the FPGA multiplies: 25, or 18 (Lattice's ECP5).
    gated_clock : True: the datapath has a clock of its own that stops while there is no vector. For simulators, which skip
        what stands still, not for FPGAs.
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
    gated_clock : bool = False
    stochastic_rounding : bool = False

    def __post_init__(self):
        check_choice("lanes", self.lanes, LANES)
        check_range("max_headdim", self.max_headdim, 1,   256)
        check_range("max_d_state", self.max_d_state, 1,   512)
        check_range("max_heads",   self.max_heads,   1, 65535)
        check_range("max_groups",  self.max_groups,  1, 65535)
        check_range("max_tokens",  self.max_tokens,  1, 65535)
        if self.max_d_state % self.d_state_multiple:
            raise ValueError(f"max_d_state must be a multiple of {self.d_state_multiple}, is {self.max_d_state}.")
        check_choice("queue_depth", self.queue_depth, (2, 4, 8, 16, 32))
        check_choice("dsp_bits",    self.dsp_bits,    (18, 25))
        if type(self.resident_tiles) is not int or self.resident_tiles != 0:
            check_range("resident_tiles", self.resident_tiles, 2, 256)
        for name in ("pipelined", "gated_clock", "stochastic_rounding"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, is {getattr(self, name)!r}.")

    @property
    def d_state_multiple(self):
        """B, C and the rows of the state are padded to a multiple of this many elements."""
        return max(self.lanes, BEAT_ELEMENTS)

    @property
    def max_tile_words(self):
        """Words of `lanes` elements in the largest head tile."""
        return self.max_headdim*self.max_d_state//self.lanes


# Constants of a SoC from which the firmware is built: SSM_LANES and so on. It sees nothing of the datapath's clock.
FIRMWARE_CONSTANTS = {f"SSM_{field.name.upper()}": field for field in fields(SSMConfig) if field.name != "gated_clock"}
