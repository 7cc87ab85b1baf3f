#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Files that a command writes: whole or not at all, and known to be writable before the work."""

import json
import os
import tempfile

from collections.abc import Callable
from pathlib import Path
from typing import IO

from tools.errors import UsageError

# Write --------------------------------------------------------------------------------------------

def _is_special(path: Path | str) -> bool:
    """Whether something is there that is no file: a device, a pipe. It is written to, not replaced."""
    return os.path.exists(path) and not os.path.isfile(path)


def _temporary(path: Path | str) -> tuple[int, str]:
    """(descriptor, path) of a new file beside the one that `path` leads to, links followed."""
    directory, name = os.path.split(os.path.realpath(path))
    return tempfile.mkstemp(dir=directory, prefix=f".{name}.")


def check_writable(path: Path | str, *others: Path | str | None) -> None:
    """Raise UsageError now if writing `path` later is bound to fail, or would overwrite one of `others` (None: not given)."""
    if not path or os.path.isdir(path):
        raise UsageError(f"{path or repr(path)}: must be the name of a file, is {'a directory' if path else 'empty'}.")
    if any(other is not None and os.path.realpath(other) == os.path.realpath(path) for other in others) and not _is_special(path):
        raise UsageError(f"{path}: must be another file than that of the other option, is the same.")
    try:
        if _is_special(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(13, "no permission")
            return
        descriptor, temporary = _temporary(path)
        os.close(descriptor)
        os.unlink(temporary)
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def write_atomically(path: Path | str, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write(file)` fill `path`, which is replaced as a whole when that has succeeded and else left as it was.

    A link stays, and what it leads to is replaced; a device or pipe is written to.
    """
    try:
        if _is_special(path):
            with tempfile.TemporaryFile() as file: # np.save wants one that it can seek in.
                write(file)
                file.seek(0)
                with open(path, "wb", buffering=0) as special:
                    special.write(file.read())
            return
        descriptor, temporary = _temporary(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, os.path.realpath(path))
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def save_json(path: Path | str | None, summary: object) -> None:
    """Write a summary to `path`, if one is given."""
    if path is not None:
        text = json.dumps(summary, indent=4) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))


def _cannot_be_written(path: Path | str, error: OSError) -> UsageError:
    return UsageError(f"{path}: cannot be written ({error.strerror}): choose a folder that can.")
