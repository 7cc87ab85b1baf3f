#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The notebook in examples/ runs from top to bottom, through the simulated SoC."""

import nbformat

from nbclient import NotebookClient

from tools.paths import ROOT

# Tests --------------------------------------------------------------------------------------------

def test_walkthrough():
    notebook = nbformat.read(ROOT/"examples"/"walkthrough.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": ROOT/"examples"}}).execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "y and state equal the bit-accurate model's in every bit." in text
    assert "The bit-accurate model writes the same." in text
    assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", ()))
