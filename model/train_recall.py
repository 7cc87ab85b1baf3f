#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Trains the model of model/recall/: it recalls the values of keys over thousands of tokens. On the CPU, in minutes.

A sequence tells some pairs, each as three tokens: MARK, a key, its value. Then follow tokens drawn at random from all keys, all
values and some that mean nothing. Wherever a key comes up there that was told, its value is the next token to be predicted.
Nothing else is asked. The tokens in between are the same as those of the pairs, and only the mark two tokens before a value tells
them apart, while dt, and so dA, is a matter of one token alone: the state cannot be left as it is by what is not to be remembered.
"""

from tools import environment # First: the packages are there.

environment.check("torch")

import argparse
import math
import sys

from pathlib import Path

import numpy as np
import torch

from torch.nn import functional as F
from tqdm import tqdm

from model.config import Mamba2Config, NetworkConfig
from model.network import Mamba2Network
from model.reference import Mamba2State
from model.train import WARMUP, initialise, optimizers, save

# Constants ----------------------------------------------------------------------------------------

RECALL = Path(__file__).resolve().parent/"recall"

KEYS   = range(0, 128)   # Tokens.
VALUES = range(128, 192)
MARK   = 255             # Those between stand for nothing.
PAIRS  = 16              # That a sequence tells.

NETWORK = NetworkConfig(vocab_size=256, n_layer=1,
    layer=Mamba2Config(d_model=64, d_state=64, headdim=32, expand=1, chunk_size=64))

SEED     = 1
A        = (0.001, 0.05) # -A of a head is drawn from this range, evenly on a log scale: Mamba-2's heads forget sooner.
NOTHING  = -100          # In the place of a value where none is asked for: what PyTorch's cross entropy leaves out.
PHASES   = (             # Pairs, tokens after them, steps, sequences a step.
    (4,     64,    400, 16),
    (8,     64,    200, 16),
    (PAIRS, 128,   400, 16),
    (PAIRS, 512,   200, 8),
    (PAIRS, 2048,  200, 4),
    (PAIRS, 8192,  100, 2),
    (PAIRS, 16384, 150, 2),
)

# Task ---------------------------------------------------------------------------------------------

def draw(rng, count, pairs, length):
    """Sequences at random.

    rng: of NumPy. Returns keys and values (count, pairs), tokens and wanted (count, 3*pairs + length): the value to be predicted
    at each token, or NOTHING.
    """
    keys   = rng.permuted(np.tile(KEYS, (count, 1)), axis=1)[:, :pairs]
    values = rng.integers(VALUES.start, VALUES.stop, (count, pairs))
    told   = np.stack([np.full_like(keys, MARK), keys, values], -1).reshape(count, -1)
    rest   = rng.integers(0, MARK, (count, length))
    answer = np.full((count, NETWORK.vocab_size), NOTHING)
    np.put_along_axis(answer, keys, values, 1)
    wanted = np.concatenate([np.full_like(told, NOTHING), np.take_along_axis(answer, rest, 1)], 1)
    return keys, values, np.concatenate([told, rest], 1), wanted

# Training -----------------------------------------------------------------------------------------

def train(phases=PHASES, report=lambda tokens, loss, right: None):
    """A trained :class:`model.network.Mamba2Network`. After each step `report` is called with its tokens, loss and accuracy."""
    torch.manual_seed(SEED)
    rng      = np.random.default_rng(SEED)
    network  = Mamba2Network(NETWORK)
    initialise(network)
    for layer in network.layers:
        torch.nn.init.uniform_(layer.mixer.A_log, *map(math.log, A))
    learners = optimizers(network)
    rates    = [learner.param_groups[0]["lr"] for learner in learners]
    run      = torch.vmap(network)
    total    = sum(length*steps*count for _, length, steps, count in phases)
    step = done = 0
    for pairs, length, steps, count in phases:
        for _ in range(steps):
            tokens, wanted = map(torch.from_numpy, draw(rng, count, pairs, length)[2:])
            states = [Mamba2State(*(tensor.expand(count, *tensor.shape) for tensor in state)) for state in network.initial_state()]
            logits = run(tokens, states)[0]
            loss   = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=NOTHING)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            step, done = step + 1, done + count*length
            for learner, rate in zip(learners, rates):
                learner.param_groups[0]["lr"] = rate*min(step/WARMUP, 1 - done/total)
                learner.step()
                learner.zero_grad()
            right = (logits.argmax(-1) == wanted)[wanted != NOTHING].float().mean().item()
            report(count*length, loss.item(), right)
    return network.eval()

# Main ---------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(prog="python -m model.train_recall", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RECALL, metavar="DIR",
        help="Folder of the model (default: %(default)s).")
    args = parser.parse_args()
    torch.set_num_threads(1) # So that the same seed gives the same weights, and others have the processor.
    bar = tqdm(total=sum(length*steps*count for _, length, steps, count in PHASES), desc="training", unit="token", unit_scale=True,
        mininterval=5, file=sys.stderr)

    def report(tokens, loss, right):
        bar.update(tokens)
        bar.set_postfix(loss=f"{loss:.3f}", right=f"{right:.3f}", refresh=False)

    network = train(report=report)
    bar.close()
    save(network, args.output)
    print(f"{args.output}: {sum(weight.numel() for weight in network.parameters())} weights")


if __name__ == "__main__":
    main()
