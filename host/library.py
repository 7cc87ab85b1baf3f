#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A model on a device, for programs of one's own::

    from host.library import Mamba2

    with Mamba2("tiny") as mamba:
        for piece in mamba.generate("In the beginning", tokens=40):
            print(piece, end="", flush=True)
"""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

from host.commands.whole_model import add_model_arguments, load_quantized, open_model
from host.connect import add_device_arguments
from host.device.model import DeviceDecoder, Figures
from host.generate import pieces_of, rest_of

from model.checkpoint_config import checkpoint_path
from model.exact.decoder import check_tokens
from model.exact.sampling import Draws
from model.sampling import StopStrings
from model.tokenizer import TextStream, load_tokenizer

from operations.config import check_range
from operations.numerics import CANDIDATES

# Options ------------------------------------------------------------------------------------------

class _Options(ArgumentParser):
    """The options of stream.py that name a model and a device, as keywords."""
    def __init__(self) -> None:
        super().__init__(prog="", add_help=False, allow_abbrev=False)
        add_model_arguments(self)
        add_device_arguments(self)
        self.add_argument("--tokenizer")
        self.add_argument("--verbose", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))

    def namespace(self, keywords: dict[str, Any]) -> Any:
        words = []
        for name, value in keywords.items():
            option = f"--{name.replace('_', '-')}"
            if option not in self._option_string_actions:
                raise TypeError(f"an option must be one of {', '.join(sorted(action.dest for action in self._actions))}, is {name}.")
            if value is True:
                words.append(option)
            elif value is not None and value is not False:
                words.append(f"{option}={value}")
        args     = self.parse_args(words)
        args.log = lambda message: None
        return args

# Model --------------------------------------------------------------------------------------------

class Mamba2:
    """Context manager: a model on a device, loaded. By default the device is the simulated SoC, which is started and ends with it.

    Parameters
    ----------
    model : folder of a checkpoint, a GGUF file, or "tiny".
    options : those of stream.py that name model and device, as keywords: ``type="q4_0"``, ``pass_tokens=4``, or, of a board,
        ``transport="etherbone"``, ``ip="192.168.1.50"``, ``csr_csv="build/arty/a7-100/csr.csv"``, ``firmware=...``.

    Attributes
    ----------
    device : :class:`host.device.device.Device`, between ``with`` and its end.
    figures : :class:`host.device.model.Figures` of the last text; None before the first.

    Raises
    ------
    TypeError : there is no such option.
    ValueError : an option is not within its limits, or the model is not what it must be.
    tools.errors.CommandError : options or files do not go together; the device or the link failed.
    """
    def __init__(self, model: str = "tiny", **options: Any):
        self._args  = _Options().namespace({"model": model, **options})
        self._stack = ExitStack()
        self._text: Iterator[str] | None = None
        self.figures: Figures | None = None

    def __enter__(self) -> "Mamba2":
        quantized      = load_quantized(self._args)
        self.tokenizer = load_tokenizer(checkpoint_path(self._args.model), quantized.vocab_size, self._args.tokenizer)
        self.config    = quantized.config
        self._there    = self._stack.enter_context(open_model(self._args, quantized))
        self.device    = self._there.device
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._end_text(error)
        finally:
            self._stack.close()

    def generate(self, prompt: str | Sequence[int], tokens: int = 100, temperature: float = 0.0, top_k: int = CANDIDATES, top_p: float = 1.0,
            seed: int = 0, stop: Sequence[str] = (), stop_tokens: Sequence[int] = ()) -> Iterator[str]:
        """Yield the text after a prompt, piece by piece as it comes: as ``stream.py generate`` does with the same options. The device
        writes a text at a time: the one before ends.

        Parameters
        ----------
        prompt : a text, or tokens.
        tokens : at most so many.
        temperature : 0: always the best token; else tokens are drawn from the `top_k` best, 1 to 64, of these the first that together have
            probability `top_p`, by `seed`, 32 bits.
        stop, stop_tokens : texts and tokens before which it ends, beside the model's own.

        Raises
        ------
        ValueError : the prompt is empty, or has tokens that are none of the model's; or an option is not within its limits.
        tools.errors.CommandError : the device or the link failed.
        """
        begins  = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        strings = StopStrings([stop] if isinstance(stop, str) else stop)
        draws   = Draws.of(temperature, top_k, seed, top_p)
        check_range("tokens", tokens, 0, 2**31)
        if not begins:
            raise ValueError("prompt must be a text or tokens to begin with, is empty.")
        check_tokens(begins, self.config.vocab_size)
        self._end_text()
        decoder = DeviceDecoder(self._there, draws)
        decoder.prefill(begins)
        self.figures = decoder.figures
        stream  = TextStream(self.tokenizer)
        stream(begins)
        stream.flush()
        going   = decoder.generate(tokens, (*self.config.stop_tokens, *self.tokenizer.stop_tokens, *stop_tokens), bool(stop))
        def text() -> Iterator[str]:
            yield from pieces_of(going, stream, strings)
            yield rest_of(stream, strings)
        self._text = text()
        return self._text

    def _end_text(self, error: BaseException | None = None) -> None:
        """With an error, its job is given up; else its end is waited for."""
        text, self._text = self._text, None
        if text is not None and error is not None:
            with suppress(type(error)):
                getattr(text, "throw")(error)
        elif text is not None:
            getattr(text, "close")()
