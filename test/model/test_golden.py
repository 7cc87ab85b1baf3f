#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Jobs GENERATE on the golden device, against the exact model and exact sampling; and the images they run."""

import numpy as np
import pytest

from golden_session import GoldenSession
from models import cyclic_model, random_model

from model.exact.drafts import History, draft
from model.exact.head import best
from model.exact.network import ExactNetwork
from model.exact.sampling import inverse_of, sample
from model.golden import JobError
from model.machine import Machine
from model.quantized import quantize_checkpoint

from operations.config import SSMConfig
from operations.image import HISTORY, IMAGE_HEAD, IMAGE_VERSION, Reason
from operations.operations import JobFlag, Opcode
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
        result = session.generate(PROMPT, 6, flags=JobFlag.ZERO_STATE, inverse=inverse_of(temperature) if temperature else 0, top=20, seed=seed)
        assert (result.tokens, result.reason, result.run) == (wanted, Reason.LENGTH, len(PROMPT) + 5)
        assert_states(session, 1, states)
        # In two jobs: the second begins with the token that the first has generated last.
        inverse = inverse_of(temperature) if temperature else 0
        first = session.generate(PROMPT, 2, flags=JobFlag.ZERO_STATE, inverse=inverse, top=20, seed=seed)
        rest  = session.generate(first.tokens[-1:], 4, into=0, source=1, place=len(PROMPT) + 1, inverse=inverse, top=20, seed=seed)
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
    assert session.generate(PROMPT, 6, flags=JobFlag.ZERO_STATE, inverse=inverse_of(0.7), top=64, seed=9, place=100).tokens == wanted
    assert_states(session, 1, states)


def repeating(model, tokens=40, of=5, seed=1):
    """A text that repeats itself, with a few tokens of its own."""
    rng   = np.random.default_rng(seed)
    piece = rng.integers(0, model.vocab_size, of)
    text  = np.tile(piece, tokens//of + 1)[:tokens]
    text[rng.integers(0, tokens, 3)] = rng.integers(0, model.vocab_size, 3)
    return text.tolist()


def test_draft():
    """What followed the most of the last tokens, and of such places the last one; it goes on from itself."""
    assert draft([1, 2, 3, 4], 3) == []
    assert draft([1, 2, 3, 1, 2], 3) == [3, 1, 2]
    assert draft([7, 7, 7], 4) == [7, 7, 7, 7]
    assert draft([5, 1, 2, 8, 4, 1, 2, 9, 6, 1, 2], 1) == [9]
    assert draft([5, 1, 2, 8, 4, 1, 2, 9, 5, 1, 2], 1) == [8]
    assert draft([1], 2) == draft([], 2) == draft([1, 2, 1, 2], 0) == []
    text = [1, 2, 3] + [9]*(HISTORY - 4) + [1, 2]
    assert draft(text, 1) == [] and draft(text[1:], 1) == [] and draft([1, 2, 3] + [9]*(HISTORY - 5) + [1, 2], 1) == [3]


OTHER_SIZES = [dict(d_conv=1), dict(d_conv=2, ngroups=2), dict(bias=True)]
PASSES      = [(2, 1), (4, 1), (4, 8), (8, 3), (8, 8), (1, 2)]


@pytest.mark.parametrize("tokens, every, sizes", [*((*passes, {}) for passes in PASSES), *((4, 8, sizes) for sizes in OTHER_SIZES),
    *(pytest.param(*passes, sizes, marks=pytest.mark.slow) for passes in PASSES if passes != (4, 8) for sizes in OTHER_SIZES)])
def test_speculate(tokens, every, sizes):
    """The tokens and the state are those without; where drafts are wrong, and where they are right."""
    model   = random_model(**sizes)
    prompt  = repeating(model)
    session = GoldenSession(model, tokens)
    accepted = drafted = 0
    for options in (dict(), dict(inverse=inverse_of(0.5), top=8, seed=3), dict(inverse=inverse_of(30.0), top=64, seed=4)):
        for count in (1, 2, 23):
            plain  = session.generate(prompt, count, flags=JobFlag.ZERO_STATE, **options)
            states = session.states(1)
            found  = session.generate(prompt, count, flags=JobFlag.ZERO_STATE | JobFlag.SPECULATE, store_every=every, **options)
            assert (found.tokens, found.run, found.reason) == (plain.tokens, plain.run, plain.reason)
            assert_states(session, 1, states)
            assert found.drafted >= 0 and plain.drafted == 0 and plain.passes == count - 1
            accepted += plain.passes - found.passes
            drafted  += found.drafted
    assert 0 <= accepted <= drafted and (tokens == 1) == (drafted == 0)


def test_history():
    """What is known of a text goes on from job to job; where another place comes next, it is forgotten."""
    history = History()
    for place, anew, tokens, wanted in ((0, True, [1, 2, 3], [1, 2, 3]), (3, False, [4], [1, 2, 3, 4]), (2, False, [5], [1, 2, 5]), (9, False, [6], [6]),
            (10, False, [7], [6, 7]), (8, False, [8], [8]), (0, True, [9]*(HISTORY + 5), [9]*HISTORY)):
        history.begin(place, anew)
        history.add(*tokens)
        assert history.tokens == wanted


def test_speculate_from_job_to_job():
    """Drafts come from earlier jobs' tokens; after those of another model none is run that is not of this one's vocabulary."""
    model   = cyclic_model(7)
    session = GoldenSession(model, 4)
    session.generate([n % 7 for n in range(20)], 1, flags=JobFlag.ZERO_STATE | JobFlag.SPECULATE)
    found   = session.generate([20 % 7], 9, source=1, into=0, place=20, flags=JobFlag.SPECULATE)
    assert found.tokens == [n % 7 for n in range(21, 30)] and (found.passes, found.drafted) == (2, 6)
    session.device.history.tokens = [20 % 7, 21 % 7, 70, 99]*4
    session.device.history.end    = 20
    found   = session.generate([20 % 7], 3, source=1, into=0, place=20, flags=JobFlag.SPECULATE)
    assert found.tokens == [n % 7 for n in range(21, 24)] and found.drafted == 0


@pytest.mark.parametrize("tokens", [2, 4, 8])
def test_speculate_gains(tokens):
    """A text that says the same over and over: drafts are right, and tokens come in fewer passes. It ends where it ends without them."""
    session = GoldenSession(cyclic_model(7), tokens)
    prompt  = [n % 7 for n in range(20)]
    for stop, every in (((), 1), ((3,), 1), ((), 8), ((), 5)):
        plain  = session.generate(prompt, 30, stop, flags=JobFlag.ZERO_STATE)
        states = session.states(1)
        found  = session.generate(prompt, 30, stop, flags=JobFlag.ZERO_STATE | JobFlag.SPECULATE, store_every=every)
        assert (found.tokens, found.reason, found.run) == (plain.tokens, plain.reason, plain.run)
        assert_states(session, 1, states)
        if not stop:
            assert found.tokens == [n % 7 for n in range(20, 50)]
            assert found.passes == -(-29//tokens) and found.drafted == 29 - found.passes


@pytest.mark.parametrize("rounding", [None, 7])
def test_speculate_stochastic(rounding):
    model   = random_model()
    session = GoldenSession(model, 4, ssm=SSMConfig(stochastic_rounding=rounding is not None))
    options = dict(flags=JobFlag.ZERO_STATE, seed=rounding or 0)
    plain   = session.generate(repeating(model), 15, **options)
    states  = session.states(1)
    options["flags"] |= JobFlag.SPECULATE
    assert session.generate(repeating(model), 15, store_every=5, **options).tokens == plain.tokens
    assert_states(session, 1, states)

# Batches ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sizes", [{}, dict(d_conv=1), dict(d_conv=2, ngroups=2), dict(bias=True), dict(tied=False, kind="q4_0")])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_batch(count, sizes):
    """Each session's tokens and state are those that it would have by itself."""
    model   = random_model(**sizes)
    session = GoldenSession(model, 4, sessions=6)
    draws   = dict(inverse=inverse_of(2.0), top=40)
    texts, wanted = [], []
    for n in range(count):
        prompt = [(token + n) % model.vocab_size for token in PROMPT[:3 + n]]
        tokens, states = expected(model, prompt, 7, 2.0, 40, seed=50 + n)
        session.generate(prompt[:-1], 0, into=1 + n, flags=JobFlag.ZERO_STATE)
        texts.append((prompt[-1], len(prompt) - 1, 50 + n, 0))
        wanted.append((tokens, states))
    before = session.states(count + 1)
    found  = session.batch(texts, 7, first=1, **draws)
    assert found.tokens == [tokens for tokens, _ in wanted] and found.reason == Reason.LENGTH
    assert found.run == 7*count and found.passes == 7
    for n, (tokens, _) in enumerate(wanted): # The last one has not been run.
        _, states = ExactNetwork(model)([(token + n) % model.vocab_size for token in PROMPT[:3 + n]] + tokens[:-1])
        assert_states(session, 1 + n, states)
    assert_states(session, count + 1, before)


def test_batch_stop():
    """One of them ends all; then the others go on."""
    model   = random_model()
    session = GoldenSession(model, 4, sessions=2)
    prompts = (PROMPT, PROMPT[::-1])
    wanted  = [expected(model, prompt, 12, 20.0, seed=4 + n)[0] for n, prompt in enumerate(prompts)]
    stop    = next(token for n, token in enumerate(wanted[1]) if n > 2 and token not in wanted[1][:n] + wanted[0][:n + 1])
    at      = wanted[1].index(stop)
    for n, prompt in enumerate(prompts):
        session.generate(prompt[:-1], 0, into=n, flags=JobFlag.ZERO_STATE)
    options = dict(inverse=inverse_of(20.0), top=64)
    found   = session.batch([(prompt[-1], len(prompt) - 1, 4 + n, 0) for n, prompt in enumerate(prompts)], 12, [69, stop], **options)
    assert found.tokens == [tokens[:at + 1] for tokens in wanted] and found.reason == Reason.STOP
    assert_states(session, 1, ExactNetwork(model)(prompts[1] + wanted[1][:at])[1])
    # The other one goes on beside it, which only keeps its place, whatever it would say.
    found   = session.batch([(wanted[0][at], len(PROMPT) + at, 4, 0), (stop, 0, 0, 1)], 11 - at, [69, stop], **options)
    assert found.tokens == [wanted[0][at + 1:], [stop]*(11 - at)] and found.reason == Reason.LENGTH


@pytest.mark.parametrize("order", range(8))
def test_any_order(monkeypatch, order):
    """Of all that the waits of the programs for batches and drafts allow, each gives the same."""
    rng, run = np.random.default_rng(order), Machine.run
    monkeypatch.setattr(Machine, "run", lambda machine, address: run(machine, address, rng))
    model   = random_model(order, bias=order % 2 == 1)
    session = GoldenSession(model, 4, sessions=4)
    prompt  = repeating(model, 20)
    wanted, states = expected(model, prompt, 9)
    assert session.generate(prompt, 9, flags=JobFlag.ZERO_STATE | JobFlag.SPECULATE, store_every=3).tokens == wanted
    assert_states(session, 1, states)
    prompts = [prompt[n:n + 5] for n in range(3)]
    for n, given in enumerate(prompts):
        session.generate(given[:-1], 0, into=1 + n, flags=JobFlag.ZERO_STATE)
    assert session.batch([(given[-1], 4, 0, 0) for given in prompts], 5, first=1).tokens == [expected(model, given, 5)[0] for given in prompts]


def test_batch_refused():
    model   = random_model()
    session = GoldenSession(model, 2, sessions=3)
    for changes, error, detail in (
        (dict(texts=[(1, 0, 0, 0)]*3),         Error.BAD_SESSIONS, 3),
        (dict(texts=[]),                    Error.BAD_SESSIONS, 0),
        (dict(texts=[(1, 0, 0, 0), (70, 0, 0, 0)]), Error.BAD_TOKEN, 70),
        (dict(tokens=0),                    Error.BAD_TOKENS, 0),
        (dict(flags=JobFlag.SPECULATE),     Error.BAD_FLAGS, JobFlag.SPECULATE),
        (dict(top=65),                      Error.BAD_TOP_K, 65),
        (dict(output=session.slots[1]),     Error.OVERLAP, session.slots[1]),
        (dict(sessions=0),                  Error.OVERLAP, 0),
    ):
        with pytest.raises(JobError) as caught:
            session.batch(**{**dict(texts=[(1, 0, 0, 0)]*2, tokens=1), **changes})
        assert (caught.value.error, caught.value.detail) == (error, detail), changes


def test_batch_stochastic():
    """A pass has one seed: there is none."""
    session = GoldenSession(random_model(), 2, ssm=SSMConfig(stochastic_rounding=True))
    with pytest.raises(JobError) as caught:
        session.batch([(1, 0, 0, 0)], 1)
    assert (caught.value.error, caught.value.detail) == (Error.BAD_OPCODE, Opcode.BATCH)


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
    result  = session.generate(PROMPT, 12, stop=[69, stop], flags=JobFlag.ZERO_STATE, inverse=inverse_of(20.0), top=64, seed=4)
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

@pytest.mark.parametrize("name, value", [("magic", 1), ("version", IMAGE_VERSION + 1), ("image_bytes", 2**30), ("data_width", 256), ("lanes", 32), ("pass_tokens", 4),
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
        (dict(top=65),                      Error.BAD_TOP_K, 65),
        (dict(top=0),                       Error.BAD_TOP_K, 0),
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
