#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py load``: files to named regions of the device's DRAM, checked there, resumed where it stopped."""

import os

from host.connect import open_device
from host.device import manifest
from host.device.npz import NpzReader
from host.progress import Progress

from model.stand_in import stand_in

from tools.errors import UsageError
from tools.files import check_writable, save_json

# Files --------------------------------------------------------------------------------------------

def read_regions(paths):
    """{name: bytes} of files: the tensors of .safetensors and .npz files by their names, other files as they are, whole.

    Raises
    ------
    UsageError : a file cannot be read, or two regions have the same name.
    """
    regions = {}
    for path in paths:
        for name, data in _read_file(path):
            if name in regions:
                raise UsageError(f"{path}: names of regions must differ, {name} is one of a file before: rename a file or a "
                    "tensor.")
            regions[name] = data
    if not any(regions.values()):
        raise UsageError(f"{', '.join(paths)}: files must hold at least one byte, hold nothing.")
    return regions


def _read_file(path):
    try:
        if path.endswith(".safetensors"):
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


def _tensor_bytes(tensor):
    import torch
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()

# Load ---------------------------------------------------------------------------------------------

def load(args):
    """Load files to the device's DRAM: what is there and right is not sent again."""
    if args.manifest is not None:
        check_writable(args.manifest, args.json)
    regions = read_regions(args.files)
    with open_device(args, args.log) as device, Progress() as progress:
        content  = manifest.Manifest.of({"lanes": device.info.lanes}, regions)
        transfer = manifest.load(device, content, regions, progress.meter("load", content.size))
        summary  = {
            "regions"   : len(regions),
            "bytes"     : transfer.size,
            "sent"      : transfer.moved,
            "sent_again": transfer.again,
            "verified"  : "CRC-32 of each block, computed by the device's gateware",
            "transport" : device.transport.name,
        }
    if args.manifest is not None:
        content.save(args.manifest)
    save_json(args.json, summary)
    print(f"{len(regions)} regions, {transfer.size} bytes, all right on the device (CRC-32, computed there)")
    print(f"  sent       {transfer.moved} bytes, {transfer.again} of them again; {transfer.size - transfer.moved} were there")


def add_load_arguments(parser):
    parser.add_argument("files", metavar="FILE", nargs="+",
        help="Each tensor of a .safetensors or .npz file becomes a region of its name, any other file one of its own.")
    parser.add_argument("--manifest", metavar="MANIFEST.json", help="Write what lies where, with hashes, to this file.")
