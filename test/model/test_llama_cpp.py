#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""llama.cpp, where the package llama_cpp is installed, on files written here: it computes the same model."""

import numpy as np
import pytest
import torch

from checkpoints import KINDS, TEXT, make_transformers, train_tokenizer

from model.checkpoint import load_checkpoint
from model.exact.network import ExactNetwork
from model.gguf import read_gguf, write_gguf
from model.logits import compute_logits
from model.quantize import quantize_file
from model.quantized import from_network, quantize_model
from model.tokenizer import NumberTokenizer, load_tokenizer
from model.vocabulary import vocabulary_values

llama_cpp = pytest.importorskip("llama_cpp")

# Constants ----------------------------------------------------------------------------------------

TOKENS = (1, 50, 70, 23, 3, 60, 61, 62)

# Helpers ------------------------------------------------------------------------------------------

def llama_logits(path):
    llama = llama_cpp.Llama(str(path), n_ctx=2*len(TOKENS), verbose=False, logits_all=True)
    try:
        llama.eval(list(TOKENS))
        return np.array(llama.scores[:len(TOKENS)], np.float64)
    finally:
        llama.close()


def distance(logits, reference):
    """Root mean square of the difference, as a share of the reference's."""
    return np.sqrt(((logits - reference)**2).mean()/(reference**2).mean())

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, llama_error, error", [(None, 1e-5, None), ("q8_0", 0.05, 0.005), ("q4_0", 0.05, 0.005)],
    ids=["float32", "q8_0", "q4_0"])
def test_the_same_model(tmp_path, kind, llama_error, error):
    """In float32 to its rounding. On quantised weights llama.cpp rounds activations to 8 bits, and the exact model to 14: that is
    closer to PyTorch on the same weights."""
    make_transformers(tmp_path, hidden_size=64, num_heads=16)
    model = from_network(load_checkpoint(tmp_path))
    if kind:
        model = quantize_model(model, kind)
    path = tmp_path/"model.gguf"
    write_gguf(path, model, vocabulary_values(NumberTokenizer(path, model.vocab_size), model.vocab_size))
    reference = compute_logits(load_checkpoint(path), torch.tensor(TOKENS)).double().numpy()
    of_llama  = distance(llama_logits(path), reference)
    assert of_llama < llama_error
    if kind:
        of_exact = distance(np.array(ExactNetwork(read_gguf(path))(list(TOKENS))[0], np.float64), reference)
        assert of_exact < error and of_exact < of_llama/5


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens(tmp_path, kind):
    """The vocabulary too, where it is of a kind that llama.cpp knows; and what a GGUF file of it generates."""
    train_tokenizer(tmp_path, kind)
    make_transformers(tmp_path, hidden_size=64, num_heads=16, vocab_size=420)
    quantize_file(tmp_path, "q8_0", tmp_path/"model.gguf")
    llama = llama_cpp.Llama(str(tmp_path/"model.gguf"), n_ctx=8*len(TEXT), verbose=False)
    try:
        text = TEXT + "<|endoftext|>ab  c\n\n12"
        if kind == "bytes":
            assert llama.tokenize(text.encode(), add_bos=True, special=True) == load_tokenizer(tmp_path, 420).encode(text)
        llama.eval([1, 2, 3])
    finally:
        llama.close()
