#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The toolchains of Xilinx boards."""

from targets.xilinx import missing_tools

# Tools --------------------------------------------------------------------------------------------

def test_missing_tools(monkeypatch, tmp_path):
    """Commands and environment variables are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CHIPDB", "PRJXRAY_DB_DIR", "LITEX_ENV_VIVADO"):
        monkeypatch.delenv(name, raising=False)
    assert missing_tools("vivado") == ["vivado"]
    commands = ["yosys", "nextpnr-xilinx", "fasm2frames", "xc7frames2bit"]
    assert missing_tools("openxc7") == [*commands, "CHIPDB", "PRJXRAY_DB_DIR"]
    for name in (*commands, "vivado"):
        (tmp_path/name).touch(mode=0o755)
    monkeypatch.setenv("CHIPDB", str(tmp_path))
    assert missing_tools("vivado") == []
    assert missing_tools("openxc7") == ["PRJXRAY_DB_DIR"]
