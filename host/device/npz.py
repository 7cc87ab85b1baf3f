#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Reads .npz files of any origin: type and shape of each array are known before memory is taken for it."""

import math
import zipfile

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.stand_in import stand_in

from tools.errors import UsageError

# Constants ----------------------------------------------------------------------------------------

METHODS   = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) # What NumPy writes.
VERSION   = (1, 0)                                     # Of the .npy format; its header takes at most 64 KiB.
ENCRYPTED = 1                                          # Flag of a member.
ADDRESSES = 2**32                                      # Bytes that a device's addresses reach.

# Arrays -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ArrayHeader:
    """What an array's header says; `start` is the byte of the member that its values begin at."""
    dtype   : np.dtype
    shape   : tuple[int, ...]
    fortran : bool
    start   : int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape)*self.dtype.itemsize


class NpzReader:
    """An open .npz file, a context manager.

    Attributes
    ----------
    headers : {name: :class:`ArrayHeader`}.

    Raises
    ------
    UsageError : the file cannot be read, or is no .npz file of numbers; one line, which begins with the path.
    """
    def __init__(self, path: Path | str):
        self.path = path
        try:
            self.file = zipfile.ZipFile(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror or error}).") from error
        except Exception as error: # zipfile raises what its parts do, struct.error and NotImplementedError among others.
            raise UsageError(f"{path}: must be an .npz file, is {stand_in(path) or 'none, or a damaged one'}.") from error
        try:
            self.members = {info.filename.removesuffix(".npy"): info for info in self.file.infolist()}
            self.headers = {name: self._header(name) for name in self.members}
            if len(self.members) != len(self.file.infolist()):
                raise UsageError(f"{path}: names of arrays must differ, one is there twice.")
            size = sum(header.size for header in self.headers.values())
            if size >= ADDRESSES:
                raise UsageError(f"{path}: arrays must take less than {ADDRESSES} bytes together, take {size}.")
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> "NpzReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def read(self, name: str) -> np.ndarray:
        """An array, of the type and shape that its header says."""
        header = self.headers[name]
        try:
            with self.file.open(self.members[name]) as member:
                member.read(header.start)
                values = member.read(header.size)
                member.read(1) # At the end, zipfile compares the check sum.
            return np.frombuffer(values, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")
        except Exception as error: # Of a damaged file: zlib.error, BadZipFile, EOFError and others; or MemoryError.
            raise self._error(name, "be an array", _words(error)) from error

    def _header(self, name: str) -> ArrayHeader:
        info = self.members[name]
        if info.compress_type not in METHODS or info.flag_bits & ENCRYPTED:
            raise self._error(name, "be stored or deflated", "of another kind or encrypted")
        try:
            with self.file.open(info) as member:
                version = np.lib.format.read_magic(member)
                if version != VERSION:
                    raise ValueError(f"version {version} of the .npy format, not {VERSION}")
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
                header = ArrayHeader(dtype, shape, fortran, member.tell())
        except Exception as error: # NumPy parses the header as Python: it raises what that does.
            raise self._error(name, "be an array", _words(error)) from error
        if dtype.hasobject:
            raise self._error(name, "hold numbers", "of Python objects")
        if min(shape, default=0) < 0 or header.start + header.size != info.file_size:
            raise self._error(name, f"have as many bytes as its shape {shape} says, {header.size}",
                f"of {info.file_size - header.start}")
        return header

    def _error(self, name: str, what: str, found: str) -> UsageError:
        return UsageError(f"{self.path}: array {name} must {what}, is {found}.")


def _words(error: Exception) -> str:
    """What an exception says, on one line."""
    return f"damaged ({' '.join(str(error).split()) or type(error).__name__})"
