#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Generates what the firmware's self-test runs through the engines of whole models: a small model's image, and what its passes write.

There are PASSES passes of as many tokens as the build runs at once, from a state of zeros. After the last one come the logits of all its
tokens, and their candidates. In the scratch, one behind the other::

    image, up to its results | results: the candidates | session | logits
    |------ given ----------||--------------- expected --------------------|
"""

from dataclasses import dataclass

import numpy as np

from model.config import Mamba2Config, NetworkConfig
from model.image import Image
from model.machine import Machine
from model.weights import QuantizedLayer, QuantizedMatrix, QuantizedModel

from operations.config import ProgramConfig, SSMConfig
from operations.image import ProgramKind
from operations.numerics import GROUP
from operations.program import SCRATCH_MULTIPLE, Register

# Constants ----------------------------------------------------------------------------------------

SEED       = 3
VOCABULARY = 80 # More than there are candidates.
PASSES     = 2
UNTOUCHED  = 0xdeadbeef # What lies where results are expected, before the run.

# Model --------------------------------------------------------------------------------------------

def small_model(config: SSMConfig) -> QuantizedModel:
    """A model of random weights for a build's SSM core: a layer in Q4_0 of four heads in two groups, embedding and head in Q8_0."""
    random  = np.random.default_rng(SEED)
    headdim = min(16, config.max_headdim//SCRATCH_MULTIPLE*SCRATCH_MULTIPLE)
    layer   = Mamba2Config(d_model=GROUP, d_state=config.d_state_multiple, headdim=headdim or SCRATCH_MULTIPLE, ngroups=min(2, config.max_groups))

    def matrix(rows: int, columns: int, kind: str) -> QuantizedMatrix:
        low, high = {"q4_0": (-8, 7), "q8_0": (-127, 127)}[kind]
        scales    = random.uniform(0.5, 1.5, (rows, columns//GROUP))/high/np.sqrt(columns)
        return QuantizedMatrix(random.integers(low, high, (rows, columns), np.int8, endpoint=True), (2*scales).astype(np.float16), kind)

    def vector(count: int, low: float = 0.5, high: float = 1.5) -> np.ndarray:
        return random.uniform(low, high, count).astype(np.float32)

    weights = QuantizedLayer(
        norm        = vector(layer.d_model),
        in_proj     = matrix(layer.d_inner + layer.d_xbc + layer.heads, layer.d_model, "q4_0"),
        conv_weight = random.uniform(-1, 1, (layer.d_xbc, layer.d_conv)).astype(np.float32),
        conv_bias   = vector(layer.d_xbc, -0.2, 0.2),
        dt_bias     = vector(layer.heads, -4, 0),
        A           = -vector(layer.heads),
        D           = vector(layer.heads),
        ssm_norm    = vector(layer.d_inner),
        out_proj    = matrix(layer.d_model, layer.d_inner, "q4_0"))
    embedding = matrix(VOCABULARY, layer.d_model, "q8_0")
    return QuantizedModel(NetworkConfig(VOCABULARY, 1, layer), embedding, (weights,), vector(layer.d_model), embedding)


def small_tokens(count: int) -> list[int]:
    """The first tokens of its text."""
    return [VOCABULARY - 1 - place for place in range(count)]

# Image --------------------------------------------------------------------------------------------

class SmallImage(Image):
    """One of passes of the most tokens alone: to save room, the other programs of its header are some of these."""

    def _programs(self) -> None:
        super()._programs()
        tokens        = self.program.pass_tokens
        others        = dict.fromkeys(ProgramKind, ProgramKind.LAYERS) | {ProgramKind.LOGITS: ProgramKind.LOGITS} | \
            dict.fromkeys((ProgramKind.HEAD, ProgramKind.EACH), ProgramKind.EACH)
        self.programs = {(kind, count): self.programs[others[kind], tokens] for kind, count in self.programs}

# Vector -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ModelVector:
    """given: words of the image, up to its results. expected: those that lie behind, after the run. session, logits: their places."""
    image    : Image
    given    : np.ndarray
    expected : np.ndarray
    session  : int
    logits   : int

    @property
    def size(self) -> int:
        """Bytes of scratch."""
        return 4*(len(self.given) + len(self.expected))


def model_vector(config: SSMConfig, program: ProgramConfig, data_width: int) -> ModelVector:
    """The vector for a build.

    Raises
    ------
    ValueError : not even so small a model fits it.
    """
    image   = SmallImage(small_model(config), data_width, config, program)
    tokens  = program.pass_tokens
    session = image.size
    logits  = session + image.session_bytes
    memory  = np.full((logits + image.logit_bytes(tokens))//4, UNTOUCHED, "<u4")
    memory[:image.results//4] = image.to_bytes().view("<u4")[:image.results//4]
    machine = Machine(memory.view(np.uint8), data_width, config, program.elements, program.activations, tokens)
    machine.registers = {Register.EMBEDDING: image.embedding, Register.PARAMETERS: image.parameters, Register.RECORDS: image.records,
        Register.X_RECORDS: image.records, Register.BC_RECORDS: image.records, Register.STATE_IN: session, Register.STATE_OUT: session,
        Register.WINDOW_OUT: session + image.device.sizes.state}
    given   = memory[:image.results//4].copy()
    text    = small_tokens(PASSES*tokens)
    for first in range(0, PASSES*tokens, tokens):
        machine.tokens     = text[first:first + tokens]
        machine.seed       = first if config.stochastic_rounding else None
        machine.zero_state = first == 0
        machine.registers |= {Register.TAPE: image.tape,
            Register.WINDOW_IN: machine.registers[Register.WINDOW_OUT] if first else image.zero_window}
        machine.run(image.program_places[ProgramKind.LAYERS, tokens])
    for kind, results in ((ProgramKind.LOGITS, logits), (ProgramKind.EACH, image.results)):
        machine.registers |= {Register.TAPE: image.head, Register.RESULTS: results}
        machine.run(image.program_places[kind, tokens])
    return ModelVector(image, given, memory[image.results//4:], session, logits)

# C Header -----------------------------------------------------------------------------------------

def squeeze(words: np.ndarray) -> list[int]:
    """Words in which each run of zeros is a zero and its length."""
    result: list[int] = []
    zeros = 0
    for word in [*words.tolist(), None]:
        if word == 0:
            zeros += 1
            continue
        result += [0, zeros] if zeros else []
        zeros   = 0
        result += [] if word is None else [word]
    return result


def model_lines(vector: ModelVector) -> list[str]:
    """Lines of ``vectors.h``."""
    lines = [
        f"#define SELFTEST_PASSES      {PASSES}u",
        f"#define SELFTEST_RESULTS     {vector.image.results}u /* Places in the scratch. */",
        f"#define SELFTEST_SESSION     {vector.session}u",
        f"#define SELFTEST_LOGITS      {vector.logits}u",
        f"#define SELFTEST_MODEL_BYTES {vector.size}u",
        "",
    ]
    for name, words in (("given", vector.given), ("expected", vector.expected)):
        squeezed = squeeze(words)
        rows     = (", ".join(f"0x{word:08x}" for word in squeezed[k:k + 8]) for k in range(0, len(squeezed), 8))
        lines   += [f"static const uint32_t model_{name}[] = {{", *(f"\t{row}," for row in rows), "};", ""]
    return lines
