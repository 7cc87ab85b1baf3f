#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The manifest of what is loaded on a device: named sections of its data region, their hashes, and whose format they have.

As a file it is JSON. On the device it lies at its place in the DRAM map (operations/protocol.py): a header of four words (magic,
format version, bytes of JSON that follow, their CRC-32), then the same JSON. It is written before the sections, marked as
incomplete, and once more when they are there; so another host, or the same one after an interruption, knows what the
device holds, and :func:`load` sends only what is missing.
"""

import dataclasses
import hashlib
import json
import struct
import zlib

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host.device.device import Device, Info
from host.device.maxima import build_advice
from host.device.verified import ByteCounts
from host.errors import AllocationError, IntegrityError, VersionMismatch
from host.link.transport import Meter

from operations.config import ALIGNMENT, ceil_multiple
from operations.protocol import MANIFEST_OFFSET, MANIFEST_SIZE, PROTOCOL_VERSION
from operations.ssm import Geometry

from tools.errors import UsageError
from tools.files import write_atomically

# Constants ----------------------------------------------------------------------------------------

FORMAT_VERSION = 2
MAGIC          = 0x4d4d5353 # "SSMM".
HEADER         = struct.Struct("<4I")

# Section ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Section:
    """A part of the data region. Sizes in bytes."""
    name   : str
    offset : int # From the start of the data region, a multiple of 16.
    size   : int
    sha256 : str
    crc32  : int # Of its bytes and the zeros that fill the last 16: what the device computes.

# Manifest -----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Manifest:
    """What is, or is to be, loaded.

    Attributes
    ----------
    geometry : {"heads", "headdim", "d_state", "groups", "lanes": int} of the gateware and block that tiles and records were
               packed for, and whatever else tells models apart.
    sections : tuple of :class:`Section`, one behind the other.
    complete : on the device: all sections were sent and verified.
    """
    geometry         : dict[str, Any]
    sections         : tuple[Section, ...] = ()
    complete         : bool = False
    format_version   : int  = FORMAT_VERSION
    protocol_version : int  = field(default=PROTOCOL_VERSION)

    @classmethod
    def of(cls, geometry: Mapping[str, Any], data: Mapping[str, bytes | memoryview]) -> "Manifest":
        """The manifest of {name: bytes}, placed one behind the other, each at a multiple of 16."""
        sections, offset = [], 0
        for name, content in data.items():
            crc = zlib.crc32(bytes(-len(content) % ALIGNMENT), zlib.crc32(content))
            sections.append(Section(name, offset, len(content), hashlib.sha256(content).hexdigest(), crc))
            offset += ceil_multiple(len(content), ALIGNMENT)
        return cls(dict(geometry), tuple(sections))

    @property
    def size(self) -> int:
        """Bytes of the data region that it takes, from its start."""
        return max((section.offset + ceil_multiple(section.size, ALIGNMENT) for section in self.sections), default=0)

    def section(self, name: str) -> Section:
        """The :class:`Section` of a name; UsageError if there is none."""
        for section in self.sections:
            if section.name == name:
                return section
        raise UsageError(f"The manifest has no section {name}: it has {', '.join(s.name for s in self.sections) or 'none'}.")

    def same_content(self, other: "Manifest | None") -> bool:
        """Whether other says the same, complete or not."""
        return other is not None and dataclasses.replace(self, complete=other.complete) == other

    # Text -----------------------------------------------------------------------------------------

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, source: Path | str) -> "Manifest":
        """Parse what :meth:`to_json` wrote; `source` is named in errors.

        Raises
        ------
        VersionMismatch : it is of another format or protocol version.
        UsageError      : it is no manifest.
        """
        try:
            words    = json.loads(text)
            versions = words["format_version"], words["protocol_version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(f"{source}: not a manifest ({error}).") from error
        for name, version, own in zip(("format", "protocol"), versions, (FORMAT_VERSION, PROTOCOL_VERSION)):
            if version != own:
                raise VersionMismatch(f"{source}: {name} version {version}, this host has {own}: load the model again with "
                    "this host, or use the host that wrote it.")
        try:
            sections = tuple(Section(**section) for section in words.pop("sections"))
            result   = cls(sections=sections, **words)
            result._check()
        except (TypeError, ValueError, KeyError) as error:
            raise UsageError(f"{source}: not a manifest ({error}).") from error
        return result

    def _check(self) -> None:
        if not isinstance(self.geometry, dict) or not isinstance(self.complete, bool):
            raise ValueError("geometry or complete is of another type")
        end = 0
        for section in self.sections:
            if not isinstance(section.name, str) or not all(isinstance(value, int) and value >= 0
                    for value in (section.offset, section.size, section.crc32)):
                raise ValueError(f"section {section.name!r} has values of another type")
            if section.offset % ALIGNMENT or section.offset < end:
                raise ValueError(f"section {section.name} at offset {section.offset} is misaligned or overlaps the one before")
            end = section.offset + section.size
        if len({section.name for section in self.sections}) != len(self.sections):
            raise ValueError("two sections have the same name")

    # File -----------------------------------------------------------------------------------------

    def save(self, path: Path | str) -> None:
        """Write the file, whole or not at all."""
        write_atomically(path, lambda file: file.write(self.to_json().encode() + b"\n"))

    @classmethod
    def open(cls, path: Path | str) -> "Manifest":
        """Read the file."""
        try:
            with open(path) as file:
                return cls.from_json(file.read(), path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot read the manifest ({error}).") from error

    # Device ---------------------------------------------------------------------------------------

    def store(self, device: Device) -> None:
        """Write it to its place in the device's DRAM."""
        text = self.to_json().encode()
        if HEADER.size + len(text) > MANIFEST_SIZE:
            raise UsageError(f"A manifest must be of at most {MANIFEST_SIZE - HEADER.size} bytes, is of {len(text)}: name fewer "
                "sections.")
        header = HEADER.pack(MAGIC, FORMAT_VERSION, len(text), zlib.crc32(text))
        device.write(device.ram + MANIFEST_OFFSET, header + text.ljust(ceil_multiple(len(text), 4), b"\0"))

    @classmethod
    def fetch(cls, device: Device) -> "Manifest | None":
        """The manifest on the device; None if none was ever written whole. VersionMismatch as :meth:`from_json`."""
        base = device.ram + MANIFEST_OFFSET
        magic, version, size, crc = HEADER.unpack(device.read(base, HEADER.size))
        if magic != MAGIC or size > MANIFEST_SIZE - HEADER.size:
            return None
        if version != FORMAT_VERSION:
            raise VersionMismatch(f"The manifest on the device: format version {version}, this host has {FORMAT_VERSION}: "
                "load the model again with this host, or use the host that loaded it.")
        text = device.read(base + HEADER.size, ceil_multiple(size, 4))[:size]
        return cls.from_json(text, "The manifest on the device") if zlib.crc32(text) == crc else None

    def check(self, info: Info) -> None:
        """Raise unless a device with this :class:`~host.device.device.Info` can hold and run it.

        Raises
        ------
        VersionMismatch : the tiles were packed for other lanes, or the geometry is beyond the gateware's maxima.
        AllocationError : the data region is too small.
        """
        lanes = self.geometry.get("lanes", info.lanes)
        if lanes != info.lanes:
            raise VersionMismatch(f"The manifest is of a model packed for {lanes} lanes, the gateware has {info.lanes}: "
                "pack it again for this device.")
        sizes = {name: self.geometry[name] for name in ("heads", "headdim", "d_state", "groups") if name in self.geometry}
        if len(sizes) == 4:
            try:
                Geometry(info.config, **sizes)
            except ValueError as error:
                raise VersionMismatch(f"The gateware cannot run the model of the manifest ({str(error).removesuffix('.')})"
                    f"{build_advice(info.config, **sizes)}.") from error
        if self.size > info.data_size:
            raise AllocationError(f"The sections of the manifest take {self.size} bytes, the device's data region has "
                f"{info.data_size}: use a smaller model.")

    def verify(self, device: Device) -> list[str]:
        """Names of the sections that are not on the device as they should be: it computes a CRC-32 of each."""
        wrong = []
        for section in self.sections:
            size = ceil_multiple(section.size, ALIGNMENT)
            if size and int(device.checksums(device.info.data_base + section.offset, size, size)[0]) != section.crc32:
                wrong.append(section.name)
        return wrong

# Load ---------------------------------------------------------------------------------------------

def load(device: Device, manifest: Manifest, data: Mapping[str, bytes | memoryview], progress: Meter | None = None) -> ByteCounts:
    """Bring what the manifest names to the device, and keep it from being allocated. May be interrupted and called again.

    Parameters
    ----------
    data     : {name: bytes} of all sections.
    progress : called with a number of bytes as they are sent, or found on the device.

    Returns
    -------
    :class:`~host.device.verified.ByteCounts` of all sections: ``moved`` is 0 where all was there.

    Raises
    ------
    UsageError     : `data` is not what the manifest says.
    IntegrityError : the device does not hold what was sent.
    """
    manifest.check(device.info)
    for section in manifest.sections:
        if hashlib.sha256(data.get(section.name, b"")).hexdigest() != section.sha256:
            raise UsageError(f"The data of section {section.name} is not what the manifest says: its SHA-256 differs.")
    try:
        loaded = Manifest.fetch(device)
    except (UsageError, VersionMismatch): # Of another host; it is about to be replaced.
        loaded = None
    total = ByteCounts()
    if loaded is None or not (manifest.same_content(loaded) and loaded.complete):
        dataclasses.replace(manifest, complete=False).store(device)
    for section in manifest.sections:
        total += device.upload(device.info.data_base + section.offset, data[section.name], progress)
    if wrong := manifest.verify(device):
        raise IntegrityError(f"After loading, the device's CRC of section {', '.join(wrong)} is not the manifest's: load "
            "again.")
    dataclasses.replace(manifest, complete=True).store(device)
    device.reserve(manifest.size)
    return total


def adopt(device: Device) -> Manifest | None:
    """The manifest of what an earlier host has loaded, its sections verified and kept from being allocated.

    None if nothing is there, not all of it, or not as it should be: then :func:`load` it.
    """
    manifest = Manifest.fetch(device)
    if manifest is None or not manifest.complete:
        return None
    manifest.check(device.info)
    if manifest.verify(device):
        return None
    device.reserve(manifest.size)
    return manifest
