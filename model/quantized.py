#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""How a model becomes one whose matrices are integers with scales (model/weights.py); without PyTorch.

How a group of 32 becomes integers and a scale is the rule of the package gguf, bit for bit.
"""

import sys

from dataclasses import replace

import numpy as np

from gguf import GGMLQuantizationType
from gguf.quants import quantize
from tqdm import tqdm

from model.checkpoint_config import CheckpointError
from model.weights import QuantizedLayer, QuantizedMatrix, QuantizedModel

from operations.numerics import GROUP

# Constants ----------------------------------------------------------------------------------------

TYPES = {
    "q8_0" : GGMLQuantizationType.Q8_0,
    "q4_0" : GGMLQuantizationType.Q4_0,
}
DEFAULT_TYPE = "q8_0"

DIVISORS = {"q8_0": 127, "q4_0": 8} # The largest weight of a group over its scale.

# Matrices -----------------------------------------------------------------------------------------

def unpack(data, kind):
    """The :class:`QuantizedMatrix` of (rows, bytes of a row) as GGUF stores it. kind: "q8_0" or "q4_0"."""
    groups   = data.reshape(len(data), -1, 2 + (GROUP if kind == "q8_0" else GROUP//2))
    scales   = np.ascontiguousarray(groups[..., :2]).view("<f2")[..., 0].astype(np.float16)
    integers = groups[..., 2:]
    if kind == "q4_0":
        integers = np.concatenate((integers & 15, integers >> 4), -1) - np.uint8(8)
    integers = np.ascontiguousarray(integers).view(np.int8)
    return QuantizedMatrix(integers.reshape(len(data), -1), scales, kind)


def quantize_matrix(weights, kind, name="weights"):
    """Quantise (rows, columns) of float32, by gguf's rule. kind: "q8_0" or "q4_0"; `name` is for messages.

    Raises
    ------
    ValueError : the rows are no whole groups; or weights are so large that a scale is infinite in binary16.
    """
    check_columns(weights.shape[1], name)
    weights = np.ascontiguousarray(weights, np.float32)
    groups  = weights.reshape(-1, GROUP)
    largest = abs(groups).max(1)
    with np.errstate(over="ignore", divide="ignore"):
        tiny = (largest > 0) & np.isinf(1/(largest/np.float32(DIVISORS[kind]))) # The rule has no integers for them; their scale
        if tiny.any():                                                        # is 0 in binary16.
            weights = np.where(tiny[:, None], np.copysign(np.float32(0), groups), groups).reshape(weights.shape)
        matrix = unpack(quantize(weights, TYPES[kind]), kind)
    if not np.isfinite(matrix.scales).all():
        raise ValueError(f"{name} must fit {kind}, its scales binary16, holds {abs(weights).max():g}.")
    return matrix


def check_columns(columns, name):
    """Raise ValueError unless a matrix of so many columns can be quantised."""
    if columns % GROUP:
        raise ValueError(f"{name} must have rows of a multiple of {GROUP} elements to be quantised, has {columns}.")

# Model --------------------------------------------------------------------------------------------

def dequantized(matrix):
    """A model's matrix in float32."""
    return matrix.dequantize() if isinstance(matrix, QuantizedMatrix) else matrix


def quantize_model(model, kind=None, head_kind=None):
    """Quantise the matrices of a :class:`QuantizedModel`; one that has its type already keeps its integers and scales.

    kind      : "q8_0" or "q4_0"; None: those that are quantised stay as they are, the others become DEFAULT_TYPE.
    head_kind : of the head, and of the embedding where the two are tied; None: as `kind`.

    Raises
    ------
    ValueError : names the matrix that cannot be quantised.
    """
    head_kind = head_kind or kind
    bar       = tqdm(total=2*model.n_layer + 2 - model.tied, desc="quantise", unit="matrix", leave=False, file=sys.stderr,
        disable=None)

    def quantized(matrix, kind, name):
        check_columns(matrix.shape[1], name) # Before the work, for the first one.
        if not (isinstance(matrix, QuantizedMatrix) and kind in (None, matrix.type)):
            matrix = quantize_matrix(dequantized(matrix), kind or DEFAULT_TYPE, name)
        bar.update()
        return matrix

    with bar:
        check_columns(model.d_inner, "ssm_out")
        embedding = quantized(model.embedding, head_kind if model.tied else kind, "token_embd")
        head      = embedding if model.tied else quantized(model.head, head_kind, "output")
        layers    = tuple(replace(layer, in_proj=quantized(layer.in_proj, kind, f"blk.{number}.ssm_in"),
            out_proj=quantized(layer.out_proj, kind, f"blk.{number}.ssm_out")) for number, layer in enumerate(model.layers))
        return replace(model, embedding=embedding, head=head, layers=layers)

# Checkpoints --------------------------------------------------------------------------------------

def from_network(network):
    """A :class:`model.network.Mamba2Network` as a :class:`QuantizedModel`, its matrices float32.

    Raises
    ------
    ValueError : the network has what such a model cannot have, or an A that is not below 0, or not finite.
    """
    layer = network.config.layer
    weights = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    layers  = []
    for number in range(network.config.n_layer):
        get = lambda name: weights[f"layers.{number}.{name}"]
        with np.errstate(over="ignore"):
            A = -np.exp(get("mixer.A_log").astype(np.float64)).astype(np.float32)
        if not (np.isfinite(A) & (A < 0)).all():
            raise ValueError(f"layers.{number}.mixer.A_log must be a logarithm of float32 numbers, one is of none.")
        layers.append(QuantizedLayer(
            norm        = get("norm.weight"),
            in_proj     = get("mixer.in_proj.weight"),
            conv_weight = get("mixer.conv1d.weight")[:, 0],
            conv_bias   = get("mixer.conv1d.bias") if layer.conv_bias else np.zeros(layer.d_xbc, np.float32),
            dt_bias     = get("mixer.dt_bias"),
            A           = A,
            D           = get("mixer.D"),
            ssm_norm    = get("mixer.norm.weight"),
            out_proj    = get("mixer.out_proj.weight"),
            in_bias     = get("mixer.in_proj.bias")  if layer.bias else None,
            out_bias    = get("mixer.out_proj.bias") if layer.bias else None,
        ))
    embedding = weights["embedding.weight"]
    head      = embedding if network.config.tie_embeddings else weights["lm_head.weight"]
    return QuantizedModel(network.config, embedding, tuple(layers), weights["norm_f.weight"], head)


def quantize_checkpoint(name, kind=None, head_kind=None):
    """The :class:`QuantizedModel` of a checkpoint: a folder, "tiny", or a .gguf, which PyTorch is not loaded for.

    kind, head_kind : as :func:`quantize_model`.

    Raises
    ------
    CheckpointError : names the file, and the field or tensor that is not as it must be.
    """
    from model.gguf import is_gguf, read_gguf
    try:
        if is_gguf(name):
            return quantize_model(read_gguf(name), kind, head_kind)
        from model.checkpoint import load_checkpoint # PyTorch takes seconds to load.
        return quantize_model(from_network(load_checkpoint(name)), kind, head_kind)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}") from error
