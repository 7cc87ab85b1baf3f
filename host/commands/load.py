#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py load``: files to named sections of the device's DRAM, checked there, resumed where it stopped."""

import os

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from host.connect import open_device
from host.device import manifest
from host.device.npz import NpzReader
from host.progress import Progress

from model.stand_in import stand_in

from tools import environment
from tools.errors import UsageError
from tools.files import check_writable, save_json

if TYPE_CHECKING: # For one kind of file only.
    import torch

# Files --------------------------------------------------------------------------------------------

def read_sections(paths: Sequence[str]) -> dict[str, bytes]:
    """{name: bytes} of files: the tensors of .safetensors and .npz files by their names, other files as they are, whole.

    Raises
    ------
    UsageError : a file cannot be read, or two sections have the same name.
    """
    sections = {}
    for path in paths:
        for name, data in _read_file(path):
            if name in sections:
                raise UsageError(f"{path}: names of sections must differ, {name} is one of a file before: rename a file or a "
                    "tensor.")
            sections[name] = data
    if not any(sections.values()):
        raise UsageError(f"{', '.join(paths)}: files must hold at least one byte, hold nothing.")
    return sections


def _read_file(path: str) -> list[tuple[str, bytes]]:
    try:
        if path.endswith(".safetensors"):
            environment.require("model", "safetensors", "torch")
            from safetensors import safe_open
            with safe_open(path, "pt") as file:
                return [(name, _tensor_bytes(file.get_tensor(name))) for name in file.keys()]
        if path.endswith(".npz"):
            with NpzReader(path) as file:
                return [(name, file.read(name).tobytes()) for name in file.headers]
        with open(path, "rb") as file:
            return [(os.path.basename(path), file.read())]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UsageError:
        raise
    except Exception as error: # SafetensorError is no subclass of anything else.
        raise UsageError(f"{path}: must be a .safetensors file, is {stand_in(path) or 'none, or a damaged one'}.") from error


def _tensor_bytes(tensor: "torch.Tensor") -> bytes:
    import torch
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()

# Load ---------------------------------------------------------------------------------------------

def load(args: Namespace) -> None:
    """Load files to the device's DRAM: what is there and right is not sent again."""
    if args.manifest is not None:
        check_writable(args.manifest, args.json)
    sections = read_sections(args.files)
    with open_device(args, args.log) as device, Progress() as progress:
        content  = manifest.Manifest.of({"lanes": device.info.lanes}, sections)
        counts   = manifest.load(device, content, sections, progress.meter("load", content.size))
        summary  = {
            "sections"  : len(sections),
            "bytes"     : counts.size,
            "sent"      : counts.moved,
            "sent_again": counts.again,
            "verified"  : "CRC-32 of each block, computed by the device's gateware",
            "transport" : device.transport.name,
        }
    if args.manifest is not None:
        content.save(args.manifest)
    save_json(args.json, summary)
    print(f"{len(sections)} sections, {counts.size} bytes, all right on the device (CRC-32, computed there)")
    print(f"  sent       {counts.moved} bytes, {counts.again} of them again; {counts.size - counts.moved} were there")


def add_load_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+",
        help="Each tensor of a .safetensors or .npz file becomes a section of its name, any other file one of its own.")
    parser.add_argument("--manifest", metavar="MANIFEST.json", help="Write what lies where, with hashes, to this file.")
