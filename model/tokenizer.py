#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Text to tokens and back: by a checkpoint's tokenizer.json, or, where there is none, bytes."""

import codecs

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from model.checkpoint_config import CheckpointError

# Tokenizers ---------------------------------------------------------------------------------------

class ByteTokenizer:
    """A token is a byte of UTF-8."""
    stop_tokens = ()

    def encode(self, text):
        """Tokens of a text."""
        return list(text.encode())

    def decoder(self):
        """A function that takes tokens one by one and returns the text that each completes, "" within a character."""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        return lambda token: decode(bytes([token])) if token < 256 else "\N{REPLACEMENT CHARACTER}"


class FileTokenizer:
    """As :class:`ByteTokenizer`, by a tokenizer.json."""
    def __init__(self, path):
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error: # The library raises no other type.
            raise CheckpointError(f"{path}: is not a tokenizer ({error}).") from error
        end = self.tokenizer.token_to_id("<|endoftext|>")
        self.stop_tokens = () if end is None else (end,)

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def decoder(self):
        stream = DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self.tokenizer, token) or ""


def load_tokenizer(directory):
    """The tokenizer of a checkpoint's folder.

    Raises
    ------
    CheckpointError : names a tokenizer.json that cannot be used.
    """
    path = Path(directory)/"tokenizer.json"
    return FileTokenizer(path) if path.exists() else ByteTokenizer()
