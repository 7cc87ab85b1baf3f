#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The device: its memory, its firmware, its jobs. The same calls whether a board or the simulation answers.

    with Etherbone("192.168.1.50") as transport:
        device = Device(transport, CSRMap.from_csv("csr.csv"))
        device.boot("firmware.bin")
        index  = device.submit(Job(Opcode.SELFTEST))
        result = device.wait(index)
"""

import hashlib
import os
import time

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from host.device import verified
from host.device.csr import CSRMap
from host.device.jobs import Job
from host.errors import AllocationError, DeviceError, DeviceTimeout, VersionMismatch
from host.link.transport import Meter, Transport

from operations.config import ALIGNMENT, GATEWARE_VERSION, ProgramConfig, SSMConfig, ceil_multiple
from operations.operations import Engine, Opcode
from operations.program import Unit
from operations.protocol import (ENGINE_INFO, ENGINE_WORDS, ENGINES_MAX, FIRMWARE_OFFSET, FIRMWARE_SIZE, INFO_HEAD, INFO_MAGIC,
    INFO_OFFSET, INFO_WORDS, JOB_BYTES, JOB_CONTROL, JOB_HEAD, JOB_REQUEST_WORDS, JOB_RESULT, PROTOCOL_VERSION, REBOOT, RING_ENTRIES, STAMP_OFFSET,
    Error, Status)
from operations.ssm import unpack_capabilities

from tools.errors import UsageError

# Constants ----------------------------------------------------------------------------------------

COUNTERS  = ("cycles", "lane_busy", "wait_state", "wait_input", "wait_output", "wait_descriptor", "read_beats",
    "write_beats", "port_cycles")

GATEWARE  = (GATEWARE_VERSION >> 16, GATEWARE_VERSION >> 8 & 0xff) # Major and minor version that this host knows.
PATIENCE  = 10.0 # Seconds the host waits for anything, besides the time the device needs by its own clock, which is
BOOT_TIME = 1.0  # at most so many seconds from reset to the boot ROM, or from there to a ready firmware.

Value     = TypeVar("Value")

# Info ---------------------------------------------------------------------------------------------

class Info(NamedTuple):
    """The firmware's info block: the words of its head (operations.protocol.INFO_HEAD), then what engines there are."""
    magic            : int
    protocol_version : int
    firmware_version : int
    gateware_version : int
    clock_hz         : int
    data_base        : int
    data_size        : int
    data_width       : int
    ring_base        : int
    ring_entries     : int
    job_bytes        : int
    boot_count       : int
    engine_count     : int
    engines          : dict[Engine, dict[str, int]] # {word: value} of each, see operations.protocol.ENGINE_INFO.

    @classmethod
    def of(cls, words: Iterable[int]) -> "Info":
        """From its INFO_WORDS words. Engines of kinds that this host does not know are left out."""
        values  = [int(word) for word in words]
        head    = dict(zip(INFO_HEAD, values))
        engines = {}
        for n in range(min(head["engine_count"], ENGINES_MAX)):
            kind, *built = values[len(INFO_HEAD) + n*ENGINE_WORDS:][:ENGINE_WORDS]
            if kind in ENGINE_INFO:
                engines[Engine(kind)] = dict(zip(ENGINE_INFO[Engine(kind)], built))
        return cls(**head, engines=engines)

    @property
    def config(self) -> SSMConfig:
        """What the SSM core can run, as an SSMConfig.

        Raises
        ------
        VersionMismatch : there is none.
        """
        if Engine.SSM not in self.engines:
            raise VersionMismatch("The gateware has no SSM core: load one that has.")
        words      = {word: value for word, value in self.engines[Engine.SSM].items() if word != "version"}
        stochastic = bool(words.pop("stochastic_rounding"))
        return SSMConfig(stochastic_rounding=stochastic, **words) # type: ignore[arg-type] # Numbers, all of them.

    @property
    def program(self) -> ProgramConfig | None:
        """What runs whole models, as a ProgramConfig; None: nothing does."""
        words = self.engines.get(Engine.PROGRAM)
        if words is None:
            return None
        units = tuple(unit.name for unit in Unit if words["units"] >> unit & 1)
        return ProgramConfig(units=units, **{name: words[name] for name in ("pass_tokens", "vector_lanes", "scratch", "activations")})

    @property
    def lanes(self) -> int:
        return self.config.lanes

    @property
    def max_tokens(self) -> int:
        return self.config.max_tokens

    @property
    def resident_tiles(self) -> int:
        return self.config.resident_tiles

    def check(self) -> None:
        """Raise VersionMismatch unless this host can talk to that firmware."""
        if self.protocol_version != PROTOCOL_VERSION:
            raise VersionMismatch(f"The firmware speaks protocol version {self.protocol_version}, this host version "
                f"{PROTOCOL_VERSION}: load the firmware that belongs to this host, or use the host that belongs to it.")
        if (self.ring_entries, self.job_bytes) != (RING_ENTRIES, JOB_BYTES):
            raise VersionMismatch(f"The firmware has a ring of {self.ring_entries} x {self.job_bytes} bytes, this host "
                f"one of {RING_ENTRIES} x {JOB_BYTES}: load the firmware that belongs to this host.")
        try:
            if Engine.SSM in self.engines:
                self.config
            self.program
        except ValueError as error:
            raise VersionMismatch(f"The firmware describes gateware this host does not know ({error}): use host, "
                "firmware and gateware of one version.") from error


def version_string(version: int) -> str:
    """ "1.2.3" from 0x00010203."""
    return f"{version >> 16}.{version >> 8 & 0xff}.{version & 0xff}"

# Results ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Result:
    """What a completed job reports."""
    index         : int
    cycles        : int
    bytes_read    : int
    bytes_written : int
    busy_cycles   : int
    units         : int # Head tiles, or blocks.

# Device -------------------------------------------------------------------------------------------

class Device:
    """Device

    Parameters
    ----------
    transport     : :class:`~host.link.transport.Transport`.
    csr           : :class:`~host.device.csr.CSRMap` of the gateware.
    timeout_scale : How many times slower than a board the device's clock runs; multiplies the device's share of every
                    time-out.
    patience      : Seconds to wait for anything besides that share.

    Attributes
    ----------
    info : :class:`Info` of the running firmware, checked; None before :meth:`boot`.
    """
    def __init__(self, transport: Transport, csr: CSRMap, timeout_scale: float = 1.0, patience: float = PATIENCE):
        self.transport     = transport
        self.csr           = csr
        self.timeout_scale = timeout_scale
        self.patience      = patience
        self.ram           = csr.memories["main_ram"][0]
        self.info: Info    = None # type: ignore[assignment] # Before boot().
        self._next         = 0  # The next address to allocate,
        self._reserved     = 0  # and the lowest one.
        self._rung         = 0  # Jobs rung for, modulo 2**32 as all job indices.
        self._collected    = 0  # Jobs whose results were read.
        self._jobs: dict[int, Job] = {} # Jobs not yet collected, by index.
        self._results: dict[int, Result | DeviceError] = {} # Collected, not yet asked for: a Result, or the error to raise.

    # Memory ---------------------------------------------------------------------------------------

    def read(self, address: int, size: int, progress: Meter | None = None) -> bytes:
        """`size` bytes from bus address `address` on."""
        return self.transport.read_bytes(address, size, progress)

    def write(self, address: int, data: bytes, verify: bool = True, progress: Meter | None = None) -> None:
        """Write bytes from bus address `address` on, and read them back unless `verify` is False."""
        self.transport.write_bytes(address, data, verify, progress)

    def read_csr(self, name: str) -> int:
        """The value of a CSR of any width."""
        address, count = self.csr.registers[name]
        value = 0
        for word in self.transport.read_words(address, count): # High word first.
            value = value << 32 | int(word)
        return value

    def write_csr(self, name: str, value: int) -> None:
        """Write a CSR of 32 bits. It need not read as it was written, so nothing is verified."""
        address, _ = self.csr.registers[name]
        self.transport.write_words(address, [value], readback=False)

    def cycles(self) -> int:
        """Clock cycles since the device's reset."""
        self.write_csr("mailbox_latch", 1)
        return self.read_csr("mailbox_cycles")

    def counters(self) -> dict[str, int]:
        """The accelerator's counters, of one moment: {name: value}. See cores/ssm/ssm.py for what they count."""
        self.write_csr("ssm_counters_latch", 1)
        return {name: self.read_csr(f"ssm_counters_{name}") for name in COUNTERS}

    def allocate(self, size: int, what: str = "memory") -> int:
        """Bus address of `size` bytes of the data region, a multiple of ALIGNMENT. :meth:`free` gives all back.

        Raises
        ------
        AllocationError : names `what`, its size and what is left.
        """
        address = self._next
        size    = ceil_multiple(size, ALIGNMENT)
        if size > self.room:
            raise AllocationError(f"{what} of {size} bytes does not fit: {self.room} of {self.info.data_size} "
                "bytes of the device's data region are free; use fewer tokens.")
        self._next = address + size
        return address

    @property
    def room(self) -> int:
        """Bytes that :meth:`allocate` has left."""
        return self.info.data_base + self.info.data_size - self._next

    def reserve(self, size: int) -> None:
        """Keep the first `size` bytes of the data region, which hold what was loaded; gives back all that was allocated."""
        self._reserved = size
        self.free()

    def free(self) -> None:
        """Give back all that was allocated."""
        self._next = ceil_multiple(self.info.data_base + self._reserved, ALIGNMENT)

    def checksums(self, address: int, size: int, block: int = verified.BLOCK_BYTES) -> np.ndarray:
        """CRC-32 of each block of the data region; see :func:`host.device.verified.checksums`."""
        return verified.checksums(self, address, size, block)

    def upload(self, address: int, data: bytes | memoryview, progress: Meter | None = None, resume: bool = True) -> verified.ByteCounts:
        """Write to the data region, verified by the device's CRCs; see :func:`host.device.verified.upload`."""
        return verified.upload(self, address, data, progress, resume)

    def download(self, address: int, size: int, progress: Meter | None = None) -> bytes:
        """Read from the data region, verified likewise; see :func:`host.device.verified.download`."""
        return verified.download(self, address, size, progress)

    # Firmware -------------------------------------------------------------------------------------

    def boot(self, firmware: str | os.PathLike | None = None, reload: bool = False) -> bool:
        """Have `firmware` running, its info block checked, no job pending.

        Parameters
        ----------
        firmware : Path of firmware.bin. None: whatever runs.
        reload   : Load it even where it is running already.

        Returns
        -------
        bool : whether it was loaded.

        Raises
        ------
        VersionMismatch : the firmware, or the gateware below it, is of another version than this host, or of another build
                          than the map of its registers; nothing was written.
        DeviceTimeout   : the CPU does not reach the boot ROM, or the firmware does not start.
        UsageError      : `firmware` cannot be read or is too large; or is None, and none runs.
        """
        image = None if firmware is None else _read_image(firmware)
        self.check_gateware()
        if not reload and self._adopt(image):
            return False
        if image is None:
            raise UsageError("No firmware answers on the device: name one to load (--firmware firmware.bin).")
        self._enter_boot_rom()
        self._load(image)
        self.info = self._read_info()
        self.info.check()
        self._start_ring()
        self.write(self.ram + STAMP_OFFSET, _stamp(image))
        return True

    def check_gateware(self) -> None:
        """Raise VersionMismatch unless the gateware is what csr.csv describes, and of a version that this host knows.

        It only reads. By the addresses of another gateware, whatever is written next would go to wrong registers.
        """
        advice   = "give csr.csv from the folder that the running gateware was built in (--csr-csv), or load that gateware."
        expected = self.csr.constants.get("config_identifier") or ""
        if expected and "identifier_mem" in self.csr.bases:
            words = self.transport.read_words(self.csr.bases["identifier_mem"], len(expected))
            found = bytes(words.astype(np.uint8)).split(b"\0")[0].decode("ascii", "replace")
            if found.lower() != expected.lower(): # csr.csv has it in lower case.
                raise VersionMismatch(f"The gateware's identifier must be {expected!r}, as csr.csv has it, is {found!r}: {advice}")
        version = self.read_csr("ssm_version")
        if (version >> 16, version >> 8 & 0xff) != GATEWARE:
            raise VersionMismatch(f"The gateware's version must be {GATEWARE[0]}.{GATEWARE[1]}.x, reads "
                f"{version_string(version)} (0x{version:08x}): {advice}")
        built = self.read_csr("ssm_capabilities")
        for name, value in unpack_capabilities(built).items():
            constant = self.csr.constants.get(f"ssm_{name}")
            if constant not in (None, value):
                raise VersionMismatch(f"The gateware's {name} must be {constant}, as csr.csv has it, is {value}: {advice}")

    def _read_info(self) -> Info:
        return Info.of(self.transport.read_words(self.ram + INFO_OFFSET, INFO_WORDS))

    def _is_ready(self) -> bool:
        """Whether there is an info block."""
        return int(self.transport.read_words(self.ram + INFO_OFFSET, 1)[0]) == INFO_MAGIC

    def _adopt(self, image: bytes | None) -> bool:
        """Use the firmware that runs, if there is one, and if it is `image`."""
        if not self._is_ready():
            return False
        info = self._read_info()
        if image is not None and self.read(self.ram + STAMP_OFFSET, len(_stamp(image))) != _stamp(image):
            return False
        info.check()
        self.info = info
        try: # The block may be left over from before a reset, and jobs from an interrupted host.
            self._cancel_all()
            self._wait_for("the firmware to finish the jobs of an earlier host", self._is_quiet, BOOT_TIME)
            self._start_ring()
            self.wait(self.submit(Job(Opcode.NOP)))
        except (DeviceTimeout, DeviceError):
            self.info = None # type: ignore[assignment] # As before boot().
            return False
        return True

    def _is_quiet(self) -> bool:
        """Whether the firmware has no jobs. A doorbell behind `completed` is a late copy of an earlier one, and asks for none."""
        return 0 <= (self.read_csr("mailbox_completed") - self.read_csr("mailbox_doorbell")) % 2**32 < 2**31

    def _cancel_all(self) -> None:
        """Have the jobs of an earlier host end soon."""
        completed, doorbell = self.read_csr("mailbox_completed"), self.read_csr("mailbox_doorbell")
        pending = (doorbell - completed) % 2**32
        for index in range(completed, completed + pending) if pending <= RING_ENTRIES else ():
            self._cancel(index, int(self.transport.read_words(self._slot(index) + 4*JOB_HEAD.index("sequence"), 1)[0]))

    def _start_ring(self) -> None:
        """Begin with the job after the last one completed: the firmware counts so, whatever the doorbell reads."""
        self._rung = self._collected = self.read_csr("mailbox_completed")
        self._jobs.clear()
        self._results.clear()
        self.free()

    def _enter_boot_rom(self) -> None:
        """Bring the CPU to the boot ROM, wherever it is. Only there is the request cleared."""
        for _ in range(3): # Three times: a request that got lost looks like one that was taken.
            self.write_csr("mailbox_boot", REBOOT)
            self._wait_for("the CPU to reach the boot ROM; if it never does, reset the device",
                lambda: self.read_csr("mailbox_boot") == 0, BOOT_TIME)

    def _load(self, image: bytes) -> None:
        if self._is_ready(): # Left over from before a reset.
            self.write(self.ram + INFO_OFFSET, bytes(4))
        self.write(self.ram + STAMP_OFFSET, bytes(len(_stamp(image))))
        self.write(self.ram + FIRMWARE_OFFSET, image)
        for attempt in range(3):
            self.write_csr("mailbox_boot", self.ram + FIRMWARE_OFFSET)
            try:
                self._wait_for("the firmware to start; if it never does, it was built for other gateware",
                    self._is_ready, BOOT_TIME)
                return
            except DeviceTimeout:
                if attempt == 2:
                    raise

    # Jobs -----------------------------------------------------------------------------------------

    def submit(self, job: Job) -> int:
        """Hand a :class:`Job` to the firmware. Waits only while the ring is full. Returns the job's index."""
        return self.submit_all([job])[0]

    def submit_all(self, jobs: Sequence[Job]) -> list[int]:
        """Hand over several jobs, ringing once for as many as the ring has room for. Returns their indices."""
        indices: list[int] = []
        while len(indices) < len(jobs):
            while (self._rung - self._collected) % 2**32 >= RING_ENTRIES:
                self._collect()
            room = RING_ENTRIES - (self._rung - self._collected) % 2**32
            for job in jobs[len(indices):len(indices) + room]:
                index = self._rung
                # Words are written more than once where the link loses answers, so never those the firmware writes.
                self.transport.write_words(self._slot(index), job.words(index))
                self._jobs[index] = job
                self._rung        = (index + 1) % 2**32
                indices.append(index)
            self._ring()
        return indices

    def wait(self, index: int, timeout: float | None = None) -> Result:
        """The :class:`Result` of a submitted job; it can be asked for once.

        Parameters
        ----------
        timeout : Seconds by the device's clock; None: what the size of each job waited for suggests.

        Raises
        ------
        DeviceError   : the job failed.
        DeviceTimeout : it did not complete in time.
        """
        while index not in self._results:
            if index not in self._jobs:
                raise ValueError(f"index must be that of a submitted job not yet waited for, is {index}.")
            self._collect(timeout)
        result = self._results.pop(index)
        if isinstance(result, DeviceError):
            raise result
        return result

    def follow(self, index: int, progress: Callable[[], Value], what: str, cycles: int) -> Iterator[Value]:
        """While a submitted job is under way, yield what `progress()` returns whenever that is another value; ends when the job has.

        Parameters
        ----------
        what   : that is waited for, in messages.
        cycles : in which there must be progress, by the device's clock.

        Raises
        ------
        DeviceTimeout : there was none.
        """
        limit = self.patience + cycles/self.info.clock_hz*self.timeout_scale
        last  = progress()
        start, pause = time.monotonic(), 0.0005
        while not self._is_completed(index):
            value = progress()
            if value != last:
                last, start, pause = value, time.monotonic(), 0.0005
                yield value
            elif time.monotonic() - start > limit:
                raise DeviceTimeout(f"Waited {limit:.1f} s for {what}.")
            else:
                time.sleep(pause)
                pause = min(2*pause, 0.02)

    def run(self, job: Job, timeout: float | None = None) -> Result:
        """Submit a job and wait for it."""
        return self.wait(self.submit(job), timeout)

    def cancel(self, index: int) -> None:
        """Have a submitted job end soon, if its operation can; it is still to be waited for."""
        self._cancel(index, index)

    def drain(self, timeout: float | None = None) -> None:
        """Wait for all submitted jobs and forget their results, so that the memory they use is free again. timeout: of each, as for wait()."""
        while self._collected != self._rung:
            self._collect(timeout)
        self._results.clear()

    def check_running(self) -> int:
        """The number of jobs completed. By it the device tells that it was reset: what was read since may be anything.

        Raises
        ------
        DeviceError : they are fewer than before.
        """
        completed = self.read_csr("mailbox_completed")
        if (completed - self._collected) % 2**32 >= 2**31:
            self.write_csr("mailbox_doorbell", completed) # Else the next host waits for jobs that nobody runs.
            raise DeviceError(f"Job {self._collected} will not end: the device was reset, or another host has loaded its firmware anew; begin "
                "again.", self._collected, None, 0)
        return completed

    def _cancel(self, index: int, sequence: int) -> None:
        self.transport.write_words(self._slot(index) + JOB_BYTES - 4*len(JOB_CONTROL), np.array([~sequence % 2**32], np.uint32))

    def _slot(self, index: int) -> int:
        return self.info.ring_base + index % RING_ENTRIES*JOB_BYTES

    def _ring(self) -> None:
        self.write_csr("mailbox_doorbell", self._rung)

    def _collect(self, timeout: float | None = None) -> None:
        """Wait for the oldest job that is not collected, and read its result."""
        index = self._collected
        job   = self._jobs[index]
        if timeout is None:
            timeout = self._job_cycles(job)/self.info.clock_hz
        self._wait_for(f"job {index} (opcode {job.opcode})", lambda: self._is_completed(index), timeout)
        words = dict(zip(JOB_RESULT, map(int, self.transport.read_words(self._slot(index) + 4*JOB_REQUEST_WORDS,
            len(JOB_RESULT)))))
        self._collected = (index + 1) % 2**32
        del self._jobs[index]
        self._results[index] = _result(index, words)

    def _job_cycles(self, job: Job) -> int:
        return job.cycles(self.info.config if Engine.SSM in self.info.engines else SSMConfig())

    def _is_completed(self, index: int) -> bool:
        if (self.check_running() - index - 1) % 2**32 < 2**31:
            return True
        if self.read_csr("mailbox_doorbell") != self._rung:
            self._ring() # It got lost, or a late copy of an earlier one came after it.
        return False

    def _wait_for(self, what: str, condition: Callable[[], bool], timeout: float) -> None:
        """Poll `condition` until it holds; DeviceTimeout after `timeout` seconds by the device's clock."""
        limit    = self.patience + timeout*self.timeout_scale
        deadline = time.monotonic() + limit
        pause    = 0.0005
        while not condition():
            if time.monotonic() > deadline:
                raise DeviceTimeout(f"Waited {limit:.1f} s for {what}.")
            time.sleep(pause)
            pause = min(2*pause, 0.02)

# Helpers ------------------------------------------------------------------------------------------

def program_of(device: Device) -> ProgramConfig:
    """What runs whole models on a device.

    Raises
    ------
    VersionMismatch : nothing does, or a unit is missing.
    """
    program = device.info.program
    if program is None:
        raise VersionMismatch("The gateware must have the engines that run whole models, has none: build it with --pass-tokens 1 (or 2, 4, 8), "
            "or give --on exact.")
    missing = [unit.name for unit in Unit if unit.name not in program.units]
    if missing:
        raise VersionMismatch(f"The gateware must have all units that run whole models, lacks {', '.join(missing)}: build it with all of them, "
            "or give --on exact.")
    return program


def _read_image(path: str | os.PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            image = file.read()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the firmware ({error.strerror}).") from error
    if not 0 < len(image) <= FIRMWARE_SIZE:
        raise UsageError(f"{path}: a firmware must be of 1 to {FIRMWARE_SIZE} bytes, is of {len(image)}.")
    return image.ljust(ceil_multiple(len(image), 4), b"\0")


def _stamp(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


def _result(index: int, words: dict[str, int]) -> Result | DeviceError:
    """The Result of a job from its result words, or the DeviceError to raise."""
    if words["result_sequence"] != index or words["status"] not in (Status.DONE, Status.FAILED):
        return DeviceError(f"Job {index} counts as completed, but its ring entry reports job "
            f"{words['result_sequence']}, status {words['status']}: another host may be using the device; reset it.",
            index, None, 0)
    if words["status"] == Status.FAILED:
        error = words["error"]
        if error in Error._value2member_map_:
            error = Error(error)
        name = getattr(error, "name", "unknown")
        return DeviceError(f"Job {index} failed: {name} (error {int(error)}, detail 0x{words['error_detail']:x}).",
            index, error, words["error_detail"])
    wide = lambda name: words[f"{name}_high"] << 32 | words[f"{name}_low"]
    return Result(index, wide("cycles"), wide("bytes_read"), wide("bytes_written"), wide("busy_cycles"), words["units"])
