#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A whole model on a fake device, which does as the golden one: loaded, run, stopped, gone on with; against the exact model."""


from types import SimpleNamespace

import numpy as np
import pytest

from connection import Connection, loaded
from models import cyclic_model, random_model

from host.device.manifest import Manifest
from host.device.model import DeviceDecoder, ModelOnDevice, device_image
from host.errors import DeviceError, DeviceTimeout, SessionInvalid, VersionMismatch

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, inverse_of

from operations.config import ProgramConfig, SSMConfig
from operations.protocol import Error

from tools.errors import UsageError

# Fixtures -----------------------------------------------------------------------------------------

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6]
DRAWS  = Draws(inverse_of(2.0), 30, 5)


@pytest.fixture
def device(tmp_path):
    with Connection(tmp_path) as device:
        yield device


def assert_states(one, other):
    for mine, its in zip(one, other, strict=True):
        assert mine.h.tobytes() == its.h.tobytes() and mine.window.tobytes() == its.window.tobytes()

# Text ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tokens, every, speculate", [(1, 1, False), (1, 4, False), (4, 1, False), (4, 8, False), (4, 1, True), (4, 8, True)])
@pytest.mark.parametrize("kind, config, width", [("q8_0", SSMConfig(), 128), ("q4_0", SSMConfig(lanes=32, stochastic_rounding=True), 512)])
def test_text(tmp_path, monkeypatch, kind, config, width, tokens, every, speculate):
    """Greedy and drawn, in several jobs, then settled and gone on with; all bits of the state."""
    monkeypatch.setattr("host.device.model.JOB_TOKENS", 64)
    model = random_model(kind=kind)
    with Connection(tmp_path, ProgramConfig(pass_tokens=tokens), config, data_width=width) as device:
        there = loaded(device, model, sessions=1)
        for draws in (Draws(seed=7), DRAWS):
            exact   = ExactDecoder(ExactNetwork(model, seed=draws.seed if config.stochastic_rounding else None), draws)
            decoder = DeviceDecoder(there, draws, every, speculate)
            for text in (decoder, exact):
                text.prefill(PROMPT)
            assert list(decoder.generate(70)) == list(exact.generate(70))
            assert_states(decoder.states(), exact.states())
            for text in (decoder, exact):
                text.prefill([1, 2])
            assert list(decoder.generate(3, may_end=True)) == list(exact.generate(3))
            assert decoder.tokens == exact.tokens
            assert_states(decoder.states(), exact.states())
            figures = decoder.figures
            assert figures.prefill_tokens >= len(PROMPT) and figures.decode_tokens == 69 + 2
            assert figures.decode_passes == 71 if not speculate else 71 - figures.drafted <= figures.decode_passes <= 71


def test_speculate(tmp_path):
    """A text that repeats itself comes in a quarter of the passes; other texts are not hurt. One token at once is too few."""
    model = cyclic_model(7)
    with Connection(tmp_path) as device:
        decoder = DeviceDecoder(loaded(device, model), speculate=True)
        decoder.prefill([n % 7 for n in range(20)])
        assert list(decoder.generate(41)) == [n % 7 for n in range(20, 61)]
        assert (decoder.figures.decode_passes, decoder.figures.decode_tokens, decoder.figures.drafted) == (10, 40, 30)
        for end in (1, 2, 3, 8): # Closed at any token.
            text = decoder.generate(30)
            before = len(decoder.tokens)
            for _ in range(end):
                next(text)
            text.close()
            assert decoder.tokens == [n % 7 for n in range(before + end)]
        exact = ExactDecoder(ExactNetwork(model))
        exact.prefill(decoder.tokens)
        assert_states(decoder.states(), exact.states())
    with Connection(tmp_path, ProgramConfig()) as device:
        there = loaded(device, model)
        with pytest.raises(ValueError, match=r"^pass_tokens of the device must be 2, 4 or 8 for drafts \(--speculate\), is 1"):
            DeviceDecoder(there, speculate=True)


def test_logits(device):
    model   = random_model()
    decoder = DeviceDecoder(loaded(device, model))
    decoder.model.logit_chunk = 8
    assert decoder.logits(PROMPT).tobytes() == ExactNetwork(model)(PROMPT)[0].tobytes()


def test_closed(device):
    """At any token: what the job did after it is taken back."""
    model = random_model()
    there = loaded(device, model)
    for end in (1, 2, 7, 8, 9, 20):
        exact, decoder = ExactDecoder(ExactNetwork(model), DRAWS), DeviceDecoder(there, DRAWS)
        for text in (decoder, exact):
            text.prefill(PROMPT)
            going = text.generate(40, may_end=True)
            for _ in range(end):
                next(going)
            going.close()
        assert decoder.tokens == exact.tokens and len(decoder.tokens) == len(PROMPT) + end
        assert_states(decoder.states(), exact.states())
        assert list(decoder.generate(3)) == list(exact.generate(3))


@pytest.mark.parametrize("others", [0, 20])
def test_stop_tokens(device, others):
    """On the device up to 16; more are looked for by the host."""
    model   = random_model()
    exact   = ExactDecoder(ExactNetwork(model), DRAWS)
    exact.prefill(PROMPT)
    tokens  = list(exact.generate(30))
    stop    = next(token for n, token in enumerate(tokens) if n > 5 and token not in tokens[:n])
    unused  = [token for token in range(70) if token not in tokens][:others]
    exact.restore([], None)
    decoder = DeviceDecoder(loaded(device, model), DRAWS)
    for text in (decoder, exact):
        text.prefill(PROMPT)
    wanted  = list(exact.generate(30, [*unused, stop]))
    assert list(decoder.generate(30, [*unused, stop])) == wanted == tokens[:tokens.index(stop)]
    assert_states(decoder.states(), exact.states())


def test_tokens_come_one_by_one(device):
    decoder = DeviceDecoder(loaded(device, random_model()))
    decoder.prefill(PROMPT[:2])
    device.fake.hang = 2
    tokens = decoder.generate(5)
    first  = [next(tokens), next(tokens)] # The device has not even begun with the third.
    device.fake.go_on()
    assert len(first + list(tokens)) == 5

# Sessions -----------------------------------------------------------------------------------------

def test_restore(device):
    """What the one has left the other goes on from, and again."""
    model   = random_model()
    network = ExactNetwork(model)
    exact   = ExactDecoder(network, DRAWS)
    exact.prefill(PROMPT)
    list(exact.generate(5))
    tokens, states = list(exact.tokens), exact.states()
    wanted  = list(exact.generate(9))
    decoder = DeviceDecoder(loaded(device, model, sessions=1), DRAWS)
    for _ in range(2):
        decoder.restore(tokens, states)
        assert list(decoder.generate(9)) == wanted
        assert_states(decoder.states(), exact.states())
    decoder.restore(tokens, states)
    assert_states(decoder.states(), states)
    decoder.reset()
    with pytest.raises(ValueError, match="tokens must be one or more, are none."):
        next(decoder.generate(1))

# Loading ------------------------------------------------------------------------------------------

def test_load_again(device):
    """A second host finds what is there; only what passes write is sent again, where it differs."""
    model   = random_model()
    there   = loaded(device, model)
    assert there.counts.moved == there.image.size
    decoder = DeviceDecoder(there)
    decoder.prefill(PROMPT)
    tokens  = list(decoder.generate(5))
    other   = device.again()
    assert Manifest.fetch(other).section("model").size == there.image.constant_bytes
    there   = loaded(other, model)
    assert 0 < there.counts.moved <= 4096*(2 + (there.image.size - there.image.constant_bytes)//4096) < there.image.size
    decoder = DeviceDecoder(there)
    decoder.prefill(PROMPT)
    assert list(decoder.generate(5)) == tokens


def test_interrupted_load(device):
    model = random_model()
    there = ModelOnDevice(device, device_image(device, model))
    sent  = 0
    def progress(size):
        nonlocal sent
        sent += size
        if sent > there.image.size//2:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        there.load(progress)
    assert not Manifest.fetch(device).complete
    device.drain()
    assert there.load().moved < there.image.size
    assert Manifest.fetch(device).complete

# Failures -----------------------------------------------------------------------------------------

def test_failed_job(device):
    """The session is invalid, and a new text is not."""
    model   = random_model()
    decoder = DeviceDecoder(loaded(device, model))
    decoder.prefill(PROMPT)
    wanted  = list(decoder.generate(4))
    decoder.reset()
    decoder.prefill(PROMPT)
    device.fake.fail = {device.fake.jobs: (Error.GATEWARE, 3)}
    with pytest.raises(DeviceError, match="failed: GATEWARE"):
        list(decoder.generate(4))
    for call in (lambda: list(decoder.generate(1)), decoder.states, decoder.settle, lambda: decoder.prefill([1])):
        with pytest.raises(SessionInvalid, match="is one of a job that failed or was interrupted"):
            call()
    decoder.reset()
    decoder.prefill(PROMPT)
    assert list(decoder.generate(4)) == wanted


def test_interrupted(tmp_path):
    """A job that nobody waits for ends with its next token: what comes next, of this host or another one, is not kept waiting."""
    with Connection(tmp_path) as device:
        model   = random_model()
        decoder = DeviceDecoder(loaded(device, model))
        decoder.prefill(PROMPT)
        wanted  = list(decoder.generate(6))
        decoder.reset()
        decoder.prefill(PROMPT)
        device.fake.token_seconds = 0.05
        for again in (False, True): # As the next command.
            going = decoder.generate(4000)
            next(going)
            with pytest.raises(KeyboardInterrupt):
                going.throw(KeyboardInterrupt)
            with pytest.raises(SessionInvalid):
                decoder.states()
            if again:
                decoder = DeviceDecoder(loaded(device.again(), model))
            decoder.reset()
            assert device.fake.generated < 4000
            decoder.prefill(PROMPT)
            assert list(decoder.generate(6)) == wanted
        assert device.fake.boots == 1


def test_closed(device):
    """The rest of the job is not waited for, and the text goes on from the token that was the last."""
    model   = random_model()
    decoder = DeviceDecoder(loaded(device, model))
    decoder.prefill(PROMPT)
    wanted  = list(decoder.generate(20))
    decoder.reset()
    decoder.prefill(PROMPT)
    device.fake.token_seconds = 0.02
    going = decoder.generate(4000)
    found = [next(going) for _ in range(5)]
    going.close()
    assert 5 <= device.fake.generated < 1000
    device.fake.token_seconds = 0
    assert found + list(decoder.generate(15)) == wanted


def test_no_progress(tmp_path):
    """The time-out is of a token, and says which; the next host starts the firmware anew."""
    with Connection(tmp_path, patience=0.5) as device:
        decoder = DeviceDecoder(loaded(device, random_model()))
        decoder.prefill(PROMPT)
        device.fake.hang = 3
        with pytest.raises(DeviceTimeout, match=r"Waited \d+.\d s for job \d+ to generate token 24."):
            list(decoder.generate(9))
        with pytest.raises(SessionInvalid):
            decoder.settle()
        device.fake.hang = 99
        decoder = DeviceDecoder(loaded(device.again(), random_model()))
        decoder.prefill(PROMPT)
        assert len(list(decoder.generate(5))) == 5
        assert device.fake.boots == 2


def test_what_does_not_fit(tmp_path):
    model = random_model()
    with Connection(tmp_path, None) as device:
        with pytest.raises(VersionMismatch, match="must have the engines that run whole models, has none: build it with --pass-tokens 1"):
            device_image(device, model)
    with Connection(tmp_path, ProgramConfig(units=("MOVE", "GEMV", "VECTOR", "SSM"))) as device:
        with pytest.raises(VersionMismatch, match="lacks HEAD"):
            device_image(device, model)
    with Connection(tmp_path, ProgramConfig(scratch=1024, activations=16)) as device:
        with pytest.raises(ValueError, match=r"scratchpad must be of at most 1024 elements with pass_tokens = 1, is of \d+, \d+ too many: build"):
            device_image(device, model)
        with pytest.raises(UsageError, match="headdim must be an integer from 1 to 64, is 128; build the gateware with --max-headdim 128"):
            device_image(device, random_model(headdim=128))
    with Connection(tmp_path, ProgramConfig(activations=16)) as device:
        with pytest.raises(ValueError, match="activations must be of at most 16 words, are of 24, 8 too many: build the device with activations = 32"):
            device_image(device, random_model(d_model=192))
    with Connection(tmp_path, ram_size=0x22_0000) as device:
        with pytest.raises(ValueError, match=r"the model takes \d+ bytes of the device's memory \(image \d+, 2 sessions of \d+\), \d+ more than"):
            ModelOnDevice(device, device_image(device, model))


def test_count_of_an_earlier_job():
    """It is read just before the firmware clears it, and the reason just after."""
    words = iter([[10, 0], [0]])
    there = ModelOnDevice.__new__(ModelOnDevice)
    there._output = 64
    there.device  = SimpleNamespace(transport=SimpleNamespace(read_words=lambda address, count: np.array(next(words), np.uint32)))
    assert there._head() == (0, 0)
