#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A whole model on the device, token in, token out: its image, loaded and verified, and texts that jobs GENERATE carry on.

In the data region, from its start::

    image     constant part: the manifest's section "model"; behind it what passes write
    session   two, of which a job reads one and writes the other; so what a job did can be taken back
    prompts   PROMPTS regions, in turn: what the host writes the device only reads
    output    of a job
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from host.device import manifest
from host.device.device import Device, Result, program_of
from host.device.jobs import Job
from host.device.maxima import model_geometry
from host.device.verified import ByteCounts
from host.errors import DeviceError, DeviceTimeout, LinkError, SessionInvalid
from host.link.transport import Meter

from model.exact.decoder import check_tokens
from model.exact.sampling import Draws
from model.image import SESSIONS, Image

from operations.config import ALIGNMENT, ceil_multiple, check_range
from operations.image import CAUSES, MAX_DEFERRED, MAX_STOP_TOKENS, OUTPUT_HEAD, OUTPUT_HEAD_BYTES, ProgramKind, Reason, unpack_output
from operations.operations import JobFlag, Opcode
from operations.timeouts import program_timeout

# Constants ----------------------------------------------------------------------------------------

SECTION       = "model"
PROMPT_PASSES = 16   # Of a job.
JOB_TOKENS    = 4096 # That a job generates at most.
STOP_TOKENS   = 8    # Where the host may end the text: to go on from within a job, so many are to be run again.
PROMPTS       = 8
LOGIT_BYTES   = 2**21 # Of a job's logits, at most, but for a single pass.
NOT_BEGUN     = 0xffff_ffff # In the place of a reason: what an earlier job has written is not there any more.

# Build --------------------------------------------------------------------------------------------

def device_image(device: Device, model: Any) -> Image:
    """The :class:`model.image.Image` of a quantised model for a device.

    Raises
    ------
    UsageError, ValueError : it does not fit: by how much, and what would.
    """
    program = program_of(device)
    model_geometry(device.info.config, model.config.layer)
    return Image(model, device.info.data_width, device.info.config, program)

# Sizes --------------------------------------------------------------------------------------------

def check_drafts(pass_tokens: int) -> None:
    """Raise ValueError unless a device that runs so many tokens at once can run drafts."""
    if pass_tokens == 1:
        raise ValueError("pass_tokens of the device must be 2, 4 or 8 for drafts (--speculate), is 1: they are run beside a token.")


def prompt_tokens(image: Image) -> int:
    """Of a prompt, in a job."""
    return PROMPT_PASSES*image.program.pass_tokens


def logit_tokens(image: Image) -> int:
    """Of a prompt, in a job with LOGITS."""
    pass_bytes = image.logit_bytes(image.program.pass_tokens)
    return max(1, min(PROMPT_PASSES, LOGIT_BYTES//pass_bytes))*image.program.pass_tokens


def prompt_bytes(image: Image) -> int:
    """Of the region of a prompt."""
    return ceil_multiple(4*(prompt_tokens(image) + MAX_STOP_TOKENS), ALIGNMENT)


def output_bytes(image: Image) -> int:
    """Of the region of a job's output."""
    return max(image.output_bytes(0, JOB_TOKENS), image.output_bytes(logit_tokens(image), 0, True))


def job_bytes(image: Image) -> int:
    """That jobs take beside image and sessions."""
    return PROMPTS*prompt_bytes(image) + output_bytes(image)

# Figures ------------------------------------------------------------------------------------------

@dataclass
class Figures:
    """What jobs took, by the device's counters. A decoding pass is one of tokens that were generated, or of drafts."""
    prefill_tokens : int = 0
    prefill_cycles : int = 0
    decode_passes  : int = 0
    decode_tokens  : int = 0 # That they ran, but for drafts that were wrong.
    drafted        : int = 0 # Tokens that were drafts, right or wrong,
    accepted       : int = 0 # and those that were right.
    decode_cycles  : int = 0
    decode_read    : int = 0
    decode_written : int = 0
    waited_tokens  : int = 0 # Decoded tokens that `waits` are of.
    waits          : dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))

    def __sub__(self, before: "Figures") -> "Figures":
        """What has come since."""
        waits  = {cause: self.waits[cause] - before.waits[cause] for cause in CAUSES}
        counts = {name: getattr(self, name) - getattr(before, name) for name in vars(self) if name != "waits"}
        return Figures(**counts, waits=waits)

    def add(self, output: "JobOutput", prompt_tokens: int = 0, going_on: bool = False, tokens: int | None = None) -> None:
        """A job's. going_on: its prompt is the token that the job before has generated last. tokens: of a BATCH, those of texts that had not
        ended."""
        wide = output.wide
        if tokens is None:
            tokens = output.run - prompt_tokens
            self.accepted += tokens - output.passes
        if not going_on:
            self.prefill_tokens += prompt_tokens
            self.prefill_cycles += wide["prefill_cycles"]
        for part, passes, count in [("decode", output.passes, tokens)] + ([("prefill", 1, 1)] if going_on else []):
            self.decode_passes  += passes
            self.decode_tokens  += count
            self.decode_cycles  += wide[f"{part}_cycles"]
            self.decode_read    += wide[f"{part}_read"]
            self.decode_written += wide[f"{part}_written"]
        self.drafted       += output.drafted
        self.waited_tokens += tokens
        for cause in CAUSES:
            self.waits[cause] += wide[f"decode_wait_{cause}"]

# Model --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class JobOutput:
    """What a job GENERATE or BATCH wrote, and the tokens that it ran; passes, drafted: of its passes after the prompt's."""
    tokens  : list[int]
    reason  : Reason
    run     : int
    wide    : dict[str, int]
    passes  : int = 0
    drafted : int = 0


class ModelOnDevice:
    """A model's image on a booted device. What was allocated on it is given back.

    Parameters
    ----------
    image    : of :func:`device_image`.
    sessions : that are to be kept beside those that jobs need.

    Raises
    ------
    AllocationError, ValueError : it does not fit in the memory.
    """
    def __init__(self, device: Device, image: Image, sessions: int = 0):
        self.device = device
        self.image  = image
        self.chunk  = prompt_tokens(image)
        self.logit_chunk   = logit_tokens(image)
        self._prompt_bytes = prompt_bytes(image)
        self._output_bytes = output_bytes(image)
        image.check_memory(device.info.data_size, SESSIONS + sessions, job_bytes(image))
        self.counts = ByteCounts()

    def load(self, progress: Meter | None = None, filled: bool = False) -> ByteCounts:
        """Bring the image to the device, what is not there yet, verified; then make room for sessions. May be interrupted, and called
        again. filled: a simulated DRAM has had the whole image from the start, as the simulator read it: that is not verified."""
        self.counts = ByteCounts() if filled else self._load(progress)
        device, image = self.device, self.image
        device.reserve(image.size)
        self.slots    = [device.allocate(image.session_bytes, f"session {n}") for n in range(2)]
        self.loaded: int | None = None # Where the host writes a session.
        self._prompts = [device.allocate(self._prompt_bytes, "a prompt") for _ in range(PROMPTS)]
        self._output  = device.allocate(self._output_bytes, "a job's output")
        self._jobs    = 0
        self._running = False
        self._sessions: tuple[int, int] = (0, 0) # Of batches: how many, and where.
        return self.counts

    def _load(self, progress: Meter | None) -> ByteCounts:
        device, image = self.device, self.image
        data     = image.to_bytes()
        constant = memoryview(data)[:image.constant_bytes]
        model    = image.model
        content  = manifest.Manifest.of({"lanes": device.info.lanes, "data_width": image.data_width, "pass_tokens": image.program.pass_tokens,
            "layers": model.n_layer, "vocabulary": model.vocab_size, "type": model.layers[0].in_proj.type, "head_type": model.head.type},
            {SECTION: constant})
        counts   = manifest.load(device, content, {SECTION: constant}, progress)
        return counts + device.upload(device.info.data_base + image.constant_bytes, memoryview(data)[image.constant_bytes:], progress)

    # Jobs.

    def cancel(self) -> None:
        """Have the job that runs, if one does, end after its next token."""
        if self._running:
            self.device.cancel(self._index)

    def give_up(self) -> None:
        """As cancel, if the link lets it: the next job's host does so in any case."""
        with suppress(LinkError):
            self.cancel()

    def settle(self) -> None:
        """Wait for a job that was given up; its results are not asked for."""
        if self._running:
            self.cancel()
            self.device.drain(self._patience)
            self._running = False

    def cycles(self, tokens: int, *kinds: ProgramKind) -> int:
        """After how many a pass has surely ended, also where as many tokens as can be are deferred."""
        return sum(program_timeout(len(self.image.programs[kind, tokens]), self.image.tape_bytes(kind), MAX_DEFERRED + tokens,
            self.image.session_bytes) for kind in kinds)

    def generate(self, prompt: Sequence[int], tokens: int, session_in: int | None, session_out: int, draws: Draws, place: int = 0,
                 stop_tokens: Sequence[int] = (), logits: bool = False, store_every: int = 1, speculate: bool = False) -> Iterator[int | JobOutput]:
        """Run a job GENERATE: yields tokens as they come, and at last its :class:`JobOutput`.

        session_in: its address; None: it begins with zeros. What other arguments are, operations/operations.py says.

        Raises
        ------
        DeviceError, DeviceTimeout : the job failed, or did not go on. What session_out holds then is nothing.
        """
        image   = self.image
        address = self._write_prompt([*prompt, *stop_tokens])
        flags   = (JobFlag.ZERO_STATE if session_in is None else 0) | (JobFlag.LOGITS if logits else 0) | (JobFlag.SPECULATE if speculate else 0)
        last    = ProgramKind.LOGITS if logits else ProgramKind.HEAD
        first   = sum(self.cycles(count, ProgramKind.LAYERS, *([ProgramKind.LOGITS] if logits else [])) for count in image.passes(len(prompt))) + \
            self.cycles(1, last)
        each    = self.cycles(1, ProgramKind.LAYERS, ProgramKind.HEAD)
        if speculate:
            each = self.cycles(image.program.pass_tokens, ProgramKind.DRAFTS, ProgramKind.EACH, ProgramKind.STATE)
        job     = Job(Opcode.GENERATE, flags, expected=first + tokens*each, model=self.device.info.data_base,
            session_in  = session_out if session_in is None else session_in, session_out = session_out, prompt=address, prompt_tokens=len(prompt),
            place=place % 2**32, tokens=tokens, output=self._output, inverse=draws.inverse, top=draws.top, seed=draws.seed,
            stop_tokens = len(stop_tokens), store_every=store_every)
        end     = place + len(prompt)
        result: Result | None = None
        shown: list[int] = []
        for item in self._run(job, 0 if logits else tokens, 1, first, each, f"run the prompt's tokens {place} to {end - 1}",
                lambda count: f"generate token {end + count}"):
            if isinstance(item, Result):
                result = item
            else:
                shown += item
                yield item[0]
        assert result is not None
        if logits:
            self._check_run(result, len(prompt))
            yield JobOutput([], Reason.LENGTH, result.units, {})
            return
        output = self._read_output(result, tokens, 1)
        count  = len(output.tokens)
        self._check_run(result, len(prompt) + (count if output.reason == Reason.STOP else max(count - 1, 0)))
        yield from output.tokens[len(shown):]
        yield output

    def batch(self, texts: Sequence[tuple[int, int, bool, Draws]], tokens: int, sessions: int, stop_tokens: Sequence[int] = ()) -> Iterator[list[int] | JobOutput]:
        """Run a job BATCH: yields the tokens of each pass as they come, one of each text, and at last its :class:`JobOutput`.

        texts: (last token, which has not been run, its place, whether the text has ended, how its tokens are drawn). sessions: the address of the first one's.

        Raises
        ------
        DeviceError, DeviceTimeout : the job failed, or did not go on. What the sessions hold then is nothing.
        """
        count   = len(texts)
        address = self._write_prompt([*(word % 2**32 for token, place, ended, draws in texts for word in (token, place, draws.seed, ended, draws.inverse, draws.top)),
            *stop_tokens])
        each    = self.cycles(count, ProgramKind.BATCH, ProgramKind.EACH)
        job     = Job(Opcode.BATCH, expected=(tokens + 1)*each, model=self.device.info.data_base, sessions=sessions, texts=address,
            session_count=count, tokens=tokens, output=self._output, stop_tokens=len(stop_tokens))
        result: Result | None = None
        shown   = 0
        for item in self._run(job, tokens, count, each, each, f"run {count} sessions together", lambda done: f"generate token {done} of each session"):
            if isinstance(item, Result):
                result = item
            else:
                shown += 1
                yield item
        assert result is not None
        output = self._read_output(result, tokens, count)
        rows   = [output.tokens[first:first + count] for first in range(0, len(output.tokens), count)]
        self._check_run(result, len(output.tokens))
        yield from rows[shown:]
        yield output

    def batch_sessions(self, count: int) -> int:
        """Address of so many sessions, one right behind the other, which are kept for the next ones.

        Raises
        ------
        AllocationError : they do not fit in the memory.
        """
        if self._sessions[0] < count:
            self._sessions = count, self.device.allocate(count*self.image.session_bytes, f"{count} sessions")
        return self._sessions[1]

    def _write_prompt(self, words: Sequence[int]) -> int:
        """What a job is to read: at the address that is returned. Where a job was given up, its end is waited for."""
        self.settle()
        address = self._prompts[self._jobs % PROMPTS]
        self._jobs += 1
        self.device.write(address, np.array(words, "<u4").tobytes())
        return address

    def _run(self, job: Job, tokens: int, width: int, first: int, each: int, what: str, what_next: Callable[[int], str]) \
            -> Iterator[list[int] | Result]:
        """Run a job: yields `width` tokens each time that it has written as many, up to `tokens` times, and its result.

        first, each: cycles after which the first ones have surely come, and the next ones.
        """
        device = self.device
        if tokens and self._head()[1] == Reason.NONE: # Else an earlier job has ended here: what comes then is this one's.
            device.write(self._output, np.array([0, NOT_BEGUN], "<u4").tobytes())
        index  = device.submit(job)
        self._index, self._patience = index, (first + each)/device.info.clock_hz # Until a cancelled one has ended.
        self._running = True
        shown  = 0
        watch  = self._head if tokens else lambda: (0, NOT_BEGUN)
        follow = device.follow(index, watch, f"job {index} to {what}", first)
        while True:
            try:
                count, reason = next(follow)
            except StopIteration:
                break
            except (KeyboardInterrupt, SystemExit):
                self.give_up()
                raise
            except DeviceTimeout as error:
                if shown:
                    raise DeviceTimeout(f"{str(error).partition(' for ')[0]} for job {index} to {what_next(shown)}.") from None
                raise
            if reason == Reason.NONE and shown < count <= tokens:
                words = self._tokens(shown*width, count*width)
                for row in range(0, len(words), width):
                    shown += 1
                    yield words[row:row + width]
        result = device.wait(index)
        self._running = False
        yield result

    def _head(self) -> tuple[int, int]:
        """(count, reason) of a job's output."""
        count, reason = map(int, self.device.transport.read_words(self._output, 2))
        if reason == Reason.NONE and count: # The firmware clears the count first, so what is read now is none that an earlier job has left.
            count = int(self.device.transport.read_words(self._output, 1)[0])
        return count, reason

    def _tokens(self, first: int, end: int) -> list[int]:
        words = self.device.transport.read_words(self._output + OUTPUT_HEAD_BYTES + 4*first, end - first)
        self.device.check_running() # Until its DRAM is set up again, all of it reads as zeros.
        return [int(word) for word in words]

    def _read_output(self, result: Result, tokens: int, width: int) -> JobOutput:
        """width: tokens that are counted as one."""
        counts, wide  = unpack_output([int(word) for word in self.device.transport.read_words(self._output, len(OUTPUT_HEAD))])
        count, reason = counts["count"], counts["reason"]
        if count > tokens or reason not in ((Reason.LENGTH, Reason.STOP, Reason.CANCELLED) if tokens else (Reason.NONE,)):
            raise DeviceError(f"Job {result.index} ended, and its output says {count} tokens, reason {reason}: another host may be using the "
                "device; reset it.", result.index, None, 0)
        values = self._tokens(0, count*width) if count else []
        for token in values:
            if token >= self.image.model.vocab_size:
                raise DeviceError(f"Job {result.index} ended, and its output has token {token}, which is none: reset the device.",
                    result.index, None, 0)
        return JobOutput(values, Reason(reason), result.units, wide, counts["passes"], counts["drafted"])

    @staticmethod
    def _check_run(result: Result, expected: int) -> None:
        if result.units != expected:
            raise DeviceError(f"Job {result.index} must have run {expected} tokens by its output, counts {result.units}: another host may be "
                "using the device; reset it.", result.index, None, 0)

    def read_logits(self, prompt_tokens: int) -> np.ndarray:
        """What a job with LOGITS has written, verified: float32 (prompt_tokens, vocabulary)."""
        size = self.image.output_bytes(prompt_tokens, 0, True)
        return self.image.unpack_logits(self.device.download(self._output, size), prompt_tokens)

    # Sessions.

    def read_session(self, address: int) -> list[Any]:
        """The states of a session: [:class:`model.exact.network.LayerState`]."""
        return self.image.unpack_session(self.device.download(address, self.image.session_bytes))

    def write_session(self, states: Sequence[Any]) -> int:
        """Bring states to a session of their own, which no job writes. Returns its address."""
        self.settle()
        if self.loaded is None:
            self.loaded = self.device.allocate(self.image.session_bytes, "the loaded session")
        self.device.upload(self.loaded, self.image.pack_session(states))
        return self.loaded

# Text ---------------------------------------------------------------------------------------------

class DeviceDecoder:
    """A text under way on the device, as :class:`model.exact.decoder.ExactDecoder` is one on the host; the bits are the same.

    The state on the device lags: it is that of the tokens before `_done`, those after it are run by the next job. A job that failed, or
    whose end was not waited for, leaves the text invalid.

    Parameters
    ----------
    model : :class:`ModelOnDevice`, loaded.
    draws : :class:`model.exact.sampling.Draws`.
    store_every : tokens after which the state is stored, 1 to MAX_DEFERRED + 1.
    speculate : drafts from the text are run with a token; the device runs several tokens at once.

    Attributes
    ----------
    tokens  : All tokens so far.
    figures : :class:`Figures` of all jobs.
    """
    def __init__(self, model: ModelOnDevice, draws: Draws = Draws(), store_every: int = 1, speculate: bool = False):
        check_range("store_every", store_every, 1, MAX_DEFERRED + 1)
        if speculate:
            check_drafts(model.image.program.pass_tokens)
        self.speculate = speculate
        self.model   = model
        self.draws   = draws
        self.store_every = store_every
        self.config  = model.image.model.config
        self.figures = Figures()
        self.reset()

    def reset(self) -> None:
        """Back to the start of a text."""
        self.restore([], None)

    def restore(self, tokens: Sequence[int], states: Sequence[Any] | None) -> None:
        """To a text with the states after all its tokens but the last; None: with zeros, after none."""
        self.model.settle()
        self.tokens  = list(tokens)
        self._done   = 0 if states is None else len(tokens) - 1
        self._slot   = self.model.slots[0] if not self._done else self.model.write_session(states or ())
        self._before: tuple[int, int] = (self._slot, self._done) # Slot and tokens, before the last job.
        self._valid  = True

    def prefill(self, tokens: Sequence[int]) -> None:
        """Add a prompt; it is run with what follows."""
        check_tokens(tokens, self.config.vocab_size)
        self._check()
        self._rewind()
        self.tokens += map(int, tokens)

    def generate(self, tokens: int, stop_tokens: Collection[int] = (), may_end: bool = False) -> Iterator[int]:
        """Yield up to `tokens` tokens, none of `stop_tokens`. It may be closed at any token, which then is the last.

        may_end: it may well be closed, so that jobs are short.
        """
        self._check()
        self._rewind()
        if not self.tokens:
            raise ValueError("tokens must be one or more, are none.")
        stop     = list(dict.fromkeys(stop_tokens))[:MAX_STOP_TOKENS] # The others the host looks for.
        left     = tokens
        going_on = False
        may_end  = may_end or len(stop) < len(set(stop_tokens))
        if left:
            self._run_prompt(self._done + (len(self.tokens) - self._done - 1)//self.model.chunk*self.model.chunk)
        while left:
            count  = min(left, STOP_TOKENS if may_end else JOB_TOKENS)
            output: JobOutput | None = None
            closed = False
            for item in self._job(self.tokens[self._done:], count, stop, going_on):
                if isinstance(item, JobOutput):
                    output = item
                elif not closed: # Else the rest of the job is in vain.
                    closed = item in stop_tokens
                    if not closed:
                        self.tokens.append(item)
                        left -= 1
                        try:
                            yield item
                        except GeneratorExit:
                            closed = True
                        except BaseException:
                            self.model.give_up()
                            raise
                    if closed:
                        self.model.cancel()
            if closed:
                return
            assert output is not None
            if output.reason == Reason.STOP:
                return
            going_on = True

    def settle(self) -> None:
        """Have the state be that after all tokens but the last."""
        self._check()
        self._rewind()
        self._run_prompt(len(self.tokens) - 1)

    def states(self) -> list[Any]:
        """After all tokens but the last: [:class:`model.exact.network.LayerState`]."""
        self.settle()
        if self._done:
            return self.model.read_session(self._slot)
        return self.model.image.unpack_session(bytes(self.model.image.session_bytes))

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Take tokens. Returns their logits, float32 (T, vocabulary)."""
        check_tokens(tokens, self.config.vocab_size)
        self.settle_all()
        self.tokens += map(int, tokens)
        parts = []
        while self._done < len(self.tokens):
            chunk = self.tokens[self._done:self._done + self.model.logit_chunk]
            for _ in self._job(chunk, 0, (), False, logits=True):
                pass
            parts.append(self.model.read_logits(len(chunk)))
        return np.concatenate(parts)

    def settle_all(self) -> None:
        """Have the state be that after all tokens."""
        self._check()
        self._rewind(len(self.tokens))
        self._run_prompt(len(self.tokens))

    # Jobs.

    def _check(self) -> None:
        if not self._valid:
            raise SessionInvalid("The session must be one whose last job ended, is one of a job that failed or was interrupted: load a session, "
                "or begin a new text.")

    def _rewind(self, most: int | None = None) -> None:
        """Where the state is that of more tokens than all but the last, or `most`: take the last job back."""
        if self._done > (max(len(self.tokens) - 1, 0) if most is None else most):
            self._slot, self._done = self._before

    def _run_prompt(self, end: int) -> None:
        """Run tokens up to the one with this number, and no more."""
        while self._done < end:
            for _ in self._job(self.tokens[self._done:min(end, self._done + self.model.chunk)], 0, (), False):
                pass

    def _job(self, prompt: Sequence[int], tokens: int, stop_tokens: Sequence[int], going_on: bool, logits: bool = False) \
            -> Iterator[int | JobOutput]:
        """As ModelOnDevice.generate, from the state on."""
        slots = self.model.slots
        out   = slots[1] if self._slot == slots[0] else slots[0]
        self._valid = False
        for item in self.model.generate(prompt, tokens, self._slot if self._done else None, out, self.draws, self._done, stop_tokens, logits,
                self.store_every, self.speculate):
            if isinstance(item, JobOutput):
                self._before = (self._slot, self._done)
                self._slot   = out
                self._done  += item.run
                self._valid  = True
                if not logits:
                    self.figures.add(item, len(prompt), going_on)
            yield item
