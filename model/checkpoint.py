#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Checkpoints: a folder with config.json and weights, as a float32 :class:`model.network.Mamba2Network`.

Weights are model.safetensors or pytorch_model.bin, or several such files and an index. Tensors are mapped into memory and
read one at a time; a .bin is unpickled as weights only, so it cannot run code.
"""

import json
import os
import pickle
import sys
import zipfile

from pathlib import Path

import torch

from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from model.checkpoint_config import CheckpointError, read_config, read_json
from model.network import Mamba2Network

# Constants ----------------------------------------------------------------------------------------

TINY  = Path(__file__).resolve().parent/"tiny" # The model in the repository.
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

# Files of Tensors ---------------------------------------------------------------------------------

def _open_safetensors(path):
    """{name: function that returns the tensor}."""
    size = os.path.getsize(path)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        ends = {name: 8 + length + entry["data_offsets"][1] for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the header is damaged.") from error
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        if end > size:
            raise CheckpointError(f"{path}: {name} is truncated: it ends at byte {end}, the file at {size}.")
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is damaged ({error}).") from error
    return {name: lambda name=name: file.get_tensor(name) for name in ends}


def _open_bin(path):
    """{name: function that returns the tensor}."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, OSError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: is truncated, damaged or no file of tensors "
            f"({str(error).partition(chr(10))[0]}).") from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: must hold a dict of tensors, holds a {type(tensors).__name__}.")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{path}: {name} must be a tensor, is a {type(tensor).__name__}.")
    return {name: lambda name=name: tensors[name] for name in tensors}


def _open_file(path):
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing.")
    opened = _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)
    return {name: (path, function) for name, function in opened.items()}


def _open_weights(directory):
    """{name: (path, function that returns the tensor)} of all files of a checkpoint."""
    path = next((directory/name for name in FILES if (directory/name).exists()), None)
    if path is None:
        raise CheckpointError(f"{directory}: no weights: one of {', '.join(FILES)} is needed.")
    if path.suffix != ".json":
        return _open_file(path)
    index = read_json(path).get("weight_map")
    is_file_name = lambda name: isinstance(name, str) and name == os.path.basename(name)
    if not isinstance(index, dict) or not all(map(is_file_name, index.values())):
        raise CheckpointError(f"{path}: weight_map is not an object of file names.")
    opened = {name: _open_file(directory/name) for name in sorted(set(index.values()))}
    for tensor, name in index.items():
        if tensor not in opened[name]:
            raise CheckpointError(f"{directory/name}: {tensor} is missing, which {path.name} says is there.")
    return {tensor: opened[name][tensor] for tensor, name in index.items()}

# Checkpoints --------------------------------------------------------------------------------------

def checkpoint_directory(name):
    """The folder of a checkpoint: `name`, or the repository's own model for "tiny"."""
    directory = TINY if str(name) == "tiny" else Path(name)
    if not directory.is_dir():
        raise CheckpointError(f"--model must be the folder of a checkpoint, with config.json, or tiny, is {name}, which is no folder.")
    return directory


def _canonical(name):
    """The network's name of a tensor of either layout."""
    return name.removeprefix("backbone.").replace("embeddings.", "embedding.")


def load_checkpoint(name):
    """Load the model of a folder, or "tiny". Shows progress on a terminal.

    Returns
    -------
    :class:`model.network.Mamba2Network`, in float32, without gradients.

    Raises
    ------
    CheckpointError : names the file, and the field or tensor that is not as it must be.
    """
    directory = checkpoint_directory(name)
    config    = read_config(directory/"config.json")
    sources   = {_canonical(name): (name, *source) for name, source in _open_weights(directory).items()}
    with torch.device("meta"): # Nothing is allocated, or drawn at random, only to be replaced.
        network = Mamba2Network(config)
    expected = network.state_dict()
    for tensor, (name, path, _) in sources.items():
        if tensor not in expected:
            raise CheckpointError(f"{path}: {name} must be left out: a model of this config.json has no such tensor.")
    if config.tie_embeddings:
        expected.pop("lm_head.weight")
    state    = {}
    progress = tqdm(expected.items(), desc="weights", unit="tensor", leave=False, file=sys.stderr, disable=None)
    for tensor, parameter in progress:
        if tensor not in sources:
            raise CheckpointError(f"{directory}: {tensor} is missing.")
        state[tensor] = _load_tensor(*sources[tensor], parameter.shape)
    if config.tie_embeddings:
        state["lm_head.weight"] = state["embedding.weight"]
        if "lm_head.weight" in sources:
            head = _load_tensor(*sources["lm_head.weight"], expected["embedding.weight"].shape)
            if not torch.equal(head, state["embedding.weight"]):
                raise CheckpointError(f"{sources['lm_head.weight'][1]}: lm_head.weight differs from the embedding, to which "
                    "config.json ties it.")
    network.load_state_dict(state, assign=True)
    network.tie_weights()
    return network.requires_grad_(False).eval()


def _load_tensor(name, path, function, shape):
    """A tensor in float32, checked."""
    try:
        tensor = function()
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{path}: {name} cannot be read ({error}).") from error
    if tensor.shape != shape:
        raise CheckpointError(f"{path}: {name} must have shape {tuple(shape)} by config.json, has {tuple(tensor.shape)}.")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: {name} must be floating point, is {tensor.dtype}.")
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: {name} holds values that are not finite: the file is damaged.")
    return tensor
