#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py info``: shows what the device is, and what is loaded on it."""

from argparse import Namespace

from host.connect import open_device
from host.device.device import version_string
from host.device.manifest import Manifest
from host.errors import VersionMismatch

from operations.operations import Engine

from tools.errors import UsageError
from tools.files import save_json

# Constants ----------------------------------------------------------------------------------------

MAXIMA = ("max_heads", "max_headdim", "max_d_state", "max_groups", "max_tokens")

# Command ------------------------------------------------------------------------------------------

def info(args: Namespace) -> None:
    """Show what the device is, and what is loaded on it."""
    with open_device(args, args.log) as device:
        try:
            loaded = Manifest.fetch(device)
        except (UsageError, VersionMismatch) as error:
            loaded = None
            args.log(f"The manifest on the device: {error}")
        address, size = device.csr.memories["main_ram"]
        program = device.info.program
        fields  = device.info._asdict() | device.info.engines[Engine.SSM]
        summary = fields | {
            "program"   : program and {name: getattr(program, name) for name in ("pass_tokens", "vector_lanes", "elements", "activations",
                "units")},
            "engines"   : [engine.name for engine in device.info.engines],
            "board"     : device.csr.constants.get("config_identifier"),
            "transport" : device.transport.name,
            "peer"      : device.transport.peer,
            "firmware"  : version_string(device.info.firmware_version),
            "gateware"  : version_string(device.info.gateware_version),
            "dram_base" : address,
            "dram_size" : size,
            "loaded"    : None if loaded is None else {"complete": loaded.complete, "bytes": loaded.size,
                "sections": [section.name for section in loaded.sections]},
        }
    save_json(args.json, summary)
    print(f"board      {summary['board']}")
    print(f"firmware   {summary['firmware']}, protocol {summary['protocol_version']}, started "
          f"{summary['boot_count']} times")
    print(f"gateware   {summary['gateware']}, {summary['lanes']} lanes at {summary['clock_hz']/1e6:g} MHz")
    print(f"maxima     {', '.join(name.removeprefix('max_') + f' {fields[name]}' for name in MAXIMA)}")
    print(f"on chip    {summary['resident_tiles'] or 'no'} head tiles")
    if program is None:
        print("models     SSM blocks alone: no engines that run whole ones")
    else:
        print(f"models     whole, {program.pass_tokens} tokens a pass; {program.vector_lanes} vector lanes, {program.elements} elements of scratchpad, "
              f"{program.activations} words of activations; {', '.join(program.units)}")
    print(f"DRAM       {size} bytes at 0x{address:08x}, ports of {summary['data_width']} bits; "
          f"data: {summary['data_size']} at 0x{summary['data_base']:08x}")
    print(f"link       {summary['transport']}, {summary['peer']}")
    if loaded is None:
        print("loaded     nothing")
    else:
        print(f"loaded     {len(loaded.sections)} sections, {loaded.size} bytes{'' if loaded.complete else ', not completely'}")
