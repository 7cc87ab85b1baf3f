#!/usr/bin/env bash
#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause
#
# Installs what the project needs: Debian packages (as root on Debian or Ubuntu; otherwise it lists them), and Python
# packages, pinned in pyproject.toml, in .venv/. A second run finds it done.
#
# PyPI's torch for Linux is built for CUDA, which is large and not needed. To get the CPU build, let PIP_EXTRA_INDEX_URL
# name PyTorch's index for it, as .github/workflows/ci.yml does.

set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $PWD == *[[:space:]]* ]]; then
    echo "setup.sh: error: the project's folder must be without spaces, is '$PWD': make takes a space for the end of a name." >&2
    exit 2
fi

# Tools --------------------------------------------------------------------------------------------

# Debian package, and what is there when it is installed: a command or a file.
TOOLS=(
    "verilator               verilator"               # Simulation.
    "g++                     g++"                     # Compiles what Verilator writes, and the firmware's native tests.
    "clang                   clang++"                 # Compiles the simulated SoC, which then runs faster.
    "libclang-rt-dev         /usr/share/doc/libclang-rt-dev/copyright" # Sanitizers and libFuzzer (slow tests).
    "make                    make"
    "zlib1g-dev              /usr/include/zlib.h"     # Waves of the simulation.
    "libevent-dev            /usr/include/event.h"    # litex_sim, with which make bench compares the simulation.
    "libjson-c-dev           /usr/include/json-c/json.h"
    "ccache                  ccache"                  # Builds of similar models.
    "gcc-riscv64-unknown-elf riscv64-unknown-elf-gcc" # BIOS and firmware.
    "iproute2                ip"                      # Network of the simulation.
    "util-linux              unshare"
    "iverilog                iverilog"                # Simulates the stand-alone Verilog (slow tests).
    "libftdi1-2              /usr/share/doc/libftdi1-2/copyright" # openFPGALoader needs it.
)

missing=()
for tool in "${TOOLS[@]}"; do
    read -r package evidence <<< "$tool"
    command -v "$evidence" > /dev/null || [[ -f $evidence ]] || missing+=("$package")
done
python3 -c "import ensurepip" 2> /dev/null || missing+=("python3-venv")

if (( ${#missing[@]} )); then
    if [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null; then
        echo "Installing Debian packages: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
    else
        echo "These Debian packages, or what provides the same in this distribution, are missing:" >&2
        echo "    ${missing[*]}" >&2
        echo "They are installed as root: apt-get install ${missing[*]}" >&2
        echo "Then run this command again." >&2
        exit 1
    fi
fi

# Python packages ----------------------------------------------------------------------------------

stamp=.venv/setup.stamp
digest=$(cat pyproject.toml "$0" | sha256sum)
if [[ -f $stamp && $(< "$stamp") == "$digest" ]]; then
    exit 0
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or later is needed; python3 is $(python3 --version)." >&2
    exit 1
fi
echo "Installing Python packages in .venv/ (once; minutes)"
[[ -x .venv/bin/python ]] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
echo "$digest" > "$stamp"
