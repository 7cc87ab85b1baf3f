#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SSM blocks of a model on the device: what model/decoder.py runs them with.

Each layer's state stays in the device's DRAM. A job is a layer's share of one token, or of a chunk of a prompt; the layers
of a token need each other's results, so a job is waited for before the next one is made.
"""

import time

import numpy as np
import torch

from host.device.device import Device
from host.device.jobs import ssm_job
from host.device.maxima import model_geometry

from model.decoder import layer_seed, round_inputs
from model.exact.decoder import CHUNK
from model.network import NetworkConfig
from model.ssm import BlockInputs

from operations.ssm import pack_bc, pack_state, pack_x, unpack_state, unpack_y

# Blocks -------------------------------------------------------------------------------------------

class DeviceBlocks:
    """The blocks on a device; the bits are those of :class:`model.decoder.BitExactBlocks`.

    Parameters
    ----------
    device : a booted :class:`~host.device.device.Device`; what was allocated on it is given back.
    config : :class:`model.network.NetworkConfig`.
    seed   : of stochastic rounding, on a device that does it.

    Attributes
    ----------
    cycles  : of all jobs so far, each from doorbell to completion.
    seconds : that the calls of :meth:`run` took, link and all.
    jobs    : run so far.

    Raises
    ------
    UsageError      : names the size that the gateware was not built for, and with what to build one that is.
    AllocationError : the states of all layers do not fit in the device's DRAM.
    """
    dtype = np.dtype(np.float16)

    def __init__(self, device: Device, config: NetworkConfig, seed: int = 0):
        layer         = config.layer
        self.device   = device
        self.seed     = seed
        self.geometry = geometry = model_geometry(device.info.config, layer)
        self.chunk    = min(CHUNK, device.info.max_tokens)
        self.cycles   = 0
        self.seconds  = 0.0
        self.jobs     = 0
        self._x_bytes     = geometry.heads *geometry.x_record_bytes
        self._bc_bytes    = geometry.groups*geometry.bc_record_bytes
        self._y_bytes     = geometry.heads *geometry.y_record_bytes
        self._state_bytes = geometry.heads *geometry.tile_bytes
        device.free()
        self._inputs = device.allocate(self.chunk*(self._x_bytes + self._bc_bytes), "inputs of a chunk")
        self._y      = device.allocate(self.chunk*self._y_bytes, "y of a chunk")
        self._states = [device.allocate(self._state_bytes, f"the state of layer {n}") for n in range(config.n_layer)]
        self._zero   = [True]*config.n_layer # The state is zeros; the memory holds something else.

    def run(self, layer: int, token: int, inputs: BlockInputs) -> torch.Tensor:
        start = time.monotonic()
        case  = round_inputs(layer, inputs, token)
        y     = []
        for first in range(0, len(case["x"]), self.chunk):
            part = {name: case[name][first:first + self.chunk] for name in ("x", "dt", "dA", "B", "C")}
            y.append(self._run(layer, token + first, D=case["D"], **part))
        self.seconds += time.monotonic() - start
        return torch.from_numpy(np.concatenate(y)).float()

    def _run(self, layer: int, token: int, x: np.ndarray, dt: np.ndarray, dA: np.ndarray, B: np.ndarray, C: np.ndarray,
             D: np.ndarray) -> np.ndarray:
        """A job."""
        tokens  = len(x)
        records = pack_x(self.geometry, x, dt, dA, D) + pack_bc(self.geometry, B, C)
        self.device.write(self._inputs, records)
        result = self.device.run(ssm_job(self.geometry, tokens,
            x          = self._inputs,
            bc         = self._inputs + tokens*self._x_bytes,
            y          = self._y,
            state_in   = self._states[layer],
            state_out  = self._states[layer],
            zero_state = self._zero[layer],
            seed       = layer_seed(self.seed, layer, self.geometry.heads) + token))
        self._zero[layer] = False
        self.cycles += result.cycles
        self.jobs   += 1
        return unpack_y(self.geometry, self.device.read(self._y, tokens*self._y_bytes))

    def state(self, layer: int) -> np.ndarray:
        if self._zero[layer]:
            return np.zeros((self.geometry.heads, self.geometry.headdim, self.geometry.d_state), self.dtype)
        return unpack_state(self.geometry, self.device.read(self._states[layer], self._state_bytes))

    def load(self, layer: int, h: np.ndarray | None) -> None:
        if h is not None:
            self.device.write(self._states[layer], pack_state(self.geometry, h))
        self._zero[layer] = h is None
