#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM block of Mamba-2 in PyTorch: the recurrence, token by token, and its chunked (SSD) form.

For a head, with the scalars `dt`, `dA = exp(dt*A)` and `D` of the head and B, C of the head's group::

    h[p][n] = dA*h[p][n] + (dt*x[p])*B[n]
    y[p]    = sum over n of h[p][n]*C[n] + D*x[p]

Sizes are T tokens, H heads of P elements, N state columns, G groups; head i uses group i//(H/G).

Source: T. Dao and A. Gu, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
Space Duality", 2024, arXiv:2405.21060.
"""

from typing import NamedTuple, Optional

import torch

# Inputs -------------------------------------------------------------------------------------------

class BlockInputs(NamedTuple):
    """What the SSM block takes for T tokens; ``ssm_recurrence(*inputs)`` runs it."""
    x  : torch.Tensor                   # (T, H, P)
    dt : torch.Tensor                   # (T, H)
    dA : torch.Tensor                   # (T, H)
    B  : torch.Tensor                   # (T, G, N)
    C  : torch.Tensor                   # (T, G, N)
    D  : torch.Tensor                   # (H,)
    h0 : Optional[torch.Tensor] = None  # (H, P, N); None: zeros.


def block_sizes(x, dt, dA, B, C, D, h0=None):
    """Sizes (T, H, P, G, N) of a block's inputs, tensors or arrays.

    Raises
    ------
    ValueError : names the array whose shape does not fit the others, and the shape that would.
    """
    for name, array in (("x", x), ("B", B)):
        if len(array.shape) != 3 or 0 in array.shape:
            raise ValueError(f"{name} must have three sizes of at least 1, has shape {tuple(array.shape)}.")
    T, H, P = x.shape
    G, N    = B.shape[1:]
    if H % G:
        raise ValueError(f"groups of B must be a divisor of the {H} heads of x, are {G}.")
    expected = {"dt": (T, H), "dA": (T, H), "B": (T, G, N), "C": (T, G, N), "D": (H,), "h0": (H, P, N)}
    arrays   = {"dt": dt, "dA": dA, "B": B, "C": C, "D": D, "h0": h0}
    for name, shape in expected.items():
        if arrays[name] is not None and tuple(arrays[name].shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, has {tuple(arrays[name].shape)}.")
    return T, H, P, G, N

# Recurrence ---------------------------------------------------------------------------------------

def ssm_recurrence(x, dt, dA, B, C, D, h0=None, dtype=torch.float64):
    """Run the SSM block token by token, as its equations are usually written.

    With ``torch.float64`` this is the yardstick of all errors. With ``torch.float16`` each product and each sum is
    rounded to binary16, as a PyTorch user would see it; the sum over n is one operation of PyTorch, which adds up in
    float32 and rounds once.

    Parameters
    ----------
    x, dt, dA, B, C, D, h0 : As in :class:`BlockInputs`; tensors or arrays, converted to `dtype` first.
    dtype                  : Type of every operation.

    Returns
    -------
    (y, h) : outputs (T, H, P) and final state (H, P, N), of type `dtype`.

    Raises
    ------
    ValueError : as :func:`block_sizes`.
    """
    T, H, P, G, N = block_sizes(x, dt, dA, B, C, D, h0)
    x, dt, dA, B, C, D = (torch.as_tensor(tensor).to(dtype) for tensor in (x, dt, dA, B, C, D))
    h    = torch.zeros(H, P, N, dtype=dtype) if h0 is None else torch.as_tensor(h0).to(dtype)
    B, C = (tensor.repeat_interleave(H//G, dim=1)[:, :, None] for tensor in (B, C))
    y    = []
    for t in range(T):
        h = h*dA[t, :, None, None] + (dt[t, :, None]*x[t])[..., None]*B[t]
        y.append((h*C[t]).sum(-1) + D[:, None]*x[t])
    return torch.stack(y), h

# Chunked Form (SSD) -------------------------------------------------------------------------------

def segment_sums(a):
    """s[..., i, j] = a[j + 1] + ... + a[i] for j <= i, and minus infinity above the diagonal.

    Each sum is built up by additions: a difference of two cumulative sums would cancel where the decay is fast.
    a: (..., Q); returns (..., Q, Q).
    """
    size  = a.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool).tril()
    terms = a[..., None].expand(*a.shape, size).masked_fill(~lower.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~lower, -torch.inf)


def ssd_prefill(x, dt, A, B, C, D, h0=None, chunk_size=256):
    """Run the SSM block in chunks of up to `chunk_size` tokens, by matrix products inside each chunk.

    With u = dt*x and L[i, j] = dA[j + 1]*...*dA[i], a chunk that starts from the state h computes (arXiv:2405.21060,
    section 6)::

        y = (L o C B^T) u  +  dA[0]*...*dA[i] * C h^T      inside the chunk, and from the state before it
        h = (L[last] * u)^T B  +  dA[0]*...*dA[last] * h   state that goes on to the next chunk

    Parameters
    ----------
    x, dt, B, C, D, h0 : As in :class:`BlockInputs`, tensors of one floating type.
    A                  : (H,), negative; the decay is given by its logarithm dt*A here.
    chunk_size         : At least 1. Any T goes; the last chunk may be shorter.

    Returns
    -------
    (y, h) : outputs (T, H, P) and final state (H, P, N), equal to :func:`ssm_recurrence` up to rounding.

    Raises
    ------
    ValueError : as :func:`block_sizes`, or names `chunk_size`.
    """
    log_decay     = dt*A
    T, H, P, G, N = block_sizes(x, dt, log_decay, B, C, D, h0)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, is {chunk_size!r}.")
    if h0 is None:
        h0 = x.new_zeros(H, P, N)

    # Heads as (group, head of the group), in front of the tokens, so that a group's B and C broadcast over its heads.
    def by_group(tensor):
        return tensor.transpose(0, 1).unflatten(0, (G, -1))

    u         = by_group(dt[..., None]*x)
    log_decay = by_group(log_decay)
    B, C      = by_group(B), by_group(C)
    h         = h0.unflatten(0, (G, -1))
    y         = []
    for start in range(0, T, chunk_size):
        chunk      = slice(start, start + chunk_size)
        B_c, C_c   = B[:, :, chunk], C[:, :, chunk]
        u_c        = u[:, :, chunk]
        within     = segment_sums(log_decay[:, :, chunk]).exp()
        from_start = log_decay[:, :, chunk].cumsum(-1).exp()[..., None]
        y.append((within*(C_c @ B_c.mT)) @ u_c + from_start*(C_c @ h.mT))
        h = (within[..., -1, :, None]*u_c).mT @ B_c + from_start[..., -1:, :]*h
    y = torch.cat(y, dim=-2).flatten(0, 1).transpose(0, 1)
    return y + D[:, None]*x, h.flatten(0, 1)

# Errors -------------------------------------------------------------------------------------------

class ErrorStatistics(NamedTuple):
    max  : float
    mean : float


def error_statistics(actual, expected):
    """Maximum and mean absolute difference of two tensors or arrays of one shape, computed in float64.

    Equal infinities count as no difference, and so does NaN where NaN is expected; NaN anywhere else makes both
    figures NaN.

    Raises
    ------
    ValueError : names both shapes when they differ.
    """
    actual, expected = (torch.as_tensor(tensor).double() for tensor in (actual, expected))
    if actual.shape != expected.shape:
        raise ValueError(f"actual must have shape {tuple(expected.shape)}, has {tuple(actual.shape)}.")
    same  = (actual == expected) | (actual.isnan() & expected.isnan())
    error = (actual - expected).abs().masked_fill(same, 0)
    return ErrorStatistics(max=error.max().item(), mean=error.mean().item())
