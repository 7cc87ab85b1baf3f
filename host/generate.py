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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tqdm import tqdm

from host.commands.logits import load_network
from host.connect import open_device, requested_config
from host.device.blocks import DeviceBlocks
from host.device.device import Info
from host.device.maxima import model_geometry

from model.checkpoint_config import checkpoint_path
from model.decoder import BitExactBlocks, Decoder, TorchBlocks
from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.network import Mamba2Network, NetworkConfig
from model.sampling import Sampler, StopStrings
from model.session import load_session, session_bytes
from model.tokenizer import ByteTokenizer, FileTokenizer, NumberTokenizer, TextStream, load_tokenizer

from tools.errors import UsageError
from tools.files import check_writable, save_json, write_atomically

# Types --------------------------------------------------------------------------------------------

Blocks     = DeviceBlocks | BitExactBlocks | TorchBlocks
AnyDecoder = Decoder | ExactDecoder
Tokenizer  = ByteTokenizer | FileTokenizer | NumberTokenizer

# Constants ----------------------------------------------------------------------------------------

HOST_BLOCKS: dict[str, Callable[[NetworkConfig, Namespace], Blocks]] = { # What runs the SSM blocks, beside the device.
    "model"   : lambda config, args: BitExactBlocks(config, args.seed if args.rounding == "stochastic" else None),
    "float16" : lambda config, args: TorchBlocks(config, torch.float16),
    "float32" : lambda config, args: TorchBlocks(config, torch.float32),
}

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
        width      = shutil.get_terminal_size().columns - 1
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

# Rates --------------------------------------------------------------------------------------------

@dataclass
class Meter:
    """Counts what tokens cost, from its making on."""
    decoder  : AnyDecoder
    clock_hz : int = 0

    def __post_init__(self) -> None:
        self.start         = time.monotonic()
        self.first         = len(self.decoder.tokens)
        self.block_cycles  = getattr(self.decoder.blocks, "cycles",  0)
        self.block_seconds = getattr(self.decoder.blocks, "seconds", 0)

    def summary(self) -> dict[str, Any]:
        """Tokens, and their rates, ready for JSON."""
        blocks: Any = self.decoder.blocks
        tokens  = len(self.decoder.tokens) - self.first
        seconds = time.monotonic() - self.start
        summary = {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens/seconds if seconds else 0.0}
        if self.clock_hz and tokens:
            cycles   = blocks.cycles - self.block_cycles
            summary |= {
                "cycles_per_token"         : cycles/tokens,
                "block_tokens_per_second"  : tokens*self.clock_hz/cycles, # The blocks alone, by the device's clock.
                "share_in_block"           : (blocks.seconds - self.block_seconds)/seconds,
            }
        return summary


def device_text(summary: dict[str, Any]) -> str:
    """The figures of a Meter that only a device has, in a few words."""
    if "cycles_per_token" not in summary:
        return ""
    return f"{summary['cycles_per_token']:.0f} cycles a token, {summary['share_in_block']:.0%} of the time in the blocks"

# Generation ---------------------------------------------------------------------------------------

def generate_tokens(decoder: AnyDecoder, sampler: Sampler, tokens: int, stop_tokens: Collection[int] = ()) -> Iterator[int]:
    """Yield up to `tokens` tokens, each taken by the decoder before. Ends at a token of `stop_tokens`."""
    for _ in range(tokens):
        token = sampler(torch.as_tensor(decoder.logits), decoder.tokens)
        if token in stop_tokens:
            return
        decoder.take([token])
        yield token


@contextmanager
def open_decoder(args: Namespace, network: Mamba2Network | ExactNetwork) -> Iterator[tuple[AnyDecoder, Info | None]]:
    """Context manager: (decoder, the device's Info or None), as the options say."""
    if isinstance(network, ExactNetwork):
        yield ExactDecoder(network), None
        return
    config = network.config
    where  = "float32" if args.on == "torch" else args.blocks
    if where != "device":
        yield Decoder(network, HOST_BLOCKS[where](config, args)), None
        return
    model_geometry(requested_config(args), config.layer) # Before a simulation is built.
    with open_device(args, args.log) as device:
        yield Decoder(network, DeviceBlocks(device, config, args.seed)), device.info


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
    for option, value in (("--load-session", args.load_session), ("--save-session", args.save_session)):
        if args.on == "exact" and value is not None:
            raise UsageError(f"{option} must be left out with --on exact, is {value}.")
    if args.save_session is not None:
        check_writable(args.save_session, args.json)
    if args.load_session is not None and not os.path.exists(args.load_session):
        raise UsageError(f"{args.load_session or repr('')}: must be a session, there is none.")
    try:
        stop      = StopStrings(args.stop)
        directory = checkpoint_path(args.model)
        network   = load_network(args, args.seed if args.rounding == "stochastic" else None)[0]
        tokenizer = load_tokenizer(directory, network.config.vocab_size, args.tokenizer)
        prompt    = read_prompt(args, tokenizer)
        if prompt:
            network.check_tokens(prompt)
        if args.stop_token:
            network.check_tokens(args.stop_token)
        with open_decoder(args, network) as (decoder, info):
            if args.load_session is not None:
                load_session(decoder, args.load_session)
            summary = _write_text(args, decoder, tokenizer, prompt, stop, info)
            if args.save_session is not None:
                session = session_bytes(decoder)
                write_atomically(args.save_session, lambda file: file.write(session))
    except ValueError as error: # CheckpointError is one.
        raise UsageError(str(error)) from error
    save_json(args.json, summary)


def _write_text(args: Namespace, decoder: AnyDecoder, tokenizer: Tokenizer, prompt: list[int], stop: StopStrings,
                info: Info | None) -> dict[str, Any]:
    """Take the prompt, generate, show the text. Returns the summary."""
    sampler = Sampler(args.temperature, args.top_k, args.top_p, args.seed, args.repetition_penalty)
    stream  = TextStream(tokenizer)
    screen  = Screen(args.tokens)
    clock   = info.clock_hz if info else 0
    text    = ""

    def show(piece: str) -> None:
        nonlocal text
        text += piece
        screen.write(piece)

    try:
        stream(decoder.tokens) # A session's text was shown when it was written.
        screen.write(stream(prompt))
        if args.prompt_tokens is None: # A text ends with a whole character.
            screen.write(stream.flush())
        meter = Meter(decoder, clock)
        if prompt:
            decoder.prefill(prompt)
        prefill = meter.summary()
        meter   = Meter(decoder, clock)
        ends    = (*decoder.network.config.stop_tokens, *tokenizer.stop_tokens, *args.stop_token)
        for token in generate_tokens(decoder, sampler, args.tokens, ends):
            show(stop(stream([token])))
            screen.rate(device_text(meter.summary()))
            if stop.found:
                break
        if not stop.found:
            show(stop(stream.flush()))
        show(stop.flush())
        decode = meter.summary()
    finally:
        screen.close()
    for name, figures in (("prompt", prefill), ("text", decode)):
        if figures["tokens"]:
            print(f"{name}: {figures['tokens']} tokens, {figures['tokens_per_second']:.2f} token/s", file=sys.stderr,
                end=f"; {device_text(figures)}\n" if info else "\n")
    if info and decode["tokens"]:
        print(f"the blocks alone, at {clock/1e6:g} MHz: {decode['block_tokens_per_second']:.1f} token/s", file=sys.stderr)
    generated = decoder.tokens[len(decoder.tokens) - decode["tokens"]:]
    return {
        "model"            : args.model,
        "layers"           : decoder.network.config.n_layer,
        "on"               : args.on,
        "blocks"           : None if args.on else args.blocks,
        "transport"        : args.transport if info else None,
        "clock_hz"         : info.clock_hz  if info else None,
        "lanes"            : info.lanes     if info else None,
        "prompt_tokens"    : prompt,
        "generated_tokens" : generated,
        "generated"        : generated, # Its name before.
        "text"             : text,
        "prefill"          : prefill,
        "decode"           : decode,
    }
