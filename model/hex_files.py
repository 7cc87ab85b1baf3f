#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Data sets of .hex files: a token's inputs of an SSM block, as simulations of Verilog read them.

A file holds one float16 a line, as four hex digits, in C order. For layer 0: 0_dt.hex, 0_dA.hex and 0_D.hex (H),
0_B.hex and 0_C.hex (G,N), 0_x.hex (H,P), 0_ssm_state.hex (H,P,N).
"""

import os
import re

import numpy as np

from model.bitexact import ssm_block

from tools.errors import UsageError
from tools.files import write_atomically

# Constants ----------------------------------------------------------------------------------------

ARRAYS = { # Name: dimensions.
    "dt"        : "H",
    "dA"        : "H",
    "D"         : "H",
    "B"         : "GN",
    "C"         : "GN",
    "x"         : "HP",
    "ssm_state" : "HPN",
}

# Files --------------------------------------------------------------------------------------------

def hex_path(directory, layer, name):
    return os.path.join(directory, f"{layer}_{name}.hex")


def read_hex(path, shape, dimensions):
    """The float16 array of a file.

    Raises
    ------
    UsageError : names the file and the line.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().rstrip(b"\r\n").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): folder and --layer must fit the "
            "names of the files.") from error
    values = []
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(rb"[0-9A-Fa-f]{4}", line):
            text = line[:20].decode(errors="replace")
            raise UsageError(f"{path}:{number}: must be four hex digits, is {text!r}.")
        values.append(int(line, 16))
    expected = int(np.prod(shape))
    if len(values) != expected:
        product = f" = {'*'.join(map(str, shape))}" if len(shape) > 1 else ""
        raise UsageError(f"{path}:{min(len(values), expected) + 1}: there must be {expected}{product} "
            f"({', '.join(dimensions)}) values, are {len(values)}.")
    return np.array(values, np.uint16).view(np.float16).reshape(shape)


def hex_text(array):
    return "".join(f"{value:04x}\n" for value in np.ascontiguousarray(array).view(np.uint16).ravel().tolist())


def make_directory(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be made ({error.strerror}): choose a folder that can.") from error


def write_files(texts):
    """Write {path: text}: all of them, or none."""
    def write(rest): # Each file takes its place after those that follow it are written.
        if rest:
            path, text = rest[0]
            write_atomically(path, lambda file: (file.write(text.encode()), write(rest[1:])))

    write(list(texts.items()))


def write_token(directory, layer, case, token):
    """Write one token of a case, {name: float16 array} as in :mod:`model.case`.

    The state is h0, zeros where there is none, or what the bit-accurate model makes of the tokens before.
    """
    x, dt, dA, B, C, D = (case[name] for name in ("x", "dt", "dA", "B", "C", "D"))
    h = case.get("h0")
    if h is None:
        h = np.zeros((*x.shape[1:], B.shape[2]), np.float16)
    if token:
        _, h = ssm_block(x[:token], dt[:token], dA[:token], B[:token], C[:token], D, h)
    arrays = {"x": x[token], "dt": dt[token], "dA": dA[token], "B": B[token], "C": C[token], "D": D, "ssm_state": h}
    make_directory(directory)
    write_files({hex_path(directory, layer, name): hex_text(arrays[name]) for name in ARRAYS})
