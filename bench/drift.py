#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""How far y and the state drift from float64 over thousands of recurrent steps."""

from dataclasses import dataclass

import numpy as np

from bench.baselines import EXACT, FLOAT32_STATE, NEAREST, STOCHASTIC, TORCH_FLOAT16, Run

from model.case import realistic_case
from model.reference import Mamba2Config

# Constants ----------------------------------------------------------------------------------------

SEED        = 2024
LAYER       = Mamba2Config(d_model=48, headdim=4) # 24 heads of 4 rows: rows are independent, and 64 take long.
MEMORIES    = (1, 32, 128)                        # A third of the heads each: their A divided by this.
ARITHMETICS = (TORCH_FLOAT16, NEAREST, STOCHASTIC, FLOAT32_STATE)

# Inputs -------------------------------------------------------------------------------------------

def drift_case(tokens):
    """Inputs of a freshly initialised layer, with a third of its heads as drawn and the others with longer memories.

    Initialised as Mamba-2 does, heads forget within some tens of tokens. Dividing A (dA = exp(dt*A)) by 32 and 128
    gives heads that remember up to thousands, with dA among the few float16 values next to 1.
    """
    case  = realistic_case(LAYER, tokens, SEED)
    power = 1/np.repeat(MEMORIES, LAYER.heads//len(MEMORIES))
    case["dA"] = (case["dA"].astype(float)**power).astype(np.float16)
    return case

# Drift --------------------------------------------------------------------------------------------

@dataclass
class Drift:
    """Errors against float64 at checkpoints: {arithmetic name: (checkpoints, groups of heads)}."""
    tokens : np.ndarray # Tokens taken until each checkpoint.
    dA     : np.ndarray # (groups): mean dA.
    state  : dict       # Mean absolute error of the state.
    shrink : dict       # Mean of |state| less that of float64, over that of float64: below 0, the state fades too fast.
    y      : dict       # Mean absolute error of y.

    def ratio(self, arithmetic, groups=slice(None)):
        """Mean absolute error of the state over that of torch.float16; means over checkpoints and the groups' heads."""
        return self.state[arithmetic.name][:, groups].mean()/self.state[TORCH_FLOAT16.name][:, groups].mean()

    def worst_ratio(self, arithmetic):
        """The largest ratio at any checkpoint, of any group."""
        return (self.state[arithmetic.name]/self.state[TORCH_FLOAT16.name]).max()


def by_group(values):
    """Mean over each group of heads. values: (H, ...)."""
    return values.reshape(len(MEMORIES), -1).mean(axis=1)


def measure_drift(tokens, every=64):
    """Run `tokens` steps in all arithmetics, with a checkpoint each `every` steps. Returns a :class:`Drift`."""
    case    = drift_case(tokens)
    exact   = Run(EXACT, case)
    runs    = {arithmetic.name: Run(arithmetic, case) for arithmetic in ARITHMETICS}
    columns = {kind: {name: [] for name in runs} for kind in ("state", "shrink", "y")}
    for token in range(1, tokens + 1):
        exact.step()
        for run in runs.values():
            run.step()
        if token % every == 0:
            y, size = exact.y(), by_group(abs(exact.h))
            for name, run in runs.items():
                h = run.h.astype(np.float64)
                columns["state"][name].append(by_group(abs(h - exact.h)))
                columns["shrink"][name].append(by_group(abs(h))/size - 1)
                columns["y"][name].append(by_group(abs(run.y().astype(np.float64) - y)))
    arrays = {kind: {name: np.array(rows) for name, rows in column.items()} for kind, column in columns.items()}
    return Drift(tokens=np.arange(every, tokens + 1, every), dA=by_group(case["dA"].astype(float).T), **arrays)

# Decay Alone --------------------------------------------------------------------------------------

def measure_decay(tokens, elements=1024):
    """A state that only decays, by the float16 next to 1: {arithmetic name: its mean after 0, 1, ... tokens}."""
    one  = np.ones((tokens, 1))
    case = {"x": 0*one[:, None], "dt": one, "dA": (1 - 2.0**-11)*one, "B": np.zeros((tokens, 1, elements)),
        "C": np.zeros((tokens, 1, elements)), "D": np.ones(1), "h0": np.linspace(1, 2, elements)[None, None]}
    case = {name: array.astype(np.float16) for name, array in case.items()}
    result = {}
    for arithmetic in (EXACT, TORCH_FLOAT16, NEAREST, STOCHASTIC):
        run, means = Run(arithmetic, case), [case["h0"].astype(float).mean()]
        for _ in range(tokens):
            run.step()
            means.append(run.h.astype(float).mean())
        result[arithmetic.name] = np.array(means)
    return result
