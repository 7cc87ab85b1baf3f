#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the SSM blocks of a model compute with: operations, and the ranges of all values, in a run in float32."""

from dataclasses import dataclass, field

import numpy as np
import torch

from model.case import FLOAT16_MAX
from model.decoder import TorchBlocks
from model.ssm import BlockInputs, ssm_recurrence

# Constants ----------------------------------------------------------------------------------------

TENSORS      = ("dt", "dA", "B", "C", "x", "state", "y")
EXPONENTS    = range(-64, 65)           # Of the histograms; what lies beyond counts at the ends.
OVERFLOW     = FLOAT16_MAX + 16         # From here on, float16 rounds to infinity,
SMALLEST     = 2.0**-24                 # and up to half of its smallest subnormal, to zero.
LEAST_NORMAL = 2.0**-14

# Operations ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Stage:
    """A stage of a block: its operations for one token."""
    name          : str
    formula       : str
    shape         : tuple
    multiplies    : int
    adds          : int
    accumulations : int # Terms of sums: one less is added than there are, and what is to be added to is 0 or the skip.


def stages(layer):
    """The stages of a layer's block for one token. layer: :class:`model.config.Mamba2Config`."""
    H, P, N = layer.heads, layer.headdim, layer.d_state
    return [
        Stage("scale",        "u = dt*x",          (H, P),    H*P,     0,     0),
        Stage("decay",        "dA*h",              (H, P, N), H*P*N,   0,     0),
        Stage("state update", "h = dA*h + u*B",    (H, P, N), H*P*N,   H*P*N, 0),
        Stage("reduction",    "sum over n of h*C", (H, P),    H*P*N,   0,     H*P*N),
        Stage("skip",         "y = sum + D*x",     (H, P),    H*P,     H*P,   0),
    ]


def shapes(layer):
    """{tensor: (shape, bytes in float16)} of a layer's block for one token; the state is read and written."""
    H, P, N, G = layer.heads, layer.headdim, layer.d_state, layer.ngroups
    sizes = {"dt": (H,), "dA": (H,), "D": (H,), "B": (G, N), "C": (G, N), "x": (H, P), "state": (H, P, N), "y": (H, P)}
    return {name: (shape, 2*int(np.prod(shape))) for name, shape in sizes.items()}

# Ranges -------------------------------------------------------------------------------------------

@dataclass
class Range:
    """The values of a tensor, as they come in.

    histogram[i] counts those v with 2**EXPONENTS[i] <= \\|v\\| < 2**(EXPONENTS[i] + 1).
    """
    count      : int = 0
    zeros      : int = 0
    smallest   : float = np.inf # Magnitude other than 0.
    largest    : float = 0.0    # Magnitude.
    overflows  : int = 0        # Values that float16 rounds to infinity,
    underflows : int = 0        # to zero,
    subnormals : int = 0        # or to a subnormal, with fewer digits.
    histogram  : np.ndarray = field(default_factory=lambda: np.zeros(len(EXPONENTS), np.int64))

    def add(self, values):
        every       = np.abs(np.asarray(values, np.float64)).ravel()
        magnitudes  = every[every > 0]
        self.count += every.size
        self.zeros += every.size - magnitudes.size
        if not magnitudes.size:
            return
        self.smallest    = min(self.smallest, magnitudes.min())
        self.largest     = max(self.largest,  magnitudes.max())
        underflow        = magnitudes <= SMALLEST/2
        self.overflows  += int(np.count_nonzero(magnitudes >= OVERFLOW))
        self.underflows += int(np.count_nonzero(underflow))
        self.subnormals += int(np.count_nonzero((magnitudes < LEAST_NORMAL) & ~underflow))
        exponents        = np.clip(np.frexp(magnitudes)[1] - 1, EXPONENTS[0], EXPONENTS[-1])
        self.histogram  += np.bincount(exponents - EXPONENTS[0], minlength=len(EXPONENTS))

    @property
    def verdict(self):
        """What float16 makes of these values, in words."""
        if self.overflows:
            return f"{self.overflows} overflow"
        return f"fits, {self.underflows} become 0" if self.underflows else "fits"

    def summary(self):
        """Ready for JSON."""
        return {"count": self.count, "zeros": self.zeros, "smallest": None if self.largest == 0 else float(self.smallest),
            "largest": float(self.largest), "overflows": self.overflows, "underflows": self.underflows,
            "subnormals": self.subnormals, "histogram": {exponent: int(count) for exponent, count in
            zip(EXPONENTS, self.histogram) if count}}


class TracingBlocks(TorchBlocks):
    """The blocks in PyTorch's float32, remembering their inputs and the ranges of all values.

    Attributes
    ----------
    ranges : for each layer, {name of TENSORS: :class:`Range`}.
    """
    def __init__(self, config):
        super().__init__(config)
        self.ranges = [{name: Range() for name in TENSORS} for _ in range(config.n_layer)]
        self.parts  = [[] for _ in range(config.n_layer)]

    def run(self, layer, token, inputs):
        ranges, rows = self.ranges[layer], []
        self.parts[layer].append(inputs)
        for name in ("dt", "dA", "B", "C", "x"):
            ranges[name].add(getattr(inputs, name))
        for t in range(len(inputs.x)):
            one = BlockInputs(*(tensor[t:t + 1] for tensor in inputs[:5]), D=inputs.D, h0=self.states[layer])
            y, self.states[layer] = ssm_recurrence(*one, dtype=self.torch_dtype)
            ranges["state"].add(self.states[layer])
            rows.append(y)
        y = torch.cat(rows)
        ranges["y"].add(y)
        return y

    def inputs(self, layer):
        """All of a layer's inputs so far, as one :class:`model.ssm.BlockInputs` from a state of zeros."""
        parts = self.parts[layer]
        return BlockInputs(*(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "dt", "dA", "B", "C")),
            D=parts[0].D)
