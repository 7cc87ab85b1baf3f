#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Cases: the inputs of the SSM block in float16, as the accelerator takes them.

A case is a dict of ``numpy.float16`` arrays: x (T, H, P), dt and dA (T, H), B and C (T, G, N), D (H,) and, unless the
state starts at zeros, h0 (H, P, N). ``ssm_recurrence(**case)`` runs it; a case file is its .npz.
"""

import numpy as np
import torch

from model.reference import random_hidden_states, random_layer
from model.ssm import block_sizes

# Constants ----------------------------------------------------------------------------------------

FLOAT16_MAX    = int(np.finfo(np.float16).max)
EARLIER_TOKENS = 256 # Tokens run before a realistic case to fill its h0.

# Conversion ---------------------------------------------------------------------------------------

def to_case(inputs):
    """Round a :class:`model.ssm.BlockInputs` to a case. A state h0 of None is left out.

    Raises
    ------
    ValueError : names an array with a value that is not a finite float16, that value and the range; or as
                 :func:`model.ssm.block_sizes`.
    """
    block_sizes(*inputs)
    case = {}
    for name, tensor in inputs._asdict().items():
        if tensor is None:
            continue
        values = torch.as_tensor(tensor).detach().double().numpy()
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        misfits = np.argwhere(~np.isfinite(rounded))
        if len(misfits):
            raise ValueError(f"{name}{misfits[0].tolist()} must be a number from {-FLOAT16_MAX} to {FLOAT16_MAX}, is "
                f"{values[tuple(misfits[0])]}.")
        case[name] = rounded
    return case


def save_case(path, case):
    """Write a case to `path`, an .npz file.

    Raises
    ------
    ValueError : names an array that is missing, unknown, not float16 or of a shape that does not fit the others.
    """
    names = ("x", "dt", "dA", "B", "C", "D")
    for name in names:
        if name not in case:
            raise ValueError(f"a case must hold {', '.join(names)} and may hold h0; {name} is missing.")
    for name, array in case.items():
        if name not in (*names, "h0"):
            raise ValueError(f"a case must hold {', '.join(names)} and may hold h0; {name} is none of them.")
        if array.dtype != np.float16:
            raise ValueError(f"{name} must be float16, is {array.dtype}.")
    block_sizes(**case)
    with open(path, "wb") as file: # np.savez adds .npz to a name, but not to a file.
        np.savez(file, **case)

# Realistic Cases ----------------------------------------------------------------------------------

def realistic_case(config, tokens, seed, with_h0=False):
    """The case that a freshly initialised layer makes of random hidden states; dt, dA, B, C and x are spread as there.

    The layer runs in float64: differences between machines in the last bits then do not reach the float16 case.

    Parameters
    ----------
    config  : :class:`model.config.Mamba2Config`.
    tokens  : T, at least 1.
    seed    : Of weights (`seed`) and hidden states (`seed` + 1).
    with_h0 : Run EARLIER_TOKENS tokens before the case, so that it starts from their state h0.
    """
    layer   = random_layer(config, seed).double()
    earlier = EARLIER_TOKENS if with_h0 else 0
    u       = random_hidden_states(config, earlier + tokens, seed + 1)
    if not with_h0:
        return to_case(layer.block_inputs(u)._replace(h0=None))
    _, state = layer.prefill(u[:earlier])
    return to_case(layer.block_inputs(u[earlier:], state))
