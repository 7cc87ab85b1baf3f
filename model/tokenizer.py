#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Text to tokens and back: by a tokenizer.json, or as bytes, or, where neither can be, tokens as numbers.

A tokenizer has::

    encode(text, continuing)  tokens of a text; continuing: of a text that goes on, without what marks a beginning
    decode(tokens)            their text; what is no character, or not yet a whole one, is U+FFFD
    stop_tokens               tokens that end a text
    pending(token)            whether a token's text may change with the tokens that follow
"""

import json
import re

from itertools import takewhile
from pathlib import Path

from tokenizers import Tokenizer

from model.checkpoint_config import CheckpointError, read_json

# Constants ----------------------------------------------------------------------------------------

BYTES       = 256 # Tokens of a vocabulary of bytes.
WINDOW      = 64  # Tokens that a TextStream decodes again at least, with each new one.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

SPECIAL_TOKENS = ("tokenizer_config.json", "special_tokens_map.json") # Files that name them.

# What keeps the parts of a tokenizer.json from marking a text's beginning; Prepend does nothing else.
UNMARKED = {
    "Metaspace" : {"prepend_scheme": "never"},
    "ByteLevel" : {"add_prefix_space": False},
    "Strip"     : {"strip_left": False},
}

# Tokenizers ---------------------------------------------------------------------------------------

class ByteTokenizer:
    """A token is a byte of UTF-8."""
    stop_tokens = ()

    def encode(self, text, continuing=False):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(tokens).decode("utf-8", "replace")

    def pending(self, token):
        return False


class NumberTokenizer:
    """For a model without a tokenizer: tokens are shown as numbers, and no text can be read."""
    stop_tokens = ()

    def __init__(self, path, vocab_size):
        self.message = (f"{path}: must be there to read a text, is missing, and a vocabulary of {vocab_size} tokens is not "
            "one of bytes: give --tokenizer FILE, or tokens as numbers (--prompt-tokens 1,2,3).")

    def encode(self, text, continuing=False):
        if text:
            raise CheckpointError(self.message)
        return []

    def decode(self, tokens):
        return " ".join(map(str, tokens))

    def pending(self, token):
        return False


class FileTokenizer:
    """By a tokenizer.json; the token that ends a text is that of one of SPECIAL_TOKENS beside it, or <|endoftext|>.

    spec : Content of a tokenizer.json that `path`, a GGUF file, holds; which tokens end a text the model knows then.

    Raises
    ------
    CheckpointError : names the file that cannot be used.
    """
    def __init__(self, path, spec=None):
        path      = Path(path)
        self.spec = read_json(path) if spec is None else spec
        try:
            self.tokenizer = self._make(self.spec)
            special        = self.tokenizer.get_added_tokens_decoder()
        except Exception as error: # The library raises no other type.
            raise CheckpointError(f"{path}: must be a tokenizer, is none ({error}).") from error
        self.stop_tokens = self._stop_tokens(path.parent) if spec is None else ()
        self.by_bytes    = "ByteFallback" in json.dumps(self.spec.get("decoder"))
        self.special     = {token for token, added in special.items() if added.special}

    def encode(self, text, continuing=False):
        if not continuing:
            return self.tokenizer.encode(text).ids
        unmarked = self.spec | {part: _unmarked(self.spec.get(part)) for part in ("normalizer", "pre_tokenizer")}
        return self._make(unmarked).encode(text, add_special_tokens=False).ids

    def decode(self, tokens):
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def pending(self, token):
        if not self.by_bytes: # Of several tokens that are bytes, one that fits no character spoils all.
            return False
        text = self.tokenizer.id_to_token(token)
        return text is None or token in self.special or re.fullmatch("<0x[0-9A-F]{2}>", text) is not None

    @staticmethod
    def _make(spec):
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        tokenizer.no_truncation() # A prompt is taken whole,
        tokenizer.no_padding()    # and nothing besides.
        return tokenizer

    def _stop_tokens(self, directory):
        """The token that ends a text, as the first file that has one says."""
        for path in (directory/name for name in SPECIAL_TOKENS):
            name = read_json(path).get("eos_token") if path.exists() or path.is_symlink() else None
            name = name.get("content") if isinstance(name, dict) else name
            if name is not None:
                token = self.tokenizer.token_to_id(name) if isinstance(name, str) else None
                if token is None:
                    raise CheckpointError(f"{path}: eos_token must be a token of the tokenizer, is {name!r}.")
                return (token,)
        token = self.tokenizer.token_to_id("<|endoftext|>")
        return () if token is None else (token,)


def _unmarked(part):
    """A normalizer or pre-tokenizer of a tokenizer.json, or None, for a text that goes on."""
    kind = None if part is None else part.get("type")
    if kind == "Prepend":
        return None
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        return part | {key: [one for one in map(_unmarked, part[key]) if one is not None]}
    return part if kind not in UNMARKED else part | UNMARKED[kind]


def load_tokenizer(directory, vocab_size, path=None):
    """The tokenizer of a checkpoint's folder or GGUF file and a model with so many tokens, or that of the file `path`.

    Raises
    ------
    CheckpointError : names a file that cannot be used.
    """
    if path is not None:
        return FileTokenizer(path)
    if Path(directory).is_file():
        from model.gguf import open_gguf # Above this module.
        from model.vocabulary import gguf_tokenizer
        return gguf_tokenizer(open_gguf(directory), vocab_size)
    path = Path(directory)/"tokenizer.json"
    if path.exists() or path.is_symlink(): # A link that leads nowhere is an error, not a folder without a tokenizer.
        return FileTokenizer(path)
    return ByteTokenizer() if vocab_size == BYTES else NumberTokenizer(path, vocab_size)

# Text ---------------------------------------------------------------------------------------------

class TextStream:
    """The text of tokens as they come: all pieces, :meth:`flush`'s too, are together the decoding of all tokens.

    A piece is held back until the tokens that follow cannot change it.
    """
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.tokens    = [] # The last ones,
        self.shown     = "" # and what of their text has been returned.

    def __call__(self, tokens):
        """The text that tokens complete, "" within a character."""
        self.tokens += tokens
        pending = sum(1 for _ in takewhile(self.tokenizer.pending, reversed(self.tokens)))
        text    = self.tokenizer.decode(self.tokens[:len(self.tokens) - pending])
        piece   = text.rstrip(REPLACEMENT)[len(self.shown):]
        self.shown += piece
        if text == self.shown and not pending and len(self.tokens) >= 2*WINDOW:
            self._forget()
        return piece

    def flush(self):
        """What was held back, at the end of the text."""
        piece = self.tokenizer.decode(self.tokens)[len(self.shown):]
        self.shown += piece
        return piece

    def _forget(self):
        """Keep the last tokens alone, if their text is what has been shown last; it may not be, within a character."""
        tokens = self.tokens[-WINDOW:]
        text   = self.tokenizer.decode(tokens)
        if text and self.shown.endswith(text):
            self.tokens, self.shown = tokens, text
