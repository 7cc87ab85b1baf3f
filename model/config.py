#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sizes and constants of a Mamba-2 model and of its layers; without PyTorch, which takes seconds to load."""

import math

from dataclasses import dataclass, field

from operations.config import check_range

# Layer --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Mamba2Config:
    """Sizes and constants of a layer.

    Parameters
    ----------
    d_model    : Elements of a hidden state.
    d_state    : N, the state size.
    headdim    : P, the head dimension; divides expand*d_model.
    ngroups    : G, the groups of heads that share B and C; divides the heads.
    expand     : Width of the block over d_model.
    d_conv     : Taps of the causal convolution.
    chunk_size : Tokens of a prefill chunk.
    norm_eps   : Added to the mean square in the norm.
    dt_limit   : (low, high) that dt is clamped to after the softplus.
    bias       : Whether in_proj and out_proj add a bias.
    conv_bias  : Whether the convolution does.

    Raises
    ------
    ValueError : names the parameter, what it must be, and its value.
    """
    d_model    : int   = 768
    d_state    : int   = 128
    headdim    : int   = 64
    ngroups    : int   = 1
    expand     : int   = 2
    d_conv     : int   = 4
    chunk_size : int   = 256
    norm_eps   : float = 1e-5
    dt_limit   : tuple = (0.0, math.inf)
    bias       : bool  = False
    conv_bias  : bool  = True

    def __post_init__(self):
        for name in ("d_model", "d_state", "headdim", "ngroups", "expand", "d_conv", "chunk_size"):
            check_range(name, getattr(self, name), 1, 65535)
        if self.d_inner % self.headdim:
            raise ValueError(f"headdim must be a divisor of expand*d_model = {self.d_inner}, is {self.headdim}.")
        if self.heads % self.ngroups:
            raise ValueError(f"ngroups must be a divisor of the {self.heads} heads, is {self.ngroups}.")
        if not isinstance(self.norm_eps, float) or not 0 < self.norm_eps < math.inf:
            raise ValueError(f"norm_eps must be a positive number, is {self.norm_eps!r}.")
        if len(self.dt_limit) != 2 or not 0 <= self.dt_limit[0] < self.dt_limit[1]:
            raise ValueError(f"dt_limit must be (low, high) with 0 <= low < high, is {self.dt_limit!r}.")

    @property
    def d_inner(self):
        """H*P: elements of x, y and z."""
        return self.expand*self.d_model

    @property
    def heads(self):
        return self.d_inner//self.headdim

    @property
    def xbc_sizes(self):
        """Elements of x, B and C of a token, in the order they lie in xBC."""
        return (self.d_inner, self.ngroups*self.d_state, self.ngroups*self.d_state)

    @property
    def d_xbc(self):
        return sum(self.xbc_sizes)


mamba2_130m_layer = Mamba2Config(
    d_model    = 768,
    d_state    = 128,
    headdim    = 64,
    ngroups    = 1,
    expand     = 2,
    d_conv     = 4,
    chunk_size = 256,
)

# Model --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a model.

    Parameters
    ----------
    vocab_size     : Rows of the embedding, padding included.
    n_layer        : Layers.
    layer          : :class:`Mamba2Config` of each.
    tie_embeddings : Whether the head's weights are the embedding's.
    stop_tokens    : Tokens that end a text.

    Raises
    ------
    ValueError : names the parameter, what it must be, and its value.
    """
    vocab_size     : int
    n_layer        : int
    layer          : Mamba2Config = field(default_factory=Mamba2Config)
    tie_embeddings : bool         = True
    stop_tokens    : tuple        = ()

    def __post_init__(self):
        check_range("vocab_size", self.vocab_size, 1, 2**24)
        check_range("n_layer",    self.n_layer,    1, 65535)
