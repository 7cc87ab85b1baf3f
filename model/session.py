#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sessions in files: a text under way, with the recurrent state of all layers, exact to the bit.

A file is a .safetensors with the arrays ``tokens`` (int64), ``logits`` (float32), ``network``, a digest of the model's weights,
for layer i ``conv.i`` (float32) and ``ssm.i`` (float16, or float32 from PyTorch's blocks), and ``sha256`` of a file of the
others. It goes on in any decoder of the same model whose state has the same type: one saved from a device continues in the
bit-accurate model, and the other way round. To fork a text, load one file several times.
"""

import hashlib

import numpy as np
import torch

from model.checkpoint_config import CheckpointError
from model.session_file import DIGEST_BYTES, check_arrays, read_arrays, signed

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
        raise ValueError("a session must have a token, has none: take one first.")
    arrays = {"tokens": np.array(decoder.tokens, np.int64), "logits": decoder.logits.numpy(),
        "network": fingerprint(decoder.network)}
    for layer, conv in enumerate(decoder.conv):
        arrays[f"conv.{layer}"] = conv.contiguous().numpy()
        arrays[f"ssm.{layer}"]  = decoder.blocks.state(layer)
    return signed(arrays)


def _expected(decoder):
    """{name: (type, shape)} of a decoder's session; a size of None is any but 0."""
    arrays = {"tokens": (np.int64, (None,)), "logits": (np.float32, (decoder.network.config.vocab_size,)),
        "network": (np.uint8, (DIGEST_BYTES,))}
    for layer, state in enumerate(decoder.network.initial_state()):
        arrays[f"conv.{layer}"] = (np.float32, tuple(state.conv.shape))
        arrays[f"ssm.{layer}"]  = (decoder.blocks.dtype, tuple(state.ssm.shape))
    return arrays


def load_session(decoder, path):
    """Set a decoder to the session of a file.

    Raises
    ------
    CheckpointError : names the file, and what does not fit: a changed byte, the weights, the type, shape or values of an array.
    """
    arrays = read_arrays(path)
    check_arrays(path, arrays, _expected(decoder), lambda: fingerprint(decoder.network))
    try:
        decoder.network.check_tokens(arrays["tokens"])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    decoder.tokens = arrays["tokens"].tolist()
    decoder.logits = torch.from_numpy(arrays["logits"])
    decoder.conv   = [torch.from_numpy(arrays[f"conv.{layer}"]) for layer in range(len(decoder.conv))]
    for layer in range(len(decoder.conv)):
        decoder.blocks.load(layer, arrays[f"ssm.{layer}"])
