#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Random models of odd sizes on the simulated SoC, against the exact model: every logit, token and state, bit for bit."""

import numpy as np
import pytest

from models import random_model

from host.connect import simulated_transport, SIM_TIMEOUT_SCALE
from host.device.batch import DeviceBatch
from host.device.csr import CSRMap
from host.device.device import Device
from host.device.model import DeviceDecoder, ModelOnDevice, device_image

from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, inverse_of

from operations.config import ProgramConfig, SystemConfig

from tools.simulation.runner import Simulation

# Helpers ------------------------------------------------------------------------------------------

MODELS = (
    dict(d_model=64,  headdim=16, d_state=16, vocab_size=70),
    dict(d_model=96,  headdim=24, d_state=24, vocab_size=131, tied=False),
    dict(d_model=64,  headdim=64, d_state=16, vocab_size=61,  d_conv=2, kind="q4_0", bias=True),
    dict(d_model=32,  headdim=8,  d_state=40, vocab_size=7,   d_conv=3, n_layer=3),
    dict(d_model=128, headdim=32, d_state=16, vocab_size=257, ngroups=2, kind="q4_0"),
    dict(d_model=64,  headdim=16, d_state=128, vocab_size=64, ngroups=4, tied=False, kind="q4_0"),
    dict(d_model=160, headdim=40, d_state=8,  vocab_size=99,  dt_limit=(0.01, 0.05)),
    dict(d_model=64,  headdim=16, d_state=16, vocab_size=65,  expand=1, n_layer=4, kind="q4_0"),
    dict(d_model=96,  headdim=64, d_state=72, vocab_size=300, expand=2, ngroups=3, bias=True),
    dict(d_model=224, headdim=56, d_state=32, vocab_size=513, d_conv=2, n_layer=1, tied=False, kind="q4_0"),
)


def bits(array):
    return np.ascontiguousarray(array).view({2: np.uint16, 4: np.uint32}[array.dtype.itemsize])


def check(device, n, sizes):
    """Logits of a text, greedy and drawn tokens that go on from it, and the states after them."""
    model = random_model(100 + n, **sizes)
    rng   = np.random.default_rng(n)
    there = ModelOnDevice(device, device_image(device, model))
    there.load()
    text  = np.tile(rng.integers(0, model.vocab_size, 5), 2)[:9].tolist()
    found = DeviceDecoder(there).logits(text)
    wanted, _ = ExactNetwork(model)(text)
    assert np.array_equal(bits(found), bits(wanted)), (n, "logits")
    several = there.image.program.pass_tokens > 1
    drafts  = ((Draws(), 1, True), (Draws(), 8, True)) if several else ()
    drawn = Draws(inverse_of(1.3), int(rng.integers(2, 65)), int(rng.integers(2**32)))
    for draws, every, speculate in ((Draws(), 1, False), (drawn, 1, False), (Draws(), 4, False), *drafts):
        one, other = DeviceDecoder(there, draws, every, speculate), ExactDecoder(ExactNetwork(model), draws)
        tokens = []
        for decoder in (one, other):
            decoder.prefill(text)
            tokens.append(list(decoder.generate(10)))
        assert tokens[0] == tokens[1], (n, draws)
        for layer, (a, b) in enumerate(zip(one.states(), other.states())):
            assert np.array_equal(bits(a.h), bits(b.h)) and np.array_equal(bits(a.window), bits(b.window)), (n, draws, layer)
    if several:
        batch   = DeviceBatch(there, drawn)
        prompts = [text[n:] for n in range(batch.sessions + 1)]
        found   = [[] for _ in prompts]
        for number, token in batch.generate(prompts, 10):
            found[number] += [token]*(token is not None)
        for number, prompt in enumerate(prompts):
            exact = ExactDecoder(ExactNetwork(model), Draws(drawn.inverse, drawn.top_k, (drawn.seed + number) % 2**32))
            exact.prefill(prompt)
            assert found[number] == list(exact.generate(10)), (n, number)
    device.free()

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tokens, width, lanes", [(1, 128, 16), (4, 128, 16), (2, 256, 8), (8, 512, 32)])
def test_ten_models(tokens, width, lanes):
    config = SystemConfig.of(lanes, width, ProgramConfig(tokens))
    with Simulation(config) as simulation:
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, SIM_TIMEOUT_SCALE)
            device.boot(simulation.firmware)
            for n, sizes in enumerate(MODELS):
                check(device, n, sizes)
