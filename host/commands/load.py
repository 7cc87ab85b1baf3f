#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py load``: files to named sections of the device's DRAM, or a whole model, checked there, resumed where it stopped."""

import os

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from host.commands.whole_model import add_model_arguments
from host.connect import open_device
from host.device import manifest
from host.device.npz import NpzReader
from host.progress import Progress

from model.stand_in import stand_in

from tools import environment
from tools.arguments import number
from tools.errors import UsageError
from tools.files import check_writable, save_json

if TYPE_CHECKING: # For one kind of file only.
    import torch

# Constants ----------------------------------------------------------------------------------------

VERIFIED = "CRC-32 of each block, computed by the device's gateware"

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

# Files to the Device ------------------------------------------------------------------------------

def load(args: Namespace) -> None:
    """Load files, or a model, to the device's DRAM: what is there and right is not sent again."""
    if bool(args.files) == (args.model is not None):
        raise UsageError(f"files or --model must be given, {'both' if args.files else 'neither'} are.")
    for option, given in (("--plan", args.plan), ("--memory", args.memory), ("--type", args.type), ("--head-type", args.head_type)):
        if given and args.model is None:
            raise UsageError(f"{option} must be left out without --model.")
    if args.memory and not args.plan:
        raise UsageError("--memory must be left out without --plan.")
    if args.model is not None:
        if args.manifest is not None:
            raise UsageError("--manifest must be left out with --model.")
        from host.commands.load_model import load_model # It needs the package gguf.
        load_model(args)
        return
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
            "verified"  : VERIFIED,
            "transport" : device.transport.name,
        }
    if args.manifest is not None:
        content.save(args.manifest)
    save_json(args.json, summary)
    print(f"{len(sections)} sections, {counts.size} bytes, all right on the device (CRC-32, computed there)")
    print(f"  sent       {counts.moved} bytes, {counts.again} of them again; {counts.size - counts.moved} were there")


def add_load_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="*",
        help="Each tensor of a .safetensors or .npz file becomes a section of its name, any other file one of its own.")
    parser.add_argument("--manifest", metavar="MANIFEST.json", help="Write what lies where, with hashes, to this file.")
    add_model_arguments(parser, None)
    parser.add_argument("--plan", action="store_true",
        help="With --model: only show what lies where in the memory, whether all fits, and what a token costs. Nothing is sent; a board is asked "
             "what it is unless --lanes, --data-width, --pass-tokens and --memory say it.")
    parser.add_argument("--memory", type=number(int, "an integer", 4, 4096), metavar="MIB",
        help="With --plan: of the DRAM (default: the simulation's, or what the board has).")
