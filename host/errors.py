#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What can go wrong between host and device. Each message is one line and says what to do next."""

# Base ---------------------------------------------------------------------------------------------

from tools.errors import CommandError, UsageError


class CaseError(UsageError):
    """A case file is not what the device can run."""

# Link ---------------------------------------------------------------------------------------------

class LinkError(CommandError):
    """The link to the device cannot be opened, or broke."""


class TransportTimeout(LinkError):
    """The device did not answer in time, retries included."""


class IntegrityError(LinkError):
    """What was read back differs from what was written, also after writing it again."""

# Device -------------------------------------------------------------------------------------------

class SelfTestFailed(CommandError):
    """The device answers, and does something wrong."""


class VersionMismatch(CommandError):
    """Host and firmware, or host and gateware, do not fit together."""


class AllocationError(UsageError):
    """The device's data region is too small for what is asked."""


class DeviceTimeout(CommandError):
    """The device is reachable but did not do in time what was waited for."""


class SessionInvalid(CommandError):
    """A text cannot go on: what its last job left is not known."""


class DeviceError(CommandError):
    """A job failed.

    Attributes
    ----------
    index  : The job.
    error  : operations.protocol.Error, or the bare number when this host does not know it.
    detail : The offending value, as the error defines it.
    """
    def __init__(self, message: str, index: int, error: int | None, detail: int):
        super().__init__(message)
        self.index  = index
        self.error  = error
        self.detail = detail
