#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Stand-alone Verilog: every example is generated, linted, simulated and synthesised."""

import os
import re
import subprocess
import sys


import pytest
import yaml

from hypothesis import given, settings
from hypothesis import strategies as st

from cores.ssm.gen import KEYS, generate, load_config, main

from tools.paths import ROOT
from tools.yosys import synthesise

# Constants ----------------------------------------------------------------------------------------

EXAMPLES = sorted((ROOT/"examples").glob("*.yml"))

EVERY_EXAMPLE = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)

DSPS = {4: 32, 8: 60, 16: 48} # By lanes. Below 16 some take the place of LUTs.

WAIVED = {
    "COMBDLY"     : "Migen writes combinational logic as always @(*) with <=.",
    "WIDTH"       : "Migen leaves extension and truncation to Verilog's rules, and writes constants as narrow as they are.",
    "INITIALDLY"  : "Initial values must be changes, for always @(*) to see them; see gather_initial_values.",
    "UNUSEDSIGNAL": "Streams bring fields, memory ports and slices bits, that not every user reads.",
    "BLKSEQ"      : "LiteX writes to an element of an array by way of a temporary variable.",
}

# Examples -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def verilog(tmp_path_factory):
    """{name: path of the Verilog}."""
    folder = tmp_path_factory.mktemp("gen")
    for example in EXAMPLES:
        main([str(example), "--output-dir", str(folder)])
    return {example: folder/f"{example.stem}.v" for example in EXAMPLES}


@EVERY_EXAMPLE
def test_example_is_written(verilog, example):
    name, memory, data_width, config = load_config(example)
    text = verilog[example].read_text()
    assert name == example.stem # The command says which file is whose.
    assert re.search(rf"^module {name} \($", text, re.MULTILINE)
    assert text == generate(name, memory, data_width, config) # Nothing in it depends on time or order.
    # The table of ports is that of the module.
    header, body = text.split("\nmodule ", 1)
    declared = re.findall(r"^    (in|out)put +(?:wire|reg) +(?:signed +)?(?:\[(\d+):0\])? *(\w+)", body, re.MULTILINE)
    table    = re.findall(r"^//   (in|out) +(?:\[(\d+):0\])? *(\w+)", header.split("// Ports")[1], re.MULTILINE)
    assert sorted(table) == sorted(declared) and len(table) > 10
    assert f"//   lanes        {config.lanes}\n" in text


@EVERY_EXAMPLE
def test_example_is_clean(verilog, example):
    command = ["verilator", "--lint-only", "-Wall", *[f"-Wno-{name}" for name in WAIVED], "--top-module", example.stem]
    done    = subprocess.run([*command, str(verilog[example])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]


def simulate(example, verilog, folder):
    """Run the tests of cocotb_gen.py on the Verilog of a configuration."""
    # Logic that goes round and round in no time would never end.
    command = ["timeout", "300", sys.executable, ROOT/"test"/"support"/"cocotb_gen.py", verilog, folder]
    done    = subprocess.run(command, env={**os.environ, "EXAMPLE": str(example)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = (folder/"results.xml").read_text()
    assert "<failure" not in report and "<error" not in report and report.count("<testcase") == 4, report


@EVERY_EXAMPLE
def test_example_is_the_model(verilog, example, tmp_path):
    """Tiles through the Verilog in Icarus, with streams that pause: y and state equal the model's bits."""
    simulate(example, verilog[example], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ["lanes: 4\nqueue_depth: 2\nresident_tiles: 4\n", "lanes: 16\nqueue_depth: 2\n",
    "lanes: 32\nqueue_depth: 32\n"])
def test_axi_core_of_other_sizes(parameters, tmp_path):
    """Its tags are as many as the queue is deep."""
    config = tmp_path/"core.yml"
    config.write_text(f"name: core\nmemory: axi4\n{parameters}")
    main([str(config), "--output-dir", str(tmp_path)])
    simulate(config, tmp_path/"core.v", tmp_path)


@pytest.mark.slow
@EVERY_EXAMPLE
def test_example_is_synthesised(verilog, example):
    *_, config = load_config(example)
    cells = synthesise(verilog[example].read_text(), example.stem).count()
    assert cells["DSP48E1"] == DSPS[config.lanes]
    assert cells["RAMB36E1"] + cells["RAMB18E1"] > 0

# Errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, message", [
    ("lanes: 5",               "lanes must be one of 4, 8, 16, 32, 64, is 5."),
    ("lanes: four",            "lanes must be one of 4, 8, 16, 32, 64, is 'four'."),
    ("lanes: 16.0",            "lanes must be one of 4, 8, 16, 32, 64, is 16.0."),
    ("lanes: 8\nname: a\nlanes: 16", "'lanes' must stand there once, stands there 2 times."),
    ("max_headdim: 0",         "max_headdim must be an integer from 1 to 256, is 0."),
    ("max_headdim: 64.0",      "max_headdim must be an integer from 1 to 256, is 64.0."),
    ("max_d_state: 12",        "max_d_state must be a multiple of 16, is 12."),
    ("max_d_state: yes",       "max_d_state must be an integer from 1 to 512, is True."),
    ("queue_depth: 3",         "queue_depth must be one of 2, 4, 8, 16, 32, is 3."),
    ("queue_depth: 8.0",       "queue_depth must be one of 2, 4, 8, 16, 32, is 8.0."),
    ("dsp_bits: 18.0",         "dsp_bits must be one of 18, 25, is 18.0."),
    ("resident_tiles: 0.0",    "resident_tiles must be an integer from 2 to 256, is 0.0."),
    ("resident_tiles: false",  "resident_tiles must be an integer from 2 to 256, is False."),
    ("pipelined: 1",           "pipelined must be True or False, is 1."),
    ("memory: ddr",            "memory must be one of none, axi4, is 'ddr'."),
    ("memory: [axi4]",         "memory must be one of none, axi4, is ['axi4']."),
    ("name: 1st",              "name must be letters, digits and _, a letter first, and no keyword of Verilog, is '1st'."),
    ("name: module",           "name must be letters, digits and _, a letter first, and no keyword of Verilog, is 'module'."),
    ("name: 5",                "name must be letters, digits and _, a letter first, and no keyword of Verilog, is 5."),
    ("name: aclk",             "name must not be that of a port, is 'aclk'."),
    ("name: x_stride\nmemory: axi4", "name must not be that of a port, is 'x_stride'."),
    ("lanez: 4",               f"key must be one of {', '.join(KEYS)}, is 'lanez'."),
    ("5: 4",                   f"key must be one of {', '.join(KEYS)}, is 5."),
    ("[1]: 4",                 "is not YAML: "),
    ("- lanes",                "a configuration must be lines of `key: value`, is ['lanes']."),
    ("lanes: [",               "is not YAML: "),
    ("lanes: 2024-13-01",      "is not YAML: "),
    (5000*"[",                 "is not YAML: "),
])
def test_error(tmp_path, capsys, text, message):
    path = tmp_path/"bad.yml"
    path.write_text(text)
    with pytest.raises(SystemExit) as exit:
        main([str(path), "--output-dir", str(tmp_path/"out")])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and str(path) in error
    assert not (tmp_path/"out").exists()


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text()), st.one_of(st.none(), st.booleans(),
    st.integers(), st.floats(), st.text(), st.lists(st.integers()))).map(yaml.safe_dump)))
def test_any_text(tmp_path_factory, text):
    """A configuration is understood or refused with a ValueError of one line, nothing else."""
    path = tmp_path_factory.mktemp("config")/"any.yml"
    path.write_text(text, errors="replace")
    try:
        load_config(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}") and "\n" not in str(error)


def test_output_that_cannot_be_written(tmp_path, capsys):
    """Is told before the work, in one line; and what is there stays."""
    config, file = tmp_path/"core.yml", tmp_path/"file"
    config.write_text("name: core\n")
    file.write_text("before")
    (tmp_path/"core.v").mkdir()
    for folder, message in ((file, f"--output-dir must be a folder, is '{file}' (File exists)."), ("/proc/none", "--output-dir must "
        "be a folder, is '/proc/none' (No such file or directory)."), (tmp_path, "core.v: must be the name of a file, is a directory.")):
        with pytest.raises(SystemExit) as exit:
            main([str(config), "--output-dir", str(folder)])
        error = capsys.readouterr().err
        assert exit.value.code == 2 and error.count("\n") == 1 and message in error
    assert file.read_text() == "before"


def test_error_of_a_missing_file(tmp_path):
    done = subprocess.run([sys.executable, "-m", "cores.ssm.gen", str(tmp_path/"none.yml")], cwd=ROOT, capture_output=True,
        text=True)
    assert done.returncode == 2
    assert done.stderr == f"python -m cores.ssm.gen: error: {tmp_path}/none.yml cannot be read: No such file or directory.\n"
