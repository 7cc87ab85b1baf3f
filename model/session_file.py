#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Files of sessions: arrays in a .safetensors with ``sha256``, a digest of a file of the others; without PyTorch."""

import hashlib

import numpy as np

from safetensors.numpy import load, save

from model.checkpoint_config import CheckpointError
from model.stand_in import stand_in

# Constants ----------------------------------------------------------------------------------------

DIGEST_BYTES = hashlib.sha256().digest_size

# Files --------------------------------------------------------------------------------------------

def signed(arrays):
    """The content of a file of arrays, the digest of a file without it included."""
    digest = hashlib.sha256(save(arrays)).digest()
    return save(arrays | {"sha256": np.frombuffer(digest, np.uint8)})


def read_arrays(path):
    """{name: array} of a session's file, as it was written. Raises CheckpointError."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: must be a session, cannot be read ({error.strerror}).") from error
    try:
        arrays = load(content)
        whole  = "sha256" in arrays
    except Exception as error: # SafetensorError, or what NumPy makes of odd types and shapes.
        raise CheckpointError(f"{path}: must be a session, is {stand_in(path) or 'damaged or of another kind'}.") from error
    arrays.pop("sha256", None)
    if not whole or signed(arrays) != content:
        raise CheckpointError(f"{path}: must be a session as it was saved, is {'changed' if whole else 'without a digest'}.")
    return arrays


def check_arrays(path, arrays, expected, digest):
    """Raise CheckpointError unless arrays are finite, and as `expected` says, {name: (type, shape)}; a size of None is any but 0.

    digest: returns that of the model's weights, which `network` must be.
    """
    if ("logits" in arrays) != ("logits" in expected):
        has, wanted = ("torch" if "logits" in names else "device or exact" for names in (arrays, expected))
        raise CheckpointError(f"{path}: must be a session of --on {wanted}, is one of --on {has}.")
    if arrays.keys() != expected.keys():
        name = min(arrays.keys() ^ expected.keys())
        raise CheckpointError(f"{path}: must be a session of this model, {name} is {'too many' if name in arrays else 'missing'}.")
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or len(array.shape) != len(shape) or any(
                size != wanted if wanted is not None else size == 0 for size, wanted in zip(array.shape, shape)):
            raise CheckpointError(f"{path}: {name} must be {np.dtype(dtype)} of {shape}, is {array.dtype} of {array.shape}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name} must be finite, is not.")
    if not np.array_equal(arrays["network"], digest()):
        raise CheckpointError(f"{path}: must be a session of this model, is one of a model with other weights.")
