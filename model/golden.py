#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The golden device: what firmware and gateware do with jobs GENERATE, BATCH and PASS, bit for bit, on :class:`model.machine.Machine`.

::

    prompt:   passes of R tokens, the last one with the rest;       LAYERS, then with LOGITS: LOGITS
              after the last pass, where tokens are asked for:      HEAD
    tokens:   sample; a stop token ends the text, else it is written; as many as were asked for end it;
              else a pass of this one token:                        LAYERS, HEAD; and again
    drafts:   where there are some, a pass of token and drafts:     DRAFTS, EACH
              sample after each token, as long as the next one's draft is what comes out
    batch:    a pass of the last token of each session:             BATCH, EACH; sample after each; and again
    pass:     one pass, which stores the state:                     LAYERS, then with CANDIDATES: HEAD

The first pass begins with session_in, or with zeros; those that store the state write session_out, from which the next one goes on. Where a
pass does not, its tokens are deferred: the next one runs them again, as far as the state is concerned, from their records. A pass stores the
state when that makes `store_every` tokens or more, and when no other can follow; one with drafts does not, and of its tokens those that were
right are deferred; then, and where a text ends, STATE stores what is deferred. A token's place in the text, from which its draw and its rounding come, is `place` plus the tokens before it in the job. All that is wrong with the operands is
found before anything is written.
"""

from itertools import takewhile
from types import SimpleNamespace

import numpy as np

from model.exact.drafts import History, draft
from model.exact.sampling import sample
from model.image import DESCRIPTOR_BYTES, descriptor_traffic, Traffic
from model.machine import CANDIDATE, Machine

from operations.config import ALIGNMENT, ELEMENT_BYTES, ProgramConfig, SSMConfig, ceil_multiple
from operations.image import (HEADER_BYTES, IMAGE_HEAD, IMAGE_MAGIC, IMAGE_VERSION, IMAGE_WORDS, MAX_DEFERRED, MAX_PASS_TOKENS, MAX_PROMPT_TOKENS,
    MAX_RECORDS, MAX_RESIDUAL, MAX_STOP_TOKENS, MAX_TOKENS, MAX_VOCABULARY, OUTPUT_COUNTS, OUTPUT_HEAD, OUTPUT_HEAD_BYTES, OUTPUT_WIDE, PROGRAM_ENTRY, TEXT_WORDS, ProgramKind, Reason,
    Stage, program_number, stage_kinds)
from operations.numerics import CANDIDATES
from operations.operations import JobFlag, Opcode
from operations.program import SCRATCH_MULTIPLE, Register
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
        self.history    = History()
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
            "window_step"  : head.window_step % (ELEMENT_BYTES*SCRATCH_MULTIPLE) == 0 and head.window_step*(head.pass_tokens - 1) <= head.window_bytes,
            "sessions"     : 1 <= head.sessions <= head.pass_tokens,
            "deferred"     : head.deferred <= MAX_DEFERRED,
            "x_stride"     : head.x_stride % ALIGNMENT == 0 and head.x_stride <= MAX_RECORDS,
            "bc_stride"    : head.bc_stride % ALIGNMENT == 0 and head.bc_stride <= MAX_RECORDS,
            "stage"        : not head.stage & ~int(Stage.NO_EMBEDDING | Stage.NO_HEAD),
            "residual_bytes" : head.residual_bytes % ALIGNMENT == 0 and ALIGNMENT <= head.residual_bytes <= MAX_RESIDUAL,
            **{name: inside(getattr(head, name)) for name in ("tape", "embedding", "parameters", "records")},
            "results"      : inside(head.results, head.pass_tokens*CANDIDATES*CANDIDATE.itemsize),
            "zero_window"  : inside(head.zero_window, head.window_bytes),
        }
        for number, name in enumerate(IMAGE_HEAD):
            if not checks[name]:
                raise JobError(Error.BAD_IMAGE, number)
        for kind in stage_kinds(head.stage):
            for tokens in range(1, (head.sessions if kind == ProgramKind.BATCH else head.pass_tokens) + 1):
                number = program_number(kind, tokens)
                place, count, tape, beats = entries[number]
                for word, good in enumerate((inside(place, DESCRIPTOR_BYTES), count > 0 and inside(place, count*DESCRIPTOR_BYTES),
                        inside(tape), inside(tape, beats*self.data_width//8))):
                    if not good:
                        raise JobError(Error.BAD_IMAGE, len(IMAGE_HEAD) + number*size + word)
        return head, entries

    def _whole(self, address):
        """As :meth:`_image`, of a whole model."""
        head, entries = self._image(address)
        if head.stage:
            raise JobError(Error.BAD_STAGE, head.stage)
        return head, entries

    def _limits(self, op, *limits):
        """limits: (value, least, most, error)."""
        for value, low, high, error in (*limits, (getattr(op, "stop_tokens", 0), 0, MAX_STOP_TOKENS, Error.BAD_STOP_TOKENS)):
            if not low <= value <= high:
                raise JobError(error, value)

    @staticmethod
    def _check_top(top):
        if not 1 <= top & 0xffff <= CANDIDATES:
            raise JobError(Error.BAD_TOP_K, top)

    @staticmethod
    def _apart(*pairs):
        """pairs: (a region that is written, [others])."""
        for written, others in pairs:
            if any(written[0] < other[1] and other[0] < written[1] for other in others):
                raise JobError(Error.OVERLAP, written[0])

    @staticmethod
    def _check_tokens(head, tokens):
        for token in tokens: # A stop token that is none of the vocabulary never comes.
            if token >= head.vocabulary:
                raise JobError(Error.BAD_TOKEN, token)

    def _check(self, op, flags):
        """(head, entries, prompt, stop tokens) of a job GENERATE that may run."""
        if flags & ~int(JobFlag.ZERO_STATE | JobFlag.LOGITS | JobFlag.SPECULATE):
            raise JobError(Error.BAD_FLAGS, flags)
        logits = bool(flags & JobFlag.LOGITS)
        self._limits(op, (op.prompt_tokens, 1, MAX_PROMPT_TOKENS, Error.BAD_TOKENS), (op.tokens, 0, 0 if logits else MAX_TOKENS, Error.BAD_TOKENS))
        self._check_top(op.top)
        if not 1 <= op.store_every <= MAX_DEFERRED + 1:
            raise JobError(Error.BAD_STORE_EVERY, op.store_every)
        head, entries = self._whole(op.model)
        if op.store_every > head.deferred + 1:
            raise JobError(Error.BAD_STORE_EVERY, op.store_every)
        session = head.state_bytes + head.window_bytes
        image   = self._region(op.model, head.image_bytes)
        given   = self._region(op.prompt, 4*(op.prompt_tokens + op.stop_tokens))
        output  = self._region(op.output, self._output_bytes(head, op, logits))
        after   = self._region(op.session_out, session)
        before  = [] if flags & JobFlag.ZERO_STATE else [self._region(op.session_in, session)]
        self._apart((after, [image, given, *(region for region in before if region != after)]), (output, [image, given, after, *before]))
        tokens  = self.words(op.prompt, op.prompt_tokens + op.stop_tokens)
        self._check_tokens(head, tokens[:op.prompt_tokens])
        return head, entries, tokens[:op.prompt_tokens], tokens[op.prompt_tokens:]

    def _check_batch(self, op, flags):
        """(head, entries, texts [(token, place, seed, ended, inverse, top)], stop tokens) of a job BATCH that may run."""
        if self.ssm.stochastic_rounding:
            raise JobError(Error.BAD_OPCODE, Opcode.BATCH)
        if flags:
            raise JobError(Error.BAD_FLAGS, flags)
        self._limits(op, (op.session_count, 1, MAX_PASS_TOKENS, Error.BAD_SESSIONS), (op.tokens, 1, MAX_TOKENS, Error.BAD_TOKENS))
        head, entries = self._whole(op.model)
        if op.session_count > head.sessions:
            raise JobError(Error.BAD_SESSIONS, op.session_count)
        count    = TEXT_WORDS*op.session_count + op.stop_tokens
        image    = self._region(op.model, head.image_bytes)
        given    = self._region(op.texts, 4*count)
        output   = self._region(op.output, OUTPUT_HEAD_BYTES + 4*op.tokens*op.session_count)
        sessions = self._region(op.sessions, op.session_count*(head.state_bytes + head.window_bytes))
        self._apart((sessions, [image, given]), (output, [image, given, sessions]))
        words    = self.words(op.texts, count)
        texts    = [tuple(words[TEXT_WORDS*n:][:TEXT_WORDS]) for n in range(op.session_count)]
        for text in texts:
            self._check_tokens(head, text[:1])
            self._check_top(text[5])
        return head, entries, texts, words[TEXT_WORDS*op.session_count:]

    def _check_pass(self, op, flags):
        """(head, entries, tokens) of a job PASS that may run; of a stage that is not the first, zeros for tokens."""
        if flags & ~int(JobFlag.ZERO_STATE | JobFlag.CANDIDATES):
            raise JobError(Error.BAD_FLAGS, flags)
        self._limits(op, (op.tokens, 1, MAX_PASS_TOKENS, Error.BAD_TOKENS))
        head, entries = self._image(op.model)
        embeds, ends  = not head.stage & Stage.NO_EMBEDDING, not head.stage & Stage.NO_HEAD
        candidates    = flags & JobFlag.CANDIDATES
        if candidates and not ends:
            raise JobError(Error.BAD_STAGE, head.stage)
        self._limits(op, (op.tokens, 1, head.pass_tokens, Error.BAD_TOKENS))
        session   = head.state_bytes + head.window_bytes
        residuals = op.tokens*head.residual_bytes
        image     = self._region(op.model, head.image_bytes)
        before    = [] if flags & JobFlag.ZERO_STATE else [self._region(op.session_in, session)]
        after     = self._region(op.session_out, session)
        given     = self._region(op.input, 4*op.tokens if embeds else residuals)
        output    = self._region(op.output, residuals if not ends else CANDIDATES*CANDIDATE.itemsize if candidates else 0)
        self._apart((after, [image, given, *(region for region in before if region != after)]), (output, [image, given, after, *before]))
        tokens    = self.words(op.input, op.tokens) if embeds else [0]*op.tokens
        self._check_tokens(head, tokens)
        return head, entries, tokens

    @staticmethod
    def _output_bytes(head, op, logits):
        if not logits:
            return OUTPUT_HEAD_BYTES + 4*op.tokens
        whole, rest = divmod(op.prompt_tokens, head.pass_tokens)
        size = lambda tokens: ceil_multiple(4*head.logit_rows*tokens, ALIGNMENT)
        return whole*size(head.pass_tokens) + size(rest)

    # Jobs.

    def generate(self, flags, operands):
        """Run a job GENERATE. Returns the tokens that were run, and the :class:`Traffic` of all passes.

        Raises
        ------
        JobError : it is refused, or its logits are not finite.
        """
        op = SimpleNamespace(**operands)
        head, entries, prompt, stop = self._check(op, flags)
        logits = bool(flags & JobFlag.LOGITS)
        run    = _Passes(self, head, entries, op.model, op.session_out, None if flags & JobFlag.ZERO_STATE else op.session_in, op.store_every,
            op.seed, op.place)
        output = _Output(self, op.output, not logits)
        target = op.output
        for first in range(0, len(prompt), head.pass_tokens):
            tokens = prompt[first:first + head.pass_tokens]
            kinds  = [ProgramKind.LAYERS]
            if logits:
                kinds += [ProgramKind.LOGITS]
            elif op.tokens and first + len(tokens) == len(prompt):
                kinds += [ProgramKind.HEAD]
            output.account("prefill", run(tokens, kinds, target if logits else None, first + len(tokens) == len(prompt) and op.tokens <= 1))
            run.keep(len(tokens))
            target += ceil_multiple(4*head.logit_rows*len(tokens), ALIGNMENT)
        speculate = bool(flags & JobFlag.SPECULATE)
        if speculate:
            self.history.begin(op.place, bool(flags & JobFlag.ZERO_STATE))
            self.history.add(*prompt)
        drafts, place = [], op.place + len(prompt)
        while op.tokens and output.reason == Reason.NONE:
            for taken in range(len(drafts) + 1): # Drafts that were right.
                token = self._sample(op, head, taken, op.inverse, op.top, op.seed, place)
                if token in stop:
                    output.reason = Reason.STOP
                    break
                if speculate:
                    self.history.add(token)
                place += 1
                output.write([token], op.tokens)
                if output.reason != Reason.NONE or taken == len(drafts) or token != drafts[taken]:
                    break
            if drafts:
                run.keep(taken + 1)
                if run.deferred >= op.store_every:
                    output.account("decode", run.store())
            if output.reason == Reason.NONE:
                left   = op.tokens - output.count
                drafts = draft(self.history.tokens, min(head.pass_tokens, left) - 1) if speculate else []
                drafts = list(takewhile(lambda token: token < head.vocabulary, drafts))
                output.passes  += 1
                output.drafted += len(drafts)
                if drafts:
                    output.account("decode", run([token, *drafts], [ProgramKind.DRAFTS, ProgramKind.EACH]))
                else:
                    output.account("decode", run([token], [ProgramKind.LAYERS, ProgramKind.HEAD], last=left == 1))
                    run.keep(1)
        if run.deferred:
            output.account("decode", run.store())
        output.report()
        return run.taken, output.traffic

    def batch(self, flags, operands):
        """Run a job BATCH. Returns and raises as :meth:`generate`."""
        op = SimpleNamespace(**operands)
        head, entries, texts, stop = self._check_batch(op, flags)
        run    = _Passes(self, head, entries, op.model, op.sessions, op.sessions)
        output = _Output(self, op.output)
        tokens = [text[0] for text in texts]
        while output.reason == Reason.NONE:
            output.account("decode", run(tokens, [ProgramKind.BATCH, ProgramKind.EACH]))
            run.keep(len(tokens))
            output.passes += 1
            tokens = [token if ended else self._sample(op, head, n, inverse, top, seed, place + output.passes)
                for n, (token, (_, place, seed, ended, inverse, top)) in enumerate(zip(tokens, texts))]
            output.write(tokens, op.tokens, any(token in stop for token, text in zip(tokens, texts) if not text[3]))
        output.report()
        return run.taken, output.traffic

    def run_pass(self, flags, operands):
        """Run a job PASS. Returns and raises as :meth:`generate`."""
        op = SimpleNamespace(**operands)
        head, entries, tokens = self._check_pass(op, flags)
        run     = _Passes(self, head, entries, op.model, op.session_out, None if flags & JobFlag.ZERO_STATE else op.session_in, 1, op.seed, op.place)
        if head.stage & Stage.NO_EMBEDDING:
            run.machine.registers[Register.EMBEDDING] = op.input - self.base
        traffic = run(tokens, [ProgramKind.LAYERS, *[ProgramKind.HEAD]*bool(flags & JobFlag.CANDIDATES)], op.output)
        run.keep(len(tokens))
        return run.taken, traffic

    def _sample(self, op, head, row, inverse, top, seed, place):
        """The token that follows the one with the number `row` of those whose candidates were written."""
        first = op.model + head.results - self.base + row*CANDIDATES*CANDIDATE.itemsize
        found = np.frombuffer(self.memory[first:first + CANDIDATES*CANDIDATE.itemsize].tobytes(), CANDIDATE)
        found = found[:min(CANDIDATES, head.vocabulary)]
        if not np.isfinite(found["logit"][0]):
            raise JobError(Error.BAD_LOGITS, int(found["logit"][:1].view("<u4")[0]))
        return sample(found["token"], found["logit"], inverse, top & 0xffff, seed, place % 2**32, top >> 16)


class _Output:
    """What a job writes; but with LOGITS only counts."""
    def __init__(self, device, address, written=True):
        self.device  = device
        self.address = address
        self.written = written
        self.totals  = dict.fromkeys(OUTPUT_WIDE, 0)
        self.count   = self.passes = self.drafted = 0
        self.reason  = Reason.NONE
        self.report()

    def report(self):
        if self.written:
            words = [getattr(self, name) for name in OUTPUT_COUNTS]
            for total in self.totals.values():
                words += [total & 2**32 - 1, total >> 32]
            assert len(words) == len(OUTPUT_HEAD)
            self.device.store(self.address, words)

    def account(self, stage, traffic):
        self.totals[f"{stage}_read"]    += traffic.read
        self.totals[f"{stage}_written"] += traffic.written
        self.totals[f"{stage}_cycles"]  += -(-8*traffic.total//self.device.data_width) # At the least.

    @property
    def traffic(self):
        return Traffic(*(self.totals[f"prefill_{what}"] + self.totals[f"decode_{what}"] for what in ("read", "written")))

    def write(self, tokens, most, stopped=False):
        """A token of each text."""
        self.device.store(self.address + OUTPUT_HEAD_BYTES + 4*self.count*len(tokens), tokens)
        self.count += 1
        self.report()
        cancelled = self.device.token()
        if stopped:
            self.reason = Reason.STOP
        elif self.count == most:
            self.reason = Reason.LENGTH
        elif cancelled:
            self.reason = Reason.CANCELLED


class _Passes:
    """The passes of a job, one after the other. taken: tokens run so far that stay; before: session_in, None: zeros."""
    def __init__(self, device, head, entries, model, after, before, store_every=1, seed=0, place=0):
        self.device  = device
        self.head    = head
        self.entries = entries
        self.image   = model - device.base
        self.after   = after - device.base
        self.zero    = before is None
        self.state   = self.after if before is None else before - device.base
        self.window  = self.image + head.zero_window if before is None else self.state + head.state_bytes
        self.store_every, self.seed, self.place = store_every, seed, place
        self.taken   = 0
        self.stored  = 0 # Tokens that the state in memory is after.
        self.storing = self.drafts = False # The last pass.
        build        = device.program
        self.machine = Machine(device.memory, device.data_width, device.ssm, build.elements, build.activations, build.pass_tokens)
        self.machine.registers = {register: self.image + getattr(head, name) for register, name in ((Register.EMBEDDING, "embedding"),
            (Register.PARAMETERS, "parameters"), (Register.RECORDS, "records"))}

    deferred = property(lambda self: self.taken - self.stored)

    def __call__(self, tokens, kinds, results=None, last=False):
        """Run the programs of these kinds for tokens; keep() follows. results: bus address that they write to; last: no pass can follow.
        Returns the :class:`Traffic`."""
        self.drafts  = ProgramKind.DRAFTS in kinds
        self.storing = not self.drafts and (last or self.deferred + len(tokens) >= self.store_every)
        return self._run(tokens, kinds, results, self.deferred, self.storing)

    def keep(self, tokens):
        """Of the last pass the first ones, all unless it had drafts."""
        self.taken += tokens
        self.window = self.after + self.head.state_bytes + (self.head.window_step*(tokens - 1) if self.drafts else 0)
        if self.storing:
            self._stored()

    def _stored(self):
        self.stored = self.taken
        self.state  = self.after
        self.zero   = False

    def store(self):
        """The state of the tokens that are deferred."""
        tokens  = max(1, self.deferred - self.head.deferred)
        traffic = self._run([0]*tokens, [ProgramKind.STATE], None, self.deferred - tokens, True)
        self.window = self.after + self.head.state_bytes
        self._stored()
        return traffic

    def _run(self, tokens, kinds, results, deferred, store):
        device, machine, image = self.device, self.machine, self.image
        records = image + self.head.records
        machine.registers |= {Register.STATE_IN: self.state, Register.STATE_OUT: self.after, Register.WINDOW_IN: self.window,
            Register.WINDOW_OUT: self.after + self.head.state_bytes, Register.X_RECORDS: records + deferred*self.head.x_stride,
            Register.BC_RECORDS: records + deferred*self.head.bc_stride}
        machine.zero_state = self.zero
        machine.no_store   = not store
        machine.deferred   = deferred
        machine.seed       = (self.seed + self.place + self.stored) % 2**32 if device.ssm.stochastic_rounding else None
        machine.tokens     = [*tokens, *[0]*(len(machine.tokens) - len(tokens))]
        traffic = Traffic()
        for kind in kinds:
            place, count, tape, beats = self.entries[program_number(kind, len(tokens))]
            machine.registers[Register.TAPE]    = image + tape
            machine.registers[Register.RESULTS] = image + self.head.results if results is None else results - device.base
            machine.run(image + place)
            traffic += Traffic(count*DESCRIPTOR_BYTES + beats*device.data_width//8)
            for descriptor, _, _, operands in machine.fetch(image + place):
                traffic += descriptor_traffic(descriptor.code, operands, 0, deferred, store)
            if kind == ProgramKind.LOGITS:
                traffic += Traffic(0, 4*self.head.logit_rows*len(tokens))
        return traffic
