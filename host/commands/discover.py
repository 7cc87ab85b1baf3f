#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py discover``: looks for boards."""

from argparse import ArgumentParser, Namespace

from host.link.discovery import discover as find_devices
from host.link.etherbone import DEFAULT_PORT

from tools.arguments import udp_port
from tools.files import save_json

# Constants ----------------------------------------------------------------------------------------

DEFAULT_NETWORK = "192.168.1.0/24" # Of the boards' default address.

# Options ------------------------------------------------------------------------------------------

def add_discover_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--network", default=DEFAULT_NETWORK,
        help="Where to look: a network such as 192.168.1.0/24, an address, or a broadcast address (default: %(default)s).")
    parser.add_argument("--udp-port", type=udp_port, default=DEFAULT_PORT, metavar="PORT",
        help="UDP port of the boards' Etherbone (default: %(default)s).")

# Command ------------------------------------------------------------------------------------------

def discover(args: Namespace) -> None:
    """Look for boards: which addresses answer an Etherbone probe."""
    found = find_devices(args.network, args.udp_port)
    save_json(args.json, {"network": args.network, "udp_port": args.udp_port, "found": found})
    print("\n".join(found) if found else f"no board answers in {args.network}")
