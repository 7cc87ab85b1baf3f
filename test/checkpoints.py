#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Checkpoints made on the spot, with random weights, by transformers' own Mamba2."""

import json
import os

os.environ["HF_HUB_OFFLINE"]         = "1" # Before transformers is imported.
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch

from safetensors.torch import load_file
from transformers import Mamba2Config, Mamba2ForCausalLM

torch.set_num_threads(1) # More only get in each other's way in models this small.

# Constants ----------------------------------------------------------------------------------------

SMALL = dict(vocab_size=96, num_hidden_layers=3, hidden_size=48, state_size=16, head_dim=8, num_heads=12, n_groups=2,
    expand=2, chunk_size=16, bos_token_id=None, eos_token_id=None, pad_token_id=None)

MAMBA2_130M = dict(vocab_size=256, num_hidden_layers=24, hidden_size=768, state_size=128, head_dim=64, num_heads=24,
    n_groups=1, expand=2, chunk_size=256, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=None)

# Checkpoints --------------------------------------------------------------------------------------

def make_transformers(directory, seed=1, shard_size="5GB", **fields):
    """Write a checkpoint as transformers does; returns transformers' model, in float32.

    Biases and the weights of the norms, which start as zeros and ones, are drawn at random too.
    """
    torch.manual_seed(seed)
    model = Mamba2ForCausalLM(Mamba2Config(**(SMALL | fields))).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("bias", "norm.weight", "norm_f.weight", ".D")):
            with torch.no_grad():
                weight += 0.3*torch.randn_like(weight)
    model.save_pretrained(directory, max_shard_size=shard_size)
    return model


def make_original(directory, source, **fields):
    """Write the same model in the layout of state-spaces/mamba2-*. source: folder of transformers' checkpoint."""
    config  = json.loads((source/"config.json").read_text())
    weights = {name.replace("embeddings.", "embedding."): weight for name, weight in
        load_file(source/"model.safetensors").items()}
    tied    = config.get("tie_word_embeddings", False)
    if tied:
        weights["lm_head.weight"] = weights["backbone.embedding.weight"]
    directory.mkdir()
    torch.save(weights, directory/"pytorch_model.bin")
    layer = {"layer": "Mamba2", "d_state": config["state_size"], "headdim": config["head_dim"], "ngroups":
        config["n_groups"], "expand": config["expand"], "chunk_size": config["chunk_size"]}
    write_config(directory, {"d_model": config["hidden_size"], "d_intermediate": 0, "n_layer": config["num_hidden_layers"],
        "vocab_size": config["vocab_size"] - 3, "ssm_cfg": layer, "attn_layer_idx": [], "attn_cfg": {}, "rms_norm": True,
        "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 16, "tie_embeddings": tied} | fields)


def write_config(directory, config):
    (directory/"config.json").write_text(json.dumps(config))
