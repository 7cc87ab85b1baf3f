#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The whole model, to the bit: tokens in, logits out, as the device computes them.

::

    residual = embedding[token]                             q*d, exact in binary32
    for each layer:
        u        = RN16(residual)
        z|x|B|C|dt = in_proj(rms_norm(u))                   a linear row each, binary16
        x|B|C    = silu(conv1d(x|B|C))
        dt       = clip(softplus(dt + dt_bias)),  dA = exp(dt*A)
        y, h     = ssm(h, x, dt, dA, B, C, D)               model.bitexact
        g        = rms_norm(y*silu(z))                      of each group
        residual = RN32(residual + out_proj(g))
    logits = head(rms_norm(RN16(residual)))                 binary32

Nothing depends on how many tokens are given at once, and nothing here needs PyTorch.
"""

from dataclasses import dataclass

import numpy as np

from model.bitexact import ssm_block
from model.exact.conv import conv1d
from model.exact.decoder import check_tokens
from model.exact.elementwise import add, add_residual, decay, gate, time_step
from model.exact.functions import silu
from model.exact.linear import Linear
from model.exact.norm import rms_norm
from model.exact.rounding import rounded

from operations.config import SEED_STRIDE, check_range
from operations.numerics import GROUP, MANTISSA_BITS

# State --------------------------------------------------------------------------------------------

@dataclass
class LayerState:
    """Of a layer: h float16 (H, P, N), and the convolution's window, float16 (d_conv - 1, d_xbc)."""
    h      : np.ndarray
    window : np.ndarray

# Parameters ---------------------------------------------------------------------------------------

def binary16(name, values):
    """Parameters as the device has them, float16.

    Raises
    ------
    ValueError : one of them does not fit.
    """
    values = np.asarray(values)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"{name} must be finite in binary16, one is {values.reshape(-1)[np.argmin(np.isfinite(half))]:g}.")
    return half


class ExactLayer:
    """A layer's operators.

    Parameters
    ----------
    config : :class:`model.config.Mamba2Config`.
    layer  : :class:`model.weights.QuantizedLayer`.
    name   : in messages.
    bits   : of an activation's mantissa.
    """
    def __init__(self, config, layer, name, bits=MANTISSA_BITS):
        self.config   = config
        self.bits     = bits
        self.norm     = binary16(f"{name}.norm",        layer.norm)
        self.weight   = binary16(f"{name}.conv weight", layer.conv_weight)
        self.bias     = binary16(f"{name}.conv bias",   layer.conv_bias)
        self.dt_bias  = binary16(f"{name}.dt_bias",     layer.dt_bias)
        self.A        = binary16(f"{name}.A",           layer.A)
        self.D        = binary16(f"{name}.D",           layer.D)
        self.ssm_norm = binary16(f"{name}.ssm_norm",    layer.ssm_norm)
        self.in_proj  = Linear(layer.in_proj.integers,  layer.in_proj.scales)
        self.out_proj = Linear(layer.out_proj.integers, layer.out_proj.scales)
        self.in_bias  = binary16(f"{name}.in_proj bias",  layer.in_bias)  if config.bias else None
        self.out_bias = binary16(f"{name}.out_proj bias", layer.out_bias) if config.bias else None

    def initial_state(self):
        config = self.config
        return LayerState(np.zeros((config.heads, config.headdim, config.d_state), np.float16),
            np.zeros((config.d_conv - 1, config.d_xbc), np.float16))

    def project(self, residual, window):
        """Everything before the SSM block.

        residual: float32 (T, d_model), window: as in :class:`LayerState`. Returns z, float16 (T, d_inner); x, dt, dA, B, C and D
        as :func:`model.bitexact.ssm_block` takes them, by name; and the window after the last token.
        """
        config = self.config
        rows   = self.in_proj(rms_norm(rounded(residual), self.norm, config.norm_eps), bits=self.bits)
        if config.bias:
            rows = add(rows, self.in_bias)
        z, xbc, dt = np.split(rows, [config.d_inner, config.d_inner + config.d_xbc], -1)
        xbc, window = conv1d(xbc, self.weight, self.bias, window)
        x, B, C = np.split(silu(xbc), np.cumsum(config.xbc_sizes)[:2], -1)
        dt      = time_step(dt, self.dt_bias, config.dt_limit)
        groups  = (len(x), config.ngroups, config.d_state)
        inputs  = {"x": x.reshape(len(x), config.heads, config.headdim), "dt": dt, "dA": decay(dt, self.A), "B": B.reshape(groups),
            "C": C.reshape(groups), "D": self.D}
        return z, inputs, window

    def output(self, residual, y, z):
        """Everything after the SSM block: the residual stream after the layer. y: float16 (T, H, P)."""
        config = self.config
        g      = gate(y.reshape(len(y), -1), z)
        out    = self.out_proj(rms_norm(g, self.ssm_norm, config.norm_eps, config.ngroups), bits=self.bits)
        if config.bias:
            out = add(out, self.out_bias)
        return add_residual(residual, out)

    def __call__(self, residual, state, seed=None):
        """T tokens.

        residual: float32 (T, d_model). seed: of stochastic rounding, for the first token; None: to nearest even.
        Returns (residual, state) after the layer.
        """
        z, inputs, window = self.project(residual, state.window)
        y, h              = ssm_block(**inputs, h0=state.h, seed=seed)
        return self.output(residual, y, z), LayerState(h, window)

# Model --------------------------------------------------------------------------------------------

class ExactNetwork:
    """A model with quantised weights.

    Parameters
    ----------
    model : :class:`model.weights.QuantizedModel`.
    bits  : of an activation's mantissa, 8 to 14.
    seed  : None: the state is rounded to nearest even. An integer: stochastically.

    Raises
    ------
    ValueError : a parameter does not fit, or a size is no multiple of a group.
    """
    def __init__(self, model, bits=MANTISSA_BITS, seed=None):
        config = model.config
        layer  = config.layer
        check_range("bits", bits, 8, 14)
        for name in ("d_model", "d_inner"):
            if getattr(layer, name) % GROUP:
                raise ValueError(f"{name} must be a multiple of {GROUP}, is {getattr(layer, name)}.")
        self.config    = config
        self.bits      = bits
        self.seed      = seed
        self.embedding = model.embedding
        self.layers    = [ExactLayer(layer, weights, f"layer {n}", bits) for n, weights in enumerate(model.layers)]
        self.norm      = binary16("the last norm", model.norm)
        self.head      = Linear(model.head.integers, model.head.scales)

    def initial_state(self):
        return [layer.initial_state() for layer in self.layers]

    def check_tokens(self, tokens):
        """Raise ValueError unless there are tokens, all of them in the vocabulary."""
        check_tokens(tokens, self.config.vocab_size)

    def embed(self, tokens):
        """The embedding's rows, float32 (T, d_model): q*d, exact."""
        scales = np.repeat(self.embedding.scales[tokens].astype(np.float32), GROUP, -1)
        return self.embedding.integers[tokens]*scales

    def logits(self, residual):
        """Of the residual stream after the last layer, float32 (T, d_model): float32 (T, vocabulary)."""
        hidden = rms_norm(rounded(residual), self.norm, self.config.layer.norm_eps)
        return self.head(hidden, np.float32, self.bits)

    def __call__(self, tokens, states=None, first=0, last_only=False):
        """Logits of T tokens.

        Parameters
        ----------
        tokens    : (T,), in the vocabulary.
        states    : as :meth:`initial_state` makes them, left as they are; None: before the first token.
        first     : place in the text of the first of these tokens.
        last_only : only the last token's logits.

        Returns
        -------
        (logits, states) : float32 (T or 1, vocabulary), and the states after the last token.

        Raises
        ------
        ValueError : as :meth:`check_tokens`.
        """
        self.check_tokens(tokens)
        heads    = self.config.layer.heads
        residual = self.embed(np.asarray(tokens))
        after    = []
        for n, (layer, state) in enumerate(zip(self.layers, states or self.initial_state())):
            seed = None if self.seed is None else (self.seed + n*heads*SEED_STRIDE + first) % 2**32
            residual, state = layer(residual, state, seed)
            after.append(state)
        if last_only:
            residual = residual[-1:]
        return self.logits(residual), after
