#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What commands that run a whole model share: the options that name one, and how it comes to a device."""

import sys

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from host.connect import open_device, simulated_system
from host.device.maxima import model_geometry
from host.progress import Progress

from operations.config import SystemConfig
from operations.protocol import DATA_OFFSET

from tools import environment
from tools.simulation.dram import DRAMBanks

if TYPE_CHECKING: # Which need the package gguf.
    from host.device.model import ModelOnDevice
    from model.image import Image

# Constants ----------------------------------------------------------------------------------------

WHERE = ("device", "exact", "torch") # What runs a whole model.
TYPES = ("q8_0", "q4_0")

LINK_BYTES    = 2**22 # That go to a simulation by its link.

# Options ------------------------------------------------------------------------------------------

def add_model_arguments(parser: ArgumentParser, default: str | None = "tiny") -> None:
    """Add the options that name a model and its quantisation."""
    parser.add_argument("--model",  default=default, metavar="DIR",
        help="Folder of a checkpoint, a GGUF file, or tiny: the model in this repository" + (f" (default: {default})." if default else "."))
    parser.add_argument("--type", choices=TYPES,
        help="Quantise the matrices first (default: a GGUF file's as they are; others to q8_0, but not for torch).")
    parser.add_argument("--head-type", choices=TYPES, help="That of the head alone (default: as --type).")

# Model --------------------------------------------------------------------------------------------

def load_quantized(args: Namespace) -> Any:
    """The :class:`model.weights.QuantizedModel` that the options name."""
    environment.require("model", "gguf")
    from model.gguf import is_gguf
    if not is_gguf(args.model):
        environment.require("model", "torch", "safetensors")
    from model.quantized import quantize_checkpoint
    return quantize_checkpoint(args.model, args.type, args.head_type)


def model_types(model: Any) -> tuple[str, str]:
    """(of the layers' matrices, of the head's)."""
    return model.layers[0].in_proj.type, model.head.type


def build_image(model: Any, system: SystemConfig) -> "Image":
    """The image of a quantised model for a build.

    Raises
    ------
    UsageError, ValueError : it does not fit: by how much, and what would.
    """
    from model.image import Image
    assert system.program is not None
    model_geometry(system.ssm, model.config.layer)
    return Image(model, system.memory.data_width or 128, system.ssm, system.program)


def simulated_memory(system: SystemConfig) -> int:
    """Bytes of the data region of a simulation."""
    return DRAMBanks.of(system.memory.data_width).size - DATA_OFFSET


@contextmanager
def open_model(args: Namespace, model: Any, sessions: "Callable[[Image], int]" = lambda image: 0) -> Iterator["ModelOnDevice"]:
    """Context manager: a quantised model, loaded on the device that the options name. sessions: as of ModelOnDevice, for an image; it
    raises ValueError where that cannot do what is to come."""
    from host.device.model import ModelOnDevice, device_image, job_bytes
    from model.image import SESSIONS
    data = None
    if args.transport == "sim": # What does not fit is said before a simulation is built.
        system = simulated_system(args, True)
        image  = build_image(model, system)
        image.check_memory(simulated_memory(system), SESSIONS + sessions(image), job_bytes(image))
        if image.size > LINK_BYTES:
            data = image.to_bytes()
            print(f"The simulated DRAM is filled with the model's {image.size} bytes at the start: by the link they would take long.",
                file=sys.stderr)
    with open_device(args, args.log, whole_model=True, data=data) as device:
        image = device_image(device, model)
        there = ModelOnDevice(device, image, sessions(image))
        with Progress() as progress:
            counts = there.load(progress.meter("load", there.image.size), data is not None)
        if data is None:
            args.log(f"Model loaded: {counts.moved} of {counts.size} bytes sent.")
        yield there
