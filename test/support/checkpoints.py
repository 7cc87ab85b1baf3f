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
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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

# Tokenizers ---------------------------------------------------------------------------------------

TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. "


def train_tokenizer(directory, kind):
    """Write the tokenizer.json of a kind: bytes as GPT-NeoX's, with a space before or not; words as T5's; Llama's."""
    llama   = kind == "llama"
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] if llama else ["<|endoftext|>", "<s>"]
    trained = Tokenizer(models.BPE(byte_fallback=llama, unk_token="<unk>" if llama else None))
    if llama:
        trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        trained.decoder    = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0)])
    elif kind == "words":
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        trained.decoder       = decoders.Metaspace()
    else:
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "bytes, space")
        trained.decoder       = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if "bytes" in kind else []
    trained.train_from_iterator([TEXT]*4, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
        initial_alphabet=alphabet))
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    spec = json.loads(trained.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    (directory/"tokenizer.json").write_text(json.dumps(spec))


KINDS = ["bytes", "bytes, space", "words", "llama"]
