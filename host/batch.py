#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Writes texts for the command batch of stream.py."""

import sys

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from tqdm import tqdm

from host.cluster.boards import check_left_out, read_boards
from host.cluster.cluster import open_cluster, report as stage_report, stage_summaries
from host.cluster.driver import ClusterText, Driver
from host.commands.whole_model import load_quantized, open_model
from host.device.batch import DeviceBatch, check_sessions
from host.device.device import Info
from host.device.model import Figures
from host.generate import NO_DEVICE, Tokenizer, device_summary

from model.checkpoint_config import checkpoint_path
from model.exact.decoder import ExactDecoder, check_tokens
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws
from model.image import Image
from model.tokenizer import TextStream, load_tokenizer

from tools.errors import UsageError
from tools.files import save_json

# Texts --------------------------------------------------------------------------------------------

class Shown:
    """The texts so far; each is shown when it has ended, and those before it."""
    def __init__(self, tokenizer: Tokenizer, prompts: list[list[int]], tokens: int):
        self.tokenizer = tokenizer
        self.prompts   = prompts
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.ended     = [False]*len(prompts)
        self.shown     = 0
        self.bar       = tqdm(total=len(prompts)*tokens, unit="token", leave=False, file=sys.stderr, disable=None)

    def add(self, number: int, token: int | None) -> None:
        """A token of a text; None: it has ended."""
        if token is not None:
            self.tokens[number].append(token)
            self.bar.update()
            return
        self.ended[number] = True
        while self.shown < len(self.prompts) and self.ended[self.shown]:
            prompt = self.prompts[self.shown]
            self.bar.write(f"--- {self.shown + 1}: {len(prompt)} tokens, {len(self.tokens[self.shown])} more\n"
                f"{self.tokenizer.decode(prompt)}{self.text(self.shown)}", file=sys.stdout)
            sys.stdout.flush()
            self.shown += 1

    def text(self, number: int) -> str:
        """What was generated."""
        stream = TextStream(self.tokenizer)
        before = stream(self.prompts[number]) + stream.flush()
        return (before + stream(self.tokens[number]) + stream.flush())[len(before):]

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()


def exact_texts(args: Namespace, model: Any, prompts: list[list[int]], draws: Draws, stop: tuple[int, ...]) -> Iterator[tuple[int, int | None]]:
    """(number, token), text by text; None at its end."""
    for number, prompt in enumerate(prompts):
        seed    = (draws.seed + number) % 2**32
        decoder = ExactDecoder(ExactNetwork(model), replace(draws, seed=seed))
        decoder.prefill(prompt)
        yield from ((number, token) for token in decoder.generate(args.tokens, stop))
        yield number, None


def check_rounding(args: Namespace) -> None:
    """Raise UsageError where the options want a device that cannot write several texts at once."""
    if args.rounding == "stochastic":
        raise UsageError("--rounding must be nearest for several texts at once, is stochastic: a pass has one seed.")


def sessions_of(args: Namespace, texts: int, image: Image) -> int:
    """Texts at once. Raises ValueError where the options want more than an image has programs for."""
    most = image.device.sessions
    check_sessions(args.sessions or 1, most)
    return min(args.sessions or most, texts)

# Boards -------------------------------------------------------------------------------------------

def check_boards(args: Namespace) -> None:
    """Raise UsageError where options do not go with boards, or the file that names them is wrong."""
    if args.on != "device":
        raise UsageError(f"--boards must be left out with --on {args.on}.")
    check_left_out(args, args.boards)
    read_boards(args.boards)


def boards_texts(driver: Driver, prompts: list[list[int]], tokens: int, draws: Draws, stop: tuple[int, ...]) -> Iterator[tuple[int, int | None]]:
    """(number, token) as they come; None at a text's end. Raises the first text's CommandError when all have ended."""
    texts = [ClusterText(prompt, tokens, replace(draws, seed=(draws.seed + number) % 2**32), stop) for number, prompt in enumerate(prompts)]
    for text in texts:
        driver.add(text)
    numbers = {id(text): number for number, text in enumerate(texts)}
    for text, token in driver.run():
        yield numbers[id(text)], token
    for text in texts:
        if text.error is not None:
            raise text.error

# Command ------------------------------------------------------------------------------------------

def write(args: Namespace) -> None:
    """Let a model write texts, as the options of host/commands/batch.py say.

    Raises
    ------
    CommandError : an option, a file or the model is wrong; the device or the link failed.
    """
    if not args.prompts and not args.prompt_tokens:
        raise UsageError("--prompt must be given for each text, is missing; or --prompt-tokens.")
    check_rounding(args)
    if args.boards is not None:
        check_boards(args)
    if args.on == "exact" and args.sessions is not None:
        raise UsageError(f"--sessions must be left out with --on exact, is {args.sessions}: it is of a device.")
    try:
        draws     = Draws.of(args.temperature, args.top_k, args.seed, args.top_p)
        model     = load_quantized(args)
        tokenizer = load_tokenizer(checkpoint_path(args.model), model.vocab_size, args.tokenizer)
        prompts   = [*(tokenizer.encode(prompt, continuing=False) for prompt in args.prompts), *args.prompt_tokens]
        for number, prompt in enumerate(prompts, 1):
            if not prompt:
                raise UsageError(f"--prompt must be a text to begin with, is empty: the {number}. one.")
            check_tokens(prompt, model.vocab_size)
        if args.stop_token:
            check_tokens(args.stop_token, model.vocab_size)
        stop  = (*model.config.stop_tokens, *tokenizer.stop_tokens, *args.stop_token)
        info: Info | None = None
        figures  = Figures()
        sessions = None
        boards   = None
        with Shown(tokenizer, prompts, args.tokens) as shown:
            if args.on == "exact":
                for number, token in exact_texts(args, model, prompts, draws, stop):
                    shown.add(number, token)
            elif args.boards is not None:
                with open_cluster(args.boards, model, args.sessions, args.log) as driver:
                    sessions = args.sessions
                    try:
                        for number, token in boards_texts(driver, prompts, args.tokens, draws, stop):
                            shown.add(number, token)
                    finally:
                        boards = stage_summaries(driver)
                        for line in stage_report(driver):
                            print(line, file=sys.stderr)
            else:
                with open_model(args, model, partial(sessions_of, args, len(prompts))) as there:
                    together = DeviceBatch(there, draws, sessions_of(args, len(prompts), there.image))
                    info, figures, sessions = there.device.info, together.figures, together.sessions
                    for number, token in together.generate(prompts, args.tokens, stop):
                        shown.add(number, token)
    except ValueError as error: # CheckpointError is one.
        raise UsageError(str(error)) from error
    summary = device_summary(figures, info) if info else NO_DEVICE
    cycles  = summary["cycles_per_token"]
    if info and cycles:
        print(f"the device: {cycles:.0f} cycles a token, {info.clock_hz/cycles:.2f} token/s at {info.clock_hz/1e6:g} MHz, all texts together; "
            f"{summary['dram_share']:.1%} of what DRAM moves in these cycles", file=sys.stderr)
    save_json(args.json, {
        "model"     : args.model,
        "on"        : args.on,
        "transport" : args.transport if info else None,
        "clock_hz"  : info.clock_hz if info else None,
        "sessions"  : sessions,
        "texts"     : [{"prompt_tokens": prompt, "generated_tokens": tokens, "text": shown.text(number)}
            for number, (prompt, tokens) in enumerate(zip(prompts, shown.tokens))],
        **summary,
        **({} if boards is None else {"boards": boards}),
    })
