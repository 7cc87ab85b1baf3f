#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""config.json of a checkpoint, in the layout of state-spaces/mamba2-* or of transformers' Mamba2, as a NetworkConfig.

Each field is taken, must have one value, or changes nothing in a float32 model that is not trained further. A field that is
none of these is refused, so that no model runs other than its configuration says.
"""

import json
import math
import reprlib

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from model.config import Mamba2Config, NetworkConfig
from model.stand_in import stand_in

# Constants ----------------------------------------------------------------------------------------

TINY = Path(__file__).resolve().parent/"tiny" # The model in the repository.

# Fields -------------------------------------------------------------------------------------------

class CheckpointError(ValueError):
    """A checkpoint cannot be used; names the file, and the field or tensor."""


@dataclass(frozen=True)
class Fields:
    """The fields of a JSON object.

    taken   : {name: (name in NetworkConfig or Mamba2Config, value where the field is absent)}.
    fixed   : {name: (values that are allowed)}; an absent field has the first one.
    ignored : names.
    needed  : those of `fixed` that cannot be absent.
    """
    taken   : dict
    fixed   : dict
    ignored : tuple = ()
    needed  : tuple = ()

    def read(self, path, values, prefix=""):
        """{name in a Config: value}. `values`: of the object; `prefix`: of their names in messages.

        Raises
        ------
        CheckpointError : names the first field that is not allowed.
        """
        for name, value in values.items():
            if name in self.fixed:
                if not any(value == allowed and isinstance(value, bool) == isinstance(allowed, bool)
                        for allowed in self.fixed[name]):
                    raise CheckpointError(f"{path}: {prefix}{name} must be "
                        f"{' or '.join(map(repr, self.fixed[name]))}, is {value!r}.")
            elif name not in self.taken and name not in self.ignored and not name.endswith("version"): # Of some tool.
                raise CheckpointError(f"{path}: {prefix}{name} must be left out, is {value!r}: this field is not known.")
        for name in self.needed:
            if name not in values:
                raise CheckpointError(f"{path}: {prefix}{name} must be {self.fixed[name][0]!r}, is missing.")
        taken = {}
        for name, (target, default) in self.taken.items():
            value = values.get(name, default)
            if isinstance(default, bool) and not isinstance(value, bool):
                raise CheckpointError(f"{path}: {prefix}{name} must be true or false, is {value!r}.")
            taken[target] = value
        return taken


# Fields of both layouts that say nothing about the model: what tools write about themselves,
TOOLS = (
    "architectures", "model_type", "auto_map", "_name_or_path", "name_or_path", "dtype", "torch_dtype", "torchscript",
    "device", "max_position_embeddings", "use_cache", "tokenizer_class", "bos_token_id", "pad_token_id", "_commit_hash",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "unsloth_fixed",
)
# what is to come out beside the logits, and for which task,
OUTPUTS = (
    "return_dict", "output_hidden_states", "output_attentions", "output_scores", "return_dict_in_generate", "id2label",
    "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "prefix", "pruned_heads",
    "tie_encoder_decoder", "cross_attention_hidden_size", "use_bfloat16", "tf_legacy_loss",
)
# and how older versions of transformers choose tokens, which the options of generate say here.
SAMPLING = (
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
    "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
)

ORIGINAL = Fields(
    taken = {
        "d_model"                 : ("d_model", 2560),
        "n_layer"                 : ("n_layer", 64),
        "vocab_size"              : ("vocab_size", 50277),
        "pad_vocab_size_multiple" : ("pad_vocab_size_multiple", 8),
        "tie_embeddings"          : ("tie_embeddings", True),
        "ssm_cfg"                 : ("ssm_cfg", {}),
    },
    fixed = {
        "d_intermediate" : (0,),    # No MLP between layers,
        "attn_layer_idx" : ([],),   # and no attention.
        "attn_cfg"       : ({},),
        "rms_norm"       : (True,),
    },
    ignored = ("residual_in_fp32", "fused_add_norm", *TOOLS),
)

ORIGINAL_LAYER = Fields(
    taken = {
        "d_state"    : ("d_state", 128),
        "headdim"    : ("headdim", 64),
        "ngroups"    : ("ngroups", 1),
        "expand"     : ("expand", 2),
        "d_conv"     : ("d_conv", 4),
        "chunk_size" : ("chunk_size", 256),
        "bias"       : ("bias", False),
        "conv_bias"  : ("conv_bias", True),
        "dt_limit"   : ("dt_limit", (0.0, math.inf)),
        "d_ssm"      : ("d_ssm", None),
    },
    fixed = {
        "layer"            : ("Mamba2",),
        "D_has_hdim"       : (False,), # The accelerator's D is a scalar of the head.
        "rmsnorm"          : (True,),
        "norm_before_gate" : (False,),
        "activation"       : ("swish", "silu"),
    },
    ignored = ("conv_init", "A_init_range", "dt_min", "dt_max", "dt_init_floor", "use_mem_eff_path", "device", "dtype",
        "layer_idx", "process_group", "sequence_parallel"),
    needed  = ("layer",),
)

TRANSFORMERS = Fields(
    taken = {
        "vocab_size"          : ("vocab_size", 32768),
        "num_hidden_layers"   : ("n_layer", 64),
        "hidden_size"         : ("d_model", 4096),
        "state_size"          : ("d_state", 128),
        "head_dim"            : ("headdim", 64),
        "num_heads"           : ("num_heads", 128),
        "n_groups"            : ("ngroups", 8),
        "expand"              : ("expand", 2),
        "conv_kernel"         : ("d_conv", 4),
        "chunk_size"          : ("chunk_size", 256),
        "layer_norm_epsilon"  : ("norm_eps", 1e-5),
        "time_step_limit"     : ("dt_limit", (0.0, math.inf)),
        "use_bias"            : ("bias", False),
        "use_conv_bias"       : ("conv_bias", True),
        "tie_word_embeddings" : ("tie_embeddings", False),
        "eos_token_id"        : ("stop_tokens", 2),
    },
    fixed = {
        "model_type"          : ("mamba2",),
        "hidden_act"          : ("silu", "swish"),
        "rms_norm"            : (True,),
        "is_encoder_decoder"  : (False,),
        "add_cross_attention" : (False,),
    },
    ignored = (
        "sep_token_id", "decoder_start_token_id", "initializer_range", "residual_in_fp32", "fused_add_norm",
        "intermediate_size", "pad_vocab_size_multiple", "time_step_rank", "time_step_min", "time_step_max", "time_step_floor",
        "time_step_init_scheme", "time_step_scale", "rescale_prenorm_residual", "chunk_size_feed_forward", "is_decoder",
        "norm_before_gate", "use_mambapy", "layer_types", *TOOLS, *OUTPUTS, *SAMPLING,
    ),
    needed  = ("model_type",),
)

# Names --------------------------------------------------------------------------------------------

def checkpoint_path(name):
    """The path of a checkpoint: `name`, a folder or a GGUF file, or the repository's own model for "tiny"."""
    path = TINY if str(name) == "tiny" else Path(name)
    if not str(name) or not path.is_dir() and not path.is_file():
        raise CheckpointError(f"--model must be the folder of a checkpoint, with config.json, a GGUF file, or tiny, is {str(name) or repr('')}, "
            "which is no folder, and no file.")
    return path

# Reading ------------------------------------------------------------------------------------------

def read_config(path):
    """The :class:`model.config.NetworkConfig` of a config.json.

    Raises
    ------
    CheckpointError : names the file, the field, what it must be, and its value.
    """
    values = read_json(path)
    if "ssm_cfg" in values or "d_model" in values:
        taken  = ORIGINAL.read(path, values)
        taken |= ORIGINAL_LAYER.read(path, _object(path, "ssm_cfg", taken.pop("ssm_cfg")), "ssm_cfg.")
        multiple = taken.pop("pad_vocab_size_multiple")
        for name, value in (("vocab_size", taken["vocab_size"]), ("pad_vocab_size_multiple", multiple)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise CheckpointError(f"{path}: {name} must be an integer of at least 1, is {value!r}.")
        taken["vocab_size"] += -taken["vocab_size"] % multiple
        heads, d_ssm = None, taken.pop("d_ssm")
    else:
        taken = TRANSFORMERS.read(path, values)
        heads, d_ssm = taken.pop("num_heads"), None
        taken["stop_tokens"] = _tokens(path, "eos_token_id", taken["stop_tokens"])
    taken["dt_limit"] = _limit(path, taken["dt_limit"])
    try:
        names   = ("vocab_size", "n_layer", "tie_embeddings", "stop_tokens")
        network = {name: taken.pop(name) for name in names if name in taken}
        config  = NetworkConfig(layer=Mamba2Config(**taken), **network)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if d_ssm not in (None, config.layer.d_inner): # Of fewer channels than the layer's width, the rest would be an MLP.
        raise CheckpointError(f"{path}: ssm_cfg.d_ssm must be expand*d_model = {config.layer.d_inner}, is {d_ssm!r}.")
    if heads not in (None, config.layer.heads):
        raise CheckpointError(f"{path}: num_heads must be expand*hidden_size/head_dim = {config.layer.heads}, is {heads!r}.")
    return config


def read_stop_tokens(directory):
    """The tokens that end a text by a folder's generation_config.json; None: config.json's do.

    Raises
    ------
    CheckpointError : names the file, what is to be in it, and what is.
    """
    path = Path(directory)/"generation_config.json"
    if not path.exists() and not path.is_symlink():
        return None
    values = read_json(path)
    return _tokens(path, "eos_token_id", values["eos_token_id"]) if "eos_token_id" in values else None


def read_json(path):
    """The object that a JSON file holds. Raises CheckpointError."""
    try:
        with open(path, encoding="utf-8") as file:
            return _object(path, "the file", json.load(file, object_pairs_hook=partial(_without_doubles, path)))
    except OSError as error:
        raise CheckpointError(f"{path}: must be a file that can be read, cannot ({error.strerror}).") from error
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: must be JSON, is {stand_in(path) or f'not ({error})'}.") from error


def _without_doubles(path, pairs):
    """A dict of (name, value) pairs; json alone would let the last value of a name win."""
    values = dict(pairs)
    if len(values) != len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise CheckpointError(f"{path}: {name} must be there once, is there more often.")
    return values


def _object(path, name, value):
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {name} must be a JSON object, is {reprlib.repr(value)}.")
    return value


def _tokens(path, name, value):
    """A field that holds no, one or several tokens, as a tuple."""
    tokens = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in tokens):
        raise CheckpointError(f"{path}: {name} must be null, an integer of at least 0 or a list of them, is {value!r}.")
    return tuple(tokens)


def _limit(path, limit):
    """(low, high) of dt. JSON has no infinity: transformers writes {"__float__": "Infinity"}."""
    infinity = {"__float__": "Infinity"}
    values   = [math.inf if value == infinity else value for value in limit] if isinstance(limit, (list, tuple)) else []
    if len(values) != 2 or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise CheckpointError(f"{path}: the limit of dt must be two numbers, is {limit!r}.")
    return tuple(values)
