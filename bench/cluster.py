#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures boards that run a model together, stage by stage: build/bench/cluster.json.

The tiny model on one, two and three simulated SoCs, its texts compared with the exact model's. Cycles are those that the devices say of each
pass, simulated ones at the declared clock; a pipeline that always has texts waiting is as fast as its slowest stage, and one text alone takes all
stages' cycles a token. The host's part and the link are not in it: the simulations' times are not a board's.

And on paper, by the bytes that a pass of each stage moves at a beat a cycle: what larger models would need, and at most do, on boards with the
Arty's memory.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("cluster.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "gguf", "torch", "ray")

import argparse
import sys
import tempfile

from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from host.cluster.boards import Boards
from host.cluster.cluster import cut, open_cluster
from host.cluster.driver import ClusterText
from host.cluster.stage import pass_bytes

from model.config import Mamba2Config, NetworkConfig
from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.image import Image
from model.quantized import quantize_checkpoint
from model.weights import QuantizedLayer, QuantizedMatrix, QuantizedModel

from operations.config import ProgramConfig, SSMConfig, ceil_multiple
from operations.numerics import COLUMNS, GROUP
from operations.protocol import DATA_OFFSET

from tools.arguments import Parser
from tools.command import run_command
from tools.errors import CommandError
from tools.files import check_writable, save_json
from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

OUTPUT    = BUILD/"bench"/"cluster.json"
CLOCK_HZ  = 100e6   # Of simulation and Arty.
BEAT      = 16      # Bytes of a memory port.
MEMORY    = 2**28   # Of an Arty.
LINK      = 100e6/8 # Bytes a second, of its Ethernet: what of these get through is not in it.
VOCABULARY = 50_288
SHAPES    = {"780M": (1536, 48), "1.3B": (2048, 48), "2.7B": (2560, 64)} # d_model, layers: of state-spaces' checkpoints.
MORE      = 3       # Numbers of boards beyond the least one.

# Measured -----------------------------------------------------------------------------------------

@dataclass
class Measured:
    """A pipeline of simulated boards: of each stage its layers, and the cycles of a pass of a token, and of its bytes alone."""
    stages : int
    layers : list
    cycles : list
    bounds : list

    @property
    def throughput(self):
        """Tokens a second of all texts together."""
        return CLOCK_HZ/max(self.cycles)

    @property
    def alone(self):
        """Of one text."""
        return CLOCK_HZ/sum(self.cycles)


def measure(stages, tokens, log=lambda message: None):
    """The tiny model on so many simulated boards: texts, two for each stage.

    Raises
    ------
    CommandError : they are not the exact model's.
    """
    model = quantize_checkpoint("tiny", "q8_0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/"boards.toml"
        path.write_text("".join(f'[[board]]\nname = "{n}"\ntransport = "sim"\n' for n in range(stages)))
        with open_cluster(path, model, log=log) as driver:
            texts = [ClusterText([ord("A") + n, ord(" ")], tokens) for n in range(2*stages)]
            for text in texts:
                driver.add(text)
            for text, _ in driver.run():
                if text.error is not None:
                    raise text.error
            found = driver.pipelines[0].stages
            result = Measured(stages, [end - first for first, end in (stage.layers for stage in found)], [stage.cycles_per_pass() for stage in found],
                [Image(model, 8*BEAT, layers=stage.layers).traffic(1).total/BEAT for stage in found])
    for text in texts:
        exact = ExactDecoder(ExactNetwork(model))
        exact.prefill(text.prompt)
        if list(exact.generate(tokens)) != text.tokens:
            raise CommandError(f"{stages} stages: the text after {text.prompt} must be the exact model's, is another one.")
    return result

# On paper -----------------------------------------------------------------------------------------

def shaped_model(d_model, layers, kind):
    """A :class:`QuantizedModel` in a shape: nothing but zeros, which take no memory."""
    config = NetworkConfig(vocab_size=VOCABULARY, n_layer=layers, layer=Mamba2Config(d_model=d_model))
    layer  = config.layer

    def matrix(rows, columns):
        return QuantizedMatrix(np.broadcast_to(np.int8(0), (rows, columns)), np.broadcast_to(np.float16(0), (rows, columns//GROUP)), kind)

    vector = lambda *shape: np.ones(shape, np.float32)
    part   = QuantizedLayer(vector(d_model), matrix(layer.d_inner + layer.d_xbc + layer.heads, d_model), vector(layer.d_xbc, layer.d_conv),
        vector(layer.d_xbc), vector(layer.heads), -vector(layer.heads), vector(layer.heads), vector(layer.d_inner), matrix(d_model, layer.d_inner))
    embedding = matrix(VOCABULARY, d_model)
    return QuantizedModel(config, embedding, (part,)*layers, vector(d_model), embedding)


@dataclass
class Paper:
    """A model on so many boards. mib: of the fullest one's memory, with as many sessions; scratch, activations: that the boards must be built
    with; bytes: a token of the stage that moves the most; tokens a second at most: of all texts together, and of one alone; link: ms a token that
    residual vectors take, all of them one after the other."""
    model       : str
    boards      : int
    layers      : list
    mib         : float
    scratch     : int
    activations : int
    bytes       : int
    throughput  : float
    alone       : float
    link        : float


def paper(name, kind, boards):
    """None where it does not fit their memory."""
    model    = shaped_model(*SHAPES[name], kind)
    program  = ProgramConfig(1, scratch=2**17, activations=2**(model.d_inner//COLUMNS - 1).bit_length())
    layers   = cut(model, Boards(((None,)*boards,)))
    images   = [Image(model, 8*BEAT, SSMConfig(), program, part) for part in layers]
    needed   = [image.memory_bytes(boards, pass_bytes(image)) for image in images] # A session for each stage.
    if max(needed) > MEMORY - DATA_OFFSET:
        return None
    moved    = [image.traffic(1).total for image in images]
    scratch  = ceil_multiple(max(image.device.scratch for image in images), 1024)
    return Paper(name, boards, [end - first for first, end in layers], (max(needed) + DATA_OFFSET)/2**20, scratch, program.activations, max(moved),
        CLOCK_HZ*BEAT/max(moved), CLOCK_HZ*BEAT/sum(moved), 2*(boards - 1)*images[0].device.residual_bytes/LINK*1e3)


def papers(kind):
    """Of each model, from the fewest boards on that have room for it."""
    found = []
    for name in SHAPES:
        least = next(boards for boards in range(1, SHAPES[name][1] + 1) if paper(name, kind, boards))
        found += [paper(name, kind, boards) for boards in range(least, least + MORE)]
    return [row for row in found if row is not None]

# Command ------------------------------------------------------------------------------------------

def show_measured(rows):
    print("The tiny model, Q8_0, on simulated boards: 16 lanes, memory ports of 128 bits, a token a pass; texts are the exact model's\n")
    listed = lambda values: " ".join(f"{value:.0f}" for value in values)
    print("stages  layers  cycles of each stage's pass  of its bytes alone   token/s at 100 MHz  of one text alone")
    for row in rows:
        print(f"{row.stages:6}  {'+'.join(map(str, row.layers)):6}  {listed(row.cycles):27}  {listed(row.bounds):19}  {row.throughput:18.0f}  {row.alone:17.0f}")


def show_papers(rows, kind):
    print(f"\nOn paper, {kind}, boards with {MEMORY >> 20} MiB at {BEAT} bytes a cycle and 100 MHz: at most, the link left out\n")
    print("model  boards  fullest board  bytes a token, most  token/s  of one text alone  residuals a token  scratchpad")
    for row in rows:
        print(f"{row.model:5}  {row.boards:6}  {row.mib:9.0f} MiB  {row.bytes:19}  {row.throughput:7.2f}  {row.alone:17.2f}  {row.link:14.2f} ms"
            f"  {row.scratch:10}")


def run(args: Namespace) -> None:
    if args.json == str(OUTPUT):
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    check_writable(args.json)
    rows  = [] if args.paper else [measure(stages, args.tokens, lambda line: print(line, file=sys.stderr)) for stages in args.stages]
    table = papers(args.type)
    if rows:
        show_measured(rows)
    show_papers(table, args.type)
    save_json(args.json, {
        "measured" : [asdict(row) | {"token_per_second": row.throughput, "alone_token_per_second": row.alone} for row in rows],
        "paper"    : [asdict(row) for row in table],
        "type"     : args.type,
    })


def main(arguments=None):
    parser = Parser(prog="cluster.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper",  action="store_true", help="Only on paper.")
    parser.add_argument("--stages", type=int, nargs="+", choices=(1, 2, 3), default=(1, 2, 3), help="Of the tiny model (default: 1 2 3).")
    parser.add_argument("--tokens", type=int, default=8, help="Of each text (default: %(default)s).")
    parser.add_argument("--type",   choices=("q8_0", "q4_0"), default="q4_0", help="Of the models on paper (default: %(default)s).")
    parser.add_argument("--json",   metavar="FILE", default=str(OUTPUT), help="Where figures go (default: build/bench/cluster.json).")
    args = parser.parse_args(arguments)
    return run_command("cluster.py", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
