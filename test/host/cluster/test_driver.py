#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Texts on pipelines of golden devices: the exact model's; and boards that fail."""

import threading

from contextlib import ExitStack
from dataclasses import replace

import pytest

from golden_stage import golden_pipeline
from models import random_model

from host.cluster.driver import AHEAD, ClusterText, Driver
from host.cluster.errors import BoardError

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws

from operations.config import SSMConfig

from tools.errors import UsageError

# Helpers ------------------------------------------------------------------------------------------

MODEL = random_model(seed=5, n_layer=3, d_model=32, d_state=8)
DRAWS = Draws.of(1.2, 20, 7, 0.9)


@pytest.fixture
def driver():
    """Makes drivers on pipelines, whose boards are stopped at the end."""
    with ExitStack() as stack:
        def make(*pipelines, model=MODEL):
            for pipeline in pipelines:
                for stage in pipeline.stages:
                    stack.callback(stage.worker.stop)
                    stack.callback(stage.worker.stage.go_on.set)
            return Driver(pipelines, model.vocab_size)
        yield make


def texts(count, tokens=3, **options):
    """Prompts of several lengths, each text with draws of its own."""
    return [ClusterText([(7*n + k) % 70 for k in range(1 + 2*n % 7)], tokens, replace(DRAWS, seed=7 + n), **options) for n in range(count)]


def exact(text, model=MODEL, config=SSMConfig()):
    decoder = ExactDecoder(ExactNetwork(model, seed=text.draws.seed if config.stochastic_rounding else None), text.draws)
    decoder.prefill(text.prompt)
    return list(decoder.generate(text.most, text.stop_tokens))


def write(driver, all_texts):
    """Runs them; checks that all is told once, and in order."""
    for text in all_texts:
        driver.add(text)
    told = {id(text): [] for text in all_texts}
    for text, token in driver.run():
        told[id(text)].append(token)
    for text in all_texts:
        assert told[id(text)] == [*text.tokens, None] and text.ended
    return all_texts

# Texts --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("cuts, sessions, pass_tokens, config", [((), 2, 2, SSMConfig()), ((1,), 3, 4, SSMConfig()), ((1, 2), 6, 2, SSMConfig()),
    ((1, 2), 1, 1, SSMConfig()), ((2,), 2, 2, SSMConfig(stochastic_rounding=True))])
def test_texts_are_the_exact_models(driver, cuts, sessions, pass_tokens, config):
    """More texts than sessions, so that some wait; prompts of several passes."""
    pipeline = golden_pipeline(MODEL, cuts, sessions, pass_tokens, ssm=config)
    for text in write(driver(pipeline), texts(4)):
        assert text.tokens == exact(text, config=config) and text.runs == 1 and text.error is None
    for stage in pipeline.stages:
        assert stage.passes[1] > 0 and stage.cycles_per_pass() == 100
        assert len({session for session, _, _ in stage.worker.stage.runs}) == min(sessions, 4)


def test_stages_work_at_the_same_time(driver):
    """While the last stage is stuck with one text, the first one goes on with others, as far as AHEAD lets it."""
    pipeline = golden_pipeline(MODEL, (1,), sessions=4)
    first, last = (stage.worker.stage for stage in pipeline.stages)
    last.hangs_at = 0
    them = driver(pipeline)
    many = [ClusterText([n], 2, DRAWS) for n in range(4)]
    for text in many:
        them.add(text)
    timer = threading.Timer(0.5, last.go_on.set)
    timer.start()
    list(them.run())
    assert [place for _, _, place in first.runs[:4]] == [0]*4 # All four were in flight.
    assert all(text.tokens == exact(text) for text in many) and AHEAD >= 2


def test_stop_tokens(driver):
    text   = texts(1, 6)[0]
    wanted = exact(text)
    stop   = wanted[3]
    text.stop_tokens = (stop,)
    write(driver(golden_pipeline(MODEL, (1,))), [text])
    assert text.tokens == wanted[:wanted.index(stop)]


def test_a_text_that_is_ended_from_outside(driver):
    them = driver(golden_pipeline(MODEL, (1,)))
    first, second = texts(2, 8)
    them.add(first)
    them.add(second)
    for text, token in them.run():
        if text is first and len(first.tokens) == 3:
            first.ended = True
    assert len(first.tokens) == 3 and second.tokens == exact(second)
    assert sorted(them.pipelines[0].free) == [0, 1]


def test_bad_texts(driver):
    them = driver(golden_pipeline(MODEL))
    with pytest.raises(UsageError, match="^a prompt must have one token or more, has none.$"):
        them.add(ClusterText([], 1))
    with pytest.raises(ValueError, match="70"):
        them.add(ClusterText([70], 1))

# Failures -----------------------------------------------------------------------------------------

def test_a_board_fails_and_no_other_has_the_model(driver):
    pipeline = golden_pipeline(MODEL, (1, 2), sessions=2)
    pipeline.stages[1].worker.stage.fails_at = 6
    them = driver(pipeline)
    for text in write(them, texts(4)):
        if text.error is None: # It was through before.
            assert text.tokens == exact(text)
        else:
            assert isinstance(text.error, BoardError) and str(text.error) == "board board 1: the cable is out."
            assert text.tokens == exact(text)[:len(text.tokens)]
    assert [error.board for error in them.failed] == ["board 1"] and not them.live
    late = write(them, texts(1))[0]
    assert late.error is them.failed[0] and not late.tokens


@pytest.mark.parametrize("stage", range(2))
def test_texts_of_a_board_that_fails_are_run_again(driver, stage):
    """On the other pipeline, with the very tokens."""
    left, right = golden_pipeline(MODEL, (1,), name="left"), golden_pipeline(MODEL, (2,), name="right")
    left.stages[stage].worker.stage.fails_at = 5
    them = driver(left, right)
    done = write(them, texts(4, 4))
    assert all(text.tokens == exact(text) and text.error is None for text in done)
    assert sorted(text.runs for text in done)[-1] == 2 and [error.board for error in them.failed] == [f"left {stage}"]
    assert them.live == [right]


def test_a_board_that_does_not_answer(driver):
    pipeline = golden_pipeline(MODEL, (1,), seconds=0.3)
    pipeline.stages[1].worker.stage.hangs_at = 2
    done = write(driver(pipeline), texts(1))[0]
    assert str(done.error) == "board board 1: waited 0 s for a pass of 1 tokens."


def test_texts_are_spread(driver):
    """The same model on three boards, each by itself."""
    pipelines = [golden_pipeline(MODEL, name=name) for name in "abc"]
    done = write(driver(*pipelines), texts(6))
    assert all(text.tokens == exact(text) for text in done)
    assert all({session for session, _, _ in pipeline.stages[0].worker.stage.runs} == {0, 1} for pipeline in pipelines)


def test_logits_that_are_none(driver):
    """That is no board's fault."""
    pipeline = golden_pipeline(MODEL)
    stage    = pipeline.stages[0].worker.stage
    run      = stage.run
    stage.run = lambda session, *rest: run(session, *rest) if session else replace(run(session, *rest), data=b"\xff"*512)
    first, second = write(driver(pipeline), texts(2))
    assert str(first.error) == "the best logit after 1 tokens is not a finite number: the model is not right."
    assert second.tokens == exact(second) and pipeline.failed is None
