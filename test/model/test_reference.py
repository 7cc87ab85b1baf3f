#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The Mamba-2 reference: layer, SSM block and cases, against equations written out once more in NumPy float64."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.case import FLOAT16_MAX, realistic_case, save_case, to_case
from model.reference import Mamba2Config, Mamba2State, mamba2_130m_layer, random_hidden_states, random_layer
from model.ssm import BlockInputs, block_sizes, error_statistics, segment_sums, ssd_prefill, ssm_recurrence

# Helpers ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """PyTorch's threads spin while they wait for each other: on busy cores that takes 20 times longer than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


small = Mamba2Config(d_model=16, d_state=12, headdim=8, ngroups=2, expand=2, d_conv=4, chunk_size=8)

# One group, several heads to a group, a head to a group; P and N odd; no convolution history.
CONFIGS = {
    "G1"     : replace(small, ngroups=1),
    "G2"     : small,
    "G4"     : replace(small, ngroups=4),
    "odd"    : Mamba2Config(d_model=15, d_state=5, headdim=5, ngroups=3, expand=1, d_conv=2, chunk_size=3),
    "d_conv1": replace(small, d_conv=1),
}


def make_layer(config, seed=0):
    """A float64 layer whose D, norm weight and convolution are not the defaults, which would hide errors."""
    layer     = random_layer(config, seed).double()
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for parameter in (layer.D, layer.norm.weight):
            parameter.normal_(generator=generator)
        layer.in_proj.weight.mul_(4) # So that SiLU, softplus and decay leave their linear range.
    return layer


def make_state(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Mamba2State(*(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        for tensor in layer.initial_state()))


def make_inputs(T=5, H=6, P=4, N=7, G=3, with_h0=True, seed=0):
    """Block inputs in float64, with a decay from nearly 1 to nearly 0; and A."""
    generator = torch.Generator().manual_seed(seed)
    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    dt, A = (normal(T, H) - 1).exp(), -normal(H).exp()
    h0    = normal(H, P, N) if with_h0 else None
    return BlockInputs(normal(T, H, P), dt, (dt*A).exp(), normal(T, G, N), normal(T, G, N), normal(H), h0), A


def silu(v):
    return v/(1 + np.exp(-v))


def plain_layer(layer, u, state):
    """The layer's equations, token by token and head by head, in NumPy float64."""
    config  = layer.config
    weights = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    history = list(state.conv.numpy())
    h       = state.ssm.numpy().copy()
    per_group = config.heads//config.ngroups
    outputs = []
    for token in u.numpy():
        z, xBC, dt = np.split(weights["in_proj.weight"] @ token, [config.d_inner, config.d_inner + config.d_xbc])
        history.append(xBC)
        window  = np.array(history[-config.d_conv:])
        xBC     = silu(weights["conv1d.bias"] + (weights["conv1d.weight"][:, 0].T*window).sum(0))
        x       = xBC[:config.d_inner].reshape(config.heads, config.headdim)
        B, C    = xBC[config.d_inner:].reshape(2, config.ngroups, config.d_state)
        dt      = np.clip(np.log1p(np.exp(dt + weights["dt_bias"])), *config.dt_limit)
        y       = np.empty_like(x)
        for head in range(config.heads):
            group   = head//per_group
            h[head] = h[head]*np.exp(-dt[head]*np.exp(weights["A_log"][head])) + np.outer(dt[head]*x[head], B[group])
            y[head] = h[head] @ C[group] + weights["D"][head]*x[head]
        gated   = (y.reshape(-1)*silu(z)).reshape(config.ngroups, -1)
        normed  = gated/np.sqrt((gated**2).mean(1, keepdims=True) + config.norm_eps)
        outputs.append(weights["out_proj.weight"] @ (normed.reshape(-1)*weights["norm.weight"]))
    conv = np.array(history)[len(history) - (config.d_conv - 1):].reshape(config.d_conv - 1, config.d_xbc)
    return torch.tensor(np.array(outputs)), Mamba2State(torch.tensor(conv), torch.tensor(h))


def run_steps(layer, u, state=None):
    outputs = []
    for token in u:
        out, state = layer.step(token, state)
        outputs.append(out)
    return torch.stack(outputs), state


def assert_same(actual, expected, tolerance=1e-12):
    """(out, state) within `tolerance`, relative and absolute."""
    (actual_out, actual_state), (expected_out, expected_state) = actual, expected
    for a, e in zip((actual_out, *actual_state), (expected_out, *expected_state)):
        torch.testing.assert_close(a.double(), e.double(), rtol=tolerance, atol=tolerance)

# Configuration ------------------------------------------------------------------------------------

@pytest.mark.parametrize("parameters, message", [
    ({"d_model":   0},                  "d_model must be an integer from 1 to 65535, is 0."),
    ({"d_state":  -1},                  "d_state must be an integer from 1 to 65535, is -1."),
    ({"d_conv":  2.0},                  "d_conv must be an integer from 1 to 65535, is 2.0."),
    ({"chunk_size": True},              "chunk_size must be an integer from 1 to 65535, is True."),
    ({"expand": 65536},                 "expand must be an integer from 1 to 65535, is 65536."),
    ({"headdim":  65},                  "headdim must be a divisor of expand*d_model = 1536, is 65."),
    ({"ngroups":   7},                  "ngroups must be a divisor of the 24 heads, is 7."),
    ({"norm_eps": 0.0},                 "norm_eps must be a positive number, is 0.0."),
    ({"norm_eps": float("nan")},        "norm_eps must be a positive number, is nan."),
    ({"dt_limit": (0.2, 0.1)},          "dt_limit must be (low, high) with 0 <= low < high, is (0.2, 0.1)."),
    ({"dt_limit": (-0.1, 0.1)},         "dt_limit must be (low, high) with 0 <= low < high, is (-0.1, 0.1)."),
])
def test_config_rejects(parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Mamba2Config(**parameters)


def test_parameters_are_those_of_the_130m_checkpoint():
    shapes = {name: tuple(tensor.shape) for name, tensor in random_layer(mamba2_130m_layer, 0).state_dict().items()}
    assert shapes == {
        "in_proj.weight"  : (3352, 768),
        "conv1d.weight"   : (1792, 1, 4),
        "conv1d.bias"     : (1792,),
        "dt_bias"         : (24,),
        "A_log"           : (24,),
        "D"               : (24,),
        "norm.weight"     : (1536,),
        "out_proj.weight" : (768, 1536),
    }

# Layer --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tokens", [1, 2, 8, 16, 21])
@pytest.mark.parametrize("with_state", [False, True])
def test_prefill_and_step_equal_plain_float64(name, tokens, with_state):
    layer    = make_layer(CONFIGS[name])
    u        = random_hidden_states(layer.config, tokens, seed=tokens).double()
    state    = make_state(layer) if with_state else None
    expected = plain_layer(layer, u, state or layer.initial_state())
    assert_same(layer.prefill(u, state), expected)
    assert_same(run_steps(layer, u, state), expected)


@pytest.mark.parametrize("split", [1, 2, 3, 8, 11, 20])
def test_prefill_resumes_and_decodes(split):
    layer     = make_layer(small)
    u         = random_hidden_states(small, 21, seed=1).double()
    out, last = layer.prefill(u)
    head, mid = layer.prefill(u[:split])
    tail, end = layer.prefill(u[split:], mid)
    assert_same((torch.cat((head, tail)), end), (out, last))
    tail, end = run_steps(layer, u[split:], mid)
    assert_same((torch.cat((head, tail)), end), (out, last))


@pytest.mark.parametrize("dtype, tolerance", [
    (torch.float64,  1e-12),
    (torch.float32,  1e-4),
    (torch.float16,  1e-2),
    (torch.bfloat16, 1e-1),
])
@pytest.mark.parametrize("ngroups", [1, 4])
def test_dtypes(dtype, tolerance, ngroups):
    config  = replace(small, ngroups=ngroups)
    layer   = random_layer(config, 0).to(dtype) # The float64 twin then gets the same, rounded weights.
    twin    = random_layer(config, 0).to(dtype).double()
    u       = random_hidden_states(config, 21, seed=2).to(dtype)
    results = layer.prefill(u), run_steps(layer, u)
    for out, state in results:
        assert out.dtype == state.conv.dtype == dtype
        assert state.ssm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert_same((out, state), twin.prefill(u.double()), tolerance)
    assert_same(*results, tolerance)


def test_130m_prefill_equals_steps_across_chunks():
    layer    = random_layer(mamba2_130m_layer, 0)
    u        = random_hidden_states(mamba2_130m_layer, 260, seed=1)
    expected = layer(u)
    _, state = layer.prefill(u[:250])
    out, end = run_steps(layer, u[250:], state)
    assert_same((out, end), (expected[0][250:], expected[1]), 1e-5)


def test_dt_limit_is_applied():
    config = replace(small, dt_limit=(0.01, 0.02))
    inputs = make_layer(config).block_inputs(random_hidden_states(config, 9, seed=1).double())
    assert inputs.dt.min() == 0.01 and inputs.dt.max() == 0.02


def test_state_is_left_as_it_is():
    layer  = make_layer(small)
    u      = random_hidden_states(small, 3, seed=1).double()
    state  = make_state(layer)
    before = [tensor.clone() for tensor in state]
    for _, new in (layer.prefill(u, state), layer.step(u[0], state)):
        new.conv.fill_(7)
        new.ssm.fill_(7)
    assert all(torch.equal(*pair) for pair in zip(state, before))


@pytest.mark.parametrize("call, message", [
    (lambda layer: layer.prefill(torch.zeros(0, 16)),    "u must have shape (T, 16) with T >= 1, has (0, 16)."),
    (lambda layer: layer.prefill(torch.zeros(3, 15)),    "u must have shape (T, 16) with T >= 1, has (3, 15)."),
    (lambda layer: layer.prefill(torch.zeros(1, 3, 16)), "u must have shape (T, 16) with T >= 1, has (1, 3, 16)."),
    (lambda layer: layer.step(torch.zeros(15)),          "u must have shape (T, 16) with T >= 1, has (1, 15)."),
    (lambda layer: layer.step(torch.zeros(16), Mamba2State(torch.zeros(4, 80), torch.zeros(4, 8, 12))),
        "state.conv must have shape (3, 80), has (4, 80)."),
    (lambda layer: layer.step(torch.zeros(16), Mamba2State(torch.zeros(3, 80), torch.zeros(4, 12, 8))),
        "state.ssm must have shape (4, 8, 12), has (4, 12, 8)."),
])
def test_layer_rejects(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(random_layer(small, 0))

# SSM Block ----------------------------------------------------------------------------------------

def test_recurrence_equals_its_equations():
    inputs, _            = make_inputs()
    x, dt, dA, B, C, D, h = (tensor.numpy().copy() for tensor in inputs)
    y                    = np.empty_like(x)
    for t in range(5):
        for head in range(6):
            group = head//2
            for p in range(4):
                for n in range(7):
                    h[head, p, n] = dA[t, head]*h[head, p, n] + dt[t, head]*x[t, head, p]*B[t, group, n]
                y[t, head, p] = sum(h[head, p]*C[t, group]) + D[head]*x[t, head, p]
    actual = ssm_recurrence(*inputs)
    torch.testing.assert_close(actual, (torch.tensor(y), torch.tensor(h)), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("scale", [1, 1e-5]) # At 1e-5 most values are subnormal.
def test_float16_recurrence_rounds_each_operation(scale):
    inputs, _            = make_inputs(T=4)
    case                 = to_case(inputs._replace(x=inputs.x*scale, h0=inputs.h0*scale))
    x, dt, dA, B, C, D, h = (case[name] for name in ("x", "dt", "dA", "B", "C", "D", "h0"))
    B, C                 = B.repeat(2, axis=1), C.repeat(2, axis=1)
    y, last              = ssm_recurrence(**case, dtype=torch.float16)
    for t in range(4):
        h     = h*dA[t, :, None, None] + (dt[t, :, None]*x[t])[..., None]*B[t, :, None] # NumPy rounds each as well.
        total = (h*C[t, :, None]).astype(np.float32).sum(-1).astype(np.float16)
        step  = np.maximum(np.spacing(np.abs(total)), np.spacing(np.abs(total + D[:, None]*x[t])))
        error = np.abs(y[t].numpy().astype(np.float32) - (total + D[:, None]*x[t]).astype(np.float32))
        assert (error <= step).all() # The order of the sum is PyTorch's own.
    assert y.dtype == last.dtype == torch.float16
    assert np.array_equal(last.numpy().view(np.uint16), h.view(np.uint16))


def test_recurrence_carries_infinity_and_nan():
    case             = to_case(make_inputs(T=2)[0])
    case["x"][0, 1]  = np.inf
    case["B"][0, 2]  = np.nan
    y, h             = ssm_recurrence(**case)
    assert y[0, 1].isfinite().logical_not().all() and h[1].isfinite().logical_not().all()
    assert h[4:].isnan().all() and y[:, 4:].isnan().all() # Heads of group 2.
    assert y[:, [0, 2, 3]].isfinite().all() and h[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("heads, groups", [(4, 1), (6, 3), (5, 5)])
@pytest.mark.parametrize("tokens, chunk_size", [(1, 8), (7, 8), (8, 8), (9, 8), (25, 8), (13, 1), (13, 100)])
@pytest.mark.parametrize("with_h0", [False, True])
def test_ssd_equals_recurrence(heads, groups, tokens, chunk_size, with_h0):
    inputs, A              = make_inputs(T=tokens, H=heads, G=groups, with_h0=with_h0, seed=tokens)
    x, dt, dA, B, C, D, h0 = inputs
    expected               = ssm_recurrence(*inputs)
    torch.testing.assert_close(ssd_prefill(x, dt, A, B, C, D, h0, chunk_size), expected, rtol=1e-12, atol=1e-12)
    singles = (None if tensor is None else tensor.float() for tensor in (x, dt, A, B, C, D, h0))
    actual  = ssd_prefill(*singles, chunk_size)
    torch.testing.assert_close([tensor.double() for tensor in actual], list(expected), rtol=1e-4, atol=1e-4)


def test_segment_sums_do_not_cancel():
    sums = segment_sums(torch.tensor([-3e7, -1e-3, -1e-3]))
    torch.testing.assert_close(sums, torch.tensor([
        [      0, -torch.inf, -torch.inf],
        [  -1e-3,          0, -torch.inf],
        [  -2e-3,      -1e-3,          0]]))


def test_ssd_rejects_chunk_size():
    (x, dt, _, B, C, D, h0), A = make_inputs()
    with pytest.raises(ValueError, match="chunk_size must be at least 1, is 0."):
        ssd_prefill(x, dt, A, B, C, D, h0, chunk_size=0)


@pytest.mark.parametrize("name, shape, message", [
    ("x",  (5, 6),       "x must have three sizes of at least 1, has shape (5, 6)."),
    ("x",  (0, 6, 4),    "x must have three sizes of at least 1, has shape (0, 6, 4)."),
    ("B",  (5, 3, 0),    "B must have three sizes of at least 1, has shape (5, 3, 0)."),
    ("B",  (5, 4, 7),    "groups of B must be a divisor of the 6 heads of x, are 4."),
    ("B",  (4, 3, 7),    "B must have shape (5, 3, 7), has (4, 3, 7)."),
    ("C",  (5, 3, 8),    "C must have shape (5, 3, 7), has (5, 3, 8)."),
    ("dt", (5, 1),       "dt must have shape (5, 6), has (5, 1)."),
    ("dA", (6,),         "dA must have shape (5, 6), has (6,)."),
    ("D",  (6, 4),       "D must have shape (6,), has (6, 4)."),
    ("h0", (6, 7, 4),    "h0 must have shape (6, 4, 7), has (6, 7, 4)."),
])
def test_block_sizes_rejects(name, shape, message):
    inputs, _ = make_inputs()
    assert block_sizes(*inputs) == (5, 6, 4, 3, 7)
    with pytest.raises(ValueError, match=re.escape(message)):
        ssm_recurrence(*inputs._replace(**{name: torch.zeros(shape)}))


def test_error_statistics():
    assert error_statistics([1.0, 2.0, -3.0, np.inf], [1.0, 2.5, -2.0, np.inf]) == (1.0, 0.375)
    assert error_statistics(np.float16([0.1]), np.float64([0.1])).max == pytest.approx(2.44e-5, rel=1e-2)
    assert error_statistics([np.nan, 1.0], [np.nan, 1.0]) == (0.0, 0.0)
    assert error_statistics([np.inf], [0.0]) == (np.inf, np.inf)
    assert np.isnan(error_statistics([np.nan, 1.0], [0.0, 1.0])).all()
    with pytest.raises(ValueError, match=re.escape("actual must have shape (2,), has (1,).")):
        error_statistics([1.0], [1.0, 2.0])

# Cases --------------------------------------------------------------------------------------------

def test_to_case_rounds_to_nearest_even():
    inputs, _ = make_inputs(with_h0=False)
    inputs.x[0, 0, 0] = 1 + 2**-11         # A tie: to even, down.
    inputs.x[0, 0, 1] = 1 + 2**-11 + 2**-40 # Just above; by way of float32 it would be the tie.
    inputs.x[0, 0, 2] = 65519.9            # The last value before infinity.
    inputs.x[0, 0, 3] = 2**-24             # The least subnormal.
    case = to_case(inputs)
    assert list(case) == ["x", "dt", "dA", "B", "C", "D"]
    assert all(array.dtype == np.float16 for array in case.values())
    assert case["x"][0, 0].tolist() == [1, 1 + 2**-10, FLOAT16_MAX, 2**-24]


@pytest.mark.parametrize("name", BlockInputs._fields)
@pytest.mark.parametrize("value", [65520.0, -1e300, float("inf"), float("nan")])
def test_to_case_rejects_values_beyond_float16(name, value):
    inputs, _ = make_inputs()
    array     = getattr(inputs, name)
    array[(-1,)*array.dim()] = value
    index     = [size - 1 for size in array.shape]
    message   = f"{name}{index} must be a number from -65504 to 65504, is {value}."
    with pytest.raises(ValueError, match=re.escape(message)):
        to_case(inputs)


@pytest.mark.parametrize("with_h0", [False, True])
def test_save_case(tmp_path, with_h0):
    case = realistic_case(small, 3, seed=1, with_h0=with_h0)
    path = tmp_path/"case" # Written under this very name.
    save_case(path, case)
    with np.load(path) as loaded:
        assert set(loaded) == set(case) and ("h0" in loaded) == with_h0
        assert all(np.array_equal(loaded[name], case[name]) and loaded[name].dtype == np.float16 for name in case)


@pytest.mark.parametrize("change, message", [
    ({"dA": None},                        "a case must hold x, dt, dA, B, C, D and may hold h0; dA is missing."),
    ({"A":  np.zeros(6, np.float16)},     "a case must hold x, dt, dA, B, C, D and may hold h0; A is none of them."),
    ({"D":  np.zeros(6, np.float32)},     "D must be float16, is float32."),
    ({"D":  np.zeros(5, np.float16)},     "D must have shape (6,), has (5,)."),
])
def test_save_case_rejects(tmp_path, change, message):
    case = to_case(make_inputs()[0]) | change
    case = {name: array for name, array in case.items() if array is not None}
    with pytest.raises(ValueError, match=re.escape(message)):
        save_case(tmp_path/"case.npz", case)
    assert not list(tmp_path.iterdir())

# Synthetic Layers ---------------------------------------------------------------------------------

def test_random_layer():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    layer  = random_layer(mamba2_130m_layer, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    again, other = random_layer(mamba2_130m_layer, seed=5), random_layer(mamba2_130m_layer, seed=6)
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(tensor, other.state_dict()[name]) == (name in ("D", "norm.weight"))
    dt = torch.nn.functional.softplus(layer.dt_bias)
    assert 0.000999 < dt.min() < 0.005 and 0.02 < dt.max() < 0.1001
    assert -16 <= layer.A.min() < -12 and -5 < layer.A.max() <= -1
    assert (layer.D == 1).all() and (layer.norm.weight == 1).all()


def test_random_hidden_states():
    u = random_hidden_states(small, 7, seed=3)
    assert u.shape == (7, 16) and torch.equal(u, random_hidden_states(small, 7, seed=3))
    assert not torch.equal(u, random_hidden_states(small, 7, seed=4))
    torch.testing.assert_close(u.square().mean(-1), torch.ones(7))
    with pytest.raises(ValueError, match="tokens must be at least 1, is 0."):
        random_hidden_states(small, 0, seed=3)


@pytest.mark.parametrize("with_h0", [False, True])
def test_realistic_case_of_130m(with_h0):
    case   = realistic_case(mamba2_130m_layer, 4, seed=0, with_h0=with_h0)
    shapes = {name: array.shape for name, array in case.items()}
    state  = {"h0": (24, 64, 128)} if with_h0 else {}
    assert shapes == {"x": (4, 24, 64), "dt": (4, 24), "dA": (4, 24), "B": (4, 1, 128), "C": (4, 1, 128), "D": (24,),
        **state}
    assert (case["dt"] > 0).all() and case["dt"].max() < 1
    assert (case["dA"] > 0).all() and (case["dA"] < 1).all() and case["dA"].max() > 0.99 and case["dA"].min() < 0.8
    assert all(0.05 < case[name].std(dtype=np.float64) < 1 for name in ("x", "B", "C"))
    again = realistic_case(mamba2_130m_layer, 4, seed=0, with_h0=with_h0)
    assert all(np.array_equal(case[name], again[name]) for name in case)


def test_realistic_case_goes_on_from_h0():
    case  = realistic_case(small, 4, seed=0, with_h0=True)
    layer = random_layer(small, 0).double()
    whole = layer.block_inputs(random_hidden_states(small, 260, seed=1))
    _, h0 = ssm_recurrence(*(tensor[:256] if tensor.shape[0] == 260 else tensor for tensor in whole))
    for name in ("x", "dt", "dA", "B", "C"):
        assert error_statistics(case[name], getattr(whole, name)[256:]).max < 1e-3
    assert h0.abs().max() > 1e-2
    torch.testing.assert_close(torch.tensor(case["h0"]).double(), h0, rtol=1e-3, atol=1e-7)


def test_float16_recurrence_is_near_float64_on_a_realistic_case():
    case     = realistic_case(mamba2_130m_layer, 16, seed=0, with_h0=True)
    expected = ssm_recurrence(**case)
    actual   = ssm_recurrence(**case, dtype=torch.float16)
    for a, e in zip(actual, expected):
        assert 0 < error_statistics(a, e).max < 2e-3
