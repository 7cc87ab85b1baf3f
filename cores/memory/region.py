#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Which memory a master may touch, and of what width its port is. Addresses are byte addresses on the bus."""

from migen import *

from operations.config import ALIGNMENT, DATA_WIDTHS

# Constants ----------------------------------------------------------------------------------------

ADDRESS_BITS = 32
BLOCK_DEPTH  = 128 # Beats from which on block RAM takes less than LUT RAM, as synthesis reckons.

# Region -------------------------------------------------------------------------------------------

class Region:
    """The bytes from `base` to before `limit`, of a memory that begins at `origin` (None: at `base`).

    Raises
    ------
    ValueError : one is not a multiple of ALIGNMENT, or nothing lies between them.
    """
    def __init__(self, base, limit, origin=None):
        if base % ALIGNMENT or limit % ALIGNMENT or not 0 <= base < limit <= 2**ADDRESS_BITS:
            raise ValueError(f"a memory region must lie between multiples of {ALIGNMENT}, the lower one first, is from "
                f"0x{base:x} to 0x{limit:x}.")
        self.base   = base
        self.limit  = limit
        self.origin = base if origin is None else origin
        if self.origin % ALIGNMENT or not 0 <= self.origin <= base:
            raise ValueError(f"origin of a memory region must be a multiple of {ALIGNMENT} up to 0x{base:x}, is 0x{self.origin:x}.")

    @property
    def size(self):
        return self.limit - self.base

    def contains(self, address):
        """Whether it contains the byte at an address."""
        if self.size & (self.size - 1) == 0 and self.base % self.size == 0: # Comparators take more.
            return address[log2_int(self.size):] == self.base//self.size
        return (address >= self.base) & (address < self.limit)

    def offset(self, address):
        """An address in the region, from the memory's origin on."""
        bits = bits_for(self.limit - self.origin - 1)
        return address[:bits] if self.origin % 2**bits == 0 else (address - self.origin)[:bits]

# Width --------------------------------------------------------------------------------------------

def beat_shift(port):
    """log2 of the bytes of a port's beat. Raises ValueError unless the port's width is one of DATA_WIDTHS."""
    if port.data_width not in DATA_WIDTHS:
        raise ValueError(f"data_width of a port must be one of {', '.join(map(str, DATA_WIDTHS))}, is {port.data_width}.")
    return log2_int(port.data_width//8)
