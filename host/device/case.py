#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Case files: the inputs of a run (CASE.npz) and its outputs (OUT.npz), in binary16."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from host.device.maxima import build_advice
from host.device.npz import NpzReader
from host.errors import CaseError

from operations.config import SSMConfig

from tools.errors import UsageError
from tools.files import write_atomically

# Constants ----------------------------------------------------------------------------------------

ARRAYS = { # Name: dimensions.
    "x"  : "THP",
    "dt" : "TH",
    "dA" : "TH",
    "B"  : "TGN",
    "C"  : "TGN",
    "D"  : "H",
    "h0" : "HPN",
}
SIZES = { # Dimension: its meaning, and the array that sets it.
    "T" : ("tokens",  "x"),
    "H" : ("heads",   "x"),
    "P" : ("headdim", "x"),
    "G" : ("groups",  "B"),
    "N" : ("d_state", "B"),
}
OPTIONAL = ("h0",)
NO_NAN   = ("dt", "dA", "D") # A NaN here is a mistake; in x, B, C and h0 it is data, and carried through.

# Case ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Case:
    """Inputs of T tokens: numpy.float16 arrays of the shapes in ``ARRAYS``; h0 may be None (a state of zeros)."""
    x  : np.ndarray
    dt : np.ndarray
    dA : np.ndarray
    B  : np.ndarray
    C  : np.ndarray
    D  : np.ndarray
    h0 : np.ndarray | None = None

    @property
    def tokens(self) -> int:
        return self.x.shape[0]

    @property
    def heads(self) -> int:
        return self.x.shape[1]

    @property
    def headdim(self) -> int:
        return self.x.shape[2]

    @property
    def groups(self) -> int:
        return self.B.shape[1]

    @property
    def d_state(self) -> int:
        return self.B.shape[2]


def load_case(path: Path | str, config: SSMConfig) -> Case:
    """Read CASE.npz and check it against the maxima of `config`, an :class:`~operations.config.SSMConfig`.

    Types and shapes are checked before anything is unpacked.

    Raises
    ------
    CaseError : one line that names the array, what it must be, and what it is.
    """
    try:
        with NpzReader(path) as file:
            check_headers({name: (header.dtype, header.shape) for name, header in file.headers.items()}, config)
            return check_case({name: file.read(name) for name in file.headers}, config)
    except CaseError as error:
        raise CaseError(f"{path}: {error}") from error
    except UsageError as error: # Of the file; it names the path.
        raise CaseError(str(error)) from error


def check_headers(headers: Mapping[str, tuple[np.dtype, tuple[int, ...]]], config: SSMConfig) -> None:
    """Raise CaseError unless arrays of these types and shapes, {name: (dtype, shape)}, are a case that `config` can run."""
    for name in ARRAYS:
        if name not in headers and name not in OPTIONAL:
            raise CaseError(f"a case must hold {', '.join(ARRAYS)} (h0 may be left out), {name} is missing.")
    for name, (dtype, shape) in headers.items():
        if name not in ARRAYS:
            raise CaseError(f"a case must hold {', '.join(ARRAYS)} only, {name!r} is there too.")
        if dtype.kind != "f" or dtype.itemsize != 2:
            raise CaseError(f"{name} must be float16, is {dtype}.")
        if len(shape) != len(ARRAYS[name]):
            raise CaseError(f"{name} must have {len(ARRAYS[name])} dimensions ({', '.join(ARRAYS[name])}), has shape {shape}.")
    shapes = {name: shape for name, (_, shape) in headers.items()}
    sizes  = dict(zip("THP", shapes["x"])) | dict(zip("GN", shapes["B"][1:]))
    for dimension, (meaning, name) in SIZES.items():
        maximum = getattr(config, f"max_{meaning}")
        if not 1 <= sizes[dimension] <= maximum:
            raise CaseError(f"{name} must have {meaning} {dimension} from 1 to {maximum}, has {sizes[dimension]}"
                f"{build_advice(config, **{SIZES[other][0]: size for other, size in sizes.items()})}.")
    for name, shape in shapes.items():
        expected = tuple(sizes[dimension] for dimension in ARRAYS[name])
        if shape != expected:
            raise CaseError(f"{name} must have shape ({', '.join(ARRAYS[name])}) = {expected}, as x and B say, has {shape}.")
    if sizes["H"] % sizes["G"]:
        raise CaseError(f"B must have groups G that divide heads H = {sizes['H']}, has {sizes['G']}.")


def check_case(arrays: Mapping[str, np.ndarray], config: SSMConfig) -> Case:
    """The :class:`Case` made of `arrays`, {name: array}, if `config` can run it; else CaseError."""
    check_headers({name: (array.dtype, array.shape) for name, array in arrays.items()}, config)
    for name in NO_NAN:
        where = np.argwhere(np.isnan(arrays[name]))
        if len(where):
            raise CaseError(f"{name}[{', '.join(map(str, where[0]))}] must be a number, is nan.")
    return Case(**{name: np.ascontiguousarray(array, "<f2") for name, array in arrays.items()})

# Output -------------------------------------------------------------------------------------------

def save_output(path: Path | str, y: np.ndarray, h: np.ndarray) -> None:
    """Write OUT.npz: y (T, H, P) and h (H, P, N)."""
    write_atomically(path, lambda file: np.savez(file, y=y.astype(np.float16), h=h.astype(np.float16)))
