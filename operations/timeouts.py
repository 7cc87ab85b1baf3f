#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""After how many cycles a job is surely stuck: the rules that firmware (protocol.h has the constants) and host go by."""

from operations.config import DATA_WIDTHS, ELEMENT_BYTES, LANES, SSMConfig
from operations.operations import Opcode
from operations.ssm import Geometry

# Constants ----------------------------------------------------------------------------------------

TIMEOUT_SETUP   = 100_000 # Cycles of a run, or of a block of a checksum, that do not grow with it, rounded up generously.
TIMEOUT_RESET   = 100_000 # Of an engine's reset; what is outstanding at the DRAM takes a thousand at most.

# A cycle's share, where it is smallest: of the beats of the narrowest port, and of a tile with the fewest lanes.
MIN_BEAT_BYTES  = min(DATA_WIDTHS)//8
MIN_LANES_BYTES = min(LANES)*ELEMENT_BYTES

# How many times that much is granted: the DRAM is shared with host and CPU, and by the checksum unit with the core.
TIMEOUT_FACTOR_SSM      = 8
TIMEOUT_FACTOR_CHECKSUM = 64
TIMEOUT_FACTOR_PROGRAM  = 32 # The tape, and for each token the session: a beat of it may be as many cycles as there are tokens.

TIMEOUT_DESCRIPTOR = 1000 # Cycles of a program's descriptor beside that.

SELFTEST_CYCLES = 5_000_000 # For all vectors; of each the firmware knows better.

# Rules --------------------------------------------------------------------------------------------

def ssm_timeout(geometry: Geometry, tokens: int) -> int:
    """Cycles of a run of the SSM block."""
    inputs = geometry.x_record_bytes + geometry.bc_record_bytes + geometry.y_record_bytes
    token  = geometry.tile_bytes//MIN_LANES_BYTES + inputs//MIN_BEAT_BYTES
    return TIMEOUT_SETUP + TIMEOUT_FACTOR_SSM*geometry.heads*(tokens*token + 2*geometry.tile_bytes//MIN_BEAT_BYTES)


def checksum_timeout(size: int, block: int) -> int:
    """Cycles of the checksums of `size` bytes, in blocks of so many."""
    return -(-size//block)*TIMEOUT_SETUP + size//MIN_BEAT_BYTES*TIMEOUT_FACTOR_CHECKSUM


def program_timeout(descriptors: int, tape_bytes: int, tokens: int, session_bytes: int) -> int:
    """Cycles of a program that is run for so many tokens (operations/image.py)."""
    return TIMEOUT_SETUP + descriptors*TIMEOUT_DESCRIPTOR + (tape_bytes + tokens*session_bytes)//MIN_BEAT_BYTES*TIMEOUT_FACTOR_PROGRAM


def job_timeout(config: SSMConfig, opcode: Opcode, operands: dict[str, int]) -> int:
    """Cycles of a job; of one that will be refused, any."""
    try:
        if opcode == Opcode.SSM:
            geometry = Geometry(config, *(operands[name] for name in ("heads", "headdim", "d_state", "groups")))
            return ssm_timeout(geometry, operands["tokens"])
        if opcode == Opcode.CHECKSUM:
            return checksum_timeout(operands["region_bytes"], operands["block_bytes"])
    except (ValueError, ZeroDivisionError):
        pass
    return SELFTEST_CYCLES if opcode == Opcode.SELFTEST else TIMEOUT_SETUP
