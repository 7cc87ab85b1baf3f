#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sessions that are kept: which, for how long, and that texts from them are those without, bit for bit."""

import numpy as np
import pytest

from connection import Connection, loaded
from models import random_model

from host.device.batch import BatchText, DeviceBatch
from host.device.kept import KeptSessions

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, inverse_of

# Helpers ------------------------------------------------------------------------------------------

def write(batch, *texts):
    batch.waiting.extend(texts)
    list(batch.run())
    return [text.tokens for text in texts]

# Tests --------------------------------------------------------------------------------------------

def test_order():
    """The longest that goes on is found; what was used least lately goes first."""
    kept = KeptSessions([100, 200])
    assert kept.find([1, 2]) == (None, 0)
    for tokens in ([1], [1, 2]):
        kept.keep(tokens, kept.room(tokens))
    assert kept.find([1, 2, 3])[1] == 2 and kept.find([1, 2])[1] == 1 and kept.find([2, 1]) == (None, 0)
    assert kept.room([1]) is None and (len(kept), kept.evicted, kept.reused) == (2, 0, 3)
    address = kept.room([5, 6])
    assert (len(kept), kept.evicted) == (1, 1) and kept.find([1, 2, 3])[1] == 1 # [1, 2] was used before [1].
    kept.give_back(address)
    assert kept.room([7]) == address
    assert KeptSessions([]).room([1]) is None


@pytest.mark.parametrize("count", [0, 1, 2, None])
def test_texts(tmp_path, count):
    """With whatever room: prompts that go on from others, at all lengths around those of passes and jobs, drawn and greedy, several at once."""
    model = random_model()
    rng   = np.random.default_rng(1)
    with Connection(tmp_path, patience=60) as device:
        batch = DeviceBatch(loaded(device, model), kept=count)
        batch.model.chunk = 8 # Two passes.
        texts = []
        for length in (1, 5, 8, 12):
            there   = [text.prompt + text.tokens for text in texts[-2:]] + [[]]
            prompts = [list(part) + rng.integers(0, 70, length).tolist() for part in there]
            draws   = [Draws(), Draws(inverse_of(30.0), 64, length), Draws()]
            found   = [BatchText(prompt, 3, draw) for prompt, draw in zip(prompts, draws)]
            for text, tokens in zip(found, write(batch, *found)):
                decoder = ExactDecoder(ExactNetwork(model), text.draws)
                decoder.prefill(text.prompt)
                assert tokens == list(decoder.generate(3))
            texts += found
        assert (batch.kept.evicted > 0) == (count in (1, 2)) and len(batch.kept) <= batch.kept.capacity
        assert (sum(text.cached for text in texts) > 0) == (count != 0)
        if count is None:
            assert all(text.cached for text in texts if len(text.prompt) > 20)
        # What is kept is the state that the exact model has after these tokens.
        for tokens, address in batch.kept._kept.items():
            states = ExactNetwork(model)(tokens)[1]
            assert all(np.array_equal(ours, theirs) for there, wanted in zip(batch.model.read_session(address), states)
                for ours, theirs in zip(vars(there).values(), vars(wanted).values()))


def test_dropped(tmp_path):
    """Of a text that nobody waits for nothing is kept but its prompt, and after a failure nothing."""
    model = random_model()
    with Connection(tmp_path) as device:
        batch = DeviceBatch(loaded(device, model), kept=4)
        text  = BatchText([1]*9, 50)
        batch.waiting.append(text)
        run   = batch.run()
        for _ in range(3):
            next(run)
        text.drop()
        assert next(item for _, item in run if item is None) is None and list(run) == []
        assert list(batch.kept._kept) == [(1,)*8]
        batch.waiting.append(BatchText([2]*9, 50))
        run = batch.run()
        next(run)
        run.close()
        assert not len(batch.kept)
