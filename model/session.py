#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sessions in files: a text under way, with the recurrent state of all layers, exact to the bit.

A file is a .safetensors with the arrays ``tokens`` (int64), ``logits`` (float32), a digest of the model's weights, and for
layer i ``conv.i`` (float32) and ``ssm.i`` (float16, or float32 from PyTorch's blocks). It goes on in any decoder of the same
model whose state has the same type: one saved from a device continues in the bit-accurate model, and the other way round. To
fork a text, load one file several times.
"""

import hashlib

import numpy as np
import torch

from safetensors import SafetensorError
from safetensors.numpy import load, save

from model.checkpoint_config import CheckpointError

# Sessions -----------------------------------------------------------------------------------------

def fingerprint(network):
    """Digest of a network's weights."""
    digest = hashlib.sha256()
    for name, weight in network.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.numpy())
    return np.frombuffer(digest.digest(), np.uint8)


def session_bytes(decoder):
    """A decoder's session, as the content of a file.

    Raises
    ------
    ValueError : no token has been taken yet.
    """
    if decoder.logits is None:
        raise ValueError("a session without a token is not allowed: take one first.")
    arrays = {"tokens": np.array(decoder.tokens, np.int64), "logits": decoder.logits.numpy(),
        "network": fingerprint(decoder.network)}
    for layer, conv in enumerate(decoder.conv):
        arrays[f"conv.{layer}"] = conv.contiguous().numpy()
        arrays[f"ssm.{layer}"]  = decoder.blocks.state(layer)
    return save(arrays)


def load_session(decoder, path):
    """Set a decoder to the session of a file.

    Raises
    ------
    CheckpointError : names the file, and what does not fit: the weights, or the type or shape of an array.
    """
    try:
        with open(path, "rb") as file:
            arrays = load(file.read())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is not a session ({error}).") from error
    expected = {"tokens": (np.int64, None), "logits": (np.float32, (decoder.network.config.vocab_size,)),
        "network": (np.uint8, (hashlib.sha256().digest_size,))}
    for layer, state in enumerate(decoder.network.initial_state()):
        expected[f"conv.{layer}"] = (np.float32, tuple(state.conv.shape))
        expected[f"ssm.{layer}"]  = (decoder.blocks.dtype, tuple(state.ssm.shape))
    for name, (dtype, shape) in expected.items():
        if name not in arrays:
            raise CheckpointError(f"{path}: {name} is missing: this is a session of another model, or none.")
        if arrays[name].dtype != dtype or shape not in (None, arrays[name].shape):
            raise CheckpointError(f"{path}: {name} of {arrays[name].dtype}, {arrays[name].shape}, is not allowed: "
                f"{np.dtype(dtype)}, {shape} is.")
    if not np.array_equal(arrays["network"], fingerprint(decoder.network)):
        raise CheckpointError(f"{path}: is a session of a model with other weights.")
    decoder.tokens = arrays["tokens"].tolist()
    decoder.logits = torch.from_numpy(arrays["logits"])
    decoder.conv   = [torch.from_numpy(arrays[f"conv.{layer}"]) for layer in range(len(decoder.conv))]
    for layer in range(len(decoder.conv)):
        decoder.blocks.load(layer, arrays[f"ssm.{layer}"])
