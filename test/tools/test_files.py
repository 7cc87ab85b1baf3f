#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Files that commands write: where they are links, devices or pipes, or cannot be written at all."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from tools.arguments import Parser
from tools.command import printable
from tools.errors import UsageError
from tools.files import check_writable, save_json, write_atomically
from tools.paths import ROOT

# Write --------------------------------------------------------------------------------------------

def test_link(tmp_path):
    """It stays one, and what it leads to is written, also where that is not there yet."""
    for target in (tmp_path/"old.json", tmp_path/"new.json"):
        if target.name == "old.json":
            target.write_text("before")
        link = tmp_path/f"to_{target.name}"
        link.symlink_to(target)
        check_writable(str(link))
        save_json(str(link), {"a": 1})
        assert link.is_symlink() and target.read_text() == '{\n    "a": 1\n}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "old.json", "to_new.json", "to_old.json"]


def test_pipe(tmp_path):
    path = tmp_path/"pipe"
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    check_writable(str(path))
    save_json(str(path), {"a": 1})
    reader.join(10)
    assert read == ['{\n    "a": 1\n}\n'] and path.is_fifo()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_device(tmp_path):
    """As /dev/null, which must not become a file."""
    path = tmp_path/"null"
    os.mknod(path, 0o020666, os.makedev(1, 3))
    check_writable(str(path))
    save_json(str(path), {"a": 1})
    assert path.is_char_device()


def test_failure_leaves_the_file(tmp_path):
    path = tmp_path/"file"
    path.write_text("before")
    def write(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")
    with pytest.raises(UsageError, match="cannot be written .No space left on device."):
        write_atomically(str(path), write)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name, message", [
    ("",           "'': must be the name of a file, is empty."),
    (".",          ".: must be the name of a file, is a directory."),
    (300*"n",      f"{300*'n'}: cannot be written (File name too long): choose a folder that can."),
    ("no/folder",  "no/folder: cannot be written (No such file or directory): choose a folder that can."),
])
def test_not_writable(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        check_writable(name)
    assert not list(tmp_path.iterdir())


def test_same_file(tmp_path):
    """One output does not overwrite another."""
    (tmp_path/"link").symlink_to(tmp_path/"file")
    with pytest.raises(UsageError, match="must be another file than that of the other option"):
        check_writable(str(tmp_path/"file"), None, str(tmp_path/"link"))
    check_writable(str(tmp_path/"file"), None, str(tmp_path/"other"))
    check_writable("/dev/null", "/dev/null")

# Commands -----------------------------------------------------------------------------------------

def stream(*arguments, **options):
    return subprocess.run([sys.executable, ROOT/"host"/"stream.py", *map(str, arguments)], capture_output=True, text=True, **options)


def test_nothing_is_done_for_an_output_that_cannot_be(tmp_path):
    done = stream("generate", "--on", "exact", "--prompt", "a", "--tokens", 1, "--save-session", "")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "stream.py: error: '': must be the name of a file, is empty.\n")
    path = tmp_path/"both"
    done = stream("generate", "--on", "exact", "--prompt", "a", "--tokens", 1, "--save-session", path, "--json", path)
    assert done.returncode == 2 and done.stdout == "" and not path.exists()


@pytest.mark.parametrize("arguments, message", [
    (("generate", "--on", "exact", "--model", "model", "--prompt", "a", "--json",         "model"),     "model"),
    (("generate", "--on", "exact", "--model", "model", "--prompt", "a", "--save-session", "model"),     "model"),
    (("generate", "--on", "exact", "--load-session", "session", "--json",                 "session"),   "session"),
    (("generate", "--on", "exact", "--tokenizer", "tokenizer", "--prompt", "a", "--json", "tokenizer"), "tokenizer"),
    (("logits",   "--on", "exact", "--model", "model", "--tokens", "1", "--output",       "model"),     "model"),
    (("load",     "--model", "model", "--plan", "--json",                                 "model"),     "model"),
    (("load",     "model", "file", "--json",                                              "file"),      "file"),
    (("load",     "model", "file", "--manifest",                                          "link"),      "link"),
])
def test_what_is_read_is_not_overwritten(tmp_path, arguments, message):
    for name in ("model", "session", "tokenizer", "file"):
        (tmp_path/name).write_text(name)
    (tmp_path/"link").symlink_to("file")
    done = stream(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"stream.py: error: {message}: must be another file than that of the other option, "
        "is the same.\n")
    assert all((tmp_path/name).read_text() == name for name in ("model", "session", "tokenizer", "file"))


def test_a_session_goes_on_in_its_file(tmp_path):
    path  = tmp_path/"session"
    sizes = []
    for options in (("--prompt", "a"), ("--load-session", path)):
        done = stream("generate", "--on", "exact", "--tokens", 1, *options, "--save-session", path)
        assert done.returncode == 0, done.stderr
        sizes.append(path.stat().st_size)
    assert sizes[1] == sizes[0] + 8 # Of a token.


def test_interrupted_while_packages_are_imported(tmp_path):
    """Ended by the signal, without a traceback."""
    (tmp_path/"shtab.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    done = stream("info", env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output(closed):
    done = subprocess.run(["sh", "-c", f"{sys.executable} {ROOT}/host/stream.py generate --on exact --prompt a --tokens 1 {closed}"],
        capture_output=True, text=True)
    assert done.returncode == 0 and "rror" not in done.stdout + done.stderr
    assert done.stdout in ("", "an\n")


def test_double_dash_is_a_value():
    """Of an option; Python before 3.13 makes a list of it."""
    parser = Parser()
    parser.add_argument("--prompt", default="")
    parser.add_argument("--number", type=int)
    parser.add_argument("files", nargs="*")
    assert parser.parse_args(["--prompt=--", "--", "a"]) == parser.parse_args(["--prompt=--", "a"])
    assert parser.parse_args(["--prompt=--"]).prompt == "--"
    with pytest.raises(SystemExit):
        parser.parse_args(["--number=--"])
    done = stream("generate", "--on", "exact", "--prompt=--", "--tokens", 0)
    assert (done.returncode, done.stdout) == (0, "--\n")


def test_errors_do_not_steer_the_terminal():
    assert printable("a \x1b[31m\n b\u202e \N{GREEK SMALL LETTER MU}") == "a \\x1b[31m b\\u202e \N{GREEK SMALL LETTER MU}"
