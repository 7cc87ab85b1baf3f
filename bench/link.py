#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the link takes, by this project's Etherbone transport and by LiteX's, on the simulated SoC, in one run.

A simulation runs on while the host thinks, so times taken there would follow the host. What is counted here does not: the
frames and bytes of each transfer on the simulated wire, each way, and the cycles the device takes for a word while requests wait
in front of it. Cycles a word follow from these, for a SoC at 100 MHz on a wire of 100 Mbit/s:

    the longest of: bytes out, bytes in (8 cycles each, with preamble, FCS and gap), what the device takes
    + ROUND_TRIP for each time that the sender waits for an answer before it goes on

This project's transport has a window that is longer than the round trip (docs/link.md), so its sender never waits. LiteX's
waits for each read, and for no write, as it acknowledges none. The time that a host takes for its own work is not in it.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("link.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import json
import os
import subprocess
import sys

from dataclasses import astuple, dataclass

import numpy as np

from host.connect import SIM_TIMEOUT, SIM_TIMEOUT_SCALE, simulated_transport
from host.device.csr import CSRMap
from host.device.device import Device
from host.device.verified import block_checksums
from host.link.etherbone import FRAME_OVERHEAD, HEADER, MAX_COUNT, decode_reply, encode_read, encode_write

from operations.config import ALIGNMENT, SystemConfig

from tools.simulation.runner import TAP, Simulation

# Constants ----------------------------------------------------------------------------------------

COMMAND            = "python bench/link.py"
PREAMBLE_CHECK_GAP = 8 + 4 + 12 # Bytes a frame takes on the wire besides itself.
WORDS, LITEX_WORDS = 65_536, 1_000
OFFSET             = 0x80_0000  # Into main RAM.
CYCLES_A_BYTE      = 8          # 100 MHz, 100 Mbit/s.
ROUND_TRIP         = 50_000     # Cycles: 0.5 ms, a switch's and those of Linux and Python.
CLOCK_TAGS         = {"begin": 1, "end": 2} # Of the answers that hold the device's clock.
QUEUED             = 16         # Records that wait in front of the device while its pace is measured,
REPETITIONS        = 5          # the least of so many times: the host may have been interrupted while it queued them.

# Counts -------------------------------------------------------------------------------------------

@dataclass
class Traffic:
    """Frames and bytes to the SoC (out) and from it (in), as they pass a network interface: without preamble, FCS and gap."""
    frames_out : int
    bytes_out  : int
    frames_in  : int
    bytes_in   : int

    @classmethod
    def now(cls, process="self"):
        """Counted so far by the TAP device in the network namespace of a process."""
        with open(f"/proc/{process}/net/dev") as file:
            fields = next(line for line in file if line.strip().startswith(f"{TAP}:")).partition(":")[2].split()
        return cls(*(int(fields[column]) for column in (9, 8, 1, 0)))

    def __sub__(self, other):
        return Traffic(*(a - b for a, b in zip(astuple(self), astuple(other))))

    def wire(self, way):
        """Bytes on the wire, with preamble, FCS and gap; `way` is "out" or "in"."""
        return getattr(self, f"bytes_{way}") + PREAMBLE_CHECK_GAP*getattr(self, f"frames_{way}")

    def cycles(self, words, pace=0.0, waits=0):
        """Cycles a word on a wire of 100 Mbit/s: see above.

        Parameters
        ----------
        words : Words of payload.
        pace  : Cycles the device takes for a word.
        waits : Times that the sender waits for an answer before it goes on.
        """
        wire = CYCLES_A_BYTE*max(self.wire("out"), self.wire("in"))/words
        return max(wire, pace) + waits*ROUND_TRIP/words

# Measurements -------------------------------------------------------------------------------------

def measure_pace(simulation):
    """{"write", "read": cycles the device takes for a word}, by its own clock, while records wait in front of it."""
    csr   = CSRMap.from_csv(simulation.csr_csv)
    base  = csr.memories["main_ram"][0] + OFFSET
    words = np.arange(MAX_COUNT, dtype=np.uint32)
    with simulation.open_socket() as sock:
        sock.settimeout(SIM_TIMEOUT)

        def pace(record):
            clock = [encode_write(csr.registers["mailbox_latch"][0], np.ones(1, np.uint32)), None]
            times = {}
            for tag in ("begin", "end"):
                clock[1] = encode_read(CLOCK_TAGS[tag], csr.registers["mailbox_cycles"][0], 2)
                for datagram in (*clock, *([record]*QUEUED if tag == "begin" else [])):
                    sock.send(datagram)
            while CLOCK_TAGS["end"] not in times:
                tag, (*_, times[tag]) = decode_reply(sock.recv(2048))
            return (int(times[CLOCK_TAGS["end"]]) - int(times[CLOCK_TAGS["begin"]])) % 2**32/(QUEUED*MAX_COUNT)

        return {name: min(pace(record) for _ in range(REPETITIONS)) for name, record in
            (("write", encode_write(base, words)), ("read", encode_read(0, base, MAX_COUNT)))}


def measure_ours(simulation, words=WORDS):
    """{"load", "write", "read": :class:`Traffic`, "wrong": words or blocks, by the device's CRCs; "repeated": requests, batches}."""
    csr = CSRMap.from_csv(simulation.csr_csv)
    with simulated_transport(simulation, csr) as link:
        device = Device(link, csr, SIM_TIMEOUT_SCALE)
        base   = device.ram + OFFSET
        device.boot(simulation.firmware)
        values = np.random.default_rng(7).integers(0, 2**32, words, np.uint32)

        def counted(function):
            before = Traffic.now(simulation.process.pid)
            function()
            return Traffic.now(simulation.process.pid) - before

        result = {"load": counted(lambda: link.load_words(base, values))}
        whole  = words - words % (ALIGNMENT//4)
        result["wrong"] = int((device.checksums(base, 4*whole) != block_checksums(values[:whole].astype("<u4").tobytes())).sum())
        got    = []
        result["read"]   = counted(lambda: got.append(link.read_words(base, words)))
        result["write"]  = counted(lambda: link.write_words(base, values[::-1]))
        result["wrong"] += int((got[0] != values).sum())
        result["repeated"] = link.statistics.timeouts + link.statistics.rewrites
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
    """(pace, ours, LiteX's), on one simulated SoC."""
    with Simulation(SystemConfig(), "etherbone") as simulation:
        return measure_pace(simulation), measure_ours(simulation), measure_litex(simulation)

# Results ------------------------------------------------------------------------------------------

def entries(pace, ours, litex):
    """Entries as of results.json. `least` is what is wanted; the ratio is to the bound, None where there is none."""
    full  = 4*MAX_COUNT/(FRAME_OVERHEAD + HEADER.size + 4*MAX_COUNT)
    line  = CYCLES_A_BYTE*(FRAME_OVERHEAD + HEADER.size + 4*MAX_COUNT + PREAMBLE_CHECK_GAP)/MAX_COUNT
    load  = ours["load"]
    share = 4*WORDS/(load.bytes_out + load.bytes_in)
    gaps  = 4*WORDS/(load.wire("out") + load.wire("in"))
    own   = {name: ours[name].cycles(WORDS, device) for name, device in
        (("load", pace["write"]), ("read", pace["read"]), ("write", pace["write"] + pace["read"]))}
    traffic = {name: Traffic(**counts) for name, counts in litex["traffic"].items()}
    # It waits for the answer to each read.
    other = {name: counts.cycles(LITEX_WORDS, pace[name.partition("_")[0]], counts.frames_in if name.startswith("read") else 0)
        for name, counts in traffic.items()}
    config = (f"Etherbone, 100 MHz, 100 Mbit/s, round trip {ROUND_TRIP/1e5:g} ms; counted on the simulated SoC, {4*WORDS} bytes, "
        f"LiteX's RemoteClient {4*LITEX_WORDS} bytes")
    rows   = [
        ("link_efficiency",           share, "payload of all bytes on the wire, both ways", full, 0.9),
        ("link_efficiency_with_gaps", gaps,  "the same, preamble, FCS and gap counted", None, None),
        ("link_write_ratio",       other["write_words"]/own["load"], "times RemoteClient.write, a word each", None, 5),
        ("link_read_ratio",        other["read_words"]/own["read"],  "times RemoteClient.read, a word each",  None, 5),
        ("link_write_ratio_lists", other["write_lists"]/own["load"], "times that of 255, unacknowledged", None, None),
        ("link_read_ratio_lists",  other["read_lists"]/own["read"],  "times that of 255 words", None, None),
        ("link_load",              own["load"],   "cycles a word", line, None),
        ("link_read",              own["read"],   "cycles a word", line, None),
        ("link_write_read_back",   own["write"],  "cycles a word", line, None),
        ("link_device_write",      pace["write"], "cycles a word, of the device alone", None, None),
        ("link_device_read",       pace["read"],  "cycles a word, of the device alone", None, None),
        ("link_litex_wrong",       litex["wrong"], "words lost or wrong", None, None),
    ] + [(f"link_litex_{name}", cycles, "cycles a word", None, None) for name, cycles in other.items()]
    return [{"name": name, "value": value, "unit": unit, "bound": bound, "ratio": bound and value/bound, "least": least,
        "config": config, "command": COMMAND} for name, value, unit, bound, least in rows]


def link_entries():
    """Measure, and return the entries; RuntimeError where a word came back wrong. LiteX's may: it acknowledges no write."""
    pace, ours, litex = measure()
    if ours["wrong"]:
        raise RuntimeError(f"{ours['wrong']} words or blocks came back wrong.")
    return entries(pace, ours, litex)

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
