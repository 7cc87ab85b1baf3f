#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Recurrences, with a fake device that computes as the model does: decoding with deferred stores, and taking tokens back."""

import numpy as np
import pytest

from cases import assert_same_bits, random_case
from fake_device import EtherboneServer, FakeDevice, fake_firmware

from host.device.block import run_block
from host.device.case import check_case
from host.device.csr import CSRMap
from host.device.device import Device
from host.device.recurrence import Recurrence
from host.errors import AllocationError, DeviceError
from host.link.etherbone import Etherbone

from model.bitexact import ssm_block, ssm_step

from operations.config import SSMConfig
from operations.protocol import Error
from operations.ssm import Geometry

# Helpers ------------------------------------------------------------------------------------------

TOKENS, HEADS, HEADDIM, D_STATE, GROUPS = 12, 4, 3, 11, 2


@pytest.fixture(params=[False, True], ids=["nearest", "stochastic"])
def device(request, tmp_path):
    """A booted device."""
    (tmp_path/"firmware.bin").write_bytes(fake_firmware())
    with FakeDevice(config=SSMConfig(lanes=8, stochastic_rounding=request.param)) as fake:
        (tmp_path/"csr.csv").write_text(fake.csr_csv())
        with EtherboneServer(fake) as server, Etherbone(server.ip, server.port, timeout=0.2) as transport:
            device = Device(transport, CSRMap.from_csv(tmp_path/"csr.csv"), patience=2, timeout_scale=0.1)
            device.boot(str(tmp_path/"firmware.bin"))
            device.fake = fake
            yield device


def case_of(seed, with_h0=True):
    return random_case(np.random.default_rng(seed), TOKENS, HEADS, HEADDIM, D_STATE, GROUPS, with_h0)


def start(device, case, **options):
    return Recurrence(device, Geometry(device.info.config, HEADS, HEADDIM, D_STATE, GROUPS), case.get("h0"), **options)


def step(recurrence, case, t):
    return recurrence.step(*(case[name][t] for name in ("x", "dt", "dA", "B", "C")), case["D"])


def model_states(device, case, seed):
    """y of each token, and the state before and after each."""
    h  = case.get("h0", np.zeros((HEADS, HEADDIM, D_STATE), np.float16))
    ys, states = [], [h]
    for t in range(TOKENS):
        y, h = ssm_step(h, *(case[name][t] for name in ("x", "dt", "dA", "B", "C")), case["D"],
            seed + t if device.info.config.stochastic_rounding else None)
        ys.append(y)
        states.append(h)
    return ys, states

# Decoding -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("store_every", [1, 2, 4, 8])
@pytest.mark.parametrize("with_h0", [False, True])
def test_steps(device, store_every, with_h0):
    """Any distance between stores gives the bits of plain decoding."""
    case       = case_of(store_every, with_h0)
    ys, states = model_states(device, case, 5)
    recurrence = start(device, case, store_every=store_every, seed=5)
    for t in range(TOKENS):
        assert_same_bits(step(recurrence, case, t), ys[t])
    assert recurrence.tokens == TOKENS and recurrence.cycles > 0
    assert_same_bits(recurrence.state(), states[-1])


@pytest.mark.parametrize("store_every", [1, 2, 3, 4, 8, 40])
def test_run_block(device, store_every):
    case   = check_case(case_of(1), device.info.config)
    y, h   = ssm_block(**case_of(1), seed=9 if device.info.config.stochastic_rounding else None)
    result = run_block(device, case, "decode", seed=9, store_every=store_every)
    assert_same_bits(result.y, y)
    assert_same_bits(result.h, h)
    stores = -(-TOKENS//store_every)
    state  = HEADS*Geometry(device.info.config, HEADS, HEADDIM, D_STATE).tile_bytes
    assert result.summary["store_every"] == store_every
    assert result.summary["dma_write_bytes"] == stores*state

# Rollback -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("store_every", [2, 4])
def test_rollback(device, store_every):
    """From every position, as far back as can be and less: the tokens that follow, and the state, are those of the model."""
    case       = case_of(2)
    ys, states = model_states(device, case, 0)
    for taken in range(1, 2*store_every + 2):
        for back in range(1, taken + 1):
            device.free()
            recurrence = start(device, case, store_every=store_every)
            for t in range(taken):
                step(recurrence, case, t)
            assert min(taken, store_every - 1) <= recurrence.undoable <= taken
            if back > recurrence.undoable:
                with pytest.raises(ValueError, match=f"tokens must be an integer from 0 to {recurrence.undoable}, is {back}"):
                    recurrence.rollback(back)
                assert recurrence.tokens == taken
                continue
            recurrence.rollback(back)
            for t in range(taken - back, min(taken + store_every, TOKENS)):
                assert_same_bits(step(recurrence, case, t), ys[t])
            assert_same_bits(recurrence.state(), states[recurrence.tokens])


def test_another_future(device):
    """After a rollback other tokens may follow; then back to the first ones."""
    case, other = case_of(3), case_of(4)
    ys, states  = model_states(device, case, 0)
    recurrence  = start(device, case, store_every=4)
    for t in range(6):
        step(recurrence, case, t)
    for _ in range(3):
        recurrence.rollback(2)
        step(recurrence, other, 4)
        step(recurrence, other, 5)
    recurrence.rollback(2)
    for t in range(4, TOKENS):
        assert_same_bits(step(recurrence, case, t), ys[t])
    assert_same_bits(recurrence.state(), states[-1])


def test_state_in_between(device):
    """Reading the state changes nothing that follows."""
    case       = case_of(5, with_h0=False)
    ys, states = model_states(device, case, 0)
    recurrence = start(device, case, store_every=3)
    assert_same_bits(recurrence.state(), states[0])
    for t in range(TOKENS):
        assert_same_bits(step(recurrence, case, t), ys[t])
        if t % 2:
            assert_same_bits(recurrence.state(), states[t + 1])

def test_seed_at_the_wrap(device):
    """Seeds count on from 2**32 - 1 to 0."""
    case       = case_of(6)
    ys, states = model_states(device, case, 2**32 - 1)
    recurrence = start(device, case, store_every=2, seed=2**32 - 1)
    for t in range(6):
        assert_same_bits(step(recurrence, case, t), ys[t])
    assert_same_bits(recurrence.state(), states[6])


def test_rollback_after_a_store_that_failed(device):
    """The older of the stored states may be half written: it is not gone back to. The token can be taken again."""
    case       = case_of(7)
    ys, states = model_states(device, case, 0)
    recurrence = start(device, case, store_every=2)
    for t in range(3):
        step(recurrence, case, t)
    device.fake.fail = {device.fake.jobs: (Error.GATEWARE, 4)}
    with pytest.raises(DeviceError, match="GATEWARE"):
        step(recurrence, case, 3) # Is to be stored where the state before token 0 lies.
    device.fake.fail = {}
    assert (recurrence.tokens, recurrence.undoable) == (3, 1)
    with pytest.raises(ValueError, match="tokens must be an integer from 0 to 1, is 2"):
        recurrence.rollback(2)
    recurrence.rollback(1)
    for t in range(2, 6):
        assert_same_bits(step(recurrence, case, t), ys[t])
    assert_same_bits(recurrence.state(), states[6])

# Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("store_every", [0, -1, 65536, 2.0])
def test_bad_store_every(device, store_every):
    with pytest.raises(ValueError, match="store_every must be an integer from 1 to 65535, is"):
        start(device, case_of(1), store_every=store_every)


def test_store_every_of_a_prefill(device):
    with pytest.raises(ValueError, match="store_every must be 1 with mode = 'prefill', is 2"):
        run_block(device, check_case(case_of(1), device.info.config), store_every=2)


@pytest.mark.parametrize("tokens", [-1, 1, True, 1.0])
def test_bad_rollback(device, tokens):
    with pytest.raises(ValueError, match="tokens must be an integer from 0 to 0, is"):
        start(device, case_of(1)).rollback(tokens)


def test_bad_h0(device):
    with pytest.raises(ValueError, match=r"h0 must be float16 of shape \(4, 3, 11\), is float16 of \(4, 3, 10\)\."):
        start(device, {"h0": np.zeros((4, 3, 10), np.float16)})


def test_no_room(device):
    with pytest.raises(AllocationError, match="y of a recurrence of 15360000 bytes does not fit"):
        start(device, case_of(1), store_every=60000)
