#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Cases for measurements of time."""

from dataclasses import replace

import numpy as np

from host.device.case import Case

from model.config import Mamba2Config, NetworkConfig
from model.quantized import QuantizedLayer, QuantizedMatrix, QuantizedModel

from operations.numerics import GROUP

# Cases --------------------------------------------------------------------------------------------

def layer_case(tokens, heads=24, seed=2024):
    """T tokens of a Mamba-2 layer, 64 x 128 a head. Any values: no time depends on them."""
    random = np.random.default_rng(seed)
    draw   = lambda *shape: random.standard_normal(shape).astype(np.float16)
    return Case(x=draw(tokens, heads, 64), dt=abs(draw(tokens, heads)), dA=random.random((tokens, heads)).astype(np.float16),
        B=draw(tokens, 1, 128), C=draw(tokens, 1, 128), D=draw(heads))


def shaped_model(kind, layers=24, vocabulary=50_288, seed=2024):
    """A :class:`model.quantized.QuantizedModel` of random weights in the shape of Mamba-2 130M. kind: "q4_0" or "q8_0"."""
    config = NetworkConfig(vocab_size=vocabulary, n_layer=layers, layer=Mamba2Config(d_model=768))
    layer  = config.layer
    random = np.random.default_rng(seed)

    def matrix(rows, columns):
        high   = 8 if kind == "q4_0" else 128
        scales = random.uniform(1, 2, (rows, columns//GROUP))/high/np.sqrt(columns)
        return QuantizedMatrix(random.integers(1 - high, high, (rows, columns), np.int8), scales.astype(np.float16), kind)

    def vector(count, low=0.5, high=1.5):
        return random.uniform(low, high, count).astype(np.float32)

    parts = tuple(QuantizedLayer(vector(layer.d_model), matrix(layer.d_inner + layer.d_xbc + layer.heads, layer.d_model),
        random.standard_normal((layer.d_xbc, layer.d_conv)).astype(np.float32)/2, vector(layer.d_xbc, -0.2, 0.2), vector(layer.heads, -4, 0),
        -vector(layer.heads), vector(layer.heads), vector(layer.d_inner), matrix(layer.d_model, layer.d_inner)) for _ in range(layers))
    embedding = matrix(vocabulary, layer.d_model)
    return QuantizedModel(config, embedding, parts, vector(layer.d_model), embedding)


def repeating_model(model, period):
    """A model of the same sizes whose greedy text counts from 0 to `period` - 1, over and over: its layers add nothing to a token, and the
    rows of its head's matrix are those of the tokens in front. All that is read and computed is as before."""
    layers  = tuple(replace(layer, out_proj=replace(layer.out_proj, scales=np.zeros_like(layer.out_proj.scales))) for layer in model.layers)
    before  = np.arange(model.vocab_size)
    before[:period] = np.roll(before[:period], 1)
    embedding, scale = model.embedding, np.where(before < period, 1, 1/16)[:, None]
    head    = replace(embedding, integers=embedding.integers[before], scales=(embedding.scales[before]*scale).astype(np.float16))
    return replace(model, layers=layers, head=head)
