#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The layers of the house: no import runs upward. And the tests mirror the tree."""

import ast

import pytest

from tools.paths import ROOT

# Constants ----------------------------------------------------------------------------------------

# Lowest first. What is not named more closely belongs to its package.
LAYERS = ("operations", "tools", "model", "cores", "tools.firmware", "soc", "tools.simulation", "host", "targets", "bench", "examples")

PACKAGES = tuple(dict.fromkeys(name.partition(".")[0] for name in LAYERS))

# Beside the order: who must not know whom.
FORBIDDEN = {"model": ("host", "bench"), "soc": ("host", "bench"), "host": ("targets",)}

# Helpers ------------------------------------------------------------------------------------------

def layer(module):
    """Number of a module's layer."""
    name = max((name for name in LAYERS if f"{module}.".startswith(f"{name}.")), key=len)
    return LAYERS.index(name)


def modules():
    """{module: path} of the project, but for its tests."""
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES for path in sorted((ROOT/package).rglob("*.py"))}


def imports(path):
    """Modules of the project that a file imports, also inside functions: [(module, name or None)]."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found += [(node.module, alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module.partition(".")[0] in PACKAGES]

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("module", modules())
def test_no_import_runs_upward(module):
    for imported, name in imports(modules()[module]):
        whole = f"{imported}.{name}"
        target = whole if whole in modules() else imported
        assert target in modules(), f"{module} imports {target}, which does not exist"
        assert layer(target) <= layer(module), f"{module} imports {target}, which is above it"
        assert target.partition(".")[0] not in FORBIDDEN.get(module.partition(".")[0], ())


def test_tests_mirror_the_tree():
    for folder in (ROOT/"test").rglob("*"):
        parts = folder.relative_to(ROOT/"test").parts
        if folder.is_dir() and parts[0] != "support" and not any(part.startswith("__") for part in parts):
            assert (ROOT.joinpath(*parts)).is_dir(), f"test/{'/'.join(parts)} has no counterpart"


def test_nothing_changes_the_path():
    """Packages are installed: no file looks for them by itself, and none starts another Python when it is imported."""
    for path in modules().values():
        assert "sys" + ".path" not in path.read_text() and "os.exec" not in path.read_text()
