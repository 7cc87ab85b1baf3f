#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What can go wrong between host and device. Each message is one line and says what to do next."""

# Base ---------------------------------------------------------------------------------------------

class HostError(Exception):
    """Any failure the host reports. `exit_code` is what ``stream.py`` ends with."""
    exit_code = 1


class UsageError(HostError):
    """An option, path or file on the host's side is wrong; the device is not at fault."""
    exit_code = 2


class CaseError(UsageError):
    """A case file is not what the device can run."""

# Link ---------------------------------------------------------------------------------------------

class LinkError(HostError):
    """The link to the device cannot be opened, or broke."""


class TransportTimeout(LinkError):
    """The device did not answer in time, retries included."""


class IntegrityError(LinkError):
    """What was read back differs from what was written, also after writing it again."""

# Device -------------------------------------------------------------------------------------------

class SelfTestFailed(HostError):
    """The device answers, and does something wrong."""


class VersionMismatch(HostError):
    """Host and firmware, or host and gateware, do not fit together."""


class AllocationError(UsageError):
    """The device's data region is too small for what is asked."""


class DeviceTimeout(HostError):
    """The device is reachable but did not do in time what was waited for."""


class DeviceError(HostError):
    """A job failed.

    Attributes
    ----------
    index  : The job.
    error  : soc.protocol.Error, or the bare number when this host does not know it.
    detail : The offending value, as the error defines it.
    """
    def __init__(self, message, index, error, detail):
        super().__init__(message)
        self.index  = index
        self.error  = error
        self.detail = detail
