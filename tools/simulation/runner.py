#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Runs the simulated SoC as a child process, reached as a board is: by Etherbone or by UARTBone."""

import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from operations.config import SystemConfig

from tools.firmware.flash import FLASH_OFFSET, flash_image
from tools.simulation.build import build
from tools.simulation.dram import DRAMBanks
from tools.simulation.settings import HOST_ADDRESS, IP_ADDRESS, SYS_CLK_FREQ, UDP_PORT

# Constants ----------------------------------------------------------------------------------------

TAP           = "tap0"
START_TIMEOUT = 30.0 # Seconds of wall time.
STOP_TIMEOUT  = 5.0

# Runs in the new network namespace, and becomes the model. An ARP request is repeated often: the first ones are lost
# while the SoC is in reset.
NETWORK_SCRIPT = f"""
ip tuntap add dev {TAP} mode tap
echo 1  > /proc/sys/net/ipv6/conf/{TAP}/disable_ipv6 || true
echo 50 > /proc/sys/net/ipv4/neigh/{TAP}/retrans_time_ms
ip address add {HOST_ADDRESS}/24 dev {TAP}
ip link set {TAP} up
exec "$@"
"""

# Errors -------------------------------------------------------------------------------------------

class SimulationError(RuntimeError):
    """The simulation did not start, or has ended; the message contains the end of its console output."""

# Network Namespaces -------------------------------------------------------------------------------

def network_permitted() -> bool:
    """Whether this process may make network namespaces and TAP devices."""
    if not (os.access("/dev/net/tun", os.R_OK | os.W_OK) and shutil.which("unshare") and shutil.which("ip")):
        return False
    command = ["unshare", "--net", "--", "sh", "-ec", NETWORK_SCRIPT, "sh", "true"]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def open_socket_in(namespace: str, *args: Any) -> socket.socket:
    """``socket.socket(*args)`` made inside a network namespace, given by the path of its file.

    A socket stays in the namespace it was made in, and can be used by all threads; only the thread that makes it must
    enter the namespace, so that is a thread of its own.
    """
    result: list[socket.socket | OSError] = []

    def enter_and_open() -> None:
        try:
            with open(namespace, "rb") as file:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(file.fileno(), 0x40000000): # CLONE_NEWNET.
                    raise OSError(ctypes.get_errno(), f"setns to {namespace}: {os.strerror(ctypes.get_errno())}")
            result.append(socket.socket(*args))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=enter_and_open)
    thread.start()
    thread.join()
    opened, = result
    if isinstance(opened, OSError):
        raise opened
    return opened

# Simulation ---------------------------------------------------------------------------------------

class Simulation:
    """A running simulated SoC.

    Use it as a context manager, or call :meth:`start` and :meth:`close`. Entering builds the model when needed and
    starts it; it is up when its BIOS has reached the boot ROM.

    The model runs in a network namespace of its own, which exists only as long as the model does, with the TAP device
    in it; and it ends when its standard input closes. So nothing is left behind, even when this process is killed.

    Parameters
    ----------
    config    : The SystemConfig of the SoC.
    transport : "etherbone", "uart", or "auto": Etherbone where TAP devices and network namespaces are permitted.
    trace_fst : File to write waves to.
    build_dir : Folder of the models (default: build/sim).
    verbose   : Print what is built.
    protect   : Etherbone writes only what jobs need; a firmware is then loaded by UARTBone.
    with_flash_boot : The SoC has a flash from which it boots.
    flash_image     : File in that flash where the BIOS looks for an image (default: the firmware's).
    wide      : Etherbone as for a gigabit PHY.
    timeline  : Its engines and its DRAM say what they do, see tools/simulation/timeline.py.
    dram      : (address in the DRAM, uint8 data) of what lies there at the start; the rest is zeros.

    Attributes
    ----------
    transport_kind : "etherbone" or "uart".
    endpoint       : ("/proc/PID/ns/net", IP address, UDP port), or ("127.0.0.1", TCP port).
    csr_csv        : Path of LiteX's map of the CSRs and memory regions.
    firmware       : Path of the firmware's binary.
    sys_clk_freq   : The declared clock, in Hz.
    log            : Path of the console's output.
    """
    sys_clk_freq = SYS_CLK_FREQ

    def __init__(self, config: SystemConfig, transport: str = "auto", trace_fst: str | None = None,
                 build_dir: Path | str | None = None, verbose: bool = False, protect: bool = False,
                 with_flash_boot: bool = False, flash_image: Path | str | None = None, wide: bool = False,
                 dram: Sequence[tuple[int, np.ndarray]] = (), timeline: bool = False):
        if transport not in ("auto", "etherbone", "uart"):
            raise ValueError(f"transport must be auto, etherbone or uart, is {transport!r}.")
        if transport == "auto":
            transport = "etherbone" if network_permitted() else "uart"
        self.config          = config
        self.transport_kind  = transport
        self.trace_fst       = trace_fst and os.path.abspath(trace_fst)
        self.build_dir       = build_dir
        self.verbose         = verbose
        self.protect         = protect
        self.with_flash_boot = with_flash_boot
        self.flash_image     = flash_image
        self.wide            = wide
        self.dram            = dram
        self.timeline        = timeline
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoint: tuple[Any, ...]  = ()
        self._log: IO[bytes] | None     = None

    # Life -----------------------------------------------------------------------------------------

    def start(self) -> "Simulation":
        """Build the model when needed, start it, and wait until its BIOS has reached the boot ROM."""
        report = (lambda line: print(line, flush=True)) if self.verbose else (lambda line: None)
        folder = build(self.config, trace=self.trace_fst is not None, build_dir=self.build_dir, report=report,
            protect=self.protect, with_flash_boot=self.with_flash_boot, wide=self.wide, timeline=self.timeline)
        self.csr_csv  = str(folder/"csr.csv")
        self.firmware = str(folder/"firmware"/"firmware.bin")
        self._log     = tempfile.TemporaryFile()
        self.log      = f"/proc/{os.getpid()}/fd/{self._log.fileno()}"
        try:
            with tempfile.TemporaryDirectory() as banks: # Read before the SoC boots.
                self._start_model(folder, Path(banks))
                self._wait_until_booted()
        except BaseException:
            self.close()
            raise
        return self

    def _start_model(self, folder: Path, banks: Path) -> None:
        model    = str(folder/"gateware"/"obj_dir"/"Vsim")
        options  = ["--trace", self.trace_fst] if self.trace_fst else []
        listener = None
        if self.with_flash_boot:
            image    = os.path.abspath(self.flash_image or flash_image(folder))
            options += ["--flash", image, "--flash-offset", str(FLASH_OFFSET)]
        if self.dram:
            files    = DRAMBanks.of(self.config.memory.data_width).write_files(banks, self.dram)
            options += [f"+dram{bank}={path}" for bank, path in enumerate(files)]
        if self.transport_kind == "etherbone":
            command = ["unshare", "--net", "--", "sh", "-ec", NETWORK_SCRIPT, "sh", model, "--tap", TAP, *options]
        else:
            listener = socket.create_server(("127.0.0.1", 0))
            listener.setblocking(False)
            command  = [model, "--uartbone", str(listener.fileno()), *options]
        try:
            # In a session of its own, so that a Ctrl-C reaches this process alone, which then ends the model.
            self.process = subprocess.Popen(command, cwd=folder/"gateware", stdin=subprocess.PIPE, stdout=self._log,
                stderr=self._log, pass_fds=[listener.fileno()] if listener else [], start_new_session=True)
            if listener:
                self.endpoint = listener.getsockname()
            else:
                self.endpoint = (f"/proc/{self.process.pid}/ns/net", IP_ADDRESS, UDP_PORT)
        finally:
            if listener:
                listener.close()

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while "Liftoff" not in self.console():
            if not self.alive():
                raise SimulationError(f"The simulation ended at its start. Its output:\n{self.console()[-2000:]}")
            if time.monotonic() > deadline:
                raise SimulationError(f"The simulated BIOS did not reach the boot ROM within {START_TIMEOUT:.0f} s. "
                    f"Its output:\n{self.console()[-2000:]}")
            time.sleep(0.02)

    def close(self) -> None:
        """End the model. What it held (process, namespace, TAP device, port) is gone when this returns."""
        process, self.process = self.process, None
        if process is not None:
            assert process.stdin is not None # A pipe.
            process.stdin.close()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if self.verbose:
                print(self.console().splitlines()[-1])
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> "Simulation":
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    # State ----------------------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether the model runs."""
        return self.process is not None and self.process.poll() is None

    def console(self) -> str:
        """What the SoC has printed so far."""
        return Path(self.log).read_text(errors="replace")

    # Connection -----------------------------------------------------------------------------------

    def open_socket(self) -> socket.socket:
        """A socket connected to the SoC: UDP for Etherbone, made inside the model's namespace, or TCP for UARTBone."""
        if not self.alive():
            raise SimulationError("The simulation does not run.")
        if self.transport_kind == "uart":
            return socket.create_connection(self.endpoint)
        namespace, *address = self.endpoint
        connection = open_socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
        connection.bind(("", UDP_PORT)) # LiteEth answers to the port it listens on.
        connection.connect(tuple(address))
        return connection
