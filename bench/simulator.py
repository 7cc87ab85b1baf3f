#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Speed of the simulated SoC beside LiteX's own litex_sim with the same CPU and DRAM, one after the other in one run.

Both are single-threaded; a rate is cycles a second of the processor's time, so that other programs do not disturb it.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("simulator.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch", "gguf", "safetensors")

import argparse
import logging
import os
import resource
import subprocess
import sys
import time

from collections import deque
from contextlib import contextmanager
from pathlib import Path

from migen import *

from litex.build.sim.config import SimConfig
from litex.soc.integration.builder import Builder
from litex.tools import litex_sim

from bench.cases import layer_case

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.device.block import run_block
from host.device.csr import CSRMap
from host.device.device import Device
from host.device.model import DeviceDecoder, ModelOnDevice, device_image

from model.quantized import quantize_checkpoint

from operations.config import ProgramConfig, SystemConfig

from targets.common import builder_environment

from tools.paths import BUILD
from tools.simulation.build import BuildError, locked, sources_hash
from tools.simulation.runner import Simulation, SimulationError

# Constants ----------------------------------------------------------------------------------------

CYCLES  = 3_000_000
TIMEOUT = 300.0 # Seconds for so many cycles.

# Work ---------------------------------------------------------------------------------------------

def generate_text(device):
    """Loads the tiny model; its text is the work."""
    model = quantize_checkpoint("tiny", "q4_0")
    there = ModelOnDevice(device, device_image(device, model))
    there.load()
    text  = DeviceDecoder(there)
    text.prefill([1])
    return lambda: deque(text.generate(64), 0)


# Of a booted device: a function that has it work.
BLOCKS  = {
    "waiting for jobs" : lambda device: lambda: time.sleep(4),
    "decode"           : lambda device: lambda: run_block(device, layer_case(16), "decode"),
    "prefill"          : lambda device: lambda: run_block(device, layer_case(64), "prefill"),
}
MODELS  = {
    "a whole model"    : generate_text,
}
# Name of the figure, build, work, and how many times as fast as litex_sim it is to be.
RUNS    = (
    ("simulator_speed",       SystemConfig(),                        BLOCKS, 0.5),
    ("simulator_speed_model", SystemConfig(program=ProgramConfig()), MODELS, 0.35),
)

# litex_sim ----------------------------------------------------------------------------------------

@contextmanager
def output_to(path):
    """Send what this process and its children print, LiteX's loggers too, to a file."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    with open(path, "a") as file:
        saved = [os.dup(fd) for fd in (1, 2)]
        try:
            for fd in (1, 2):
                os.dup2(file.fileno(), fd)
            yield
        finally:
            for fd, copy in zip((1, 2), saved):
                os.dup2(copy, fd)
                os.close(copy)
            logging.disable(level)


class PlainSoC(litex_sim.SimSoC):
    """litex_sim --cpu-type vexriscv --with-sdram --sdram-module MT41K128M16 --sdram-data-width 16, which ends by itself."""
    def __init__(self):
        litex_sim.SimSoC.__init__(self, cpu_type="vexriscv", with_sdram=True, sdram_module="MT41K128M16",
            sdram_data_width=16, uart_name="sim", integrated_rom_size=0x20000, integrated_sram_size=0x2000)
        cycles = Signal(64)
        self.sync += [
            cycles.eq(cycles + 1),
            If(cycles == CYCLES, Finish()),
        ]


def build_plain():
    """Build litex_sim as its own command does, and return the folder of its model."""
    folder = BUILD/"litex_sim"/sources_hash(["bench/simulator.py"])
    with locked(folder.with_suffix(".lock")):
        if not (folder/"complete").exists():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with output_to(folder/"build.log"), builder_environment():
                    config = SimConfig()
                    config.add_clocker("sys_clk", freq_hz=int(1e6))
                    config.add_module("serial2console", "serial")
                    Builder(PlainSoC(), output_dir=str(folder)).build(sim_config=config, opt_level="O3", run=False)
                    subprocess.run(["bash", "build_sim.sh"], cwd=folder/"gateware", check=True)
            except (OSError, subprocess.CalledProcessError, SystemExit) as error:
                raise BuildError(f"litex_sim does not build ({error}): its output is in {folder/'build.log'}. "
                    "It needs the Debian packages libevent-dev and libjson-c-dev.") from None
            (folder/"complete").touch()
    return folder/"gateware"

# Measuring ----------------------------------------------------------------------------------------

def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def plain_rate():
    """Cycles a second of litex_sim in its BIOS."""
    folder = build_plain()
    start  = children_seconds()
    subprocess.run([folder/"obj_dir"/"Vsim"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, timeout=TIMEOUT, check=True)
    return CYCLES/(children_seconds() - start)


def process_seconds(pid):
    """Time on the processor of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13]))/os.sysconf("SC_CLK_TCK")


def simulated_rates(config, works):
    """Cycles a second of the simulated SoC: {what it does: rate}."""
    rates = {}
    with Simulation(config) as simulation:
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, SIM_TIMEOUT_SCALE)
            device.boot(simulation.firmware)
            for mode, prepare in works.items():
                work = prepare(device)
                cycles, seconds = device.cycles(), process_seconds(simulation.process.pid)
                work()
                cycles, seconds = device.cycles() - cycles, process_seconds(simulation.process.pid) - seconds
                rates[mode] = cycles/seconds
    return rates


def measure_simulator(runs=RUNS):
    """({what: cycles a second}, entries of results.json)."""
    before  = plain_rate()
    found   = {name: simulated_rates(config, works) for name, config, works, _ in runs}
    plain   = (before + plain_rate())/2 # Before and after: the machine may change its pace.
    entries = []
    for name, config, _, least in runs:
        slowest = min(found[name], key=found[name].get)
        ratio   = found[name][slowest]/plain
        entries.append({"name": name, "value": ratio, "unit": "of litex_sim's cycles a second", "bound": 1.0, "ratio": ratio, "least": least,
            "config": f"{config.ssm.lanes} lanes, {slowest}; litex_sim with VexRiscv and MT41K128M16 of 16 bits, in its BIOS",
            "command": "python bench/simulator.py"})
    return {"litex_sim": plain} | {what: rate for rates in found.values() for what, rate in rates.items()}, entries

# Main ---------------------------------------------------------------------------------------------

def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        rates, entries = measure_simulator()
    except (BuildError, SimulationError) as error:
        sys.exit(f"simulator.py: error: {error}")
    for what, rate in rates.items():
        print(f"{what:<20}{1e-6*rate:>8.3f} million cycles/s{rate/rates['litex_sim']:>8.2f}")
    for entry in entries:
        print(f"{entry['name']:<24}{entry['value']:>6.2f} of litex_sim's at the slowest; {entry['least']} is wanted.")


if __name__ == "__main__":
    sys.exit(main())
