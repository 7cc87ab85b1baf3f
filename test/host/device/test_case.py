#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Case files: what is accepted, and what each mistake is told."""

import os
import re
import stat
import tracemalloc
import zipfile

import numpy as np
import pytest

from hypothesis import given, settings, strategies

from host.device.case import load_case, save_output
from host.errors import CaseError

from operations.config import SSMConfig

from tools.errors import UsageError
from tools.files import check_writable, write_atomically

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
    ({name: None}, f"a case must hold x, dt, dA, B, C, D, h0 (h0 may be left out), {name} is missing.")
        for name in ("x", "dt", "dA", "B", "C", "D")
] + [
    ({"z": np.zeros(1)},                "a case must hold x, dt, dA, B, C, D, h0 only, 'z' is there too."),
    ({"x": arrays()["x"].astype("f4")}, "x must be float16, is float32."),
    ({"D": np.zeros(4, int)},           "D must be float16, is int64."),
    ({"D": np.array(["a"]*4)},          "D must be float16, is <U1."),
    ({"D": np.array([None]*4)},         "array D must hold numbers, is of Python objects."),
    ({"x": np.zeros(3, "f2")},          "x must have 3 dimensions (T, H, P), has shape (3,)."),
    ({"D": np.zeros((), "f2")},         "D must have 1 dimensions (H), has shape ()."),
    ({"dt": np.zeros((3, 5), "f2")},    "dt must have shape (T, H) = (3, 4), as x and B say, has (3, 5)."),
    ({"dA": np.zeros((2, 4), "f2")},    "dA must have shape (T, H) = (3, 4), as x and B say, has (2, 4)."),
    ({"B": np.zeros((4, 2, 6), "f2")},  "B must have shape (T, G, N) = (3, 2, 6), as x and B say, has (4, 2, 6)."),
    ({"C": np.zeros((3, 2, 7), "f2")},  "C must have shape (T, G, N) = (3, 2, 6), as x and B say, has (3, 2, 7)."),
    ({"D": np.zeros(3, "f2")},          "D must have shape (H) = (4,), as x and B say, has (3,)."),
    ({"h0": np.zeros((4, 6, 5), "f2")}, "h0 must have shape (H, P, N) = (4, 5, 6), as x and B say, has (4, 6, 5)."),
    ({"dt": nan_in("dt")},              "dt[0, 1] must be a number, is nan."),
    ({"dA": nan_in("dA")},              "dA[0, 1] must be a number, is nan."),
    ({"D": nan_in("D")},                "D[1] must be a number, is nan."),
])
def test_bad_array(path, changes, message):
    with pytest.raises(CaseError, match=re.escape(message)) as error:
        load_case(save(path, **changes), CONFIG)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize("sizes, message", [
    ({"T": 0},         "x must have tokens T from 1 to 100, has 0"),
    ({"T": 101},       "x must have tokens T from 1 to 100, has 101"),
    ({"H": 0},         "x must have heads H from 1 to 8, has 0"),
    ({"H": 10},        "x must have heads H from 1 to 8, has 10"),
    ({"P": 0},         "x must have headdim P from 1 to 16, has 0"),
    ({"P": 17},        "x must have headdim P from 1 to 16, has 17"),
    ({"G": 0},         "B must have groups G from 1 to 4, has 0"),
    ({"G": 5, "H": 5}, "B must have groups G from 1 to 4, has 5"),
    ({"G": 3},         "B must have groups G that divide heads H = 4, has 3."),
    ({"N": 0},         "B must have d_state N from 1 to 32, has 0"),
    ({"N": 33},        "B must have d_state N from 1 to 32, has 33"),
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
    (lambda path: b"",                                "must be an .npz file, is none, or a damaged one."),
    (lambda path: b"these are not the arrays you want", "must be an .npz file, is none, or a damaged one."),
    (lambda path: b"PK\3\4 and then nothing",          "must be an .npz file, is none, or a damaged one."),
    (truncated,                                        "must be an .npz file, is none, or a damaged one."),
    (damaged,                                          "array x must be an array, is damaged"),
])
def test_not_an_npz(path, content, message):
    content = content(path)
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(CaseError, match=re.escape(f"{path}: {message}")):
        load_case(path, CONFIG)


def header(dtype="<f2", shape=(3, 4, 5), rest=""):
    """An .npy header that says so."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, {rest}}}".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def save_with_x(path, x, method=zipfile.ZIP_STORED):
    """A good case but for the bytes of x.npy."""
    save(path, x=None)
    with zipfile.ZipFile(path, "a", method) as file:
        file.writestr("x.npy", x)


@pytest.mark.parametrize("x, message", [
    (header(shape=(2**70,)),                   "array x must have as many bytes as its shape (1180591620717411303424,) says"),
    (header(shape=(-1, 2, 3)),                 "array x must have as many bytes as its shape (-1, 2, 3) says"),
    (header() + bytes(119),                    "array x must have as many bytes as its shape (3, 4, 5) says, 120, is of 119."),
    (header() + bytes(121),                    "array x must have as many bytes as its shape (3, 4, 5) says, 120, is of 121."),
    (header(dtype="nonsense"),                 "array x must be an array, is damaged"),
    (header(dtype=("<f2", ("a",))),            "array x must be an array, is damaged"),
    (header(dtype="|O"),                       "array x must hold numbers, is of Python objects."),
    (header(rest="(("),                        "array x must be an array, is damaged"),
    (b"\x93NUMPY\1\0\0\x40" + b"("*0x4000,     "array x must be an array, is damaged"),
    (b"\x93NUMPY\2\0\xff\xff\xff\x7f",         "array x must be an array, is damaged (version (2, 0)"),
    (b"\x93NUMPY\1\0\xff\xff",                "array x must be an array, is damaged"),
])
def test_bad_header(path, x, message):
    save_with_x(path, x)
    with pytest.raises(CaseError, match=re.escape(f"{path}: {message}")) as error:
        load_case(path, CONFIG)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compression(path, method):
    save_with_x(path, header() + bytes(120), method)
    with pytest.raises(CaseError, match="array x must be stored or deflated, is of another kind or encrypted."):
        load_case(path, CONFIG)


@pytest.mark.parametrize("offset, value, message", [
    (6, 99, "must be an .npz file, is none, or a damaged one."),                      # The version that is needed.
    (8, 1,  "array x must be stored or deflated, is of another kind or encrypted."), # The flags.
])
def test_other_kinds_of_zip(path, offset, value, message):
    save(path)
    content = bytearray(open(path, "rb").read())
    content[content.index(b"PK\1\2") + offset] = value
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(CaseError, match=re.escape(message)):
        load_case(path, CONFIG)


@pytest.mark.parametrize("x, message", [
    (header(shape=(20, 1, 2**20)),   "x must have headdim P from 1 to 16, has 1048576"),
    (header(shape=(3, 4, 5)),        "array x must have as many bytes as its shape (3, 4, 5) says"),
])
def test_a_bomb_is_not_unpacked(path, x, message):
    """A small file of a large array is refused by its header."""
    save(path, x=None)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open("x.npy", "w") as member:
        member.write(x)
        for _ in range(20):
            member.write(bytes(2**21))
    tracemalloc.start()
    with pytest.raises(CaseError, match=re.escape(message)):
        load_case(path, CONFIG)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


@pytest.mark.parametrize("content, kind", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer (git lfs pull brings the file itself)"),
    (b"\n<!DOCTYPE html>\n<html>",                                  "an HTML page (a download that failed)"),
])
def test_what_a_download_left(path, content, kind):
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(CaseError, match=re.escape(f"{path}: must be an .npz file, is {kind}.")):
        load_case(path, CONFIG)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(strategies.data())
def test_damage_of_any_kind(tmp_path_factory, data):
    """A case loads, or is refused by a CaseError of one line."""
    path = str(tmp_path_factory.getbasetemp()/"damaged.npz")
    if data.draw(strategies.booleans()):
        save(path)
        content = bytearray(open(path, "rb").read())
        for _ in range(data.draw(strategies.integers(1, 6))):
            content[data.draw(strategies.integers(0, len(content) - 1))] = data.draw(strategies.integers(0, 255))
        with open(path, "wb") as file:
            file.write(content[:data.draw(strategies.integers(0, len(content)))] if data.draw(strategies.booleans()) else content)
    else:
        text = bytearray(header() + bytes(120))
        for _ in range(data.draw(strategies.integers(1, 4))):
            text[data.draw(strategies.integers(0, 80))] = data.draw(strategies.integers(0, 255))
        save_with_x(path, bytes(text))
    try:
        load_case(path, CONFIG)
    except CaseError as error:
        assert "\n" not in str(error)


def test_npy_is_not_npz(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3, "f2"))
    with pytest.raises(CaseError, match="must be an .npz file"):
        load_case(path, CONFIG)


def test_zip_of_something_else(path):
    with zipfile.ZipFile(path, "w") as file:
        for name in arrays():
            file.writestr(f"{name}.npy", b"not an array")
    with pytest.raises(CaseError, match="array x must be an array, is damaged"):
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
    with pytest.raises(UsageError, match="must be the name of a file, is a directory"):
        check_writable(str(tmp_path))
    for path in (tmp_path/"none"/"out.npz", "/proc/out.npz"):
        with pytest.raises(UsageError, match="out.npz: cannot be written"):
            check_writable(str(path))
        with pytest.raises(UsageError, match="out.npz: cannot be written"):
            save_output(str(path), np.zeros(1), np.zeros(1))
    check_writable(str(tmp_path/"out.npz"))
    assert os.listdir(tmp_path) == []
