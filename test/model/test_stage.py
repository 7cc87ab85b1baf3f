#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Stages of a model on golden devices, one behind the other: jobs PASS."""

import numpy as np
import pytest

from golden_session import GoldenSession
from models import random_model

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, sample
from model.golden import JobError
from model.image import Image
from model.machine import CANDIDATE, Machine
from model.program import DeviceModel

from operations.config import ALIGNMENT, ProgramConfig, SSMConfig
from operations.image import IMAGE_HEAD, ProgramKind, Stage
from operations.operations import JobFlag
from operations.protocol import Error

# Chain --------------------------------------------------------------------------------------------

def write(sessions, prompt, tokens, draws, pass_tokens):
    """Tokens that a chain of :class:`GoldenSession` writes behind a prompt."""
    text, done = list(prompt), 0
    for _ in range(tokens):
        while done < len(text):
            part   = text[done:done + pass_tokens]
            data   = part
            ends   = done + len(part) == len(text)
            for session in sessions:
                flags  = (JobFlag.ZERO_STATE if done == 0 else 0) | (JobFlag.CANDIDATES if ends and session.image.device.has_head else 0)
                data   = session.run_pass(data, len(part), flags=flags, place=done, seed=draws.seed)
            done += len(part)
        found = np.frombuffer(data, CANDIDATE)[:sessions[-1].image.model.vocab_size]
        text.append(sample(found["token"], found["logit"], draws.inverse, draws.top_k, draws.seed, len(text), draws.top_p))
    return text[len(prompt):]


@pytest.mark.parametrize("cuts, tied, tokens, kind, config", [
    ((),     True,  2, "q8_0", SSMConfig()),
    ((1,),   True,  4, "q8_0", SSMConfig()),
    ((2,),   False, 1, "q4_0", SSMConfig()),
    ((1, 2), True,  2, "q4_0", SSMConfig(lanes=8, stochastic_rounding=True)),
    ((1, 2), False, 4, "q8_0", SSMConfig(stochastic_rounding=True)),
])
def test_stages_write_what_the_model_writes(cuts, tied, tokens, kind, config):
    model = random_model(seed=5, kind=kind, n_layer=3, tied=tied)
    draws = Draws.of(1.2, 20, 7, 0.9)
    ends  = (0, *cuts, model.n_layer)
    chain = [GoldenSession(model, tokens, ssm=config, layers=layers) for layers in zip(ends, ends[1:])]
    exact = ExactDecoder(ExactNetwork(model, seed=draws.seed if config.stochastic_rounding else None), draws)
    exact.prefill([3, 1, 4, 1, 5])
    wanted = list(exact.generate(6))
    assert write(chain, [3, 1, 4, 1, 5], 6, draws, tokens) == wanted
    states = [state for session in chain for state in session.states(0)]
    for state, other in zip(states, exact.states(), strict=True):
        assert np.array_equal(state.h.view(np.uint16), other.h.view(np.uint16))
        assert np.array_equal(state.window.view(np.uint16), other.window.view(np.uint16))


def test_a_stage_lacks_no_wait():
    """In any order that the descriptors' waits allow, the results are the same."""
    model   = random_model(n_layer=3)
    session = GoldenSession(model, 2, layers=(1, 2))
    given   = np.random.default_rng(1).standard_normal((2, model.d_model)).astype("<f4").tobytes()
    wanted  = session.run_pass(given, 2, flags=JobFlag.ZERO_STATE)
    before  = session.memory.copy()
    for seed in range(8):
        rng  = np.random.default_rng(seed)
        run  = Machine.run
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Machine, "run", lambda machine, address: run(machine, address, rng))
            assert session.run_pass(given, 2, flags=JobFlag.ZERO_STATE) == wanted
        assert np.array_equal(session.memory, before)

# Image --------------------------------------------------------------------------------------------

def test_image():
    """A stage has what it needs, and no more; and where the cut is changes no matrix."""
    model  = random_model(n_layer=3, tied=False)
    stages = [Image(model, program=ProgramConfig(2), layers=layers) for layers in ((0, 1), (1, 2), (2, 3))]
    assert [image.device.stage for image in stages] == [Stage.NO_HEAD, Stage.NO_EMBEDDING | Stage.NO_HEAD, Stage.NO_EMBEDDING]
    assert [[part.name for part in image.parts if part.name in ("head", "embedding")] for image in stages] == [["embedding"], [], ["head"]]
    assert [{kind for kind, _ in image.programs} for image in stages] == [{ProgramKind.LAYERS}]*2 + [{ProgramKind.LAYERS, ProgramKind.HEAD}]
    whole  = Image(model, program=ProgramConfig(2))
    assert whole.device.stage == Stage(0) and {kind for kind, _ in whole.programs} == set(ProgramKind)
    assert b"".join(matrix.tobytes() for image in stages for matrix in list(image.device.matrices())[:image.device.layer_matrices]) == \
        b"".join(matrix.tobytes() for matrix in list(whole.device.matrices())[:whole.device.layer_matrices])
    assert sum(image.session_bytes for image in stages) == whole.session_bytes


@pytest.mark.parametrize("layers", [(0, 0), (2, 1), (0, 3), (-1, 1)])
def test_layers_that_are_none(layers):
    with pytest.raises(ValueError, match=r"^layers must be one or more of 0 to 1, are "):
        DeviceModel(random_model(), layers=layers)

# Checks -------------------------------------------------------------------------------------------

@pytest.fixture
def stage():
    return GoldenSession(random_model(n_layer=3), 2, layers=(1, 2))


@pytest.mark.parametrize("changes, error", [
    (dict(flags=JobFlag.CANDIDATES),      (Error.BAD_STAGE, Stage.NO_EMBEDDING | Stage.NO_HEAD)),
    (dict(flags=JobFlag.LOGITS),          (Error.BAD_FLAGS, JobFlag.LOGITS)),
    (dict(tokens=0),                      (Error.BAD_TOKENS, 0)),
    (dict(tokens=3),                      (Error.BAD_TOKENS, 3)),
    (dict(tokens=9),                      (Error.BAD_TOKENS, 9)),
    (dict(model=4),                       (Error.BAD_ALIGNMENT, 4)),
    (dict(input=2**30),                   (Error.BAD_ADDRESS, 2**30)),
    (dict(session_out=0),                 (Error.OVERLAP, 0)),
    (dict(output=0),                      (Error.OVERLAP, 0)),
])
def test_a_pass_is_refused(stage, changes, error):
    changes = dict(tokens=2, given=bytes(512)) | changes
    with pytest.raises(JobError) as caught:
        stage.run_pass(**changes)
    assert (caught.value.error, caught.value.detail) == error


def test_input_and_output_apart(stage):
    """A residual vector more would reach into the next region."""
    size = stage.image.device.residual_bytes
    for changes, at in ((dict(output=stage.prompt + 2*size - ALIGNMENT), stage.prompt + 2*size - ALIGNMENT),
            (dict(input=stage.slots[0] - ALIGNMENT, session_in=stage.slots[1]), stage.slots[0])):
        with pytest.raises(JobError) as caught:
            stage.run_pass(bytes(2*size), 2, **changes)
        assert (caught.value.error, caught.value.detail) == (Error.OVERLAP, at)


def test_whole_jobs_refuse_a_stage(stage):
    for run in (lambda: stage.generate([1], 1), lambda: stage.batch([(1, 0, 0, 0)], 1)):
        with pytest.raises(JobError) as caught:
            run()
        assert caught.value.error == Error.BAD_STAGE


@pytest.mark.parametrize("name, value", [("stage", 4), ("residual_bytes", 0), ("residual_bytes", 96), ("residual_bytes", 2**16 + 64)])
def test_a_bad_image(stage, name, value):
    stage.memory[4*IMAGE_HEAD.index(name):][:4] = np.array([value], "<u4").view(np.uint8)
    with pytest.raises(JobError) as caught:
        stage.run_pass(bytes(512), 2)
    assert (caught.value.error, caught.value.detail) == (Error.BAD_IMAGE, IMAGE_HEAD.index(name))


def test_a_token_that_is_none():
    session = GoldenSession(random_model(), 2)
    with pytest.raises(JobError) as caught:
        session.run_pass([1, 70], 2, flags=JobFlag.ZERO_STATE)
    assert (caught.value.error, caught.value.detail) == (Error.BAD_TOKEN, 70)
