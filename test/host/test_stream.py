#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""host/stream.py as its users run it: in a process of its own, against a device in software."""

import json
import os
import signal
import subprocess
import sys
import time
import types


import numpy as np
import pytest


from fake_device import RAM_BASE, EtherboneServer, FakeDevice, UARTBoneServer, fake_firmware
from stream_harness import STREAM, StreamHarness, assert_one_line, small_arrays

from host import stream
from host.commands.selftest import TESTS
from host.connect import port_url
from host.link.etherbone import open_socket

from model.bitexact import ssm_block

from operations.config import ProgramConfig, SystemConfig
from operations.protocol import DATA_OFFSET, PROTOCOL_VERSION, Error

# Helpers ------------------------------------------------------------------------------------------

@pytest.fixture
def harness(tmp_path):
    with FakeDevice() as fake, EtherboneServer(fake) as etherbone, UARTBoneServer(fake) as uart:
        yield StreamHarness(tmp_path, fake, etherbone, uart)


def assert_output(harness):
    with np.load(harness.output) as file:
        y, h = ssm_block(**harness.arrays)
        assert sorted(file.files) == ["h", "y"]
        assert file["y"].tobytes() == y.tobytes()
        assert file["h"].tobytes() == h.tobytes()

# Success ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("link, mode", [("etherbone", "prefill"), ("etherbone", "decode"), ("uart", "prefill")])
def test_run(harness, link, mode):
    code, stdout, stderr = harness.run_case("--mode", mode, "--json", harness.folder/"summary.json", link=link)
    assert (code, stderr) == (0, "")
    assert_output(harness)
    summary = json.loads((harness.folder/"summary.json").read_text())
    assert {"cycles", "cycles_per_token", "lane_busy_cycles", "dma_read_bytes", "dma_write_bytes", "clock_hz", "lanes",
        "transport", "firmware"} <= set(summary)
    assert (summary["transport"], summary["mode"], summary["firmware"]) == (link, mode, "1.2.3")
    assert (summary["cycles"], summary["cycles_per_token"], summary["clock_hz"]) == (4000, 1000, 100_000_000)
    assert f"4 tokens of 4 heads x 5 x 20, {mode}, by {link}" in stdout
    assert "4000: 1000.0 a token, 10.0 us at 100 MHz" in stdout
    assert "0 cycles for a head tile, 0 cycles for inputs" in stdout
    assert summary["not_finite"] == {"y": 0, "h": 0}
    assert "not finite 0 of 80 values of y, 0 of 400 values of h" in stdout


def test_names_that_are_not_utf8(harness):
    """Of files that is no error."""
    harness.output = harness.folder/os.fsdecode(b"out\xff.npz")
    code, stdout, stderr = harness.run_case()
    assert (code, stderr) == (0, "") and stdout.endswith("out\\udcff.npz\n")
    assert_output(harness)


def test_run_counts_what_is_not_finite(harness):
    """What the device computed is written, and said."""
    harness.arrays["x"][1, 2, 3] = np.nan     # From token 1 on, in this row of the state and y.
    harness.arrays["h0"][0, 0, 0] = 6e4
    harness.arrays["dA"][:, 0]    = 2.0       # Overflows.
    np.savez(harness.case, **harness.arrays)
    code, stdout, stderr = harness.run_case("--json", harness.folder/"summary.json")
    assert (code, stderr) == (0, "")
    assert_output(harness)
    y, h  = ssm_block(**harness.arrays)
    count = {"y": int((~np.isfinite(y)).sum()), "h": int((~np.isfinite(h)).sum())}
    assert count["y"] >= 3 + 4 and count["h"] >= 20 + 1
    assert json.loads((harness.folder/"summary.json").read_text())["not_finite"] == count
    assert f"not finite {count['y']} of 80 values of y, {count['h']} of 400 values of h" in stdout


@pytest.mark.parametrize("options, message", [
    (["--mode", "decode", "--store-every", 0],     "argument --store-every: must be an integer from 1 to 65535, is '0'."),
    (["--mode", "decode", "--store-every", 65536], "argument --store-every: must be an integer from 1 to 65535, is '65536'."),
    (["--store-every", 2],                         "--store-every must be 1 with --mode prefill, is 2; --mode decode takes others."),
])
def test_bad_store_every(harness, options, message):
    code, stdout, stderr = harness.run_case(*options)
    assert (code, stdout) == (2, "")
    assert_one_line(stderr, message)
    assert harness.etherbone.counts["in"] == 0


def test_info_and_selftest(harness):
    path = harness.folder/"summary.json"
    code, stdout, stderr = harness.run("info", "--json", path)
    assert (code, stderr) == (0, "")
    assert "16 lanes at 100 MHz" in stdout and "headdim 64" in stdout
    assert json.loads(path.read_text())["max_d_state"] == 128
    code, stdout, stderr = harness.run("selftest", "--json", path)
    assert (code, stderr) == (0, "")
    assert [line.split()[:2] for line in stdout.splitlines()] == [[name, "passed:"] for name in TESTS if name != "engines"]
    assert json.loads(path.read_text())["passed"] is True
    assert harness.fake.boots == 1 # The second command found the firmware running.


def test_selftest_finds_a_stuck_word(harness):
    harness.fake.stuck = RAM_BASE + DATA_OFFSET + 0x40
    code, stdout, stderr = harness.run("selftest")
    assert code == 1 and "firmware   passed" in stdout and "link       passed" not in stdout
    assert_one_line(stderr, f"0x{harness.fake.stuck:08x} reads 0x00000000")


# Load, StreamHarness, Reset, Discover ---------------------------------------------------------------------

def test_load_is_resumed_and_kept(harness):
    """What is there is not sent again; a run leaves it alone; reset forgets it."""
    random  = np.random.default_rng(3)
    path    = harness.folder/"summary.json"
    weights = harness.folder/"weights.npz"
    np.savez(weights, a=random.random((40, 50), np.float32), b=random.integers(0, 255, 777, np.uint8))
    other   = harness.folder/"other.bin"
    other.write_bytes(random.bytes(12_345))
    command = ["load", weights, other, "--json", path, "--manifest", harness.folder/"manifest.json"]
    code, stdout, stderr = harness.run(*command)
    assert (code, stderr) == (0, "")
    summary = json.loads(path.read_text())
    assert summary["sections"] == 3 and summary["sent"] == summary["bytes"] >= 8000 + 777 + 12_345
    sections = {section["name"]: section for section in json.loads((harness.folder/"manifest.json").read_text())["sections"]}
    assert list(sections) == ["a", "b", "other.bin"]
    offset = RAM_BASE + DATA_OFFSET + sections["other.bin"]["offset"]
    assert harness.fake.load(offset, 12_344) == other.read_bytes()[:12_344]

    assert harness.run_case()[0] == 0
    assert_output(harness)
    harness.fake.store(offset, bytes(4)) # Damage.
    code, stdout, stderr = harness.run(*command)
    summary = json.loads(path.read_text())
    assert code == 0 and 0 < summary["sent"] <= 4096
    assert "3 sections" in harness.run("info")[1]
    assert harness.run("reset")[0] == 0
    assert "loaded     nothing" in harness.run("info")[1]


@pytest.mark.parametrize("content, name, message", [
    (b"",      "x.bin",         "files must hold at least one byte"),
    (b"no",    "x.npz",         "must be an .npz file"),
    (b"no",    "x.safetensors", "must be a .safetensors file"),
    (None,     "x.bin",         "cannot be read"),
])
def test_load_refuses(harness, content, name, message):
    path = harness.folder/name
    if content is not None:
        path.write_bytes(content)
    code, stdout, stderr = harness.run("load", path)
    assert (code, stdout) == (2, "")
    assert_one_line(stderr, message)


def test_bench(harness):
    path = harness.folder/"summary.json"
    code, stdout, stderr = harness.run("bench", "--size", 65536, "--json", path)
    assert (code, stderr) == (0, "")
    summary = json.loads(path.read_text())
    assert summary["bytes"] == 65536 and summary["write_bytes_per_second"] > 0 and "round trip" in stdout
    for size in ("0", "4097", "x"):
        code, _, stderr = harness.run("bench", "--size", size)
        assert code == 2
        assert_one_line(stderr, f"must be a multiple of 64 from 4096 to 134217728, is {size!r}")


def test_discover(harness):
    done = subprocess.run([sys.executable, STREAM, "discover", "--network", harness.etherbone.ip, "--udp-port",
        str(harness.etherbone.port)], text=True, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"{harness.etherbone.ip}\n")
    done = subprocess.run([sys.executable, STREAM, "discover", "--network", "10.0.0.0/8"], text=True, capture_output=True,
        timeout=30)
    assert done.returncode == 2
    assert_one_line(done.stderr, "10.0.0.0/8")


def test_completion():
    done = subprocess.run([sys.executable, STREAM, "--print-completion", "bash"], text=True, capture_output=True, timeout=30)
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("load", "generate", "discover", "--transport", "--store-every"))
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0


def test_rounding_of_a_board_is_checked(harness):
    code, _, stderr = harness.run("info", "--rounding", "stochastic")
    assert code == 2
    assert_one_line(stderr, "--rounding stochastic is not what the device does: nearest.")
    code, _, stderr = harness.run_case("--seed", 3)
    assert code == 2
    assert_one_line(stderr, "--seed must be left out, is 3: this device rounds the state to nearest")
    code, _, stderr = harness.run_case("--seed", 2**32)
    assert code == 2
    assert_one_line(stderr, "must be an integer from 0 to 4294967295, is '4294967296'.")
    assert not harness.output.exists()


def test_resident_tiles_of_a_board_are_checked(harness):
    code, _, stderr = harness.run("info", "--resident-tiles", 24)
    assert code == 2
    assert_one_line(stderr, "--resident-tiles 24 is not what the device has: 0.")


def test_lanes_of_a_board_are_checked(harness):
    assert harness.run("info", "--lanes", 16)[0] == 0
    code, _, stderr = harness.run("info", "--lanes", 8)
    assert code == 2
    assert_one_line(stderr, "--lanes 8 is not what the device has: 16")


def test_ports_of_a_board_are_checked(harness):
    assert harness.run("info", "--data-width", 128)[0] == 0
    code, _, stderr = harness.run("info", "--data-width", 256)
    assert code == 2
    assert_one_line(stderr, "--data-width 256 is not what the device has: 128.")


def test_verbose(harness):
    code, _, stderr = harness.run("info", "--verbose")
    assert code == 0
    assert stderr.splitlines() == ["Connected by etherbone.", "Firmware loaded: 16 lanes."]

# Failure ------------------------------------------------------------------------------------------

def test_bad_case(harness):
    np.savez(harness.case, **(harness.arrays | {"x": harness.arrays["x"].astype("f4")}))
    code, stdout, stderr = harness.run_case()
    assert (code, stdout) == (2, "")
    assert_one_line(stderr, f"stream.py: error: {harness.case}: x must be float16, is float32.")
    assert not harness.output.exists()
    assert harness.etherbone.counts["in"] == 0 # Found before anything was sent.


def test_case_beyond_the_maxima_of_the_device(harness):
    np.savez(harness.case, **small_arrays(P=65))
    code, _, stderr = harness.run_case()
    assert code == 2
    assert_one_line(stderr, "x must have headdim P from 1 to 64, has 65; build the gateware with --max-headdim 65.")


def test_case_beyond_the_memory_of_the_device(harness):
    np.savez(harness.case, **small_arrays(T=60000, G=1, N=4))
    code, _, stderr = harness.run_case()
    assert code == 2
    assert_one_line(stderr, "x of 60000 tokens of 15360000 bytes does not fit")


@pytest.mark.parametrize("option", ["--output", "--json"])
def test_output_that_cannot_be_written(harness, option):
    code, _, stderr = harness.run_case(option, harness.folder/"none"/"file")
    assert code == 2
    assert_one_line(stderr, "none/file: cannot be written (No such file or directory)")
    assert harness.etherbone.counts["in"] == 0


@pytest.mark.parametrize("arguments, message", [
    (["run"],                             "the following arguments are required"),
    (["run", "x.npz", "--output", "y", "--mode", "fast"], "argument --mode: invalid choice: 'fast'"),
    (["info", "--lanes", "5"],            "argument --lanes: invalid choice: 5"),
    (["fly"],                             "argument command: invalid choice: 'fly'"),
    ([],                                  "the following arguments are required: command"),
    (["info", "--transport", "etherbone"], "--csr-csv is missing: give csr.csv from the folder"),
    (["info", "--transport", "etherbone", "--csr-csv", "/none"], "/none: cannot read the SoC's map"),
])
def test_bad_options(arguments, message):
    process = subprocess.run([sys.executable, STREAM, *arguments], text=True, capture_output=True)
    assert process.returncode == 2
    assert_one_line(process.stderr, message)


def test_uart_without_port(harness):
    harness.links["uart"] = ["--transport", "uart"]
    code, _, stderr = harness.run("info", link="uart")
    assert code == 2
    assert_one_line(stderr, "--uart-port is missing: give a serial port such as")


def test_failing_job(harness):
    harness.fake.fail = {0: (Error.GATEWARE, 4)}
    code, _, stderr = harness.run_case()
    assert code == 1
    assert_one_line(stderr, "Job 0 failed: GATEWARE (error 15, detail 0x4).")
    assert not harness.output.exists()
    harness.fake.fail = {}
    assert harness.run_case()[0] == 0
    assert_output(harness)


def test_version_mismatch(harness):
    (harness.folder/"firmware.bin").write_bytes(fake_firmware(version=PROTOCOL_VERSION + 1))
    code, _, stderr = harness.run_case()
    assert code == 1
    assert_one_line(stderr, f"The firmware speaks protocol version {PROTOCOL_VERSION + 1}, this host version {PROTOCOL_VERSION}")


def test_link_failure(harness):
    harness.links["uart"] = ["--transport", "uart", "--port", "127.0.0.1:1"]
    code, _, stderr = harness.run_case(link="uart")
    assert code == 1
    assert_one_line(stderr, "Cannot open socket://127.0.0.1:1")


@pytest.mark.parametrize("number, expected", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(harness, number, expected):
    harness.output.write_text("before")
    harness.fake.deaf = 2 # Takes the job that tries the firmware out, and one token.
    assert harness.run("info")[0] == 0
    process = harness.start("run", harness.case, "--output", harness.output, "--mode", "decode")
    while harness.fake.csrs["doorbell"] < 4 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == expected, stderr
    assert "Traceback" not in stderr
    assert harness.output.read_text() == "before"
    harness.fake.listen()
    assert harness.run_case()[0] == 0
    assert_output(harness)
    assert sorted(os.listdir(harness.folder)) == ["case.npz", "csr.csv", "firmware.bin", "out.npz"]

# Simulation ---------------------------------------------------------------------------------------

class FakeSimulation:
    """What stream.py uses of a Simulation."""
    broken = False

    def __init__(self, config, verbose=False, dram=()):
        self.harness.config = config
        self.transport_kind = "etherbone"
        self.csr_csv        = self.harness.folder/"csr.csv"
        self.firmware       = self.harness.folder/"firmware.bin"
        self.harness.closed = 0

    def __enter__(self):
        if self.broken:
            raise RuntimeError("verilator\nis not installed")
        return self

    def open_socket(self):
        return open_socket(self.harness.etherbone.ip, self.harness.etherbone.port)

    def alive(self):
        return True

    def close(self):
        self.harness.closed += 1


@pytest.fixture
def simulation(harness, monkeypatch):
    """Puts FakeSimulation in the place of the simulated SoC."""
    kind = type("Simulation", (FakeSimulation,), {"harness": harness})
    for name in ("targets.sim", "tools.simulation.runner"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(Simulation=kind))
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    return kind


def test_simulation(harness, simulation):
    assert stream.main(["run", str(harness.case), "--output", str(harness.output)]) == 0
    assert_output(harness)
    assert (harness.config, harness.closed) == (SystemConfig(), 1)


def test_lanes_choose_the_simulation(harness, simulation, capsys):
    assert stream.main(["info", "--lanes", "32"]) == 2 # The fake device has 16.
    assert (harness.config, harness.closed) == (SystemConfig.of(lanes=32), 1)
    assert_one_line(capsys.readouterr().err, "--lanes 32 is not what the device has: 16.")


@pytest.mark.parametrize("tokens, mode", [(3, "prefill"), (1, "decode")])
@pytest.mark.parametrize("where, name", [("y_address", "y"), ("state_out", "h")])
def test_selftest_finds_a_wrong_bit_of_the_core(harness, simulation, capsys, tokens, mode, where, name):
    """One bit, of one value of y or of the state, in one of the modes."""
    right = harness.fake._ssm

    def wrong(job):
        result = right(job)
        if job["tokens"] == tokens:
            harness.fake.bus_write(job[where], harness.fake.bus_read(job[where]) ^ 8)
        return result

    assert stream.main(["selftest"]) == 0
    harness.fake._ssm = wrong
    capsys.readouterr()
    assert stream.main(["selftest"]) == 1
    captured = capsys.readouterr()
    assert "DRAM       passed" in captured.out and "core       passed" not in captured.out
    assert_one_line(captured.err, f"of {name} differ from the bit-accurate model, {mode}.")


@pytest.mark.parametrize("tokens", [1, 4])
def test_selftest_finds_a_wrong_bit_of_the_engines(harness, simulation, capsys, tokens):
    """One bit of one logit, in either pass. A device that lacks a unit has no such test."""
    harness.fake.program = ProgramConfig(pass_tokens=tokens)
    assert stream.main(["selftest"]) == 0
    captured = capsys.readouterr()
    assert [line.split()[:2] for line in captured.out.splitlines()] == [[name, "passed:"] for name in TESTS]
    assert f"5 head tiles, and {2*tokens} tokens of a model through all engines, in" in captured.out and f"logits of {tokens + 1} tokens of a model" in captured.out
    right = harness.fake._generate
    for place, count in ((0, tokens), (4*80*tokens, 1)):
        def wrong(job, place=place):
            result = right(job)
            harness.fake.bus_write(job["output"] + place, harness.fake.bus_read(job["output"] + place) ^ 8)
            return result
        harness.fake._generate = wrong
        assert stream.main(["selftest"]) == 1
        captured = capsys.readouterr()
        assert "core       passed" in captured.out and "engines    passed" not in captured.out
        assert_one_line(captured.err, f"engines: 1 of {80*count} logits differ from the exact model's, pass of {count} token")
    harness.fake.program = ProgramConfig(units=("MOVE", "GEMV", "VECTOR", "SSM"))
    assert stream.main(["selftest", "--reload"]) == 0
    assert "engines" not in capsys.readouterr().out


def test_simulation_that_does_not_start(harness, simulation, capsys):
    simulation.broken = True
    assert stream.main(["info"]) == 1
    assert harness.closed == 1
    assert_one_line(capsys.readouterr().err, "The simulation did not start: verilator is not installed")


def test_case_is_checked_before_the_simulation_starts(harness, simulation, capsys):
    harness.closed = None
    np.savez(harness.case, **small_arrays(P=65))
    assert stream.main(["run", str(harness.case), "--output", str(harness.output)]) == 2
    assert harness.closed is None
    assert_one_line(capsys.readouterr().err, "x must have headdim P from 1 to 64, has 65; build the gateware with --max-headdim 65.")

# Ports --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("port, url", [
    ("/dev/ttyUSB1",          "/dev/ttyUSB1"),
    ("COM3",                  "COM3"),
    ("localhost:4321",        "socket://localhost:4321"),
    ("socket://host:4321",    "socket://host:4321"),
    ("rfc2217://host:4321",   "rfc2217://host:4321"),
    ("/dev/serial/by-id/a:1", "/dev/serial/by-id/a:1"),
])
def test_port_url(port, url):
    assert port_url(port) == url
