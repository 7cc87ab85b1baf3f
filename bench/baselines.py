#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM block in the arithmetics that accuracy is compared between."""

from typing import Callable, NamedTuple

import numpy as np
import torch

from model.bitexact import dot_skip, random_bits, state_update

from operations.config import SEED_STRIDE

# Arithmetic ---------------------------------------------------------------------------------------

class Arithmetic(NamedTuple):
    """One way to compute. Both functions take and return NumPy arrays that broadcast together.

    update(h, dA, dt, x, B, token) : the new state, of type `dtype`; the rest is float16. `token` counts from 0.
    output(h, C, D, x)             : y: the sum over the last axis, and the skip; h, C: (..., N), D, x: without N.
    """
    name   : str
    dtype  : type
    update : Callable
    output : Callable


def as_written(name, dtype, output_dtype=None):
    """PyTorch operations as in :func:`model.ssm.ssm_recurrence`, each rounded to `dtype`; y then to `output_dtype`."""
    def tensors(*arrays):
        return (torch.as_tensor(array).to(dtype) for array in arrays)

    def update(h, dA, dt, x, B, token):
        h, dA, dt, x, B = tensors(h, dA, dt, x, B)
        return (h*dA + (dt*x)*B).numpy()

    def output(h, C, D, x):
        h, C, D, x = tensors(h, C, D, x)
        return ((h*C).sum(-1) + D*x).to(output_dtype or dtype).numpy()

    return Arithmetic(name, torch.empty(0, dtype=dtype).numpy().dtype.type, update, output)

# Per-Operation FP16 -------------------------------------------------------------------------------

def pairwise_sum(values):
    """Sum over the last axis as a tree of float16 adders, each rounding."""
    while values.shape[-1] > 1:
        if values.shape[-1] % 2:
            values = np.concatenate((values, np.zeros_like(values[..., :1])), axis=-1)
        values = values[..., 0::2] + values[..., 1::2]
    return values[..., 0]


def _per_operation_update(h, dA, dt, x, B, token):
    return dA*h + (dt*x)*B


def _per_operation_output(h, C, D, x):
    return pairwise_sum(h*C) + D*x

# Core ---------------------------------------------------------------------------------------------

def _nearest_update(h, dA, dt, x, B, token):
    return state_update(h, dA, dt, x, B)


def stochastic(seed=0):
    """The core with stochastic rounding, of a seed for the first token."""
    def update(h, dA, dt, x, B, token):
        return state_update(h, dA, dt, x, B, random_bits(seed + token + np.arange(len(h))*SEED_STRIDE, *h.shape[1:]))

    return Arithmetic("core, stochastic", np.float16, update, dot_skip)

# All ----------------------------------------------------------------------------------------------

EXACT         = as_written("float64", torch.float64)
FLOAT32_STATE = as_written("FP32 state", torch.float32, torch.float16)
TORCH_FLOAT16 = as_written("torch.float16", torch.float16)
PER_OPERATION = Arithmetic("per-operation FP16", np.float16, _per_operation_update, _per_operation_output)
NEAREST       = Arithmetic("core, nearest even", np.float16, _nearest_update, dot_skip)
STOCHASTIC    = stochastic()

# Running ------------------------------------------------------------------------------------------

class Run:
    """A case, token by token, in one arithmetic.

    Parameters
    ----------
    arithmetic : :class:`Arithmetic`.
    case       : As :func:`model.case.realistic_case` makes it.
    """
    def __init__(self, arithmetic, case):
        self.arithmetic = arithmetic
        self.case       = case
        heads, headdim  = case["x"].shape[1:]
        groups, d_state = case["B"].shape[1:]
        self.group      = np.arange(heads)//(heads//groups)
        self.token      = 0
        self.h          = np.zeros((heads, headdim, d_state), arithmetic.dtype)
        if "h0" in case:
            self.h[:] = case["h0"]

    def step(self):
        """Take the next token into the state."""
        case, t = self.case, self.token
        self.h  = self.arithmetic.update(self.h, case["dA"][t, :, None, None], case["dt"][t, :, None, None],
            case["x"][t, :, :, None], case["B"][t, self.group, None, :], t)
        self.token += 1

    def y(self):
        """Output of the last token taken: (H, P)."""
        case, t = self.case, self.token - 1
        return self.arithmetic.output(self.h, case["C"][t, self.group, None, :], case["D"][:, None], case["x"][t])

    def all_y(self):
        """Outputs of all tokens: (T, H, P)."""
        outputs = []
        for _ in range(len(self.case["x"])):
            self.step()
            outputs.append(self.y())
        return np.stack(outputs)
