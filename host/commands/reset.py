#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py reset``: loads the firmware anew, and forgets what was loaded."""

from argparse import Namespace

from host.connect import open_device
from host.device.device import version_string

from operations.protocol import MANIFEST_OFFSET

from tools.files import save_json

# Command ------------------------------------------------------------------------------------------

def reset(args: Namespace) -> None:
    """Load the firmware anew, and forget what was loaded."""
    args.reload = True
    with open_device(args, args.log) as device:
        device.write(device.ram + MANIFEST_OFFSET, bytes(16))
        summary = {"firmware": version_string(device.info.firmware_version), "boot_count": device.info.boot_count,
            "transport": device.transport.name}
    save_json(args.json, summary)
    print(f"firmware {summary['firmware']} runs anew; nothing is loaded")
