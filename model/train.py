#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Trains the tiny model of model/tiny/: bytes of English, on the CPU, in about a quarter of an hour.

The text is the King James Version of the Bible, of 1611, in the public domain, as the Debian package ``bible-kjv`` prints
it. Its books of Ruth, Esther and Jonah are held out, and written beside the model as heldout.txt.
"""

from tools import environment # First: the packages are there.

environment.check("torch")

import argparse
import json
import math
import re
import subprocess
import sys

from pathlib import Path

import torch

from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm

from model.config import Mamba2Config, NetworkConfig
from model.network import Mamba2Network
from model.reference import Mamba2State

# Constants ----------------------------------------------------------------------------------------

TINY     = Path(__file__).resolve().parent/"tiny"
HELD_OUT = ("Ruth", "Est", "Jonah")

NETWORK = NetworkConfig(vocab_size=256, n_layer=3,
    layer=Mamba2Config(d_model=160, d_state=32, headdim=64, chunk_size=32))

SEED      = 2026
STREAMS   = 8    # Places of the text that are read in parallel.
LENGTH    = 128  # Tokens of each that a step takes. The state goes on to the next step, so the model learns long texts.
RESTART   = 0.02 # Share of the steps at which a stream starts anew from the state of zeros.
WARMUP    = 50   # Steps.
RATES     = {"matrices": 0.02, "others": 0.004} # Of learning.

# Text ---------------------------------------------------------------------------------------------

def read_text():
    """(text to train on, held-out text), bytes, one verse a line.

    Raises
    ------
    RuntimeError : the package is missing.
    """
    try:
        verses = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], stdin=subprocess.DEVNULL, capture_output=True,
            check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"The text cannot be read ({error}): install it with apt-get install bible-kjv.") from error
    texts = {True: [], False: []}
    for verse in verses.splitlines():
        reference, _, text = verse.partition(" ")
        book = re.match(r"\d?[A-Za-z]+", reference).group()
        texts[book in HELD_OUT].append(text)
    return tuple("\n".join([*texts[held_out], ""]).encode("ascii") for held_out in (False, True))

# Training -----------------------------------------------------------------------------------------

def initialise(network):
    """Weights as Mamba-2 starts training from: those of the layers already are."""
    torch.nn.init.normal_(network.embedding.weight, std=0.02)
    for layer in network.layers:
        with torch.no_grad():
            layer.mixer.out_proj.weight /= math.sqrt(network.config.n_layer)


def optimizers(network):
    """Muon for the layers' matrices, Adam for the rest."""
    matrices = [weight for layer in network.layers for weight in (layer.mixer.in_proj.weight, layer.mixer.out_proj.weight)]
    others   = [weight for weight in network.parameters() if all(weight is not matrix for matrix in matrices)]
    return (
        torch.optim.Muon(matrices, lr=RATES["matrices"], weight_decay=0.1),
        torch.optim.AdamW(others,  lr=RATES["others"],   weight_decay=0, betas=(0.9, 0.98)),
    )


def rate(step, steps):
    """Share of the learning rate: up in WARMUP steps, down along a cosine."""
    return min((step + 1)/WARMUP, 0.5 + 0.5*math.cos(math.pi*step/steps))


def train(text, steps, report=lambda step, loss: None):
    """A trained :class:`model.network.Mamba2Network`. text: bytes."""
    torch.manual_seed(SEED)
    network  = Mamba2Network(NETWORK)
    initialise(network)
    learners = optimizers(network)
    plans    = [torch.optim.lr_scheduler.LambdaLR(learner, lambda step: rate(step, steps)) for learner in learners]
    run      = torch.vmap(network)
    tokens   = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    places   = torch.arange(STREAMS)*(len(tokens)//STREAMS)
    states   = [Mamba2State(*(tensor.expand(STREAMS, *tensor.shape) for tensor in state))
        for state in network.initial_state()]
    for step in range(steps):
        window = tokens[(places[:, None] + torch.arange(LENGTH + 1)) % len(tokens)]
        logits, states = run(window[:, :-1], states)
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for learner, plan in zip(learners, plans):
            learner.step()
            learner.zero_grad()
            plan.step()
        places += LENGTH
        keep    = torch.rand(STREAMS) >= RESTART
        states  = [Mamba2State(state.conv.detach()*keep[:, None, None], state.ssm.detach()*keep[:, None, None, None])
            for state in states]
        report(step, loss.item())
    return network.eval()

# Checkpoint ---------------------------------------------------------------------------------------

def save(network, directory):
    """Write the model as transformers' Mamba2 does, weights in float16."""
    config, layer = network.config, network.config.layer
    directory.mkdir(parents=True, exist_ok=True)
    fields = {
        "architectures"       : ["Mamba2ForCausalLM"],
        "model_type"          : "mamba2",
        "vocab_size"          : config.vocab_size,
        "num_hidden_layers"   : config.n_layer,
        "hidden_size"         : layer.d_model,
        "state_size"          : layer.d_state,
        "head_dim"            : layer.headdim,
        "num_heads"           : layer.heads,
        "n_groups"            : layer.ngroups,
        "expand"              : layer.expand,
        "conv_kernel"         : layer.d_conv,
        "chunk_size"          : layer.chunk_size,
        "layer_norm_epsilon"  : layer.norm_eps,
        "tie_word_embeddings" : config.tie_embeddings,
        "bos_token_id"        : None,
        "eos_token_id"        : None,
        "pad_token_id"        : None,
        "dtype"               : "float16",
    }
    (directory/"config.json").write_text(json.dumps(fields, indent=4) + "\n")
    weights = {name.replace("embedding.", "embeddings."): weight.detach().half()
        for name, weight in network.state_dict().items() if name != "lm_head.weight"}
    save_file({f"backbone.{name}": weight for name, weight in weights.items()}, directory/"model.safetensors",
        metadata={"format": "pt"})

# Main ---------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(prog="python -m model.train", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=TINY, metavar="DIR",
        help="Folder of the model (default: %(default)s).")
    parser.add_argument("--steps",  type=int,  default=3000, help="Of training (default: %(default)s).")
    args = parser.parse_args()
    torch.set_num_threads(1) # So that the same seed gives the same weights, and others have the processor.
    try:
        text, held_out = read_text()
    except RuntimeError as error:
        sys.exit(f"train.py: error: {error}")
    bar = tqdm(total=args.steps, desc="training", unit="step", mininterval=5)

    def report(step, loss):
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    network = train(text, args.steps, report)
    bar.close()
    save(network, args.output)
    (args.output/"heldout.txt").write_bytes(held_out)
    print(f"{args.output}: {sum(weight.numel() for weight in network.parameters())} weights")


if __name__ == "__main__":
    main()
