#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Quantised models of random weights and odd sizes."""

from dataclasses import replace

import numpy as np

from model.config import Mamba2Config, NetworkConfig
from model.quantized import quantize_matrix
from model.weights import QuantizedLayer, QuantizedModel

from operations.numerics import GROUP

# Models -------------------------------------------------------------------------------------------

def random_model(seed=1, kind="q8_0", vocab_size=70, n_layer=2, tied=True, **sizes):
    """A :class:`QuantizedModel` of random weights."""
    config = NetworkConfig(vocab_size=vocab_size, n_layer=n_layer, layer=Mamba2Config(**{**dict(d_model=64, d_state=16, headdim=16), **sizes}))
    layer  = config.layer
    rng    = np.random.default_rng(seed)

    def matrix(rows, columns):
        return quantize_matrix(rng.standard_normal((rows, columns)).astype(np.float32)/np.sqrt(columns), kind)

    def vector(count, low=0.5, high=1.5):
        return rng.uniform(low, high, count).astype(np.float32)
    layers = tuple(QuantizedLayer(vector(layer.d_model), matrix(2*layer.d_inner + layer.d_xbc - layer.d_inner + layer.heads, layer.d_model),
        rng.standard_normal((layer.d_xbc, layer.d_conv)).astype(np.float32)/2, vector(layer.d_xbc, -0.2, 0.2), vector(layer.heads, -4, 0),
        -vector(layer.heads), vector(layer.heads), vector(layer.d_inner), matrix(layer.d_model, layer.d_inner),
        *((vector(layer.d_inner + layer.d_xbc + layer.heads, -0.3, 0.3), vector(layer.d_model, -0.3, 0.3)) if layer.bias else ()))
        for _ in range(n_layer))
    embedding = quantize_matrix(rng.standard_normal((vocab_size, layer.d_model)).astype(np.float32), kind)
    return QuantizedModel(config, embedding, layers, vector(layer.d_model), embedding if tied else matrix(vocab_size, layer.d_model))


def cyclic_model(period, **sizes):
    """A :class:`QuantizedModel` whose text counts up to `period` - 1, and again from 0: its layers add nothing."""
    model     = random_model(tied=False, **sizes)
    embedding = model.embedding.integers*np.repeat(model.embedding.scales.astype(np.float32), GROUP, 1)
    head      = 0.01*embedding
    head[:period] = np.roll(embedding[:period], 1, 0)
    kind      = model.head.type
    layers    = tuple(replace(layer, out_proj=quantize_matrix(np.zeros(layer.out_proj.shape, np.float32), kind)) for layer in model.layers)
    return replace(model, layers=layers, head=quantize_matrix(head, kind))
