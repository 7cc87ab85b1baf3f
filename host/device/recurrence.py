#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A recurrent state on the device, taken on token by token, and back again.

    recurrence = Recurrence(device, Geometry(device.info.config, heads=24, headdim=64, d_state=128), store_every=4)
    y = recurrence.step(x, dt, dA, B, C, D)
    recurrence.rollback(1) # As if the token had not been.
"""

from dataclasses import dataclass

import numpy as np

from host.device.block import check_store_every
from host.device.device import Device
from host.device.jobs import ssm_job

from operations.config import check_range
from operations.ssm import Geometry, pack_bc, pack_state, pack_x, unpack_state, unpack_y

# Stored State -------------------------------------------------------------------------------------

@dataclass
class StoredState:
    """A state in DRAM, and behind it room for the inputs of the tokens that follow."""
    address    : int
    x_address  : int
    bc_address : int
    tokens     : int  = 0    # Tokens that are in it.
    zero       : bool = False # It is all zeros; the memory holds something else.
    valid      : bool = False

# Recurrence ---------------------------------------------------------------------------------------

class Recurrence:
    """Decodes with a state that is stored only now and then, and can take tokens back.

    The state goes to DRAM at each ``store_every``-th token. A token between runs again, on chip, those since then: a job of
    a few tokens, of which only the last one's y is wanted, and which stores nothing. DRAM is written ``store_every`` times
    less, and the bits are those of plain decoding. The last two stored states are kept, with the inputs of the tokens after
    each, so the last ``store_every - 1`` tokens can be undone at any time (fewer after :meth:`state`, which stores as well).

    Parameters
    ----------
    device      : a booted :class:`~host.device.device.Device`. It allocates from it; ``device.free()`` ends that.
    geometry    : :class:`~operations.ssm.Geometry` of the layer.
    h0          : state to begin with, float16 (H, P, N), or None for zeros.
    store_every : 1: each token's state is stored, and none can be undone.
    seed        : of the first token, on a device that rounds the state stochastically.

    Attributes
    ----------
    tokens : taken so far.
    cycles : that the last job took, from doorbell to completion.

    Raises
    ------
    ValueError, AllocationError, DeviceError, DeviceTimeout, LinkError
    """
    def __init__(self, device: Device, geometry: Geometry, h0: np.ndarray | None = None, store_every: int = 1, seed: int = 0):
        check_store_every(store_every, device.info.max_tokens)
        self.device      = device
        self.geometry    = geometry
        self.store_every = store_every
        self.seed        = seed
        self.tokens      = 0
        self.cycles      = 0
        shape = (geometry.heads, geometry.headdim, geometry.d_state)
        if h0 is not None and (np.shape(h0) != shape or np.asarray(h0).dtype != np.float16):
            raise ValueError(f"h0 must be float16 of shape {shape}, is {np.asarray(h0).dtype} of {np.shape(h0)}.")

        self._x_bytes     = geometry.heads *geometry.x_record_bytes
        self._bc_bytes    = geometry.groups*geometry.bc_record_bytes
        self._y_bytes     = geometry.heads *geometry.y_record_bytes
        self._state_bytes = geometry.heads *geometry.tile_bytes
        self._y           = device.allocate(store_every*self._y_bytes, "y of a recurrence")
        self._states      = [StoredState(
            address    = device.allocate(self._state_bytes,           "the state of a recurrence"),
            x_address  = device.allocate(store_every*self._x_bytes,   "inputs of a recurrence"),
            bc_address = device.allocate(store_every*self._bc_bytes,  "inputs of a recurrence"))
            for _ in range(1 if store_every == 1 else 2)]
        self._base       = self._states[0] # What tokens are run from.
        self._base.valid = True
        self._base.zero  = h0 is None
        if h0 is not None:
            device.write(self._base.address, pack_state(geometry, h0))

    @property
    def undoable(self) -> int:
        """Tokens that :meth:`rollback` can undo."""
        return self.tokens - min(state.tokens for state in self._states if state.valid)

    def step(self, x: np.ndarray, dt: np.ndarray, dA: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray) -> np.ndarray:
        """Take a token. float16; x: (H, P), dt, dA, D: (H,), B and C: (G, N). Returns y (H, P)."""
        base, pending = self._base, self.tokens - self._base.tokens
        x_record  = pack_x(self.geometry, x[None], dt[None], dA[None], D)
        bc_record = pack_bc(self.geometry, B[None], C[None])
        self.device.write(base.x_address  + pending*self._x_bytes,  x_record)
        self.device.write(base.bc_address + pending*self._bc_bytes, bc_record)
        self._run(pending + 1, first_token=pending, store=pending + 1 == self.store_every)
        self.tokens += 1
        y = self.device.read(self._y + pending*self._y_bytes, self._y_bytes)
        return unpack_y(self.geometry, y)[0]

    def rollback(self, tokens: int) -> None:
        """Undo the last tokens, 0 to :attr:`undoable` of them. Nothing moves: the next job starts from an earlier token."""
        check_range("tokens", tokens, 0, self.undoable)
        self.tokens -= tokens
        if self.tokens < self._base.tokens: # The newer stored state is of a future that will not be.
            self._base.valid = False
            self._base       = next(state for state in self._states if state.valid)

    def state(self) -> np.ndarray:
        """The state after the last token, float16 (H, P, N). It is stored for that if it is not yet."""
        pending = self.tokens - self._base.tokens
        if pending:
            self._run(pending, first_token=pending, store=True)
        if self._base.zero:
            return np.zeros((self.geometry.heads, self.geometry.headdim, self.geometry.d_state), np.float16)
        return unpack_state(self.geometry, self.device.read(self._base.address, self._state_bytes))

    def _run(self, tokens: int, first_token: int, store: bool) -> None:
        """Run so many tokens after the stored state. With `store` what comes out is the next one to run from."""
        base   = self._base
        target = next((state for state in self._states if state is not base), base)
        if store and target is not base:
            target.valid = False # From now on it is neither the old state nor the new one.
        result = self.device.run(ssm_job(self.geometry, tokens,
            x           = base.x_address,
            bc          = base.bc_address,
            y           = self._y,
            state_in    = base.address,
            state_out   = target.address,
            first_token = first_token,
            zero_state  = base.zero,
            store       = store,
            seed        = self.seed + base.tokens))
        self.cycles = result.cycles
        if store:
            target.tokens = base.tokens + tokens
            target.zero   = False
            target.valid  = True
            self._base    = target
