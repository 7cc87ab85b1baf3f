#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Case files: the inputs of a run (CASE.npz) and its outputs (OUT.npz), in binary16."""

import json
import os
import tempfile
import zipfile
import zlib

from dataclasses import dataclass

import numpy as np

from host.errors import CaseError, UsageError

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
    h0 : np.ndarray = None

    @property
    def tokens(self):
        return self.x.shape[0]

    @property
    def heads(self):
        return self.x.shape[1]

    @property
    def headdim(self):
        return self.x.shape[2]

    @property
    def groups(self):
        return self.B.shape[1]

    @property
    def d_state(self):
        return self.B.shape[2]


def load_case(path, config):
    """Read CASE.npz and check it against the maxima of `config`, an :class:`~cores.ssm.config.SSMConfig`.

    Raises
    ------
    CaseError : one line that names the array, its value and what is allowed.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise CaseError(f"{path}: a single .npy array is not allowed: an .npz file is.")
        with file:
            arrays = {name: _load_array(path, file, name) for name in _checked_names(path, file.files)}
    except OSError as error:
        raise CaseError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CaseError(f"{path}: not an .npz file.") from error
    try:
        return check_case(arrays, config)
    except CaseError as error:
        raise CaseError(f"{path}: {error}") from error


def check_case(arrays, config):
    """The :class:`Case` made of `arrays`, {name: array}, if `config` can run it; else CaseError."""
    _checked_names("case", arrays)
    for name, array in arrays.items():
        if array.dtype.kind != "f" or array.dtype.itemsize != 2:
            raise CaseError(f"{name} has type {array.dtype}: float16 is allowed.")
        if array.ndim != len(ARRAYS[name]):
            raise CaseError(f"{name} has shape {array.shape}: {len(ARRAYS[name])} dimensions "
                f"({', '.join(ARRAYS[name])}) are allowed.")
    sizes = dict(zip("THP", arrays["x"].shape)) | dict(zip("GN", arrays["B"].shape[1:]))
    limits = { # Dimension: name, maximum, array that sets it.
        "T": ("tokens",  config.max_tokens,  "x"),
        "H": ("heads",   config.max_heads,   "x"),
        "P": ("headdim", config.max_headdim, "x"),
        "G": ("groups",  config.max_groups,  "B"),
        "N": ("d_state", config.max_d_state, "B"),
    }
    for dimension, (meaning, maximum, name) in limits.items():
        if not 1 <= sizes[dimension] <= maximum:
            raise CaseError(f"{name} has {meaning} {dimension} = {sizes[dimension]}: 1 to {maximum} is allowed.")
    for name, array in arrays.items():
        expected = tuple(sizes[dimension] for dimension in ARRAYS[name])
        if array.shape != expected:
            raise CaseError(f"{name} has shape {array.shape}: {expected} = ({', '.join(ARRAYS[name])}) is allowed, as "
                "x and B have it.")
    if sizes["H"] % sizes["G"]:
        raise CaseError(f"B has groups G = {sizes['G']}: a divisor of heads H = {sizes['H']} is allowed.")
    for name in NO_NAN:
        where = np.argwhere(np.isnan(arrays[name]))
        if len(where):
            raise CaseError(f"{name}[{', '.join(map(str, where[0]))}] is nan: any number is allowed.")
    return Case(**{name: np.ascontiguousarray(array, "<f2") for name, array in arrays.items()})


def _checked_names(path, names):
    for name in ARRAYS:
        if name not in names and name not in OPTIONAL:
            raise CaseError(f"{path}: array {name} is missing: {', '.join(ARRAYS)} are allowed, all but h0 needed.")
    for name in names:
        if name not in ARRAYS:
            raise CaseError(f"{path}: array {name!r} is unexpected: {', '.join(ARRAYS)} are allowed.")
    return list(names)


def _load_array(path, file, name):
    try:
        array = file[name]
    except (ValueError, EOFError, OSError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CaseError(f"{path}: array {name} cannot be read ({reason}): a float16 array is allowed.") from error
    if not isinstance(array, np.ndarray): # NumPy hands out other files of the archive as bytes.
        raise CaseError(f"{path}: {name} is not an array: a float16 array is allowed.")
    return array

# Output -------------------------------------------------------------------------------------------

def check_writable(path):
    """Raise UsageError now if writing `path` later is bound to fail."""
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a directory: a file name is allowed.")
    directory = os.path.dirname(os.path.abspath(path))
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): choose a folder that can.") from error


def write_atomically(path, write):
    """Let `write(file)` fill `path`, which is replaced as a whole when that has succeeded and else left as it was."""
    directory, name = os.path.split(os.path.abspath(path))
    try:
        descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): choose a folder that can.") from error


def save_json(path, summary):
    """Write a summary to `path`, if one is given."""
    if path is not None:
        text = json.dumps(summary, indent=4) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))


def save_output(path, y, h):
    """Write OUT.npz: y (T, H, P) and h (H, P, N)."""
    write_atomically(path, lambda file: np.savez(file, y=y.astype(np.float16), h=h.astype(np.float16)))
