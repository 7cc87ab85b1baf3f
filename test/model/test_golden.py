#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Jobs GENERATE on the golden device, against the exact model and exact sampling; and the images they run."""

import numpy as np
import pytest

from golden_session import GoldenSession
from models import random_model

from model.exact.head import best
from model.exact.network import ExactNetwork
from model.exact.sampling import inverse_of, sample
from model.golden import JobError
from model.quantized import quantize_checkpoint

from operations.config import SSMConfig
from operations.image import IMAGE_HEAD, Reason
from operations.operations import JobFlag
from operations.protocol import Error

# Helpers ------------------------------------------------------------------------------------------

PROMPT = [3, 1, 4, 1, 5, 9, 2]


def expected(model, prompt, tokens, temperature=0.0, top_k=64, seed=0, place=0, rounding=None, stop=()):
    """(tokens, states after all but the last) of the exact model."""
    network = ExactNetwork(model, seed=rounding)
    logits, states = network(prompt, None, place, last_only=True)
    result, inverse = [], inverse_of(temperature) if temperature else 0
    while len(result) < tokens:
        token = sample(*best(logits[0]), inverse, top_k, seed, place + len(prompt) + len(result))
        if token in stop:
            break
        result.append(token)
        if len(result) < tokens:
            logits, states = network([token], states, place + len(prompt) + len(result) - 1, last_only=True)
    return result, states


def assert_states(session, slot, states):
    got = session.states(slot)
    assert len(got) == len(states)
    for one, other in zip(got, states):
        assert one.h.tobytes() == other.h.tobytes() and one.window.tobytes() == other.window.tobytes()

# Jobs ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width", [128, 256, 512])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_generate(kind, tokens, width):
    """Greedy and drawn, from nothing and from a session."""
    model   = random_model(kind=kind)
    session = GoldenSession(model, tokens, width)
    for temperature, seed in ((0, 0), (0.8, 5)):
        wanted, states = expected(model, PROMPT, 6, temperature, 20, seed)
        result = session.generate(PROMPT, 6, flags=JobFlag.ZERO_STATE, inverse=inverse_of(temperature) if temperature else 0, top_k=20, seed=seed)
        assert (result.tokens, result.reason, result.run) == (wanted, Reason.LENGTH, len(PROMPT) + 5)
        assert_states(session, 1, states)
        # In two jobs: the second begins with the token that the first has generated last.
        inverse = inverse_of(temperature) if temperature else 0
        first = session.generate(PROMPT, 2, flags=JobFlag.ZERO_STATE, inverse=inverse, top_k=20, seed=seed)
        rest  = session.generate(first.tokens[-1:], 4, into=0, source=1, place=len(PROMPT) + 1, inverse=inverse, top_k=20, seed=seed)
        assert first.tokens + rest.tokens == wanted
        assert_states(session, 0, states)


@pytest.mark.parametrize("every", [2, 3, 8])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("rounding", [None, 9])
def test_deferred_states(every, stop, rounding):
    """Tokens and state are those of a text whose state is stored with each token, also where the text ends early; less is written."""
    model   = random_model(seed=3)
    session = GoldenSession(model, 2, ssm=SSMConfig(stochastic_rounding=rounding is not None))
    whole, _ = expected(model, PROMPT, 9, rounding=rounding)
    stops   = [next(token for n, token in enumerate(whole) if n > 3 and token not in whole[:n])] if stop else []
    wanted, states = expected(model, PROMPT, 9, rounding=rounding, stop=stops)
    options = dict(stop=stops, flags=JobFlag.ZERO_STATE, seed=rounding or 0)
    each    = session.generate(PROMPT, 9, **options)
    result  = session.generate(PROMPT, 9, store_every=every, **options)
    assert result.tokens == each.tokens == wanted and result.run == each.run and result.reason == each.reason
    assert_states(session, 1, states)
    assert result.wide["decode_written"] < each.wide["decode_written"]
    # From another session, into the same place.
    for source in (1, 0):
        session.generate([5, 6, 7], 0, source=1, into=source, place=20, store_every=every, seed=rounding or 0)
        assert_states(session, source, ExactNetwork(model, seed=rounding)([5, 6, 7], states, 20)[1])
        session.generate(PROMPT, 9, store_every=every, **options)


@pytest.mark.parametrize("width", [128, 512])
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_logits(tokens, kind, width):
    model   = random_model(kind=kind, vocab_size=71)
    session = GoldenSession(model, tokens, width)
    wanted, states = ExactNetwork(model)(PROMPT)
    assert session.logits(PROMPT, flags=JobFlag.ZERO_STATE).tobytes() == wanted.tobytes()
    assert_states(session, 1, states)


@pytest.mark.parametrize("sizes", [dict(ngroups=2), dict(d_conv=1), dict(d_conv=2), dict(headdim=64), dict(d_state=24), dict(d_model=96, headdim=24),
    dict(dt_limit=(0.01, 0.05)), dict(expand=1, headdim=8), dict(tied=False), dict(vocab_size=5),
    dict(bias=True), dict(bias=True, headdim=64, d_conv=1)])
@pytest.mark.parametrize("lanes", [4, 32])
def test_sizes(sizes, lanes):
    model   = random_model(**sizes)
    prompt  = [token % model.vocab_size for token in PROMPT]
    session = GoldenSession(model, 2, 256, SSMConfig(lanes=lanes))
    wanted, states = expected(model, prompt, 5)
    assert session.generate(prompt, 5, flags=JobFlag.ZERO_STATE).tokens == wanted
    assert_states(session, 1, states)
    assert session.logits(prompt, flags=JobFlag.ZERO_STATE).tobytes() == ExactNetwork(model)(prompt)[0].tobytes()


def test_stochastic():
    model   = random_model()
    session = GoldenSession(model, 4, ssm=SSMConfig(stochastic_rounding=True))
    wanted, states = expected(model, PROMPT, 6, 0.7, 64, seed=9, place=100, rounding=9)
    assert session.generate(PROMPT, 6, flags=JobFlag.ZERO_STATE, inverse=inverse_of(0.7), top_k=64, seed=9, place=100).tokens == wanted
    assert_states(session, 1, states)


def test_in_place_and_no_tokens():
    model   = random_model()
    session = GoldenSession(model, 2)
    result  = session.generate(PROMPT[:4], 0, flags=JobFlag.ZERO_STATE)
    assert (result.tokens, result.reason, result.run) == ([], Reason.NONE, 4)
    session.generate(PROMPT[4:], 0, source=1, into=1, place=4)
    assert_states(session, 1, ExactNetwork(model)(PROMPT)[1])


def test_stop():
    """Before the token; its session has all tokens before it."""
    model   = random_model()
    wanted, _ = expected(model, PROMPT, 12, 20.0, seed=4)
    stop    = next(token for n, token in enumerate(wanted) if n > 2 and token not in wanted[:n])
    until   = wanted[:wanted.index(stop)]
    session = GoldenSession(model, 4)
    result  = session.generate(PROMPT, 12, stop=[69, stop], flags=JobFlag.ZERO_STATE, inverse=inverse_of(20.0), top_k=64, seed=4)
    assert (result.tokens, result.reason, result.run) == (until, Reason.STOP, len(PROMPT) + len(until))
    assert_states(session, 1, ExactNetwork(model)(PROMPT + until)[1])


def test_counts():
    session = GoldenSession(random_model(), 4)
    result  = session.generate(PROMPT, 6, flags=JobFlag.ZERO_STATE)
    image   = session.image
    assert (result.wide["decode_read"], result.wide["decode_written"]) == (5*image.traffic(1).read, 5*image.traffic(1).written)
    assert result.wide["decode_cycles"] > 0 and result.wide["prefill_cycles"] > 0


def test_tiny():
    model   = quantize_checkpoint("tiny", "q4_0")
    session = GoldenSession(model, 8)
    wanted, states = expected(model, list(b"In the beginning"), 8)
    assert session.generate(list(b"In the beginning"), 8, flags=JobFlag.ZERO_STATE).tokens == wanted
    assert_states(session, 1, states)

# Refusals -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, value", [("magic", 1), ("version", 3), ("image_bytes", 2**30), ("data_width", 256), ("lanes", 32), ("pass_tokens", 4),
    ("scratch", 2**17), ("activations", 300), ("vocabulary", 0), ("logit_rows", 1), ("state_bytes", 0), ("window_bytes", 4), ("tape", 0),
    ("results", 2**28), ("zero_window", 65)])
def test_bad_image(name, value):
    session = GoldenSession(random_model(), 2)
    session.memory[4*IMAGE_HEAD.index(name):][:4] = np.array([value], "<u4").view(np.uint8)
    with pytest.raises(JobError) as caught:
        session.generate(PROMPT, 1, flags=JobFlag.ZERO_STATE)
    assert (caught.value.error, caught.value.detail) == (Error.BAD_IMAGE, IMAGE_HEAD.index(name))


def test_refused():
    session = GoldenSession(random_model(), 2)
    before  = session.memory.copy()
    for changes, error, detail in (
        (dict(prompt=[1, 70]),              Error.BAD_TOKEN, 70),
        (dict(flags=JobFlag.NO_STORE),      Error.BAD_FLAGS, JobFlag.NO_STORE),
        (dict(top_k=65),                    Error.BAD_TOP_K, 65),
        (dict(top_k=0),                     Error.BAD_TOP_K, 0),
        (dict(store_every=0),               Error.BAD_STORE_EVERY, 0),
        (dict(store_every=9),               Error.BAD_STORE_EVERY, 9),
        (dict(stop=[1]*17),                 Error.BAD_STOP_TOKENS, 17),
        (dict(flags=JobFlag.LOGITS),        Error.BAD_TOKENS, 1),
        (dict(session_out=session.slots[0] + 64), Error.OVERLAP, session.slots[0] + 64),
        (dict(session_out=0),               Error.OVERLAP, 0),
        (dict(output=session.slots[1]),     Error.OVERLAP, session.slots[1]),
        (dict(output=session.output + 4),   Error.BAD_ALIGNMENT, session.output + 4),
        (dict(model=2**30),                 Error.BAD_ADDRESS, 2**30),
    ):
        with pytest.raises(JobError) as caught:
            session.generate(**{**dict(prompt=PROMPT, tokens=1), **changes})
        assert (caught.value.error, caught.value.detail) == (error, detail), changes
    session.memory[session.prompt:session.prompt + 256] = before[session.prompt:session.prompt + 256]
    assert np.array_equal(session.memory, before)
