#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The natively compiled firmware as a device: CSRs, DRAM, jobs, and what reaches the fake core."""

import struct
import subprocess

from dataclasses import dataclass

from operations.operations import OPERATIONS, Engine, Opcode
from operations.program import Register
from operations.protocol import (DATA_OFFSET, ENGINE_INFO, ENGINE_WORDS, INFO_HEAD, INFO_OFFSET, INFO_WORDS, JOB_BYTES,
    JOB_HEAD, JOB_OPERANDS, JOB_REQUEST_WORDS, JOB_RESULT, PROTOCOL_VERSION, RING_ENTRIES, RING_OFFSET)

# Constants ----------------------------------------------------------------------------------------

RAM_BASE  = 0x4000_0000
RAM_BYTES = 0x0200_0000
DATA_BASE = RAM_BASE + DATA_OFFSET
RAM_END   = RAM_BASE + RAM_BYTES

# Tile ---------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Tile:
    """A descriptor as the fake core got it."""
    x         : int
    bc        : int
    y         : int
    state_in  : int
    state_out : int
    tokens    : int # The register: tokens, and the first token that is written from bit 16 on.
    flags     : int
    headdim   : int
    d_state   : int
    x_stride  : int
    bc_stride : int
    y_stride  : int
    seed      : int # The register; 0 where the core rounds to nearest.

# Program ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Program:
    """A program as the fake engines were given it."""
    address     : int
    descriptors : int
    tape_beats  : int
    seed        : int
    start       : int   # The register.
    bases       : dict  # {register: address}.
    tokens      : tuple # Those that were named since the program before, by their places.

    zero_state = property(lambda self: self.start & 1)
    no_store   = property(lambda self: self.start >> 1 & 1)
    deferred   = property(lambda self: self.start >> 8)

    @classmethod
    def of(cls, *words):
        bases, tokens = words[5:5 + len(Register)], words[5 + len(Register):]
        named = [token for token in tokens if token != 2**32 - 1]
        assert list(tokens[:len(named)]) == named
        return cls(*words[:5], dict(zip(Register, bases)), tuple(named))


EVENTS = {"push": Tile, "done": Tile, "program": Program.of}

# Device -------------------------------------------------------------------------------------------

class Device:
    """Runs the driver. Handlers of its events are set by ``on()``."""

    def __init__(self, driver):
        self.process = subprocess.Popen([driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()

    def command(self, line):
        """Send a command; returns its answer."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while True:
            answer = self.process.stdout.readline()
            if not answer:
                raise RuntimeError(f"The native firmware died of {line[:80]!r} with {self.process.wait()}.")
            event, *values = answer.split()
            if event not in EVENTS:
                return answer.strip()
            thing = EVENTS[event](*map(int, values))
            if event == "push":
                self.tiles.append(thing)
            elif event == "program":
                self.programs.append(thing)
            handler = self.handlers.get(event)
            if handler is not None:
                handler(thing)
                self.process.stdin.write("continue\n")
                self.process.stdin.flush()

    # Power and CSRs -------------------------------------------------------------------------------

    def power_up(self, **knobs):
        """Power-up, set knobs, start the firmware."""
        self.tiles    = []
        self.programs = []
        self.handlers = {}
        self.rung     = 0
        self.command("power_up")
        self.set(**knobs)
        self.command("start")

    def set(self, **knobs):
        for name, value in knobs.items():
            self.command(f"set {name} {value}")

    def on(self, event, handler):
        """Call `handler(tile)` at each "push" or "done", `handler(program)` at each "program"."""
        self.handlers[event] = handler
        self.set(**{f"hook_{event}": 1})

    def csr(self, name, value=None):
        return int(self.command(f"csr {name}")) if value is None else self.command(f"csr {name} {value}")

    # DRAM -----------------------------------------------------------------------------------------

    def read(self, address, size):
        return bytes.fromhex(self.command(f"read {address} {size}")) if size else b""

    def write(self, address, data):
        if data:
            self.command(f"write {address} {data.hex()}")

    def open(self, address, size):
        """Let the firmware's CPU touch it, until the next power-up."""
        self.command(f"open {address} {size}")

    def info(self):
        """The words of its head; and {Engine: its words} as "engines"."""
        words   = struct.unpack(f"<{INFO_WORDS}I", self.read(RAM_BASE + INFO_OFFSET, 4*INFO_WORDS))
        info    = dict(zip(INFO_HEAD, words))
        engines = [words[len(INFO_HEAD) + n*ENGINE_WORDS:][:ENGINE_WORDS] for n in range(info["engine_count"])]
        return info | {"engines": {Engine(kind): dict(zip(ENGINE_INFO[kind], values)) for kind, *values in engines}}

    # Jobs -----------------------------------------------------------------------------------------

    def slot(self, index):
        return RAM_BASE + RING_OFFSET + index%RING_ENTRIES*JOB_BYTES

    def post(self, index, **words):
        """Write a job to the ring."""
        job = dict(version=PROTOCOL_VERSION, opcode=Opcode.SSM, sequence=index) | words
        job["sequence"] %= 2**32
        opcode = job["opcode"]
        fields = OPERATIONS[opcode].fields if opcode < len(OPERATIONS) else ()
        names  = JOB_HEAD + tuple(field.name for field in fields)
        unused = JOB_OPERANDS - len(fields) + len(JOB_RESULT)
        self.write(self.slot(index), struct.pack(f"<{JOB_BYTES//4}I", *(job.get(name, 0) for name in names), *[0]*unused,
            job.get("cancel", 0)))

    def result(self, index):
        words = struct.unpack(f"<{JOB_BYTES//4}I", self.read(self.slot(index), JOB_BYTES))
        return dict(zip(JOB_RESULT, words[JOB_REQUEST_WORDS:]))

    def ring(self, count):
        self.rung = count % 2**32
        self.csr("mailbox_doorbell", self.rung)

    def poll(self):
        self.command("poll")
        return self.csr("mailbox_completed")

    def run(self, **words):
        """Post, ring, poll once; returns the job with its result."""
        index = self.rung
        self.tiles, self.programs = [], []
        self.post(index, **words)
        self.ring(index + 1)
        completed = self.poll()
        assert completed == self.rung
        return self.result(index)
