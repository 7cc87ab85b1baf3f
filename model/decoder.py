#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Runs a network with its SSM blocks wherever they are to run: in PyTorch, in the bit-accurate model, or on a device.

Everything outside the blocks is computed here, in float32, by the same operations whatever runs the blocks. So two
implementations that agree in the bits of y give the same logits, bit for bit.

An implementation of the blocks has::

    dtype                      numpy type of the state
    run(layer, token, inputs)  y (T, H, P), a float32 tensor, of a layer's next T tokens, the first one at place `token`
                               of the text; inputs: BlockInputs, its h0 not used
    state(layer)               the layer's state, an array (H, P, N) of `dtype`
    load(layer, h)             sets it; h: such an array, or None for zeros
"""

import numpy as np
import torch

from model.bitexact import ssm_block
from model.case import to_case
from model.exact.decoder import ChunkedPrefill
from model.ssm import ssm_recurrence

from operations.config import SEED_STRIDE

# Blocks -------------------------------------------------------------------------------------------

def round_inputs(layer, inputs, token=0):
    """A layer's inputs from a token on as the accelerator takes them: a dict of float16 arrays, see model/case.py.

    Raises
    ------
    ValueError : names layer, tokens and array of a value that float16 does not hold.
    """
    try:
        return to_case(inputs._replace(h0=None))
    except ValueError as error:
        raise ValueError(f"layer {layer}, tokens {token} to {token + len(inputs.x) - 1}: {error}") from error


class TorchBlocks:
    """The blocks in PyTorch, token by token, each operation in `dtype`: torch.float32 or torch.float16."""
    def __init__(self, config, dtype=torch.float32):
        layer            = config.layer
        self.torch_dtype = dtype
        self.dtype       = np.dtype(str(dtype).removeprefix("torch."))
        self.shape       = (layer.heads, layer.headdim, layer.d_state)
        self.states      = [None]*config.n_layer # None: zeros.

    def run(self, layer, token, inputs):
        y, self.states[layer] = ssm_recurrence(*inputs._replace(h0=self.states[layer]), dtype=self.torch_dtype)
        return y.float()

    def state(self, layer):
        state = self.states[layer]
        return np.zeros(self.shape, self.dtype) if state is None else state.numpy().copy()

    def load(self, layer, h):
        self.states[layer] = None if h is None else torch.from_numpy(h.copy())


class BitExactBlocks:
    """The blocks in the bit-accurate model: what the accelerator computes.

    Parameters
    ----------
    config : :class:`model.config.NetworkConfig`.
    seed   : None: the state is rounded to nearest even. An integer: stochastically, see :func:`layer_seed`.
    """
    dtype = np.dtype(np.float16)

    def __init__(self, config, seed=None):
        layer       = config.layer
        self.seed   = seed
        self.shape  = (layer.heads, layer.headdim, layer.d_state)
        self.states = [None]*config.n_layer # None: zeros.

    def run(self, layer, token, inputs):
        case = round_inputs(layer, inputs, token)
        seed = None if self.seed is None else layer_seed(self.seed, layer, self.shape[0]) + token
        y, self.states[layer] = ssm_block(**case, h0=self.states[layer], seed=seed)
        return torch.from_numpy(y).float()

    def state(self, layer):
        state = self.states[layer]
        return np.zeros(self.shape, self.dtype) if state is None else state.copy()

    def load(self, layer, h):
        self.states[layer] = None if h is None else h.copy()


def layer_seed(seed, layer, heads):
    """Of stochastic rounding, for a layer's first token: the layers' heads count on."""
    return (seed + layer*heads*SEED_STRIDE) % 2**32

# Decoder ------------------------------------------------------------------------------------------

def check_finite(values, what, first=0):
    """Raise ValueError unless all values (T, ...) of the tokens from `first` on are finite; names the first token that is not."""
    finite = torch.isfinite(values).flatten(1).all(1)
    if not finite.all():
        raise ValueError(f"{what} of token {first + finite.int().argmin().item()} must be finite, are not.")


class Decoder(ChunkedPrefill):
    """A text under way: a network, its blocks, and where in the text they are.

    Parameters
    ----------
    network : :class:`model.network.Mamba2Network`.
    blocks  : An implementation of its blocks, see above.

    Attributes
    ----------
    tokens : All tokens taken so far.
    logits : Of the token after the last one, float32 (vocabulary,); None before the first one.
    conv   : The state of each layer's convolution, (d_conv - 1, d_xbc).
    """
    def __init__(self, network, blocks):
        self.network = network
        self.blocks  = blocks
        self.reset()

    def reset(self):
        """Back to the start of a text."""
        self.tokens = []
        self.logits = None
        self.conv   = [state.conv for state in self.network.initial_state()]
        for layer in range(len(self.conv)):
            self.blocks.load(layer, None)

    @torch.no_grad()
    def take(self, tokens):
        """Take T tokens, in one piece. Returns the residual stream (T, d_model) after the last layer, and sets `logits`.

        Raises
        ------
        ValueError : a token is not in the vocabulary; or, with layer and token, a block's input does not fit float16, or what
                     it computes, or the logits, are not finite.
        """
        first = len(self.tokens)
        self.network.check_tokens(tokens)
        hidden = self.network.embedding(torch.as_tensor(tokens, dtype=torch.long))
        for index, layer in enumerate(self.network.layers):
            z, inputs, conv  = layer.mixer.project(layer.norm(hidden), self.conv[index])
            y                = self.blocks.run(index, first, inputs)
            check_finite(y, f"layer {index}: state and y", first) # Of a state that is not finite, y never is.
            hidden           = hidden + layer.mixer.output(y, z)
            self.conv[index] = conv
        logits = self.network.logits(hidden[-1:])
        check_finite(logits, "the logits", first + len(tokens) - 1)
        self.tokens += map(int, tokens)
        self.logits  = logits[0]
        return hidden
