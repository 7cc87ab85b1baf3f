#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A model in NumPy, its matrices as integers with a scale for each 32 of a row, as GGUF's Q8_0 and Q4_0; without the package gguf.

A weight is integer*scale, exactly, in float32. Q8_0 has integers of 8 bits, Q4_0 of 4 (-8 to 7); the scale is binary16.
"""

from dataclasses import dataclass

import numpy as np

from model.config import NetworkConfig

from operations.numerics import GROUP

# Matrices -----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix of integers with scales.

    integers : (rows, columns), int8.
    scales   : (rows, columns/32), float16.
    type     : "q8_0" or "q4_0".
    """
    integers : np.ndarray
    scales   : np.ndarray
    type     : str

    @property
    def shape(self):
        return self.integers.shape

    def dequantize(self):
        """The weights, (rows, columns) in float32."""
        groups = self.integers.reshape(*self.scales.shape, GROUP)
        return (groups*self.scales.astype(np.float32)[..., None]).reshape(self.shape)

    def pack(self):
        """As GGUF stores it: (rows, bytes of a row), uint8."""
        groups = self.integers.reshape(*self.scales.shape, GROUP)
        if self.type == "q4_0":
            nibbles  = (groups + np.int8(8)).view(np.uint8)
            integers = nibbles[..., :GROUP//2] | nibbles[..., GROUP//2:] << np.uint8(4)
        else:
            integers = groups.view(np.uint8)
        scales = np.ascontiguousarray(self.scales, "<f2").view(np.uint8).reshape(*self.scales.shape, 2)
        return np.concatenate((scales, integers), -1).reshape(len(self.integers), -1)

# Model --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class QuantizedLayer:
    """The weights of a layer; vectors and the convolution are float32. Matrices: :class:`QuantizedMatrix`, or float32.

    norm        : (d_model,), of the norm before the layer.
    in_proj     : (2*d_inner + 2*ngroups*d_state + nheads, d_model), a matrix: rows of z, x, B, C, dt.
    conv_weight : (channels, d_conv), the taps of x, B and C, oldest token first.
    conv_bias   : (channels,).
    dt_bias     : (nheads,).
    A           : (nheads,), below 0.
    D           : (nheads,).
    ssm_norm    : (d_inner,), of the gated norm, over each group's d_inner/ngroups by itself.
    out_proj    : (d_model, d_inner), a matrix.
    in_bias     : of in_proj, its rows; None: it has none.
    out_bias    : of out_proj, likewise.
    """
    norm        : np.ndarray
    in_proj     : object
    conv_weight : np.ndarray
    conv_bias   : np.ndarray
    dt_bias     : np.ndarray
    A           : np.ndarray
    D           : np.ndarray
    ssm_norm    : np.ndarray
    out_proj    : object
    in_bias     : np.ndarray | None = None
    out_bias    : np.ndarray | None = None


@dataclass(frozen=True)
class QuantizedModel:
    """A model's sizes and weights. From a GGUF file that is not quantised, matrices may be float32 arrays instead.

    config    : :class:`model.config.NetworkConfig`; the sizes are also attributes here.
    embedding : (vocab_size, d_model), a matrix.
    layers    : of :class:`QuantizedLayer`.
    norm      : (d_model,), of the norm after the last layer.
    head      : (vocab_size, d_model), a matrix; the very object that `embedding` is, where the two are tied.
    """
    config    : NetworkConfig
    embedding : object
    layers    : tuple
    norm      : np.ndarray
    head      : object

    vocab_size  = property(lambda self: self.config.vocab_size, doc="Rows of embedding and head, padding included.")
    n_layer     = property(lambda self: self.config.n_layer)
    stop_tokens = property(lambda self: self.config.stop_tokens, doc="Tokens that end a text.")
    d_model     = property(lambda self: self.config.layer.d_model)
    d_state     = property(lambda self: self.config.layer.d_state)
    headdim     = property(lambda self: self.config.layer.headdim)
    ngroups     = property(lambda self: self.config.layer.ngroups)
    d_conv      = property(lambda self: self.config.layer.d_conv)
    d_inner     = property(lambda self: self.config.layer.d_inner)
    nheads      = property(lambda self: self.config.layer.heads)
    norm_eps    = property(lambda self: self.config.layer.norm_eps)
    dt_limit    = property(lambda self: self.config.layer.dt_limit, doc="(low, high) of dt after the softplus.")
    tied        = property(lambda self: self.head is self.embedding)
