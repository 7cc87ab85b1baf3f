#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py run``, ``info``, ``reset`` and ``discover``."""

from host.arguments import number, udp_port
from host.block import MODES, run_block
from host.case import check_case, load_case, save_output
from host.connect import open_device, requested_config
from host.device import version_string
from host.discovery import discover as find_devices
from host.errors import UsageError, VersionMismatch
from host.etherbone import DEFAULT_PORT
from host.files import check_writable, save_json
from host.manifest import Manifest, adopt
from host.progress import Progress

from soc.protocol import MANIFEST_OFFSET

# Constants ----------------------------------------------------------------------------------------

WAITS  = {"state": "a head tile", "input": "inputs", "output": "room for y", "descriptor": "a descriptor"} # Of the lanes.
MAXIMA = ("max_heads", "max_headdim", "max_d_state", "max_groups", "max_tokens")

DEFAULT_NETWORK = "192.168.1.0/24" # Of the boards' default address.

# Options ------------------------------------------------------------------------------------------

def add_run_arguments(parser):
    parser.add_argument("case", metavar="CASE.npz",
        help="Inputs, float16: x (T,H,P), dt and dA (T,H), B and C (T,G,N), D (H); optional h0 (H,P,N).")
    parser.add_argument("--output", metavar="OUT.npz", required=True,
        help="Where to write the results: y (T,H,P) and h (H,P,N).")
    parser.add_argument("--mode",   choices=MODES, default=MODES[0],
        help="prefill: one job for all tokens; decode: one job a token (default: %(default)s).")
    parser.add_argument("--store-every", type=number(int, "an integer", 1, 65535), default=1, metavar="K",
        help="With --mode decode: store the state at each K-th token only, and run the tokens since then again; "
             "less DRAM traffic, the same bits (default: %(default)s).")
    parser.add_argument("--seed",   type=number(int, "an integer", 0, 2**32 - 1),
        help="Of the stochastic rounding of token 0; token t takes seed + t (default: 0).")


def add_discover_arguments(parser):
    parser.add_argument("--network", default=DEFAULT_NETWORK,
        help="Where to look: a network such as 192.168.1.0/24, an address, or a broadcast address (default: %(default)s).")
    parser.add_argument("--udp-port", type=udp_port, default=DEFAULT_PORT, metavar="PORT",
        help="UDP port of the boards' Etherbone (default: %(default)s).")

# Commands -----------------------------------------------------------------------------------------

def run(args):
    """Run a case."""
    if args.store_every > 1 and args.mode != "decode":
        raise UsageError(f"--store-every must be 1 with --mode {args.mode}, is {args.store_every}; --mode decode takes others.")
    check_writable(args.output, args.json, args.case)
    case = load_case(args.case, requested_config(args))
    with open_device(args, args.log) as device, Progress() as progress:
        if args.seed is not None and not device.info.config.stochastic_rounding:
            raise UsageError(f"--seed must be left out, is {args.seed}: this device rounds the state to nearest "
                "(see --rounding stochastic).")
        adopt(device) # What was loaded stays.
        check_case({name: array for name, array in vars(case).items() if array is not None}, device.info.config)
        result = run_block(device, case, args.mode, progress, args.seed or 0, args.store_every)
    save_output(args.output, result.y, result.h)
    save_json(args.json, result.summary)

    summary      = result.summary
    microseconds = 1e6*summary["cycles_per_token"]/summary["clock_hz"]
    print(f"{case.tokens} tokens of {case.heads} heads x {case.headdim} x {case.d_state}, {args.mode}, "
          f"by {summary['transport']}")
    print(f"  streamed   {summary['bytes_streamed']} bytes, {summary['bytes_verified']} of them read back")
    print(f"  cycles     {summary['cycles']}: {summary['cycles_per_token']:.1f} a token, {microseconds:.1f} us at "
          f"{summary['clock_hz']/1e6:g} MHz")
    print(f"  lanes      {summary['lanes']}, busy in {summary['lane_busy_cycles']} cycles; the state is rounded "
          f"{'to nearest' if summary['rounding'] == 'nearest' else 'stochastically'}")
    print("  waits      " + ", ".join(f"{cycles} cycles for {WAITS[name]}" for name, cycles in summary["wait_cycles"].items()))
    print(f"  DRAM       {summary['dma_read_bytes']} bytes read, {summary['dma_write_bytes']} written, in "
          f"{summary['port_cycles']} cycles with something to move: {summary['dram_share']:.0%} of a beat a cycle")
    print("  not finite " + ", ".join(f"{count} of {getattr(result, name).size} values of {name}"
        for name, count in summary["not_finite"].items()))
    print(f"  results in {args.output}")


def info(args):
    """Show what the device is, and what is loaded on it."""
    with open_device(args, args.log) as device:
        try:
            loaded = Manifest.fetch(device)
        except (UsageError, VersionMismatch) as error:
            loaded = None
            args.log(f"The manifest on the device: {error}")
        address, size = device.csr.memories["main_ram"]
        fields  = device.info._asdict()
        summary = fields | {
            "board"     : device.csr.constants.get("config_identifier"),
            "transport" : device.transport.name,
            "peer"      : device.transport.peer,
            "firmware"  : version_string(device.info.firmware_version),
            "gateware"  : version_string(device.info.gateware_version),
            "dram_base" : address,
            "dram_size" : size,
            "loaded"    : None if loaded is None else {"complete": loaded.complete, "bytes": loaded.size,
                "regions": [region.name for region in loaded.regions]},
        }
    save_json(args.json, summary)
    print(f"board      {summary['board']}")
    print(f"firmware   {summary['firmware']}, protocol {summary['protocol_version']}, started "
          f"{summary['boot_count']} times")
    print(f"gateware   {summary['gateware']}, {summary['lanes']} lanes at {summary['clock_hz']/1e6:g} MHz")
    print(f"maxima     {', '.join(name.removeprefix('max_') + f' {fields[name]}' for name in MAXIMA)}")
    print(f"on chip    {summary['resident_tiles'] or 'no'} head tiles")
    print(f"DRAM       {size} bytes at 0x{address:08x}; data: {summary['data_size']} at 0x{summary['data_base']:08x}")
    print(f"link       {summary['transport']}, {summary['peer']}")
    if loaded is None:
        print("loaded     nothing")
    else:
        print(f"loaded     {len(loaded.regions)} regions, {loaded.size} bytes{'' if loaded.complete else ', not completely'}")


def reset(args):
    """Load the firmware anew, and forget what was loaded."""
    args.reload = True
    with open_device(args, args.log) as device:
        device.write(device.ram + MANIFEST_OFFSET, bytes(16))
        summary = {"firmware": version_string(device.info.firmware_version), "boot_count": device.info.boot_count,
            "transport": device.transport.name}
    save_json(args.json, summary)
    print(f"firmware {summary['firmware']} runs anew; nothing is loaded")


def discover(args):
    """Look for boards: which addresses answer an Etherbone probe."""
    found = find_devices(args.network, args.udp_port)
    save_json(args.json, {"network": args.network, "udp_port": args.udp_port, "found": found})
    print("\n".join(found) if found else f"no board answers in {args.network}")
