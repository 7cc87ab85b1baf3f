#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Jobs, as the host asks for them: what operations/operations.py describes, packed into words."""

import numpy as np

from operations.config import SSMConfig, check_range
from operations.fields import WORD_MAX
from operations.operations import JobFlag, Opcode, operand_words
from operations.protocol import JOB_OPERANDS, PROTOCOL_VERSION
from operations.ssm import Geometry
from operations.timeouts import job_timeout

# Job ----------------------------------------------------------------------------------------------

class Job:
    """What a job asks for: ``Job(Opcode.CHECKSUM, region=..., region_bytes=..., block_bytes=..., table=...)``.

    Parameters
    ----------
    opcode   : :class:`operations.operations.Opcode`.
    flags    : :class:`operations.operations.JobFlag`.
    timeout  : cycles that it may take; 0: the firmware's own estimate.
    expected : cycles after which the host gives up, where the firmware's estimate is not that of a whole job; 0: `timeout`, or its estimate.
    operands : those of the operation, by name (docs/operations.md).

    Raises
    ------
    ValueError : the opcode, or an operand, is unknown, or missing, or out of 32 bits. All else the firmware checks.
    """
    def __init__(self, opcode: Opcode, flags: int = 0, timeout: int = 0, expected: int = 0, **operands: int):
        check_range("flags",   flags,   0, WORD_MAX)
        check_range("timeout", timeout, 0, WORD_MAX)
        self.opcode   = opcode
        self.flags    = flags
        self.timeout  = timeout
        self.expected = expected
        self.operands = operands
        self._words   = operand_words(opcode, operands)

    def words(self, sequence: int) -> np.ndarray:
        """The request as the firmware reads it: uint32, JOB_REQUEST_WORDS of them."""
        unused = [0]*(JOB_OPERANDS - len(self._words))
        return np.array([PROTOCOL_VERSION, sequence, self.opcode, self.flags, self.timeout, *self._words, *unused], np.uint32)

    def cycles(self, config: SSMConfig) -> int:
        """Cycles after which it has surely ended, on a device of `config`."""
        return self.expected or self.timeout or job_timeout(config, self.opcode, self.operands)

# SSM ----------------------------------------------------------------------------------------------

def ssm_job(geometry: Geometry, tokens: int, x: int, bc: int, y: int, state_in: int, state_out: int, first_token: int = 0,
            zero_state: bool = False, store: bool = True, resident: bool = False, seed: int = 0) -> Job:
    """The job that runs `tokens` tokens of a block.

    Parameters
    ----------
    x, bc, y    : addresses of the records of token 0, see :class:`operations.ssm.Geometry`.
    state_in    : address of the state to begin with; with `zero_state` it is zeros, with `resident` that on chip.
    state_out   : address of the state to store, unless `store` is False.
    first_token : y is written from this token on, 0 .. tokens.
    seed        : of token 0, for stochastic rounding, modulo 2**32.
    """
    flags = JobFlag(0)
    if resident:
        flags |= JobFlag.RESIDENT
    elif zero_state:
        flags |= JobFlag.ZERO_STATE
    if not store:
        flags |= JobFlag.NO_STORE
    return Job(Opcode.SSM,
        flags       = flags,
        heads       = geometry.heads,
        headdim     = geometry.headdim,
        d_state     = geometry.d_state,
        groups      = geometry.groups,
        tokens      = tokens,
        x_address   = x,
        bc_address  = bc,
        y_address   = y,
        state_in    = state_in,
        state_out   = state_out,
        first_token = first_token,
        seed        = seed % 2**32,
    )
