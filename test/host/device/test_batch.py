#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Texts that are written together, on a fake device, against each by itself."""

import pytest

from connection import Connection, loaded
from models import random_model

from host.device.batch import BatchText, DeviceBatch
from host.errors import AllocationError

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, inverse_of

from operations.config import ProgramConfig, SSMConfig

DRAWN = Draws(inverse_of(30.0), 64)

# Helpers ------------------------------------------------------------------------------------------

PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5]*15, [2, 7, 1, 8], [1, 1], [6, 6, 6]]


def alone(model, prompt, tokens, draws=Draws(), stop=()):
    decoder = ExactDecoder(ExactNetwork(model), draws)
    decoder.prefill(prompt)
    return list(decoder.generate(tokens, stop))


def together(batch, prompts, tokens, stop=()):
    texts = [[] for _ in prompts]
    ended = []
    for number, token in batch.generate(prompts, tokens, stop):
        assert number not in ended
        texts[number].append(token) if token is not None else ended.append(number)
    assert sorted(ended) == list(range(len(prompts)))
    return texts

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("count, sessions", [(1, None), (3, None), (4, 2), (6, None)])
@pytest.mark.parametrize("draws", [Draws(), Draws(inverse_of(30.0), 64, 2**32 - 2)])
def test_texts(tmp_path, count, sessions, draws):
    """More than there is room for: the next one begins where one ends."""
    model = random_model()
    with Connection(tmp_path) as device:
        batch  = DeviceBatch(loaded(device, model), draws, sessions)
        wanted = [alone(model, prompt, 9, Draws(draws.inverse, draws.top_k, (draws.seed + n) % 2**32)) for n, prompt in enumerate(PROMPTS[:count])]
        assert together(batch, PROMPTS[:count], 9) == wanted
        assert batch.figures.prefill_tokens == sum(map(len, PROMPTS[:count]))
        # Some end early, at a stop token.
        stop   = [wanted[0][4], 69]
        wanted = [text[:next((n for n, token in enumerate(text) if token in stop), 9)] for text in wanted]
        assert together(batch, PROMPTS[:count], 9, stop) == wanted


def test_closed(tmp_path):
    """At any token; the next ones begin anew."""
    model = random_model()
    with Connection(tmp_path) as device:
        batch = DeviceBatch(loaded(device, model))
        for end in (1, 4, 9):
            text = batch.generate(PROMPTS[:3], 50)
            for _ in range(end):
                next(text)
            text.close()
        assert together(batch, PROMPTS[:2], 5) == [alone(model, prompt, 5) for prompt in PROMPTS[:2]]


def test_ended_from_outside(tmp_path):
    """At any time, also while another one begins: each is told once, and the others go on."""
    model = random_model()
    with Connection(tmp_path) as device:
        for at in range(1, 12):
            batch = DeviceBatch(loaded(device, model), sessions=2)
            texts = [BatchText(list(prompt), 4) for prompt in PROMPTS[:2] + PROMPTS[3:]]
            batch.waiting.extend(texts)
            told  = []
            for count, (text, token) in enumerate(batch.run(), 1):
                if token is None:
                    told.append(text)
                if count == at:
                    texts[0].ended = texts[3].ended = True
            assert len(told) == len(texts) == len(set(map(id, told)))
            for text, prompt in zip(texts, PROMPTS[:2] + PROMPTS[3:]):
                wanted = alone(model, prompt, 4)
                assert text.tokens == wanted[:len(text.tokens)] and (len(text.tokens) == 4 or text in (texts[0], texts[3]))


def test_stochastic(tmp_path):
    with Connection(tmp_path, config=SSMConfig(stochastic_rounding=True)) as device:
        with pytest.raises(ValueError, match="^rounding of the device must be to nearest for several texts at once, is stochastic"):
            DeviceBatch(loaded(device, random_model()))


def test_refused(tmp_path):
    model = random_model()
    with Connection(tmp_path, ProgramConfig(pass_tokens=2)) as device:
        there = loaded(device, model)
        with pytest.raises(ValueError, match="^--sessions must be 1 to 2, is 3: a pass has no more tokens"):
            DeviceBatch(there, sessions=3)
        batch = DeviceBatch(there)
        for prompts, message in (([[1], []], "tokens must be one or more, are none."), ([[1, 70]], "token must be a number from 0 to 69, is 70.")):
            with pytest.raises(ValueError, match=message):
                next(batch.generate(prompts, 3))
        assert DeviceBatch(there).address == batch.address # The same sessions serve the next ones.
        device.allocate(device.info.data_base + device.info.data_size - batch.address - 3*there.image.session_bytes)
        there._sessions = 0, 0
        with pytest.raises(AllocationError, match="^2 sessions of "):
            DeviceBatch(there)


def test_many_stop_tokens(tmp_path):
    """More than the device looks for: the host does."""
    model = random_model()
    with Connection(tmp_path) as device:
        batch  = DeviceBatch(loaded(device, model), DRAWN)
        wanted = [alone(model, prompt, 30, Draws(DRAWN.inverse, DRAWN.top_k, n)) for n, prompt in enumerate(PROMPTS[:3])]
        stop   = [*(token for token in range(70) if token not in wanted[1][:8])][:20]
        wanted = [text[:next((n for n, token in enumerate(text) if token in stop), 30)] for text in wanted]
        assert together(batch, PROMPTS[:3], 30, stop) == wanted


def test_figures(tmp_path):
    """Of texts that had not ended; the others keep their places."""
    model = random_model()
    with Connection(tmp_path) as device:
        batch  = DeviceBatch(loaded(device, model), DRAWN)
        wanted = [alone(model, prompt, 12, Draws(DRAWN.inverse, DRAWN.top_k, n)) for n, prompt in enumerate(PROMPTS[:2])]
        stop   = [next(token for n, token in enumerate(wanted[1]) if n > 1 and all(token not in text for text in (wanted[0], wanted[1][:n])))]
        wanted = [text[:text.index(stop[0])] if stop[0] in text else text for text in wanted]
        assert together(batch, PROMPTS[:2], 12, stop) == wanted
        # The first token of each comes with its prompt; a stop token is one that was decoded.
        assert batch.figures.decode_tokens == sum(len(text) - 1 for text in wanted) + 1
        assert (batch.figures.drafted, batch.figures.accepted) == (0, 0)


def test_job_seconds(tmp_path):
    """Jobs are as long as the last one's passes let them be; of each the history has what came."""
    model = random_model()
    with Connection(tmp_path, patience=60) as device:
        batch = DeviceBatch(loaded(device, model), job_seconds=1)
        assert batch._job_most() == 1
        assert together(batch, PROMPTS[:2], 9) == [alone(model, prompt, 9) for prompt in PROMPTS[:2]]
        assert batch.pass_seconds > 0 and batch.history[-1][2] == batch.figures and len(batch.history) > 2
        batch.pass_seconds = 0.3
        assert batch._job_most() == 3
        batch.pass_seconds = 2.0
        assert batch._job_most() == 1
