#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The firmware's ring against random hosts and random hardware: test/support/native/fuzz.c says what must not happen."""

import os
import shutil
import subprocess

import pytest


from native import build as native

from operations.config import ProgramConfig, SSMConfig
from operations.protocol import Error

from tools.firmware import build as firmware_build

# Helpers ------------------------------------------------------------------------------------------

CONFIGS = {
    "plain"    : (SSMConfig(), None),
    "resident" : (SSMConfig(lanes=8, resident_tiles=8, stochastic_rounding=True), None),
    "programs" : (SSMConfig(), ProgramConfig(pass_tokens=2)),
}

OF_PROGRAMS = {Error.BAD_IMAGE, Error.BAD_TOKEN, Error.BAD_TOP_K, Error.BAD_STOP_TOKENS, Error.BAD_STORE_EVERY, Error.BAD_LOGITS,
    Error.BAD_SESSIONS, Error.BAD_STAGE}


def run_seeded(program, inputs, seed=1):
    return subprocess.run([program, str(seed), str(inputs)], capture_output=True, text=True, timeout=600)

# Seeded -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", CONFIGS)
def test_seeded_inputs(tmp_path, name):
    """20,000 inputs, by which every error is met that the hardware has."""
    config, program = CONFIGS[name]
    result = run_seeded(native.build_seeded_fuzzer(str(tmp_path), config, program), 20_000)
    assert result.returncode == 0, result.stderr[-2000:]
    met = {Error(number) for number, count in enumerate(map(int, result.stdout.split())) if count}
    # A self-test whose tiles nobody computes fails; without tiles on chip RESIDENT is a bad flag.
    assert met == set(Error) - (set() if config.resident_tiles else {Error.BAD_TILE}) - (set() if program else OF_PROGRAMS)


@pytest.mark.parametrize("file, code, without, message", [
    ("request.h",   "if (offset >= size || bytes > size - offset)", "if (bytes > size - offset)",
        "not so: |AddressSanitizer"),
    ("checksum.c",  "4ull*checksum_blocks(job)",                "4ull",                      "table_named|AddressSanitizer"),
    ("scheduler.c", "cycles_now() - run->start >= run->timeout", "0",                         "waits without end"),
    ("ring.c",      "rung - completed > RING_ENTRIES",          "0",                         "not so: |waits without end"),
    ("ring.c",      "if ((int32_t)(doorbell - completed) <= 0)", "if (doorbell == completed)", "not so: "),
    ("image.c",     " && bytes <= image->image_bytes - place",  " && bytes + 1",             "not so: found|AddressSanitizer"),
    ("image.c",     "if (word < sizeof(*program)/4)",           "if (word < 1)",             "not so: found"),
    ("passes.c",    "if (token < passes_image.vocabulary)",     "if (token < 100000)",       "not so: found"),
    ("passes.c",    "passes->task->detail < IMAGE_WORDS",       "passes->task->detail < 2",   "not so: found|AddressSanitizer"),
    ("passes.c",    "(error = request_range(&out, regions->session_out, session, detail))", "(out = in, 0)", "not so: found|AddressSanitizer"),
    ("passes.c",    "if (range_overlap(&out, &model) || range_overlap(&out, &input))", "if (0)", "not so: found"),
    ("passes.c",    "if (range_overlap(&out, &in) && out.first != in.first)", "if (0)",      "not so: found"),
    ("batch.c",     "if (range_overlap(&sessions, &model) || range_overlap(&sessions, &texts))", "if (0)", "not so: found"),
    ("batch.c",     "if (job->session_count > passes_image.sessions)", "if (0)",               "not so: found|AddressSanitizer"),
    ("passes.c",    "range_overlap(&output, &input) ||",         "",                          "not so: found"),
    ("passes.c",    "return passes_image.stage ? ERROR_BAD_STAGE : ERROR_NONE;", "return ERROR_NONE;", "not so: found"),
    ("generate.c",  "(left < passes_image.pass_tokens ? left : passes_image.pass_tokens) - 1", "MAX_PASS_TOKENS - 1", "not so: |AddressSanitizer"),
])
def test_the_fuzzer_finds(tmp_path, monkeypatch, file, code, without, message):
    """A firmware from which a check was removed."""
    folder = tmp_path/"firmware"
    shutil.copytree(firmware_build.DIRECTORY, folder)
    text = (folder/file).read_text()
    assert text.count(code) == 1
    (folder/file).write_text(text.replace(code, without))
    monkeypatch.setattr(firmware_build, "DIRECTORY", str(folder))
    program = file in ("generate.c", "batch.c", "pass_job.c", "passes.c", "image.c")
    fuzzer  = native.build_seeded_fuzzer(str(tmp_path), *CONFIGS["programs" if program else "plain"])
    result  = run_seeded(fuzzer, 100_000 if program else 20_000)
    assert result.returncode != 0
    assert any(part in result.stderr for part in message.split("|")), result.stderr[-2000:]

# libFuzzer ----------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.timeout(4*3600)
def test_ten_million_inputs(tmp_path):
    """By libFuzzer, which makes inputs that reach new code. FUZZ_RUNS changes their number."""
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed: apt-get install clang libclang-rt-14-dev (Debian 12)")
    runs   = int(os.environ.get("FUZZ_RUNS", 10_000_000))
    corpus = tmp_path/"corpus"
    corpus.mkdir()
    result = subprocess.run([native.build_fuzzer(str(tmp_path), *CONFIGS["programs"]), f"-runs={runs}", "-seed=1", "-max_len=128",
        "-timeout=60", str(corpus)], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    assert f"Done {runs} runs" in result.stderr
