#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Writes text for the command generate of stream.py: opens model and device, generates, shows the text and the rates."""

import os
import shutil
import sys
import time

from argparse import Namespace
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tqdm import tqdm

from host.cluster.boards import check_left_out, read_boards
from host.cluster.cluster import open_cluster, report as stage_report, stage_summaries
from host.cluster.driver import ClusterText, Driver
from host.commands.logits import load_torch
from host.commands.whole_model import load_quantized, open_model
from host.device.device import Info
from host.device.model import DeviceDecoder, Figures, check_drafts

from model.checkpoint_config import checkpoint_path
from model.decoder import Decoder, TorchBlocks
from model.exact.decoder import ExactDecoder, check_tokens
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws
from model.exact.session import load_session as load_exact_session, session_bytes as exact_session_bytes
from model.image import Image, fingerprint
from model.network import NetworkConfig
from model.sampling import Sampler, StopStrings
from model.session import load_session, session_bytes
from model.tokenizer import ByteTokenizer, FileTokenizer, NumberTokenizer, TextStream, load_tokenizer

from operations.image import CAUSES
from operations.numerics import CANDIDATES

from tools.errors import UsageError
from tools.files import check_writable, save_json, write_atomically

# Types --------------------------------------------------------------------------------------------

Tokenizer = ByteTokenizer | FileTokenizer | NumberTokenizer

# Text ---------------------------------------------------------------------------------------------

class Screen:
    """Shows text as it comes; on a terminal in lines, the last one above a line with the live rate, else as it is."""
    def __init__(self, total: int):
        self.live  = sys.stdout.isatty() and sys.stderr.isatty()
        self.line  = ""
        options    = {"file": sys.stderr, "leave": False, "dynamic_ncols": True}
        self.below = tqdm(total=total, unit="token", position=1, disable=not sys.stderr.isatty(),
            bar_format="[{n_fmt}/{total_fmt} tokens, {rate_fmt}{postfix}]", **options)
        self.last  = tqdm(position=0, bar_format="{desc}", disable=not self.live, **options)

    def write(self, text: str) -> None:
        if not self.live:
            print(text, end="", flush=True)
            return
        width      = max(1, shutil.get_terminal_size().columns - 1)
        self.line += text
        while "\n" in self.line or len(self.line) > width:
            end   = self.line.find("\n", 0, width + 1)
            if end < 0:
                end = self.line.rfind(" ", 0, width)
            whole = end < 0 # A word as long as the line.
            self.last.write(self.line[:width if whole else end], file=sys.stdout)
            self.line = self.line[width if whole else end + 1:]
        self.last.set_description_str(self.line)

    def rate(self, figures: str) -> None:
        """Count a token, and show what it costs."""
        self.below.set_postfix_str(figures, refresh=False)
        self.below.update()

    def close(self) -> None:
        self.last.close()
        self.below.close()
        print(self.line)

# Texts --------------------------------------------------------------------------------------------

class Text:
    """A text under way, wherever it is run.

    Attributes
    ----------
    decoder : What runs it.
    tokens : All tokens so far.
    eager  : Whether a prompt is run when it is given; else with the first token that is asked for.
    info   : of the device, where there is one.
    """
    eager = False
    info: Info | None = None
    decoder: Any

    @property
    def tokens(self) -> list[int]:
        return self.decoder.tokens

    def prefill(self, tokens: list[int]) -> None:
        """Add a prompt."""
        self.decoder.prefill(tokens)

    def generate(self, tokens: int, stop_tokens: Collection[int], may_end: bool) -> Iterator[int]:
        """Yield tokens; it may be closed at any."""
        raise NotImplementedError

    def finish(self) -> None:
        """Run what is not, where nothing was generated."""

    def load(self, path: str) -> None:
        """Go on from a session's file."""
        raise NotImplementedError

    def session(self) -> bytes:
        """The content of a session's file."""
        raise NotImplementedError

    def rate(self) -> str:
        """What tokens cost, in a few words."""
        return ""

    def summary(self) -> dict[str, Any]:
        """What is known of them, ready for JSON."""
        return {}

    def report(self) -> list[str]:
        """The same in lines."""
        return []


class TorchText(Text):
    """In PyTorch."""
    eager = True

    def __init__(self, decoder: Decoder, sampler: Sampler):
        self.decoder = decoder
        self.sampler = sampler

    def generate(self, tokens: int, stop_tokens: Collection[int], may_end: bool) -> Iterator[int]:
        return generate_tokens(self.decoder, self.sampler, tokens, stop_tokens)

    def load(self, path: str) -> None:
        load_session(self.decoder, path)

    def session(self) -> bytes:
        return session_bytes(self.decoder)


class ExactText(Text):
    """On the exact model, or on the device, which gives the same."""
    def __init__(self, decoder: "ExactDecoder | DeviceDecoder", model: Any, info: Info | None = None):
        self.decoder = decoder
        self.model   = model
        self.info    = info

    def generate(self, tokens: int, stop_tokens: Collection[int], may_end: bool) -> Iterator[int]:
        return self.decoder.generate(tokens, stop_tokens, may_end)

    def finish(self) -> None:
        self.decoder.settle()

    def load(self, path: str) -> None:
        load_exact_session(self.decoder, path, fingerprint(self.model))

    def session(self) -> bytes:
        return exact_session_bytes(self.decoder, fingerprint(self.model))

    @property
    def figures(self) -> Figures | None:
        return self.decoder.figures if isinstance(self.decoder, DeviceDecoder) else None

    def rate(self) -> str:
        figures = self.figures
        return f"{figures.decode_cycles/figures.decode_tokens:.0f} cycles a token" if figures and figures.decode_tokens else ""

    def summary(self) -> dict[str, Any]:
        return {} if self.figures is None or self.info is None else device_summary(self.figures, self.info)

    def report(self) -> list[str]:
        if self.figures is None or self.info is None or not self.figures.decode_tokens:
            return []
        summary = device_summary(self.figures, self.info)
        cycles  = summary["cycles_per_token"]
        lines   = [f"the device: {cycles:.0f} cycles a token, {self.info.clock_hz/cycles:.2f} token/s at {self.info.clock_hz/1e6:g} MHz; "
            f"{summary['read_bytes']:.0f} bytes read a token, {summary['write_bytes']:.0f} written, {summary['dram_share']:.1%} of what DRAM moves "
            "in these cycles"]
        if summary["wait_cycles"]:
            waits = dict(summary["wait_cycles"])
            tape  = waits.pop("tape")
            units = sorted(waits.items(), key=lambda wait: -wait[1])
            lines.append("of these cycles, the next operation waited " + ", ".join(f"{count:.0f} ({count/cycles:.0%}) for {name}" for name, count in units)
                + f"; the GEMV engine waited {tape:.0f} for weights")
        if summary["drafted"]:
            lines.append(f"{summary['drafted']} drafts, {summary['accepted']} of them right: {self.figures.decode_tokens} tokens in "
                f"{self.figures.decode_passes} passes")
        return lines


class BoardsText(Text):
    """On the boards of a cluster. Its prompt is run with the first token."""
    def __init__(self, driver: "Driver", draws: Draws):
        self.driver  = driver
        self.draws   = draws
        self.decoder = self
        self._tokens: list[int] = []

    @property
    def tokens(self) -> list[int]:
        return self._tokens

    def prefill(self, tokens: list[int]) -> None:
        self._tokens += tokens

    def generate(self, tokens: int, stop_tokens: Collection[int], may_end: bool) -> Iterator[int]:
        text = ClusterText(list(self._tokens), tokens, self.draws, tuple(stop_tokens))
        self.driver.add(text)
        for _, token in self.driver.run():
            if token is not None:
                self._tokens.append(token)
                yield token
        if text.error is not None:
            raise text.error

    def rate(self) -> str:
        cycles = [stage.cycles_per_pass() for pipeline in self.driver.live for stage in pipeline.stages]
        return f"{sum(filter(None, cycles)):.0f} cycles a token, of all stages" if all(cycles) else ""

    def summary(self) -> dict[str, Any]:
        return {"boards": stage_summaries(self.driver)}

    def report(self) -> list[str]:
        return stage_report(self.driver)


def device_summary(figures: Figures, info: Info) -> dict[str, Any]:
    """Figures of a device, ready for JSON: of decoding, those a token are means of the tokens that were run."""
    tokens, peak = figures.decode_tokens, info.data_width//8
    mean = lambda value, count=tokens: value/count if count else None
    return {
        "prefill_cycles"       : figures.prefill_cycles,
        "decode_cycles"        : figures.decode_cycles,
        "decode_passes"        : figures.decode_passes,
        "drafted"              : figures.drafted,
        "accepted"             : figures.accepted,
        "cycles_per_token"     : mean(figures.decode_cycles),
        "read_bytes"           : mean(figures.decode_read),
        "write_bytes"          : mean(figures.decode_written),
        "peak_bytes_per_cycle" : peak,
        "dram_share"           : (figures.decode_read + figures.decode_written)/(figures.decode_cycles*peak) if figures.decode_cycles else None,
        "wait_cycles"          : {cause: mean(figures.waits[cause], figures.waited_tokens) for cause in CAUSES} if figures.waited_tokens else None,
    }


NO_DEVICE = dict.fromkeys(("prefill_cycles", "decode_cycles", "decode_passes", "drafted", "accepted", "cycles_per_token", "read_bytes", "write_bytes",
    "peak_bytes_per_cycle", "dram_share", "wait_cycles"))

# Generation ---------------------------------------------------------------------------------------

def generate_tokens(decoder: Decoder, sampler: Sampler, tokens: int, stop_tokens: Collection[int] = ()) -> Iterator[int]:
    """Yield up to `tokens` tokens, each taken by the decoder before. Ends at a token of `stop_tokens`."""
    for _ in range(tokens):
        token = sampler(torch.as_tensor(decoder.logits), decoder.tokens)
        if token in stop_tokens:
            return
        decoder.take([token])
        yield token


def pieces_of(tokens: Iterator[int], stream: TextStream, stop: StopStrings) -> Iterator[str]:
    """Yield the text that each token completes, up to a stop string; then what is left is in :func:`rest_of`. An error that is thrown into it
    goes on to `tokens`: else these would wait for their job when they are forgotten, by a link that is closed then."""
    try:
        for token in tokens:
            yield stop(stream([token]))
            if stop.found:
                break
    except GeneratorExit:
        raise
    except BaseException as error:
        getattr(tokens, "throw")(error)
    finally:
        getattr(tokens, "close")() # The job that goes on may be waited for.


def rest_of(stream: TextStream, stop: StopStrings) -> str:
    """What stream and stop strings have held back, at a text's end."""
    return ("" if stop.found else stop(stream.flush())) + stop.flush()


def draws_of(args: Namespace, vocab_size: int) -> Draws:
    """What the options say of sampling, for the device and the exact model.

    Raises
    ------
    UsageError : they ask for what these have not.
    """
    if args.repetition_penalty != 1:
        raise UsageError(f"--repetition-penalty must be left out with --on {args.on}, is {args.repetition_penalty:g}: --on torch has it.")
    top_k = CANDIDATES if args.top_k is None else args.top_k or vocab_size
    if top_k > CANDIDATES and args.top_k is not None and (args.top_k or args.temperature):
        raise UsageError(f"--top-k must be 1 to {CANDIDATES} with --on {args.on}, is {args.top_k}{'' if args.top_k else ', for all'}: --on torch takes "
            "any.")
    try:
        return Draws.of(args.temperature, min(top_k, CANDIDATES), args.seed, args.top_p)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


@contextmanager
def open_text(args: Namespace, network: Any) -> Iterator[Text]:
    """Context manager: a :class:`Text`, as the options say. network: of :func:`load_model`."""
    if args.on != "device" and args.store_every != 1:
        raise UsageError(f"--store-every must be left out with --on {args.on}, is {args.store_every}: it is of a device's DRAM.")
    if args.on != "device" and args.speculate:
        raise UsageError(f"--speculate must be left out with --on {args.on}: it is of a device's passes.")
    if args.boards is not None:
        with open_cluster(args.boards, network, 1, args.log) as driver:
            yield BoardsText(driver, draws_of(args, network.vocab_size))
    elif args.on == "torch":
        yield TorchText(Decoder(network, TorchBlocks(network.config)), _sampler(args))
    elif args.on == "exact":
        seed = args.seed if args.rounding == "stochastic" else None
        yield ExactText(ExactDecoder(ExactNetwork(network, seed=seed), draws_of(args, network.vocab_size)), network)
    else:
        draws = draws_of(args, network.vocab_size)
        def sessions(image: Image) -> int:
            if args.speculate:
                check_drafts(image.program.pass_tokens)
            return 1 if args.load_session else 0
        with open_model(args, network, sessions) as there:
            yield ExactText(DeviceDecoder(there, draws, args.store_every, args.speculate), network, there.device.info)


def check_boards(args: Namespace) -> None:
    """Raise UsageError where options ask for what boards together do not do."""
    if args.on != "device":
        raise UsageError(f"--boards must be left out with --on {args.on}.")
    for name, plain in (("load_session", None), ("save_session", None), ("speculate", False), ("store_every", 1)):
        if getattr(args, name) != plain:
            raise UsageError(f"--{name.replace('_', '-')} must be left out with --boards: it is of a single device.")
    check_left_out(args, args.boards)
    read_boards(args.boards)


def _sampler(args: Namespace) -> Sampler:
    return Sampler(args.temperature, args.top_k or 0, args.top_p, args.seed, args.repetition_penalty)


def load_model(args: Namespace) -> Any:
    """The model that the options name: a :class:`model.network.Mamba2Network` for PyTorch, else a
    :class:`model.weights.QuantizedModel`."""
    if args.on == "torch":
        return load_torch(args)[0]
    draws_of(args, 2**24) if args.top_k != 0 else None # Before the work.
    return load_quantized(args)


def read_prompt(args: Namespace, tokenizer: Tokenizer) -> list[int]:
    """The prompt's tokens. One that goes on from a session may be empty, and begins no text."""
    if args.prompt_tokens is not None:
        return args.prompt_tokens
    prompt = tokenizer.encode(args.prompt, continuing=args.load_session is not None)
    if not prompt and args.load_session is None:
        raise UsageError("--prompt must be a text to begin with, is missing: give one, --prompt-tokens, or --load-session.")
    return prompt


def write(args: Namespace) -> None:
    """Let a model write text, as the options of host/commands/generate.py say.

    Raises
    ------
    CommandError : an option, a file or the model is wrong; the device or the link failed.
    """
    torch.set_num_threads(1) # The simulation needs the processor more; and the bits do not depend on the machine's cores.
    if args.top_p == 0:
        raise UsageError("--top-p must be a number above 0, up to 1, is 0.")
    if args.save_session is not None:
        check_writable(args.save_session, args.json)
    if args.boards is not None: # Before the work.
        check_boards(args)
    if args.load_session is not None and not os.path.exists(args.load_session):
        raise UsageError(f"{args.load_session or repr('')}: must be a session, there is none.")
    try:
        stop      = StopStrings(args.stop)
        directory = checkpoint_path(args.model)
        network   = load_model(args)
        tokenizer = load_tokenizer(directory, network.config.vocab_size, args.tokenizer)
        prompt    = read_prompt(args, tokenizer)
        for tokens in (prompt, args.stop_token):
            if tokens:
                check_tokens(tokens, network.config.vocab_size)
        with open_text(args, network) as text:
            if args.load_session is not None:
                text.load(args.load_session)
            summary = _write_text(args, text, network.config, tokenizer, prompt, stop)
            if args.save_session is not None:
                session = text.session()
                write_atomically(args.save_session, lambda file: file.write(session))
    except ValueError as error: # CheckpointError is one.
        raise UsageError(str(error)) from error
    save_json(args.json, summary)


def _rates(tokens: int, seconds: float, before: int = 0) -> dict[str, Any]:
    """before: so many of the tokens came before the seconds began."""
    return {"tokens": tokens, "seconds": seconds, "tokens_per_second": max(tokens - before, 0)/seconds if seconds else 0.0}


def _write_text(args: Namespace, text: Text, config: NetworkConfig, tokenizer: Tokenizer, prompt: list[int], stop: StopStrings) -> dict[str, Any]:
    """Take the prompt, generate, show the text. Returns the summary."""
    stream = TextStream(tokenizer)
    screen = Screen(args.tokens)
    whole  = ""

    def show(piece: str) -> None:
        nonlocal whole
        whole += piece
        screen.write(piece)

    try:
        stream(text.tokens) # A session's text was shown when it was written.
        screen.write(stream(prompt))
        if args.prompt_tokens is None: # A text ends with a whole character.
            screen.write(stream.flush())
        start = time.monotonic()
        if prompt:
            text.prefill(prompt)
        begun = time.monotonic() if text.eager else None # When the prompt has been run.
        first = len(text.tokens)
        ends  = (*config.stop_tokens, *tokenizer.stop_tokens, *args.stop_token)
        pieces = pieces_of(text.generate(args.tokens, ends, bool(args.stop)), stream, stop)
        try:
            for piece in pieces:
                begun = begun or time.monotonic()
                show(piece)
                screen.rate(text.rate())
        except BaseException as error:
            getattr(pieces, "throw")(error)
        if not args.tokens:
            text.finish()
        end   = time.monotonic()
        begun = begun or end
        show(rest_of(stream, stop))
    finally:
        screen.close()
    generated = text.tokens[first:]
    prefill   = _rates(len(prompt), begun - start)
    decode    = _rates(len(generated), end - begun, 0 if text.eager else 1) # The first one comes with the prompt.
    figures   = text.summary()
    for name, rates in (("prompt", prefill), ("text", decode)):
        if rates["tokens"]:
            cost = f"; {text.rate()}" if name == "text" and text.rate() else ""
            rate = f", {rates['tokens_per_second']:.2f} token/s" if rates["tokens_per_second"] else ""
            print(f"{name}: {rates['tokens']} tokens{rate}{cost}", file=sys.stderr)
    for line in text.report():
        print(line, file=sys.stderr)
    info    = text.info
    program = info.program if info else None
    return {
        "model"            : args.model,
        "layers"           : config.n_layer,
        "on"               : args.on,
        "transport"        : args.transport if info else None,
        "clock_hz"         : info.clock_hz  if info else None,
        "lanes"            : info.lanes     if info else None,
        "data_width"       : info.data_width if info else None,
        "pass_tokens"      : program.pass_tokens if program else None,
        "store_every"      : args.store_every if program else None,
        "speculate"        : args.speculate if program else None,
        "prompt_tokens"    : prompt,
        "generated_tokens" : generated,
        "generated"        : generated, # Its name before.
        "text"             : whole,
        "prefill"          : prefill,
        "decode"           : decode,
        **NO_DEVICE,
        **figures,
    }
