#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A stage of a model on a board: opened and loaded where the board is, then pass after pass.

In the data region, from its start: the stage's image; sessions, which passes write in place; two regions of input, in turn; output.
"""

from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from host.cluster.errors import board_error
from host.connect import open_device, simulated_system
from host.device import manifest
from host.device.device import Device, program_of
from host.device.jobs import Job

from operations.config import ALIGNMENT, ProgramConfig, SSMConfig, ceil_multiple
from operations.image import ProgramKind
from operations.numerics import CANDIDATES
from operations.operations import JobFlag, Opcode
from operations.protocol import DATA_OFFSET
from operations.timeouts import program_timeout

from tools.errors import CommandError
from tools.simulation.dram import DRAMBanks

if TYPE_CHECKING:
    from model.image import Image

# Constants ----------------------------------------------------------------------------------------

SECTION          = "stage"
INPUTS           = 2    # Regions, in turn: what the host writes the device only reads.
CANDIDATES_BYTES = 8*CANDIDATES

# Types --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Build:
    """What an image must know of a board: bits of its memory ports, configurations, bytes of its data region, its declared clock in Hz."""
    data_width : int
    ssm        : SSMConfig
    program    : ProgramConfig
    data_size  : int
    clock_hz   : int

    @classmethod
    def of(cls, device: Device) -> "Build":
        info = device.info
        return cls(info.data_width, info.config, program_of(device), info.data_size, info.clock_hz)

    @classmethod
    def simulated(cls, options: Namespace) -> "Build":
        """Of a simulation, before it runs."""
        system = simulated_system(options, True)
        width  = system.memory.data_width or 128
        assert system.program is not None
        return cls(width, system.ssm, system.program, DRAMBanks.of(system.memory.data_width).size - DATA_OFFSET, 100_000_000)


@dataclass(frozen=True)
class StageImage:
    """A stage's image, without the model: all that a board needs.

    data           : uint8 (size,).
    constant_bytes : that are only read, at its beginning.
    input_bytes    : of a token: of its number, or its residual vector.
    output_bytes   : of a token's residual vector; 0: the last stage has candidates, of the last token.
    cycles         : {tokens: after so many a pass has surely ended}.
    what           : of the manifest.
    """
    data           : Any # As a buffer too.
    constant_bytes : int
    session_bytes  : int
    input_bytes    : int
    output_bytes   : int
    pass_tokens    : int
    layers         : tuple[int, int]
    cycles         : dict[int, int]
    what           : dict[str, Any]

    @classmethod
    def of(cls, image: "Image") -> "StageImage":
        device, model, most = image.device, image.model, image.program.pass_tokens
        kinds  = (ProgramKind.LAYERS, *[ProgramKind.HEAD]*device.has_head)
        cycles = {tokens: sum(program_timeout(len(image.programs[kind, tokens]), image.tape_bytes(kind), tokens, image.session_bytes)
            for kind in kinds) for tokens in range(1, most + 1)}
        return cls(image.to_bytes(), image.constant_bytes, image.session_bytes, 4 if device.has_embedding else device.residual_bytes,
            0 if device.has_head else device.residual_bytes, most, image.layers, cycles, {"lanes": image.ssm.lanes, "data_width": image.data_width,
            "pass_tokens": most, "layers": list(image.layers), "vocabulary": model.vocab_size, "type": model.layers[0].in_proj.type,
            "head_type": model.head.type})

    @property
    def size(self) -> int:
        return len(self.data)


def pass_bytes(image: "Image") -> int:
    """That passes take of a board's memory beside image and sessions, at most."""
    vectors = ceil_multiple(image.program.pass_tokens*image.device.residual_bytes, ALIGNMENT)
    return INPUTS*vectors + max(vectors, CANDIDATES_BYTES)


@dataclass(frozen=True)
class PassResult:
    """What a pass gave: residual vectors, or candidates, or nothing; and what it took, by the device's counters."""
    data    : bytes
    cycles  : int
    read    : int
    written : int

# Stage --------------------------------------------------------------------------------------------

Result = TypeVar("Result")


def named(method: Callable[..., Result]) -> Callable[..., Result]:
    """Errors of a method name the board, and can go to another process."""
    @wraps(method)
    def call(self: "StageDevice", *arguments: Any) -> Result:
        try:
            return method(self, *arguments)
        except (CommandError, ValueError) as error:
            raise board_error(self.name, error) from None
    return call


class StageDevice:
    """A board that runs a stage. Made anywhere, opened where the board can be reached.

    Parameters
    ----------
    name, options : of :class:`host.cluster.boards.Board`.
    """
    def __init__(self, name: str, options: Namespace):
        self.name    = name
        self.options = Namespace(**vars(options) | {"log": lambda message: None})
        self.stack   = ExitStack()

    @named
    def open(self, data: np.ndarray | None = None) -> Build:
        """Boot the device. data: what a simulation's memory holds at the start.

        Raises
        ------
        BoardError : the device cannot be reached, or is not what the options say.
        """
        self.device = self.stack.enter_context(open_device(self.options, self.options.log, whole_model=True, data=data))
        return Build.of(self.device)

    @named
    def load(self, image: StageImage, sessions: int, filled: bool = False) -> int:
        """Bring the image to the device, verified, and make room. filled: its memory has had it from the start. Returns the bytes sent.

        Raises
        ------
        BoardError : it does not fit, or the link failed.
        """
        device = self.device
        constant   = memoryview(image.data)[:image.constant_bytes]
        sent       = 0
        if not filled:
            sent  = manifest.load(device, manifest.Manifest.of(image.what, {SECTION: constant}), {SECTION: constant}).moved
            sent += device.upload(device.info.data_base + image.constant_bytes, memoryview(image.data)[image.constant_bytes:]).moved
        device.reserve(image.size)
        round_up = lambda size: ceil_multiple(size, ALIGNMENT)
        self.sessions = [device.allocate(image.session_bytes, f"session {n}") for n in range(sessions)]
        self.inputs   = [device.allocate(round_up(image.pass_tokens*image.input_bytes), "a pass' input") for _ in range(INPUTS)]
        self.output   = device.allocate(round_up(image.pass_tokens*image.output_bytes) or CANDIDATES_BYTES, "a pass' output")
        self.passes   = 0
        self.image    = replace(image, data=None) # It may be all of this process' memory.
        return sent

    @named
    def run(self, session: int, data: bytes, tokens: int, place: int, seed: int, zero: bool, candidates: bool) -> PassResult:
        """Run a pass of a session, whose number is one of those made room for.

        data       : the tokens' numbers, or residual vectors.
        place      : of the first token in its text.
        zero       : the session begins with it.
        candidates : of the last stage, those that follow the last token are asked for.

        Raises
        ------
        BoardError : it failed. What the session holds then is nothing.
        """
        image, device = self.image, self.device
        given  = self.inputs[self.passes % INPUTS]
        self.passes += 1
        device.write(given, data)
        result = device.run(Job(Opcode.PASS, (JobFlag.ZERO_STATE if zero else 0) | (JobFlag.CANDIDATES if candidates else 0),
            expected=image.cycles[tokens], model=device.info.data_base, session_in=self.sessions[session], session_out=self.sessions[session],
            input=given, tokens=tokens, place=place % 2**32, seed=seed, output=self.output))
        size   = tokens*image.output_bytes or (CANDIDATES_BYTES if candidates else 0)
        found  = device.read(self.output, size) if size else b""
        device.check_running() # Of one that was reset, all reads as zeros.
        return PassResult(found, result.cycles, result.bytes_read, result.bytes_written)

    def close(self) -> None:
        """Leave the device; end a simulation."""
        self.stack.close()
