#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The golden device: what firmware and gateware do with a job GENERATE, bit for bit, on :class:`model.machine.Machine`.

::

    prompt:   passes of R tokens, the last one with the rest;       LAYERS, then with LOGITS: LOGITS
              after the last pass, where tokens are asked for:      HEAD
    tokens:   sample; a stop token ends the text, else it is written; as many as were asked for end it;
              else a pass of this one token:                        LAYERS, HEAD; and again

The first pass begins with session_in, or with zeros; those that store the state write session_out, from which the next one goes on. Where a
pass does not, its tokens are deferred: the next one runs them again, as far as the state is concerned, from their records. A pass stores the
state when that makes `store_every` tokens or more, and when no other can follow; where a text ends early, STATE does. A token's place in the
text, from which its draw and its rounding come, is `place` plus the tokens before it in the job. All that is wrong with the operands is
found before anything is written.
"""

from types import SimpleNamespace

import numpy as np

from model.exact.sampling import sample
from model.image import DESCRIPTOR_BYTES, descriptor_traffic, Traffic
from model.machine import CANDIDATE, Machine

from operations.config import ALIGNMENT, ProgramConfig, SSMConfig, ceil_multiple
from operations.image import (HEADER_BYTES, IMAGE_HEAD, IMAGE_MAGIC, IMAGE_VERSION, IMAGE_WORDS, MAX_DEFERRED, MAX_PASS_TOKENS, MAX_PROMPT_TOKENS,
    MAX_RECORDS, MAX_STOP_TOKENS, MAX_TOKENS, MAX_VOCABULARY, OUTPUT_HEAD, OUTPUT_HEAD_BYTES, OUTPUT_WIDE, PROGRAM_ENTRY, ProgramKind, Reason,
    program_number)
from operations.numerics import CANDIDATES
from operations.operations import JobFlag
from operations.program import Register
from operations.protocol import Error

# Errors -------------------------------------------------------------------------------------------

class JobError(ValueError):
    """A job is refused, or failed: error, :class:`operations.protocol.Error`, and its detail."""
    def __init__(self, error, detail=0):
        super().__init__(f"{error.name} (detail {detail})")
        self.error  = error
        self.detail = detail

# Device -------------------------------------------------------------------------------------------

class GoldenDevice:
    """Memory, and a build of the engines beside it.

    Parameters
    ----------
    memory     : uint8 (bytes,), the DRAM. It is written to.
    base       : the bus address of its first byte.
    data       : (first, end) of the region that a job may name, bus addresses; None: all.
    data_width : of the engines' ports, bits.
    ssm        : :class:`operations.config.SSMConfig` of the build.
    program    : :class:`operations.config.ProgramConfig` of the build.
    """
    def __init__(self, memory, base=0, data=None, data_width=128, ssm=SSMConfig(), program=ProgramConfig()):
        self.memory     = memory
        self.base       = base
        self.data       = data or (base, base + len(memory))
        self.data_width = data_width
        self.ssm        = ssm
        self.program    = program
        self.token      = lambda: None # Called after each token that is written. Returns whether the job is to end.

    # Memory.

    def words(self, address, count):
        first = address - self.base
        return np.frombuffer(self.memory[first:first + 4*count].tobytes(), "<u4").astype(int).tolist()

    def store(self, address, words):
        data  = np.array(words, "<u4").view(np.uint8)
        first = address - self.base
        self.memory[first:first + len(data)] = data

    # Checks.

    def _region(self, address, size):
        """Raise JobError unless these bytes are of the data region. Returns (first, end)."""
        if address % ALIGNMENT:
            raise JobError(Error.BAD_ALIGNMENT, address)
        if not self.data[0] <= address <= address + size <= self.data[1]:
            raise JobError(Error.BAD_ADDRESS, address)
        return address, address + size

    def _image(self, address):
        """(its header's words by name, its entries [[words]])."""
        self._region(address, HEADER_BYTES)
        words   = self.words(address, IMAGE_WORDS)
        head    = SimpleNamespace(**dict(zip(IMAGE_HEAD, words)))
        size    = len(PROGRAM_ENTRY)
        entries = [words[len(IMAGE_HEAD) + n*size:][:size] for n in range(len(ProgramKind)*MAX_PASS_TOKENS)]
        inside  = lambda place, count=0: place % ALIGNMENT == 0 and HEADER_BYTES <= place < head.image_bytes and \
            place + count <= head.image_bytes
        checks  = { # Whether a word is as it must be.
            "magic"        : head.magic == IMAGE_MAGIC,
            "version"      : head.version == IMAGE_VERSION,
            "image_bytes"  : head.image_bytes % ALIGNMENT == 0 and HEADER_BYTES < head.image_bytes <= self.data[1] - address,
            "data_width"   : head.data_width == self.data_width,
            "lanes"        : head.lanes == self.ssm.lanes,
            "pass_tokens"  : 1 <= head.pass_tokens <= self.program.pass_tokens,
            "scratch"      : head.scratch <= self.program.elements,
            "activations"  : head.activations <= self.program.activations,
            "vocabulary"   : 1 <= head.vocabulary <= MAX_VOCABULARY,
            "logit_rows"   : head.vocabulary <= head.logit_rows <= MAX_VOCABULARY + 64,
            "state_bytes"  : head.state_bytes > 0 and head.state_bytes % ALIGNMENT == 0,
            "window_bytes" : head.window_bytes % ALIGNMENT == 0,
            "deferred"     : head.deferred <= MAX_DEFERRED,
            "x_stride"     : head.x_stride % ALIGNMENT == 0 and head.x_stride <= MAX_RECORDS,
            "bc_stride"    : head.bc_stride % ALIGNMENT == 0 and head.bc_stride <= MAX_RECORDS,
            **{name: inside(getattr(head, name)) for name in ("tape", "embedding", "parameters", "records")},
            "results"      : inside(head.results, CANDIDATES*CANDIDATE.itemsize),
            "zero_window"  : inside(head.zero_window, head.window_bytes),
        }
        for number, name in enumerate(IMAGE_HEAD):
            if not checks[name]:
                raise JobError(Error.BAD_IMAGE, number)
        for kind in ProgramKind:
            for tokens in range(1, head.pass_tokens + 1):
                number = program_number(kind, tokens)
                place, count, tape, beats = entries[number]
                for word, good in enumerate((inside(place, DESCRIPTOR_BYTES), count > 0 and inside(place, count*DESCRIPTOR_BYTES),
                        inside(tape), inside(tape, beats*self.data_width//8))):
                    if not good:
                        raise JobError(Error.BAD_IMAGE, len(IMAGE_HEAD) + number*size + word)
        return head, entries

    def _check(self, op, flags):
        """(head, entries, prompt, stop tokens) of a job that may run."""
        if flags & ~(JobFlag.ZERO_STATE | JobFlag.LOGITS):
            raise JobError(Error.BAD_FLAGS, flags)
        logits = bool(flags & JobFlag.LOGITS)
        for value, low, high, error in (
            (op.prompt_tokens, 1, MAX_PROMPT_TOKENS,            Error.BAD_TOKENS),
            (op.tokens,        0, 0 if logits else MAX_TOKENS,  Error.BAD_TOKENS),
            (op.top_k,         1, CANDIDATES,                   Error.BAD_TOP_K),
            (op.stop_tokens,   0, MAX_STOP_TOKENS,              Error.BAD_STOP_TOKENS),
        ):
            if not low <= value <= high:
                raise JobError(error, value)
        if not 1 <= op.store_every <= MAX_DEFERRED + 1:
            raise JobError(Error.BAD_STORE_EVERY, op.store_every)
        head, entries = self._image(op.model)
        if op.store_every > head.deferred + 1:
            raise JobError(Error.BAD_STORE_EVERY, op.store_every)
        session = head.state_bytes + head.window_bytes
        image   = self._region(op.model, head.image_bytes)
        given   = self._region(op.prompt, 4*(op.prompt_tokens + op.stop_tokens))
        output  = self._region(op.output, self._output_bytes(head, op, logits))
        after   = self._region(op.session_out, session)
        before  = [] if flags & JobFlag.ZERO_STATE else [self._region(op.session_in, session)]
        overlap = lambda one, other: one[0] < other[1] and other[0] < one[1]
        for written, others in ((after, [image, given, *(region for region in before if region != after)]),
                (output, [image, given, after, *before])):
            if any(overlap(written, other) for other in others):
                raise JobError(Error.OVERLAP, written[0])
        tokens = self.words(op.prompt, op.prompt_tokens + op.stop_tokens)
        prompt, stop = tokens[:op.prompt_tokens], tokens[op.prompt_tokens:]
        for token in prompt: # A stop token that is none of the vocabulary never comes.
            if token >= head.vocabulary:
                raise JobError(Error.BAD_TOKEN, token)
        return head, entries, prompt, stop

    @staticmethod
    def _output_bytes(head, op, logits):
        if not logits:
            return OUTPUT_HEAD_BYTES + 4*op.tokens
        whole, rest = divmod(op.prompt_tokens, head.pass_tokens)
        size = lambda tokens: ceil_multiple(4*head.logit_rows*tokens, ALIGNMENT)
        return whole*size(head.pass_tokens) + size(rest)

    # Job.

    def generate(self, flags, operands):
        """Run a job GENERATE. Returns the tokens that were run, and the :class:`Traffic` of all passes.

        Raises
        ------
        JobError : it is refused, or its logits are not finite.
        """
        op = SimpleNamespace(**operands)
        head, entries, prompt, stop = self._check(op, flags)
        logits = bool(flags & JobFlag.LOGITS)
        run    = _Passes(self, head, entries, op, flags)
        totals = dict.fromkeys(OUTPUT_WIDE, 0)
        counts = {"count": 0, "reason": Reason.NONE}

        def report():
            if not logits:
                words = [counts["count"], counts["reason"]]
                for name in OUTPUT_WIDE:
                    words += [totals[name] & 2**32 - 1, totals[name] >> 32]
                assert len(words) == len(OUTPUT_HEAD)
                self.store(op.output, words)

        def account(stage, traffic):
            totals[f"{stage}_read"]    += traffic.read
            totals[f"{stage}_written"] += traffic.written
            totals[f"{stage}_cycles"]  += -(-8*traffic.total//self.data_width) # At the least.

        report()
        target = op.output
        for first in range(0, len(prompt), head.pass_tokens):
            tokens = prompt[first:first + head.pass_tokens]
            kinds  = [ProgramKind.LAYERS]
            if logits:
                kinds += [ProgramKind.LOGITS]
            elif op.tokens and first + len(tokens) == len(prompt):
                kinds += [ProgramKind.HEAD]
            account("prefill", run(tokens, kinds, target, first + len(tokens) == len(prompt) and op.tokens <= 1))
            target += ceil_multiple(4*head.logit_rows*len(tokens), ALIGNMENT)
        while op.tokens and counts["reason"] == Reason.NONE:
            token = self._sample(op, head, run.taken)
            if token in stop:
                counts["reason"] = Reason.STOP
                break
            self.store(op.output + OUTPUT_HEAD_BYTES + 4*counts["count"], [token])
            counts["count"] += 1
            report()
            cancelled = self.token()
            if counts["count"] == op.tokens:
                counts["reason"] = Reason.LENGTH
            elif cancelled:
                counts["reason"] = Reason.CANCELLED
            else:
                account("decode", run([token], [ProgramKind.LAYERS, ProgramKind.HEAD], 0, counts["count"] + 1 == op.tokens))
        if run.deferred:
            account("decode", run.store())
        report()
        return run.taken, Traffic(*(totals[f"prefill_{what}"] + totals[f"decode_{what}"] for what in ("read", "written")))

    def _sample(self, op, head, taken):
        first = op.model + head.results - self.base
        found = np.frombuffer(self.memory[first:first + CANDIDATES*CANDIDATE.itemsize].tobytes(), CANDIDATE)
        found = found[:min(CANDIDATES, head.vocabulary)]
        if not np.isfinite(found["logit"][0]):
            raise JobError(Error.BAD_LOGITS, int(found["logit"][:1].view("<u4")[0]))
        return sample(found["token"], found["logit"], op.inverse, op.top_k, op.seed, (op.place + taken) % 2**32)


class _Passes:
    """The passes of a job, one after the other. taken: tokens run so far."""
    def __init__(self, device, head, entries, op, flags):
        self.device  = device
        self.head    = head
        self.entries = entries
        self.op      = op
        self.zero    = bool(flags & JobFlag.ZERO_STATE)
        self.taken   = 0
        self.stored  = 0 # Tokens that the state in memory is after.
        build        = device.program
        self.machine = Machine(device.memory, device.data_width, device.ssm, build.elements, build.activations, build.pass_tokens)
        image        = op.model - device.base
        self.machine.registers = {register: image + getattr(head, name) for register, name in ((Register.EMBEDDING, "embedding"),
            (Register.PARAMETERS, "parameters"), (Register.RECORDS, "records"))}

    deferred = property(lambda self: self.taken - self.stored)

    def __call__(self, tokens, kinds, logits=0, last=False):
        """Run the programs of these kinds for tokens. logits: bus address that LOGITS writes to; last: no pass can follow. Returns the
        :class:`Traffic`."""
        store   = last or self.deferred + len(tokens) >= self.op.store_every
        traffic = self._run(tokens, kinds, logits, self.deferred, store)
        self.taken += len(tokens)
        if store:
            self.stored = self.taken
        return traffic

    def store(self):
        """The state of the tokens that are deferred."""
        self.taken -= 1
        traffic = self._run([0], [ProgramKind.STATE], 0, self.deferred, True)
        self.taken += 1
        self.stored = self.taken
        return traffic

    def _run(self, tokens, kinds, logits, deferred, store):
        device, op, machine = self.device, self.op, self.machine
        image   = op.model - device.base
        first   = self.taken == 0
        after   = op.session_out - device.base
        before  = op.session_in - device.base if not self.stored and not self.zero else after
        window  = image + self.head.zero_window if first and self.zero else \
            (op.session_in - device.base if first else after) + self.head.state_bytes
        machine.registers |= {Register.STATE_IN: before, Register.STATE_OUT: after, Register.WINDOW_IN: window,
            Register.WINDOW_OUT: after + self.head.state_bytes, Register.X_RECORDS: image + self.head.records + deferred*self.head.x_stride,
            Register.BC_RECORDS: image + self.head.records + deferred*self.head.bc_stride}
        machine.zero_state = not self.stored and self.zero
        machine.no_store   = not store
        machine.deferred   = deferred
        machine.seed       = (op.seed + op.place + self.taken - deferred) % 2**32 if device.ssm.stochastic_rounding else None
        machine.tokens     = [*tokens, *[0]*(len(machine.tokens) - len(tokens))]
        traffic = Traffic()
        for kind in kinds:
            place, count, tape, beats = self.entries[program_number(kind, len(tokens))]
            machine.registers[Register.TAPE]    = image + tape
            machine.registers[Register.RESULTS] = logits - device.base if kind == ProgramKind.LOGITS else image + self.head.results
            machine.run(image + place)
            traffic += Traffic(count*DESCRIPTOR_BYTES + beats*device.data_width//8)
            for descriptor, _, _, operands in machine.fetch(image + place):
                traffic += descriptor_traffic(descriptor.code, operands, 0, deferred, store)
            if kind == ProgramKind.LOGITS:
                traffic += Traffic(0, 4*self.head.logit_rows*len(tokens))
        return traffic
