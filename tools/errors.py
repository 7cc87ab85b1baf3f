#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""How a command fails: what it raises, and the exit code that it then has. Each message is one line and says what to do next."""


class CommandError(Exception):
    """A failure that a command reports. `exit_code` is what it ends with."""
    exit_code = 1


class UsageError(CommandError):
    """An option, path or file is wrong; no device is at fault."""
    exit_code = 2
