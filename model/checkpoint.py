#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Checkpoints: a folder with config.json and weights, or a GGUF file, as a float32 :class:`model.network.Mamba2Network`.

Weights are model.safetensors or pytorch_model.bin, or several such files and an index. Tensors are mapped into memory and
read one at a time; a .bin is unpickled as weights only, so it cannot run code.
"""

import json
import os
import sys
import warnings
import zipfile

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from safetensors import safe_open
from tqdm import tqdm

from model.checkpoint_config import TINY as TINY, CheckpointError, checkpoint_path, read_config, read_json, read_stop_tokens
from model.gguf import read_gguf
from model.network import Mamba2Network
from model.quantized import dequantized
from model.stand_in import stand_in

# Constants ----------------------------------------------------------------------------------------

LONGEST_HEADER = 100_000_000 # Bytes, of a .safetensors file; the library takes no longer one.

FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

# Files of Tensors ---------------------------------------------------------------------------------

@dataclass(frozen=True)
class Source:
    """A tensor in a file: its name there, its shape, and a function that reads it."""
    path  : Path
    name  : str
    shape : tuple
    read  : object

    def load(self, shape):
        """The tensor in float32. Raises CheckpointError unless it has `shape`, is floating point, and finite."""
        if self.shape != tuple(shape):
            raise CheckpointError(f"{self.path}: {self.name} must have shape {tuple(shape)} by config.json, has {self.shape}.")
        try:
            tensor = self.read()
        except Exception as error: # Of the libraries, on damaged files.
            raise CheckpointError(f"{self.path}: {self.name} must be readable, is damaged.") from error
        if not tensor.is_floating_point():
            raise CheckpointError(f"{self.path}: {self.name} must be floating point, is {tensor.dtype}.")
        tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{self.path}: {self.name} must be finite, holds values that are not: the file is damaged.")
        return tensor


def _open_safetensors(path):
    """[Source] of a .safetensors file."""
    try:
        file = safe_open(path, framework="pt")
        return [Source(path, name, tuple(file.get_slice(name).get_shape()), partial(file.get_tensor, name))
            for name in file.keys()]
    except Exception as error: # SafetensorError and others.
        raise CheckpointError(f"{path}: must be a whole .safetensors file, is {stand_in(path) or _damage(path)}.") from error


def _damage(path):
    """What is wrong with a .safetensors file, in words: the first tensor that is cut off, if one is."""
    try:
        with open(path, "rb") as file:
            size   = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < min(size, LONGEST_HEADER) else {}
        ends = {name: 8 + length + entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"}
        name = min((name for name, end in ends.items() if end > size), key=ends.get)
        return f"truncated: {name} ends at byte {ends[name]}, the file at {size}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LookupError, RecursionError):
        return "damaged or of another format"


def _unpickle(path):
    """What a pytorch_model.bin holds. It is unpickled as weights only: other objects than tensors are not even made."""
    try:
        mapped = zipfile.is_zipfile(path)
        if not mapped or _stored(path):
            with warnings.catch_warnings(action="ignore"): # Of old formats.
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error: # torch.load raises what unpickling does. Its own words advise to unpickle without safety.
        raise CheckpointError(f"{path}: must be a whole file of tensors alone, is "
            f"{stand_in(path) or 'truncated, damaged or holds other objects'}.") from error
    raise CheckpointError(f"{path}: must be stored as PyTorch does, is compressed or encrypted.")


def _open_bin(path):
    """[Source] of a pytorch_model.bin."""
    tensors = _unpickle(path)
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: must hold a dict of tensors, holds a {type(tensors).__name__}.")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: names of tensors must be strings, one is {name!r}.")
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise CheckpointError(f"{path}: {name} must be a tensor, is a {type(tensor).__name__}.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(f"{path}: {name} must be a dense tensor, is sparse, quantised or without data.")
    return [Source(path, name, tuple(tensor.shape), partial(tensors.get, name)) for name, tensor in tensors.items()]


def _stored(path):
    """Whether nothing in a zip file is compressed or encrypted: PyTorch writes them so."""
    with zipfile.ZipFile(path) as file:
        return all(info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1 for info in file.infolist())


def _open_file(path):
    """{name: Source} of a file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: must be a file, is missing.")
    opened = _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)
    return {source.name: source for source in opened}


def _open_weights(directory):
    """{name: Source} of all files of a checkpoint."""
    path = next((directory/name for name in FILES if (directory/name).exists()), None)
    if path is None:
        raise CheckpointError(f"{directory}: weights must be there as one of {', '.join(FILES)}, are missing.")
    if path.suffix != ".json":
        return _open_file(path)
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not all(map(_is_file_name, index.values())):
        raise CheckpointError(f"{path}: weight_map must be an object of names of files in the same folder.")
    opened = {name: _open_file(directory/name) for name in sorted(set(index.values()))}
    for tensor, name in index.items():
        if tensor not in opened[name]:
            raise CheckpointError(f"{directory/name}: {tensor} must be there by {path.name}, is missing.")
    return {tensor: opened[name][tensor] for tensor, name in index.items()}


def _is_file_name(name):
    """Whether a name is that of a file in the folder it is looked for in."""
    return isinstance(name, str) and name == os.path.basename(name) and name.isprintable() and len(name.encode()) < 256

# Checkpoints --------------------------------------------------------------------------------------

def _canonical(name):
    """The network's name of a tensor of either layout."""
    return name.removeprefix("backbone.").replace("embeddings.", "embedding.")


def load_checkpoint(name):
    """Load the model of a folder, of a GGUF file, whose weights are dequantised, or "tiny". Shows progress on a terminal.

    Returns
    -------
    :class:`model.network.Mamba2Network`, in float32, without gradients.

    Raises
    ------
    CheckpointError : names the file, and the field or tensor that is not as it must be.
    """
    directory = checkpoint_path(name)
    if directory.is_file():
        return to_network(read_gguf(directory))
    config    = read_config(directory/"config.json")
    stop      = read_stop_tokens(directory)
    config    = config if stop is None else replace(config, stop_tokens=stop)
    weights   = _open_weights(directory)
    sources   = {_canonical(name): source for name, source in weights.items()}
    if len(sources) != len(weights):
        raise CheckpointError(f"{directory}: a tensor must be there once, one is there under two names.")
    last      = f"layers.{config.n_layer - 1}"
    if not any(tensor.startswith(f"{last}.") for tensor in sources): # Before many layers are made for nothing.
        raise CheckpointError(f"{directory}: {last} must be there by config.json, is missing.")
    with torch.device("meta"): # Nothing is allocated, or drawn at random, only to be replaced.
        network = Mamba2Network(config)
    expected = network.state_dict()
    for tensor, source in sources.items():
        if tensor not in expected:
            raise CheckpointError(f"{source.path}: {source.name} must be left out: a model of this config.json has no such "
                "tensor.")
    if config.tie_embeddings:
        expected.pop("lm_head.weight")
    state    = {}
    progress = tqdm(expected.items(), desc="weights", unit="tensor", leave=False, file=sys.stderr, disable=None)
    for tensor, parameter in progress:
        if tensor not in sources:
            raise CheckpointError(f"{directory}: {tensor} must be there by config.json, is missing.")
        state[tensor] = sources[tensor].load(parameter.shape)
    if config.tie_embeddings:
        state["lm_head.weight"] = state["embedding.weight"]
        if "lm_head.weight" in sources:
            source = sources["lm_head.weight"]
            if not torch.equal(source.load(expected["embedding.weight"].shape), state["embedding.weight"]):
                raise CheckpointError(f"{source.path}: lm_head.weight must be the embedding, to which config.json ties it, "
                    "differs.")
    return _assign(network, state)


def _assign(network, state):
    """Give a network its weights, without gradients."""
    network.load_state_dict(state, assign=True)
    network.tie_weights()
    return network.requires_grad_(False).eval()


def to_network(model):
    """The :class:`model.network.Mamba2Network` of a :class:`model.weights.QuantizedModel`, on its weights in float32.
    A = -exp(A_log) may differ from the model's in the last bit."""
    state = {"embedding.weight": dequantized(model.embedding), "norm_f.weight": model.norm, "lm_head.weight": dequantized(model.head)}
    for number, layer in enumerate(model.layers):
        weights = {
            "norm.weight"           : layer.norm,
            "mixer.in_proj.weight"  : dequantized(layer.in_proj),
            "mixer.conv1d.weight"   : layer.conv_weight[:, None],
            "mixer.conv1d.bias"     : layer.conv_bias,
            "mixer.dt_bias"         : layer.dt_bias,
            "mixer.A_log"           : np.log(-layer.A.astype(np.float64)).astype(np.float32),
            "mixer.D"               : layer.D,
            "mixer.norm.weight"     : layer.ssm_norm,
            "mixer.out_proj.weight" : dequantized(layer.out_proj),
        }
        if model.config.layer.bias:
            weights |= {"mixer.in_proj.bias": layer.in_bias, "mixer.out_proj.bias": layer.out_bias}
        state |= {f"layers.{number}.{name}": weight for name, weight in weights.items()}
    with torch.device("meta"):
        network = Mamba2Network(model.config)
    return _assign(network, {name: torch.from_numpy(np.ascontiguousarray(weight)) for name, weight in state.items()})
