#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""GGUF files of architecture mamba2, as llama.cpp has them: read and written, without PyTorch.

Tensors, their shapes as NumPy has them (a file lists the last dimension first)::

    token_embd.weight   (vocabulary, d_model)         blk.N.ssm_dt.bias     (nheads,)
    output_norm.weight  (d_model,)                    blk.N.ssm_a           (nheads, 1), that is -exp(A_log)
    output.weight       as token_embd, unless tied    blk.N.ssm_d           (nheads, 1)
    blk.N.attn_norm.weight  (d_model,)                blk.N.ssm_norm.weight (ngroups, d_inner/ngroups)
    blk.N.ssm_in.weight     (rows of in_proj, d_model)
    blk.N.ssm_conv1d.weight (channels, d_conv), .bias (channels,)
    blk.N.ssm_out.weight    (d_model, d_inner)

Two things have no key in GGUF, and get one of this project's: several tokens that end a text, and limits of dt. llama.cpp
passes over both.
"""

import math
import sys

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.gguf_writer import GGUFValue, WriterState
from tqdm import tqdm

from model.checkpoint_config import CheckpointError
from model.config import Mamba2Config, NetworkConfig
from model.quantized import TYPES, unpack
from model.weights import QuantizedLayer, QuantizedMatrix, QuantizedModel
from model.stand_in import stand_in

from tools.files import write_atomically

# Constants ----------------------------------------------------------------------------------------

ARCHITECTURE = "mamba2"
CONTEXT      = 2**20 # Tokens; a recurrent model has no such limit, and llama.cpp asks for one.
STOP_TOKENS  = "mamba2_litex.stop_tokens"
DT_LIMIT     = "mamba2_litex.dt_limit"
EOS          = "tokenizer.ggml.eos_token_id"

NATIVE = ("F32", "F16", "BF16", "Q8_0", "Q4_0") # Types that are read without a word about it.
FTYPES = {"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}

# Files --------------------------------------------------------------------------------------------

def is_gguf(name):
    """Whether `name` is that of a file, not of a folder or of the model in the repository."""
    return str(name) != "tiny" and Path(name).is_file()


class _Reader(GGUFReader):
    """gguf's reader, which takes what lies beyond a file's end for empty: here that is an error."""
    def _get(self, offset, dtype, count=1, override_order=None):
        if int(offset) + np.dtype(dtype).itemsize*int(count) > len(self.data):
            raise CheckpointError("truncated: its list of fields and tensors goes on beyond its end")
        return super()._get(int(offset), dtype, count, override_order)

    def _build_tensors(self, start_offs, fields):
        for field in fields:
            shape, kind, offset = field.parts[3].tolist(), field.parts[4].item(), field.parts[5].item()
            if kind not in list(GGMLQuantizationType):
                raise ValueError(f"{field.name} must have a type of GGUF, has number {kind}.")
            group, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            if not shape or shape[0] % group:
                raise ValueError(f"{field.name} must have rows of whole groups of {group} elements, has shape "
                    f"{tuple(reversed(shape))}.")
            end = start_offs + offset + math.prod(shape)//group*size
            if end > len(self.data):
                raise CheckpointError(f"truncated: {field.name} ends at byte {end}, the file at {len(self.data)}")
        super()._build_tensors(start_offs, fields)


@dataclass(frozen=True)
class File:
    """A GGUF file that is open. values: {key: :class:`gguf.gguf_writer.GGUFValue`}; tensors: {name: gguf's ReaderTensor}."""
    path    : Path
    values  : dict
    tensors : dict

    def get(self, key, kind, default=None):
        """The value of a key, of type `kind`: int, float, str, bool or list. Raises CheckpointError; without default: if missing."""
        if key not in self.values:
            if default is None:
                raise CheckpointError(f"{self.path}: {key} must be there, is missing.")
            return default
        value = self.values[key].value
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise CheckpointError(f"{self.path}: {key} must be of type {kind.__name__}, is {str(value)[:40]!r}.")
        return value


def open_gguf(path):
    """The :class:`File` of a path.

    Raises
    ------
    CheckpointError : names the file, and what of it is damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path}: must be a file that can be read, cannot ({error.strerror}).") from error
    if magic != b"GGUF":
        raise CheckpointError(f"{path}: must be a GGUF file, is {stand_in(path) or 'of another format'}.")
    try:
        reader = _Reader(path)
        if reader.byte_order == "S" or sys.byteorder == "big":
            raise ValueError("must be little-endian, is big-endian.")
        values = {key: _value(field) for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    except CheckpointError as error:
        raise CheckpointError(f"{path}: must be a whole GGUF file, is {error}.") from error
    except Exception as error: # Of the library, on damaged files: of any type.
        raise CheckpointError(f"{path}: must be a whole GGUF file, is damaged ({str(error).strip('.')}).") from error
    return File(path, values, {tensor.name: tensor for tensor in reader.tensors})


def _value(field):
    """gguf's GGUFValue of a field that its reader has found."""
    kind = field.types[0]
    if kind != GGUFValueType.ARRAY:
        return GGUFValue(field.contents(), kind)
    return GGUFValue(field.contents(), kind, GGUFValueType(field.parts[3].item()))

# Configuration ------------------------------------------------------------------------------------

def _config(file):
    """The :class:`NetworkConfig` that a file's keys, and its embedding's rows, say."""
    architecture = file.get("general.architecture", str)
    if architecture != ARCHITECTURE:
        raise CheckpointError(f"{file.path}: general.architecture must be {ARCHITECTURE}, is {architecture[:40]!r}.")
    get      = lambda name: file.get(f"{ARCHITECTURE}.{name}", int)
    d_model  = get("embedding_length")
    d_inner  = get("ssm.inner_size")
    heads    = get("ssm.time_step_rank")
    if d_model < 1 or d_inner < 1 or d_inner % d_model:
        raise CheckpointError(f"{file.path}: {ARCHITECTURE}.ssm.inner_size must be a multiple of embedding_length = {d_model}, "
            f"is {d_inner}.")
    if heads < 1 or d_inner % heads:
        raise CheckpointError(f"{file.path}: {ARCHITECTURE}.ssm.time_step_rank, the heads, must be a divisor of ssm.inner_size "
            f"= {d_inner}, is {heads}.")
    if "token_embd.weight" not in file.tensors:
        raise CheckpointError(f"{file.path}: token_embd.weight must be there, is missing.")
    embedding = file.tensors["token_embd.weight"].shape.tolist()
    if len(embedding) != 2 or embedding[0] != d_model:
        raise CheckpointError(f"{file.path}: token_embd.weight must have shape (vocabulary, {d_model}), has "
            f"{tuple(reversed(embedding))}.")
    vocab_size = file.get(f"{ARCHITECTURE}.vocab_size", int, embedding[1])
    if vocab_size != embedding[1]:
        raise CheckpointError(f"{file.path}: {ARCHITECTURE}.vocab_size must be the {embedding[1]} rows of token_embd.weight, is "
            f"{vocab_size}.")
    eos      = file.get(EOS, int, -1)
    stop     = file.get(STOP_TOKENS, list, [eos] if eos >= 0 else [])
    limit    = file.get(DT_LIMIT, list, [0.0, math.inf])
    norm_eps = float(str(np.float32(file.get(f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon", float)))) # As it was written.
    if not all(isinstance(token, int) for token in stop):
        raise CheckpointError(f"{file.path}: {STOP_TOKENS} must be integers, is {str(stop)[:40]}.")
    if len(limit) != 2 or not all(isinstance(value, float) for value in limit):
        raise CheckpointError(f"{file.path}: {DT_LIMIT} must be two numbers, is {str(limit)[:40]}.")
    try:
        layer = Mamba2Config(d_model=d_model, d_state=get("ssm.state_size"), headdim=d_inner//heads,
            ngroups=get("ssm.group_count"), expand=d_inner//d_model, d_conv=get("ssm.conv_kernel"), norm_eps=norm_eps,
            dt_limit=tuple(limit))
        return NetworkConfig(vocab_size=vocab_size, n_layer=get("block_count"), layer=layer,
            tie_embeddings="output.weight" not in file.tensors, stop_tokens=tuple(stop))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{file.path}: {error}") from error


def _layer_shapes(layer):
    """{name in a block: (name in QuantizedLayer, shape in a file)}. layer: Mamba2Config."""
    return {
        "attn_norm.weight"  : ("norm",        (layer.d_model,)),
        "ssm_in.weight"     : ("in_proj",     (layer.d_inner + layer.d_xbc + layer.heads, layer.d_model)),
        "ssm_conv1d.weight" : ("conv_weight", (layer.d_xbc, layer.d_conv)),
        "ssm_conv1d.bias"   : ("conv_bias",   (layer.d_xbc,)),
        "ssm_dt.bias"       : ("dt_bias",     (layer.heads,)),
        "ssm_a"             : ("A",           (layer.heads, 1)),
        "ssm_d"             : ("D",           (layer.heads, 1)),
        "ssm_norm.weight"   : ("ssm_norm",    (layer.ngroups, layer.d_inner//layer.ngroups)),
        "ssm_out.weight"    : ("out_proj",    (layer.d_model, layer.d_inner)),
    }

MATRICES = ("in_proj", "out_proj")
VECTORS  = ("A", "D", "ssm_norm") # They have two dimensions in a file.

# Reading ------------------------------------------------------------------------------------------

def _squeezed(shape):
    """A shape in NumPy's order without the ones in front, which a file need not tell from none."""
    first = next((n for n, size in enumerate(shape) if size != 1), len(shape) - 1)
    return tuple(shape[first:])


def _load(file, name, shape, others, matrix=False):
    """A tensor of a file: float32 of `shape`; as a :class:`QuantizedMatrix` where it can be one. others: a set of types."""
    tensor = file.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{file.path}: {name} must be there by its fields, is missing.")
    actual = tuple(reversed(tensor.shape.tolist()))
    if _squeezed(actual) != _squeezed(shape):
        raise CheckpointError(f"{file.path}: {name} must have shape {shape} by its fields, has {actual}.")
    kind = tensor.tensor_type.name
    if matrix and kind.lower() in TYPES:
        loaded = unpack(tensor.data.reshape(shape[0], -1), kind.lower())
        values = loaded.scales
    else:
        try:
            loaded = values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)
        except Exception as error: # NotImplementedError of a type that holds no weights; others of damaged ones.
            raise CheckpointError(f"{file.path}: {name} must have a type of weights that the package gguf can dequantise, has "
                f"{kind}.") from error
    if not np.isfinite(values).all():
        raise CheckpointError(f"{file.path}: {name} must be finite, holds {'scales' if values is not loaded else 'values'} that "
            "are not: the file is damaged.")
    if kind not in NATIVE:
        others.add(kind)
    return loaded


def read_gguf(path):
    """The model of a GGUF file. Shows progress on a terminal, and says on stderr which types were dequantised.

    Returns
    -------
    :class:`model.weights.QuantizedModel`; matrices of other types than Q8_0 and Q4_0 are float32 arrays.

    Raises
    ------
    CheckpointError : names the file, and the field or tensor that is not as it must be.
    """
    file   = open_gguf(path)
    config = _config(file)
    shapes = _layer_shapes(config.layer)
    if f"blk.{config.n_layer - 1}.ssm_a" not in file.tensors: # Before names of many layers are made for nothing.
        raise CheckpointError(f"{file.path}: blk.{config.n_layer - 1}.ssm_a must be there by block_count, is missing.")
    known  = {"token_embd.weight", "output_norm.weight", "output.weight"}
    known |= {f"blk.{number}.{name}" for number in range(config.n_layer) for name in shapes}
    extra  = next((name for name in file.tensors if name not in known), None)
    if extra is not None:
        raise CheckpointError(f"{file.path}: {extra} must be left out: a model of this {ARCHITECTURE} file has no such tensor.")
    others    = set()
    table     = (config.vocab_size, config.layer.d_model)
    embedding = _load(file, "token_embd.weight", table, others, matrix=True)
    head      = embedding if config.tie_embeddings else _load(file, "output.weight", table, others, matrix=True)
    norm      = _load(file, "output_norm.weight", table[1:], others)
    layers    = []
    for number in tqdm(range(config.n_layer), desc="weights", unit="layer", leave=False, file=sys.stderr, disable=None):
        weights = {}
        for name, (field, shape) in shapes.items():
            weight         = _load(file, f"blk.{number}.{name}", shape, others, matrix=field in MATRICES)
            weights[field] = weight.reshape(-1) if field in VECTORS else weight
        if not (weights["A"] < 0).all():
            raise CheckpointError(f"{file.path}: blk.{number}.ssm_a must be below 0, is not.")
        layers.append(QuantizedLayer(**weights))
    if others:
        print(f"{file.path}: dequantised to float32: {', '.join(sorted(others))}", file=sys.stderr)
    return QuantizedModel(config, embedding, tuple(layers), norm, head)

# Writing ------------------------------------------------------------------------------------------

class _Writer(GGUFWriter):
    """gguf's writer, for a file that is open; it can write empty arrays of strings too."""
    def __init__(self, file):
        super().__init__(None, ARCHITECTURE)
        self.fout  = [file]
        self.state = WriterState.NO_FILE

    def write_header(self):
        self.state = WriterState.EMPTY
        self.write_header_to_file()
        self.write_kv_data_to_file()
        self.write_ti_data_to_file()

    def _pack_val(self, val, vtype, add_vtype, sub_type=None):
        if vtype == GGUFValueType.ARRAY and len(val) == 0:
            return self._pack("I", vtype) + self._pack("I", sub_type) + self._pack("Q", 0)
        return super()._pack_val(val, vtype, add_vtype, sub_type)


def _tensors(model):
    """{name: array or QuantizedMatrix} of a model, in the shapes of a file."""
    tensors = {"token_embd.weight": model.embedding, "output_norm.weight": model.norm}
    if not model.tied:
        tensors["output.weight"] = model.head
    for number, layer in enumerate(model.layers):
        for name, (field, shape) in _layer_shapes(model.config.layer).items():
            weight = getattr(layer, field)
            tensors[f"blk.{number}.{name}"] = weight if isinstance(weight, QuantizedMatrix) else weight.reshape(shape)
    return tensors


def _type(weight):
    """GGUF's type of an array or QuantizedMatrix."""
    return TYPES[weight.type] if isinstance(weight, QuantizedMatrix) else GGMLQuantizationType.F32


def write_gguf(path, model, values=None):
    """Write a model as a GGUF file, whole or not at all. Shows progress on a terminal.

    model  : :class:`model.weights.QuantizedModel`.
    values : {key: GGUFValue} of what else the file is to say: its vocabulary (model/vocabulary.py), its name.

    Raises
    ------
    UsageError      : `path` cannot be written.
    CheckpointError : the model has what such a file has no place for.
    """
    if model.config.layer.bias:
        raise CheckpointError(f"{path}: in_proj and out_proj must be without biases in a GGUF file of mamba2, have them.")
    write_atomically(path, lambda file: _write(file, model, values or {}))


def _write(file, model, values):
    config, layer = model.config, model.config.layer
    writer        = _Writer(file)
    kind          = next((matrix.type for matrix in (model.layers[0].in_proj, model.embedding)
        if isinstance(matrix, QuantizedMatrix)), None)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(layer.d_model)
    writer.add_feed_forward_length(0) # llama.cpp asks for these two,
    writer.add_head_count(0)          # though a Mamba-2 has neither.
    writer.add_block_count(config.n_layer)
    writer.add_ssm_conv_kernel(layer.d_conv)
    writer.add_ssm_inner_size(layer.d_inner)
    writer.add_ssm_state_size(layer.d_state)
    writer.add_ssm_time_step_rank(layer.heads)
    writer.add_ssm_group_count(layer.ngroups)
    writer.add_layer_norm_rms_eps(layer.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(FTYPES.get(kind, gguf.LlamaFileType.ALL_F32))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in values.items():
        writer.add_key_value(key, value.value, value.type, value.sub_type)
    if tuple(layer.dt_limit) != (0.0, math.inf):
        writer.add_key_value(DT_LIMIT, list(map(float, layer.dt_limit)), GGUFValueType.ARRAY, GGUFValueType.FLOAT64)
    eos = [values[EOS].value] if EOS in values else []
    if list(config.stop_tokens) != eos:
        writer.add_key_value(STOP_TOKENS, list(config.stop_tokens), GGUFValueType.ARRAY, GGUFValueType.UINT32)
    tensors = _tensors(model)
    for name, weight in tensors.items():
        group, size = gguf.GGML_QUANT_SIZES[_type(weight)]
        writer.add_tensor_info(name, weight.shape, np.dtype(np.float32), math.prod(weight.shape)//group*size, _type(weight))
    writer.write_header()
    writer.write_padding(file, file.tell())
    for weight in tqdm(tensors.values(), desc="write", unit="tensor", leave=False, file=sys.stderr, disable=None):
        stored = weight.pack() if isinstance(weight, QuantizedMatrix) else np.ascontiguousarray(weight, "<f4")
        file.write(stored.data)
        writer.write_padding(file, stored.nbytes)
