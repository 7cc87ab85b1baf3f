#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Case files: what is accepted, and what each mistake is told."""

import os
import re
import stat
import zipfile

import numpy as np
import pytest

from cores.ssm.config import SSMConfig

from host.case import check_writable, load_case, save_output, write_atomically
from host.errors import CaseError, UsageError

# Helpers ------------------------------------------------------------------------------------------

CONFIG = SSMConfig(max_headdim=16, max_d_state=32, max_heads=8, max_groups=4, max_tokens=100)


def arrays(T=3, H=4, P=5, G=2, N=6):
    """The arrays of a good case."""
    random = np.random.default_rng(1)
    shapes = {"x": (T, H, P), "dt": (T, H), "dA": (T, H), "B": (T, G, N), "C": (T, G, N), "D": (H,), "h0": (H, P, N)}
    return {name: random.random(shape).astype(np.float16) for name, shape in shapes.items()}


def save(path, **changes):
    """A good case with changes: an array, or None to leave it out."""
    case = arrays() | changes
    np.savez(path, **{name: array for name, array in case.items() if array is not None})
    return path


@pytest.fixture
def path(tmp_path):
    return str(tmp_path/"case.npz")

# Good Cases ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("h0", [True, False])
def test_good_case(path, h0):
    expected = arrays()
    case     = load_case(save(path, **({} if h0 else {"h0": None})), CONFIG)
    for name, array in expected.items():
        if name == "h0" and not h0:
            assert case.h0 is None
        else:
            assert getattr(case, name).tobytes() == array.tobytes()
    assert (case.tokens, case.heads, case.headdim, case.groups, case.d_state) == (3, 4, 5, 2, 6)


@pytest.mark.parametrize("name", arrays())
@pytest.mark.parametrize("value", [np.inf, -np.inf, 6e-8])
def test_infinities_and_subnormals_pass_everywhere(path, name, value):
    array = arrays()[name]
    array.flat[-1] = value
    assert getattr(load_case(save(path, **{name: array}), CONFIG), name).flat[-1] == np.float16(value)


@pytest.mark.parametrize("name", ["x", "B", "C", "h0"])
def test_nan_is_carried_with_its_bits(path, name):
    array = arrays()[name]
    array.view(np.uint16).flat[0] = 0xfe01
    assert getattr(load_case(save(path, **{name: array}), CONFIG), name).view(np.uint16).flat[0] == 0xfe01


def test_other_memory_layouts_of_float16(path):
    x    = np.asfortranarray(arrays()["x"])
    dt   = arrays()["dt"].astype(">f2")
    case = load_case(save(path, x=x, dt=dt), CONFIG)
    assert case.x.flags.c_contiguous and np.array_equal(case.x, x)
    assert case.dt.dtype == np.float16 and np.array_equal(case.dt, dt)


def test_maxima_are_allowed(path):
    np.savez(path, **arrays(T=100, H=8, P=16, G=4, N=32))
    assert load_case(path, CONFIG).d_state == 32

# Bad Arrays ---------------------------------------------------------------------------------------

def nan_in(name):
    array = arrays()[name]
    array.flat[1] = np.nan
    return array


@pytest.mark.parametrize("changes, message", [
    ({name: None}, f"array {name} is missing: x, dt, dA, B, C, D, h0 are allowed, all but h0 needed.")
        for name in ("x", "dt", "dA", "B", "C", "D")
] + [
    ({"z": np.zeros(1)},                "array 'z' is unexpected: x, dt, dA, B, C, D, h0 are allowed."),
    ({"x": arrays()["x"].astype("f4")}, "x has type float32: float16 is allowed."),
    ({"D": np.zeros(4, int)},           "D has type int64: float16 is allowed."),
    ({"D": np.array(["a"]*4)},          "D has type <U1: float16 is allowed."),
    ({"D": np.array([None]*4)},         "array D cannot be read"),
    ({"x": np.zeros(3, "f2")},          "x has shape (3,): 3 dimensions (T, H, P) are allowed."),
    ({"D": np.zeros((), "f2")},         "D has shape (): 1 dimensions (H) are allowed."),
    ({"dt": np.zeros((3, 5), "f2")},    "dt has shape (3, 5): (3, 4) = (T, H) is allowed, as x and B have it."),
    ({"dA": np.zeros((2, 4), "f2")},    "dA has shape (2, 4): (3, 4) = (T, H) is allowed"),
    ({"B": np.zeros((4, 2, 6), "f2")},  "B has shape (4, 2, 6): (3, 2, 6) = (T, G, N) is allowed"),
    ({"C": np.zeros((3, 2, 7), "f2")},  "C has shape (3, 2, 7): (3, 2, 6) = (T, G, N) is allowed"),
    ({"D": np.zeros(3, "f2")},          "D has shape (3,): (4,) = (H) is allowed"),
    ({"h0": np.zeros((4, 6, 5), "f2")}, "h0 has shape (4, 6, 5): (4, 5, 6) = (H, P, N) is allowed"),
    ({"dt": nan_in("dt")},              "dt[0, 1] is nan: any number is allowed."),
    ({"dA": nan_in("dA")},              "dA[0, 1] is nan: any number is allowed."),
    ({"D": nan_in("D")},                "D[1] is nan: any number is allowed."),
])
def test_bad_array(path, changes, message):
    with pytest.raises(CaseError, match=re.escape(message)) as error:
        load_case(save(path, **changes), CONFIG)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize("sizes, message", [
    ({"T": 0},         "x has tokens T = 0: 1 to 100 is allowed."),
    ({"T": 101},       "x has tokens T = 101: 1 to 100 is allowed."),
    ({"H": 0},         "x has heads H = 0: 1 to 8 is allowed."),
    ({"H": 10},        "x has heads H = 10: 1 to 8 is allowed."),
    ({"P": 0},         "x has headdim P = 0: 1 to 16 is allowed."),
    ({"P": 17},        "x has headdim P = 17: 1 to 16 is allowed."),
    ({"G": 0},         "B has groups G = 0: 1 to 4 is allowed."),
    ({"G": 5, "H": 5}, "B has groups G = 5: 1 to 4 is allowed."),
    ({"G": 3},         "B has groups G = 3: a divisor of heads H = 4 is allowed."),
    ({"N": 0},         "B has d_state N = 0: 1 to 32 is allowed."),
    ({"N": 33},        "B has d_state N = 33: 1 to 32 is allowed."),
])
def test_bad_size(path, sizes, message):
    np.savez(path, **arrays(**sizes))
    with pytest.raises(CaseError, match=re.escape(message)):
        load_case(path, CONFIG)

# Bad Files ----------------------------------------------------------------------------------------

def truncated(path):
    save(path)
    content = open(path, "rb").read()
    return content[:len(content)//2]


def damaged(path):
    """A .npz whose array x does not match its check sum."""
    save(path)
    content = bytearray(open(path, "rb").read())
    content[150] ^= 0xff
    return bytes(content)


@pytest.mark.parametrize("content, message", [
    (lambda path: b"",                                "not an .npz file."),
    (lambda path: b"these are not the arrays you want", "not an .npz file."),
    (lambda path: b"PK\3\4 and then nothing",          "not an .npz file."),
    (truncated,                                        "not an .npz file."),
    (damaged,                                          "array x cannot be read"),
])
def test_not_an_npz(path, content, message):
    content = content(path)
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(CaseError, match=re.escape(f"{path}: {message}")):
        load_case(path, CONFIG)


def test_npy_is_not_npz(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3, "f2"))
    with pytest.raises(CaseError, match="a single .npy array is not allowed: an .npz file is"):
        load_case(path, CONFIG)


def test_zip_of_something_else(path):
    with zipfile.ZipFile(path, "w") as file:
        for name in arrays():
            file.writestr(f"{name}.npy", b"not an array")
    with pytest.raises(CaseError, match="x is not an array: a float16 array is allowed"):
        load_case(path, CONFIG)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(CaseError, match=r"none.npz: cannot be read \(No such file or directory\)"):
        load_case(str(tmp_path/"none.npz"), CONFIG)
    with pytest.raises(CaseError, match=r"cannot be read \(Is a directory\)"):
        load_case(str(tmp_path), CONFIG)

# Output -------------------------------------------------------------------------------------------

def test_output(path):
    y, h = arrays()["x"], arrays()["h0"]
    save_output(path, y, h)
    with np.load(path) as file:
        assert sorted(file.files) == ["h", "y"]
        assert file["y"].tobytes() == y.tobytes() and file["h"].tobytes() == h.tobytes()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~umask


def test_interrupted_output_leaves_what_was_there(path, tmp_path):
    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with open(path, "w") as file:
        file.write("before")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert open(path).read() == "before"
    assert os.listdir(tmp_path) == ["case.npz"]


def test_output_that_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="is a directory: a file name is allowed"):
        check_writable(str(tmp_path))
    for path in (tmp_path/"none"/"out.npz", "/proc/out.npz"):
        with pytest.raises(UsageError, match="out.npz: cannot be written"):
            check_writable(str(path))
        with pytest.raises(UsageError, match="out.npz: cannot be written"):
            save_output(str(path), np.zeros(1), np.zeros(1))
    check_writable(str(tmp_path/"out.npz"))
    assert os.listdir(tmp_path) == []
