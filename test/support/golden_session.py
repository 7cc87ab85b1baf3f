#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A golden device with a model's image in its memory, and two sessions."""

from dataclasses import dataclass

import numpy as np

from model.golden import GoldenDevice
from model.image import CANDIDATE_BYTES, Image

from operations.config import ProgramConfig, SSMConfig
from operations.image import MAX_STOP_TOKENS, OUTPUT_HEAD, OUTPUT_HEAD_BYTES, TEXT_WORDS, Reason, unpack_output
from operations.numerics import CANDIDATES
from operations.operations import JobFlag

# Results ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Generated:
    """What a job has written, and the tokens that it has run."""
    tokens : list
    reason : Reason
    run    : int
    wide   : dict
    passes : int = 0
    drafted : int = 0

# Session ------------------------------------------------------------------------------------------

class GoldenSession:
    """Jobs. The image lies at address 0; all else in the memory is undefined."""
    def __init__(self, model, tokens=1, width=128, ssm=SSMConfig(), most=64, sessions=2, layers=None):
        program     = ProgramConfig(pass_tokens=tokens, vector_lanes=8)
        self.image  = Image(model, width, ssm, program, layers)
        at          = self.image.size
        self.slots  = [at + n*self.image.session_bytes for n in range(sessions)]
        self.prompt = at + sessions*self.image.session_bytes
        self.output = self.prompt + max(4*(most + MAX_STOP_TOKENS), tokens*self.image.device.residual_bytes)//64*64 + 64
        size        = self.output + max(tokens*self.image.device.residual_bytes, CANDIDATES*CANDIDATE_BYTES, self.image.output_bytes(most, 0, True), self.image.output_bytes(0, most*sessions))
        self.memory = np.random.default_rng(1).integers(0, 256, size, np.uint8)
        self.memory[:self.image.size] = self.image.to_bytes()
        self.device = GoldenDevice(self.memory, data_width=width, ssm=ssm, program=program)

    def _run(self, prompt, tokens, stop, source, into, flags, changes):
        words = np.array([*prompt, *stop], "<u4").view(np.uint8)
        self.memory[self.prompt:self.prompt + len(words)] = words
        operands = dict(model=0, session_in=self.slots[source], session_out=self.slots[into], prompt=self.prompt, prompt_tokens=len(prompt),
            place=0, tokens=tokens, output=self.output, inverse=0, top=1, seed=0, stop_tokens=len(stop), store_every=1) | changes
        return self.device.generate(flags, operands)[0]

    def generate(self, prompt, tokens, stop=(), source=0, into=1, flags=0, **changes):
        return self._generated(self._run(prompt, tokens, stop, source, into, flags, changes))

    def batch(self, texts, tokens, stop=(), first=0, flags=0, inverse=0, top=1, **changes):
        """texts: (token, place, seed, ended) of each session from slot `first` on, and (inverse, top) where they are not all alike. The tokens are in
        lists, of each session."""
        words = np.array([*(word for text in texts for word in (*text, inverse, top)[:TEXT_WORDS]), *stop], "<u4").view(np.uint8)
        self.memory[self.prompt:self.prompt + len(words)] = words
        operands = dict(model=0, sessions=self.slots[first], texts=self.prompt, session_count=len(texts), tokens=tokens, output=self.output,
            stop_tokens=len(stop)) | changes
        return self._generated(self.device.batch(flags, operands)[0], len(texts))

    def run_pass(self, given, tokens, slot=0, flags=0, **changes):
        """Run a job PASS of so many tokens, in place. given: tokens, or the bytes of residual vectors. Returns the bytes that it has for output."""
        words = np.frombuffer(given, np.uint8) if isinstance(given, bytes) else np.array(given, "<u4").view(np.uint8)
        self.memory[self.prompt:self.prompt + len(words)] = words
        operands = dict(model=0, session_in=self.slots[slot], session_out=self.slots[slot], input=self.prompt, tokens=tokens, place=0, seed=0,
            output=self.output) | changes
        assert self.device.run_pass(flags, operands)[0] == tokens
        size = CANDIDATES*CANDIDATE_BYTES if self.image.device.has_head else tokens*self.image.device.residual_bytes
        return self.memory[self.output:self.output + size].tobytes()

    def _generated(self, run, sessions=None):
        counts, wide = unpack_output(self.device.words(self.output, len(OUTPUT_HEAD)))
        tokens = self.device.words(self.output + OUTPUT_HEAD_BYTES, counts["count"]*(sessions or 1))
        if sessions:
            tokens = [tokens[n::sessions] for n in range(sessions)]
        return Generated(tokens, Reason(counts["reason"]), run, wide, counts["passes"], counts["drafted"])

    def logits(self, prompt, source=0, into=1, flags=0, **changes):
        self._run(prompt, 0, (), source, into, flags | JobFlag.LOGITS, changes)
        size = self.image.output_bytes(len(prompt), 0, True)
        return self.image.unpack_logits(self.memory[self.output:self.output + size].tobytes(), len(prompt))

    def states(self, slot):
        return self.image.unpack_session(self.memory[self.slots[slot]:self.slots[slot] + self.image.session_bytes].tobytes())
