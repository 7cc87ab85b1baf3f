#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Vocabularies of GGUF files: the tokenizer.* keys of a tokenizer.json, or of bytes, and a tokenizer from such keys.

llama.cpp's kind of GPT-2's byte-level BPE (``tokenizer.ggml.model`` gpt2) is written from a tokenizer.json of that kind, and
from a vocabulary of bytes, as such a BPE without merges. Any tokenizer.json is also kept whole, in GGUF's key
``tokenizer.huggingface.json``, from which it is read again. Other vocabularies are ``none`` to llama.cpp.
"""

import json

from gguf import GGUFValueType, TokenType
from gguf.gguf_writer import GGUFValue

from model.checkpoint_config import CheckpointError
from model.tokenizer import BYTES, ByteTokenizer, FileTokenizer, NumberTokenizer

# Constants ----------------------------------------------------------------------------------------

KEYS  = "tokenizer."
MODEL = "tokenizer.ggml.model"
WHOLE = "tokenizer.huggingface.json"

PRE_TOKENIZERS = ("gpt-2", "mpt", "olmo", "phi-2", "jais") # Names of llama.cpp for GPT-2's way to split a text into words.

# Bytes --------------------------------------------------------------------------------------------

def byte_alphabet():
    """The characters by which byte-level BPE writes the bytes 0 to 255: those that can be seen, as they are; others from 256."""
    seen   = {*range(ord("!"), ord("~") + 1), *range(0xa1, 0xac + 1), *range(0xae, 0xff + 1)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]

# Writing ------------------------------------------------------------------------------------------

def _value(value):
    kinds = {str: GGUFValueType.STRING, int: GGUFValueType.UINT32, bool: GGUFValueType.BOOL}
    return GGUFValue(value, kinds[type(value)])


def _array(values, kind):
    return GGUFValue(list(values), GGUFValueType.ARRAY, kind)


def _bpe(tokens, types, merges, rows):
    """Keys of a byte-level BPE. tokens, types: {token: its text, its TokenType}; rows: of the embedding."""
    names = [tokens.get(token, f"[PAD{token}]") for token in range(rows)]
    return {
        MODEL                       : _value("gpt2"),
        "tokenizer.ggml.pre"        : _value(PRE_TOKENIZERS[0]),
        "tokenizer.ggml.tokens"     : _array(names, GGUFValueType.STRING),
        "tokenizer.ggml.token_type" : _array([int(types.get(token, TokenType.UNUSED)) for token in range(rows)],
            GGUFValueType.INT32),
        "tokenizer.ggml.merges"     : _array(merges, GGUFValueType.STRING),
    }


def _is_gpt2(spec):
    """Whether a tokenizer.json splits and writes a text as GPT-2's, so that llama.cpp can."""
    model, pre = spec["model"], spec.get("pre_tokenizer") or {}
    return (model["type"] == "BPE" and not model.get("byte_fallback") and not model.get("unk_token")
        and pre.get("type") == "ByteLevel" and pre.get("use_regex", True) and not pre.get("add_prefix_space", True)
        and (spec.get("normalizer") or {"type": "NFC"})["type"] == "NFC")


def vocabulary_values(tokenizer, rows, stop_tokens=()):
    """{key: GGUFValue} of a vocabulary.

    tokenizer   : of :func:`model.tokenizer.load_tokenizer`.
    rows        : of the model's embedding.
    stop_tokens : that end a text, the first of them GGUF's end of a text.
    """
    if isinstance(tokenizer, FileTokenizer):
        spec   = json.loads(tokenizer.tokenizer.to_str()) # In the form of today.
        values = {MODEL: _value("none"), WHOLE: _value(json.dumps(tokenizer.spec, ensure_ascii=False))}
        tokens = {token: text for text, token in tokenizer.tokenizer.get_vocab(with_added_tokens=True).items()}
        if _is_gpt2(spec) and max(tokens) < rows:
            types   = dict.fromkeys(tokens, TokenType.NORMAL)
            types  |= {added["id"]: TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
                for added in spec["added_tokens"]}
            merges  = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
            values |= _bpe(tokens, types, merges, rows)
        first = tokenizer.tokenizer.encode("").ids
        if first:
            values["tokenizer.ggml.bos_token_id"] = _value(first[0])
        values["tokenizer.ggml.add_bos_token"] = _value(len(first) > 0)
    elif isinstance(tokenizer, ByteTokenizer):
        tokens = dict(enumerate(byte_alphabet()))
        values = _bpe(tokens, dict.fromkeys(tokens, TokenType.NORMAL), [], rows)
        values["tokenizer.ggml.add_bos_token"] = _value(False)
    else:
        values = {MODEL: _value("none")}
    if stop_tokens:
        values["tokenizer.ggml.eos_token_id"] = _value(int(stop_tokens[0]))
    return values

# Reading ------------------------------------------------------------------------------------------

def _spec(file):
    """The content of a tokenizer.json for the BPE that a file's keys describe."""
    tokens = file.get("tokenizer.ggml.tokens", list)
    types  = file.get("tokenizer.ggml.token_type", list, [TokenType.NORMAL]*len(tokens))
    merges = file.get("tokenizer.ggml.merges", list, [])
    if len(types) != len(tokens):
        raise CheckpointError(f"{file.path}: tokenizer.ggml.token_type must have {len(tokens)} entries, one a token, has "
            f"{len(types)}.")
    added  = [{"id": token, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": kind == TokenType.CONTROL} for token, (text, kind) in enumerate(zip(tokens, types))
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)]
    bos    = file.get("tokenizer.ggml.bos_token_id", int, -1)
    marked = file.get("tokenizer.ggml.add_bos_token", bool, False) and 0 <= bos < len(tokens)
    return {
        "version"        : "1.0",
        "added_tokens"   : added,
        "normalizer"     : None,
        "pre_tokenizer"  : {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor" : None if not marked else {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": tokens[bos], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}}},
        "decoder"        : {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model"          : {"type": "BPE", "merges": merges,
            "vocab": {text: token for token, text in enumerate(tokens) if types[token] != TokenType.UNUSED}},
    }


def gguf_tokenizer(file, vocab_size):
    """The tokenizer of an open GGUF file. Its stop tokens are the model's.

    Raises
    ------
    CheckpointError : the vocabulary is damaged, or of a kind that is not known here.
    """
    if WHOLE in file.values:
        try:
            spec = json.loads(file.get(WHOLE, str))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{file.path}: {WHOLE} must be JSON, is not.") from error
        if not isinstance(spec, dict):
            raise CheckpointError(f"{file.path}: {WHOLE} must be a JSON object, is none.")
        return FileTokenizer(file.path, spec)
    model = file.get(MODEL, str, "none")
    if model in ("none", "no_vocab"):
        return ByteTokenizer() if vocab_size == BYTES else NumberTokenizer(file.path, vocab_size)
    if model != "gpt2":
        raise CheckpointError(f"{file.path}: {MODEL} must be gpt2, is {model[:40]!r}: give --tokenizer FILE.")
    pre = file.get("tokenizer.ggml.pre", str, PRE_TOKENIZERS[0])
    if pre not in PRE_TOKENIZERS:
        raise CheckpointError(f"{file.path}: tokenizer.ggml.pre must be {' or '.join(PRE_TOKENIZERS)}, is {pre[:40]!r}: give "
            "--tokenizer FILE.")
    spec = _spec(file)
    if file.get("tokenizer.ggml.tokens", list) == byte_alphabet() and not spec["model"]["merges"]:
        return ByteTokenizer()
    return FileTokenizer(file.path, spec)
