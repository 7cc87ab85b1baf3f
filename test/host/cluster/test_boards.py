#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The file that names boards: what is read of it, and what is refused, each in one line."""

from argparse import ArgumentParser, Namespace

import pytest

from host.cluster.boards import check_left_out, check_rounding, read_boards
from host.connect import add_device_arguments

from tools.errors import UsageError

# Helpers ------------------------------------------------------------------------------------------

def boards(tmp_path, text):
    path = tmp_path/"boards.toml"
    path.write_text(text)
    return read_boards(path)


def board(name, more=""):
    return f'[[board]]\nname = "{name}"\n{more}\n'

# Tests --------------------------------------------------------------------------------------------

def test_boards(tmp_path):
    found = boards(tmp_path, "stages = 2\nlayers = [1, 2]\n" + board("a") + board("b", 'transport = "etherbone"\nip = "10.0.0.7"\nudp_port = 99\n'
        'csr_csv = "b/csr.csv"\nreload = true\ntimeout_scale = 2.5') + board("c", 'lanes = 8\nfirmware = "/f.bin"\nreload = false') + board("d"))
    assert [[board.name for board in pipeline] for pipeline in found.pipelines] == [["a", "b"], ["c", "d"]] and found.layers == (1, 2)
    parser = ArgumentParser()
    add_device_arguments(parser)
    plain  = vars(parser.parse_args([]))
    a, b, c, _ = (vars(board.options) for board in found.all)
    assert {name: a[name] for name in plain} == plain and a["verbose"] is False
    assert {name: b[name] for name in plain} == plain | dict(transport="etherbone", ip="10.0.0.7", udp_port=99, csr_csv=str(tmp_path/"b"/"csr.csv"),
        reload=True, timeout_scale=2.5)
    assert {name: c[name] for name in plain} == plain | dict(lanes=8, firmware="/f.bin")
    assert [board.timeout_scale for board in found.all] == [1000, 2.5, 1000, 1000]


@pytest.mark.parametrize("count, text, pipelines", [(3, "", 1), (3, "stages = 1\n", 3), (4, "stages = 2\n", 2)])
def test_pipelines(tmp_path, count, text, pipelines):
    found = boards(tmp_path, text + "".join(board(f"b{n}") for n in range(count)))
    assert len(found.pipelines) == pipelines and found.layers is None and len(found.all) == count


@pytest.mark.parametrize("text, message", [
    ("",                                              "board must be 1 to 64 tables, each headed [[board]]."),
    ("board = 3",                                     "board must be 1 to 64 tables, each headed [[board]]."),
    ("board = []",                                    "board must be 1 to 64 tables, each headed [[board]]."),
    ("".join(board(f"b{n}") for n in range(65)),      "board must be 1 to 64 tables, each headed [[board]]."),
    ("[[board]]\n",                                   "board 1: name must be a text, is None."),
    (board("a") + "[[board]]\nname = 3\n",            "board 2: name must be a text, is 3."),
    (board(""),                                       "board 1: name must be a text, is ''."),
    (board("a") + board("a"),                         "board a: the name must be its own, two boards have it."),
    (board("a", "colour = 3"),                        "board a: a key must be name, transport, lanes, "),
    (board("a", "uart_port = 3"),                     "board a: a key must be name, transport, lanes, "),
    (board("a", "lanes = 5"),                         "board a: --lanes: invalid choice: "),
    (board("a", "lanes = [4]"),                       "board a: lanes must be a text or a number, is [4]."),
    (board("a", "lanes = true"),                      "board a: lanes must be a text or a number, is True."),
    (board("a", "reload = 1"),                        "board a: reload must be true or false, is 1."),
    (board("a", "udp_port = 0"),                      "board a: --udp-port: must be an integer from 1 to 65535, is '0'."),
    (board("a", 'transport = "etherbone"') + board("b", 'transport = "etherbone"'), "board b: it must be another one than board a, is reached at the same place."),
    (board("a", 'transport = "uart"\nport = "h:1"') + board("b", 'transport = "uart"\nport = "socket://h:1"'),
        "board b: it must be another one than board a, is reached at the same place."),
    ("stages = 2\n" + board("a"),                     "stages must be a divisor of the 1 boards, is 2."),
    ("stages = 0\n" + board("a"),                     "stages must be an integer of at least 1, is 0."),
    ("stages = \"x\"\n" + board("a"),                 "stages must be an integer of at least 1, is 'x'."),
    ("layers = [1]\n" + board("a") + board("b"),      "layers must be of as many stages as there are, 2, are of 1."),
    ("layers = [1, 0]\n" + board("a") + board("b"),   "layers must be integers of at least 1, is [1, 0]."),
    ("colour = 3\n" + board("a"),                     "a key must be stages, layers, board, is 'colour'."),
    ("= 3",                                           "cannot read the boards (Invalid statement (at line 1, column 1))."),
])
def test_a_bad_file(tmp_path, text, message):
    with pytest.raises(UsageError) as caught:
        boards(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/boards.toml: {message}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, content", [("none.toml", None), ("binary.toml", b"\xff\xfe")])
def test_no_file(tmp_path, name, content):
    if content:
        (tmp_path/name).write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read the boards \("):
        read_boards(tmp_path/name)


def test_options_beside_the_file():
    parser = ArgumentParser()
    add_device_arguments(parser)
    check_left_out(parser.parse_args([]), "boards.toml")
    with pytest.raises(UsageError, match="^--lanes must be left out with --boards, is 8: boards.toml has what each board needs.$"):
        check_left_out(parser.parse_args(["--lanes", "8"]), "boards.toml")
    check_left_out(Namespace(model="tiny"), "boards.toml")


def test_rounding():
    check_rounding([("a", False), ("b", False)])
    with pytest.raises(UsageError, match="^board b: rounding must be that of board a, nearest, is stochastic.$"):
        check_rounding([("a", False), ("b", True)])
