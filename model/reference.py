#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A complete Mamba-2 layer in PyTorch: the reference that the accelerated SSM block is cut out of.

::

    u -> in_proj -+-> z ------------------------------------------------+
                  +-> xBC -> conv1d -> SiLU -+-> x -+                   |
                  |                          +-> B -+-> SSM block -> y -+-> norm(y * SiLU(z)) -> out_proj -> out
                  |                          +-> C -+
                  +-> dt -> softplus(dt + dt_bias) -+

Prefill runs any number of tokens at once, in chunks (SSD); step runs one. Both take and return the same state.
Parameters carry the names and shapes of a `mixer` of the state-spaces/mamba2-* checkpoints.

Source: T. Dao and A. Gu, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
Space Duality", 2024, arXiv:2405.21060 (sections 6 and 7: the SSD algorithm, the Mamba-2 architecture).
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from model.config import Mamba2Config as Mamba2Config, mamba2_130m_layer as mamba2_130m_layer # From here as well.
from model.ssm import BlockInputs, ssd_prefill, ssm_recurrence

# State --------------------------------------------------------------------------------------------

class Mamba2State(NamedTuple):
    """What a layer remembers between calls."""
    conv : torch.Tensor # (d_conv - 1, d_xbc): the last inputs of the convolution, oldest first.
    ssm  : torch.Tensor # (H, P, N): the state of the SSM block.

# Layer --------------------------------------------------------------------------------------------

class GatedRMSNorm(nn.Module):
    """RMSNorm of y*SiLU(z), over each group's share of the last dimension, times a weight."""

    def __init__(self, size, groups, eps):
        super().__init__()
        self.groups = groups
        self.eps    = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, y, z):
        """y and z: (T, H*P); computes in the type of y and returns it."""
        gated = (y*F.silu(z.to(y.dtype))).unflatten(-1, (self.groups, -1))
        scale = (gated.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (gated*scale).flatten(-2)*self.weight.to(y.dtype)


class Mamba2Layer(nn.Module):
    """A Mamba-2 layer, with weights initialised as Mamba-2 does for training.

    ``layer.double()`` (or ``.bfloat16()``, ...) sets the type of weights and activations. dt, the SSM block and the
    norm compute in float64 in a float64 layer, else in float32. There is no batch dimension (``torch.vmap`` adds one), and
    only ``layer(u, state)``, as :meth:`prefill` otherwise, has gradients.

    Parameters
    ----------
    config : :class:`Mamba2Config`.
    """
    dt_init = (0.001, 0.1) # dt of a token whose projection is 0 is drawn from this range, evenly on a log scale.
    A_init  = (1, 16)      # -A is drawn from this range.

    def __init__(self, config):
        super().__init__()
        self.config   = config
        self.in_proj  = nn.Linear(config.d_model, config.d_inner + config.d_xbc + config.heads, bias=config.bias)
        self.conv1d   = nn.Conv1d(config.d_xbc, config.d_xbc, config.d_conv, groups=config.d_xbc, bias=config.conv_bias)
        dt            = torch.empty(config.heads).uniform_(*map(math.log, self.dt_init)).exp()
        self.dt_bias  = nn.Parameter(dt + torch.log(-torch.expm1(-dt))) # The inverse of softplus.
        self.A_log    = nn.Parameter(torch.empty(config.heads).uniform_(*self.A_init).log())
        self.D        = nn.Parameter(torch.ones(config.heads))
        self.norm     = GatedRMSNorm(config.d_inner, config.ngroups, config.norm_eps)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.bias)

    @property
    def dtype(self):
        """Type of weights, activations and the state of the convolution."""
        return self.in_proj.weight.dtype

    @property
    def block_dtype(self):
        """Type of dt, the SSM block and its state, and the norm."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def A(self):
        return -self.A_log.to(self.block_dtype).exp()

    def initial_state(self):
        """State before the first token: zeros."""
        config = self.config
        return Mamba2State(
            conv = torch.zeros(config.d_conv - 1, config.d_xbc, dtype=self.dtype),
            ssm  = torch.zeros(config.heads, config.headdim, config.d_state, dtype=self.block_dtype),
        )

    def _check(self, u, state):
        if u.dim() != 2 or u.shape[0] < 1 or u.shape[1] != self.config.d_model:
            raise ValueError(f"u must have shape (T, {self.config.d_model}) with T >= 1, has {tuple(u.shape)}.")
        initial = self.initial_state()
        if state is None:
            return initial
        for name, tensor, expected in zip(Mamba2State._fields, state, initial):
            if tensor.shape != expected.shape:
                raise ValueError(f"state.{name} must have shape {tuple(expected.shape)}, has {tuple(tensor.shape)}.")
        return Mamba2State(conv=state.conv.to(self.dtype), ssm=state.ssm.to(self.block_dtype))

    def project(self, u, conv):
        """Everything before the SSM block.

        u: (T, d_model), conv: the convolution's state. Returns z (T, H*P), a :class:`BlockInputs` without h0, and the
        convolution's state after the last token.
        """
        config     = self.config
        tokens     = u.shape[0]
        z, xBC, dt = self.in_proj(u.to(self.dtype)).split((config.d_inner, config.d_xbc, config.heads), dim=-1)
        history    = torch.cat((conv, xBC))
        xBC        = F.silu(self.conv1d(history.T[None])[0].T).to(self.block_dtype)
        x, B, C    = xBC.split(config.xbc_sizes, dim=-1)
        dt         = F.softplus(dt.to(self.block_dtype) + self.dt_bias.to(self.block_dtype)).clamp(*config.dt_limit)
        inputs     = BlockInputs(
            x  = x.unflatten(-1, (config.heads, config.headdim)),
            dt = dt,
            dA = (dt*self.A).exp(),
            B  = B.unflatten(-1, (config.ngroups, config.d_state)),
            C  = C.unflatten(-1, (config.ngroups, config.d_state)),
            D  = self.D.to(self.block_dtype),
        )
        return z, inputs, history[tokens:].clone()

    def output(self, y, z):
        """Everything after the SSM block. y: (T, H, P), z: (T, H*P); returns (T, d_model)."""
        return self.out_proj(self.norm(y.flatten(-2), z).to(self.dtype))

    @torch.no_grad()
    def block_inputs(self, u, state=None):
        """What the layer hands its SSM block for the hidden states u (T, d_model): a :class:`BlockInputs`.

        h0 is the SSM state that `state` holds, zeros without one. Raises as :meth:`prefill`.
        """
        state = self._check(u, state)
        return self.project(u, state.conv)[1]._replace(h0=state.ssm)

    @torch.no_grad()
    def prefill(self, u, state=None):
        """Run T tokens, in chunks.

        Parameters
        ----------
        u     : (T, d_model), T >= 1.
        state : :class:`Mamba2State` to go on from, left as it is; None: before the first token.

        Returns
        -------
        (out, state) : out (T, d_model), and the state after the last token.

        Raises
        ------
        ValueError : names the tensor, the shape it must have, and its shape.
        """
        return self(u, state)

    def forward(self, u, state=None):
        state                = self._check(u, state)
        z, inputs, conv      = self.project(u, state.conv)
        x, dt, _, B, C, D, _ = inputs
        y, h                 = ssd_prefill(x, dt, self.A, B, C, D, state.ssm, self.config.chunk_size)
        return self.output(y, z), Mamba2State(conv, h)

    @torch.no_grad()
    def step(self, u, state=None):
        """Run one token, by the recurrence. u: (d_model,); otherwise as :meth:`prefill`, out (d_model,)."""
        state           = self._check(u[None], state)
        z, inputs, conv = self.project(u[None], state.conv)
        y, h            = ssm_recurrence(*inputs._replace(h0=state.ssm), dtype=self.block_dtype)
        return self.output(y, z)[0], Mamba2State(conv, h)

# Synthetic Layers ---------------------------------------------------------------------------------

def random_layer(config, seed):
    """A layer with the weights that Mamba-2 starts training from, drawn from `seed`. Leaves PyTorch's generator alone.

    Returns a float32 :class:`Mamba2Layer`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mamba2Layer(config).eval()


def random_hidden_states(config, tokens, seed):
    """Hidden states (T, d_model) in float32: normal, scaled to a mean square of 1 as the norm before a layer does.

    Raises
    ------
    ValueError : names `tokens` when it is below 1.
    """
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, is {tokens!r}.")
    u = torch.randn(tokens, config.d_model, generator=torch.Generator().manual_seed(seed))
    return u*u.square().mean(-1, keepdim=True).rsqrt()
