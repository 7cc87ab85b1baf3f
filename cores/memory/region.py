#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Which memory a master may touch, and how it is addressed: in beats, on the bus."""

from migen import *

from operations.config import BEAT_BYTES

# Constants ----------------------------------------------------------------------------------------

ADDRESS_BITS = 32 - log2_int(BEAT_BYTES)

BLOCK_DEPTH = 128 # Beats from which on block RAM takes less than LUT RAM, as synthesis reckons.

# Region -------------------------------------------------------------------------------------------

class Region:
    """Where the memory is: `origin` and `size` in bytes. Raises ValueError unless both are powers of two that align."""
    def __init__(self, origin, size):
        if size < BEAT_BYTES or size & (size - 1) or origin % size:
            raise ValueError(f"memory region must have a size that is a power of two and an origin that is a multiple of it, is "
                f"0x{size:x} bytes at 0x{origin:x}.")
        self.origin = origin//BEAT_BYTES
        self.bits   = log2_int(size//BEAT_BYTES)

    def contains(self, address):
        return address[self.bits:] == (self.origin >> self.bits)


def check_width(port):
    """Raise ValueError unless the port moves a whole beat."""
    width = port.data_width
    if width != 8*BEAT_BYTES:
        raise ValueError(f"data_width of a port must be {8*BEAT_BYTES}, is {width}.")
