#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Measures the link to the simulated SoC, by this project's Etherbone transport and by LiteX's, in one run.

Cycles are simulated ones. The wire carries a byte a cycle, so what limits is the SoC's bus or, for LiteX, one word at a
time, the host. A board's wire is 8 times slower, and its clock some hundred times faster than the simulated one, so there a
round trip costs LiteX many more cycles than here.
"""

import argparse
import json
import os
import subprocess
import sys

from dataclasses import asdict

sys.path[:0] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

import environment # First: the others need it.

import numpy as np

from cores.ssm.config import SSMConfig

from host.connect import SIM_TIMEOUT_SCALE, simulated_transport
from host.csr import CSRMap
from host.device import Device
from host.etherbone import FRAME_OVERHEAD, HEADER, MAX_COUNT

from targets.simulation.simulation import Simulation

# Constants ----------------------------------------------------------------------------------------

COMMAND            = "python bench/link.py"
PREAMBLE_CHECK_GAP = 8 + 4 + 12 # Bytes a frame takes on the wire besides itself.
WORDS, LITEX_WORDS = 65_536, 1_000
OFFSET             = 0x80_0000  # Into main RAM.

# Measurements -------------------------------------------------------------------------------------

def measure_ours(simulation, words=WORDS):
    """{"load", "write", "read": {cycles and bytes a word, and the words that are wrong}}; a load ends with the device's CRCs."""
    csr = CSRMap.from_csv(simulation.csr_csv)
    with simulated_transport(simulation, csr) as link:
        device = Device(link, csr, SIM_TIMEOUT_SCALE)
        base   = device.ram + OFFSET
        device.boot(simulation.firmware)
        values = np.random.default_rng(7).integers(0, 2**32, words, np.uint32)

        def timed(function):
            start, before = device.cycles(), asdict(link.statistics)
            function()
            after = asdict(link.statistics)
            wire, frames, timeouts = (after[name] - before[name] for name in ("wire_bytes", "frames", "timeouts"))
            return {"cycles": (device.cycles() - start)/words, "efficiency": 4*words/wire,
                "efficiency_gap": 4*words/(wire + PREAMBLE_CHECK_GAP*frames), "timeouts": timeouts}

        result = {"load": timed(lambda: device.upload(base, values.astype("<u4").tobytes(), resume=False))}
        got    = []
        result["read"]  = timed(lambda: got.append(link.read_words(base, words)))
        result["write"] = timed(lambda: link.write_words(base, values[::-1]))
        result["wrong"] = int((got[0] != values).sum())
    return result


def measure_litex(simulation, words=LITEX_WORDS):
    """What bench/litex_link.py prints, run in the simulation's network."""
    namespace, address, _ = simulation.endpoint
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "litex_link.py")
    run    = subprocess.run(["nsenter", f"--net={namespace}", sys.executable, script, "--ip", address, "--csr-csv",
        simulation.csr_csv, "--words", str(words)], capture_output=True, text=True, timeout=540)
    if run.returncode:
        raise RuntimeError(f"LiteX's transport failed: {run.stderr[-1000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def measure():
    """(ours, LiteX's), on one simulated SoC."""
    with Simulation(SSMConfig(), "etherbone") as simulation:
        return measure_ours(simulation), measure_litex(simulation)

# Results ------------------------------------------------------------------------------------------

def entries(ours, litex):
    """Entries as of results.json. `least` is what is wanted; the ratio is to the bound, None where there is none."""
    full   = 4*MAX_COUNT/(FRAME_OVERHEAD + HEADER.size + 4*MAX_COUNT)
    wire   = (FRAME_OVERHEAD + HEADER.size + 4*MAX_COUNT + PREAMBLE_CHECK_GAP)/MAX_COUNT
    load, read, other = ours["load"], ours["read"], litex["cycles"]
    config = f"Etherbone, simulated SoC, {4*WORDS} bytes; LiteX's RemoteClient: {4*LITEX_WORDS} bytes"
    rows   = [
        ("link_efficiency",           load["efficiency"],     "payload of all bytes on the wire, both ways", full, 0.9),
        ("link_efficiency_with_gaps", load["efficiency_gap"], "the same, preamble, FCS and gap counted", None, None),
        ("link_write_ratio",       other["write_words"]/load["cycles"], "times RemoteClient.write, a word each", None, 5),
        ("link_read_ratio",        other["read_words"]/read["cycles"],  "times RemoteClient.read, a word each",  None, 5),
        ("link_write_ratio_lists", other["write_lists"]/load["cycles"], "times that of 255, unacknowledged", None, None),
        ("link_read_ratio_lists",  other["read_lists"]/read["cycles"],  "times that of 255 words", None, None),
        ("link_load",              load["cycles"],          "cycles a word", wire, None),
        ("link_read",              read["cycles"],          "cycles a word", wire, None),
        ("link_write_read_back",   ours["write"]["cycles"], "cycles a word", wire, None),
        ("link_litex_wrong",       litex["wrong"],          "words lost or wrong", None, None),
    ] + [(f"link_litex_{name}", cycles, "cycles a word", None, None) for name, cycles in other.items()]
    return [{"name": name, "value": value, "unit": unit, "bound": bound, "ratio": bound and value/bound, "least": least,
        "config": config, "command": COMMAND} for name, value, unit, bound, least in rows]


def link_entries():
    """Measure, and return the entries; RuntimeError where a word came back wrong. LiteX's may: it acknowledges no write."""
    ours, litex = measure()
    if ours["wrong"]:
        raise RuntimeError(f"{ours['wrong']} words came back wrong.")
    return entries(ours, litex)

# Main ---------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="Print the entries as JSON.")
    options = parser.parse_args()
    rows    = link_entries()
    if options.json:
        print(json.dumps(rows, indent=4))
        return 0
    print(f"{'':<27}{'value':>9}{'bound':>8}{'at least':>10}  unit")
    for row in rows:
        bound, least = (f"{row[name]:.3f}" if row[name] else "" for name in ("bound", "least"))
        print(f"{row['name']:<27}{row['value']:>9.3f}{bound:>8}{least:>10}  {row['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
