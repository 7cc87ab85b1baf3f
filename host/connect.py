#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""From the options of a command to a booted device: on a board, or in a simulation started for the occasion."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from host.device.csr import CSRMap
from host.device.device import Device, program_of
from host.link.etherbone import DEFAULT_PORT, Etherbone
from host.link.transport import Transport
from host.link.uartbone import DEFAULT_BAUDRATE, GATEWARE_TIMEOUT, UARTBone

from operations.config import DATA_WIDTHS, LANES, PASS_TOKENS, VECTOR_LANES, ProgramConfig, SSMConfig, SystemConfig

from operations.protocol import DATA_OFFSET

from tools import environment
from tools.arguments import baudrate, number, udp_port
from tools.errors import CommandError, UsageError

if TYPE_CHECKING: # The last one needs LiteX.
    import numpy as np
    from tools.simulation.runner import Simulation

# Constants ----------------------------------------------------------------------------------------

TRANSPORTS        = ("sim", "etherbone", "uart")
ROUNDINGS         = ("nearest", "stochastic") # Of the state, by SSMConfig.stochastic_rounding.
DEFAULT_IP        = "192.168.1.50"
SIM_TIMEOUT_SCALE = 1000 # The simulated 100 MHz clock runs at 1 MHz, and at 0.1 MHz on a busy machine.
SIM_TIMEOUT       = 3.0  # Seconds to wait for an answer.

LITEX_BUFFER_DEPTH = 16 # Of LiteEthEtherbone, where csr.csv does not state another.

Log = Callable[[str], None] # Called with a line for each step.

# Command Line -------------------------------------------------------------------------------------

def _resident_tiles(text: str) -> int:
    tiles = number(int, "an integer", 0, 256)(text)
    try:
        return SSMConfig(resident_tiles=tiles).resident_tiles
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def add_device_arguments(parser: ArgumentParser, with_port: bool = True) -> None:
    """Add the options that choose a device and the way to it. with_port: --port is one, the short form of --uart-port."""
    group = parser.add_argument_group("device")
    group.add_argument("--transport", choices=TRANSPORTS, default="sim",
        help="sim starts a simulation; etherbone and uart reach a board (default: %(default)s).")
    group.add_argument("--lanes",     type=int, choices=LANES,
        help="State elements updated in a cycle; of a board, what it must have "
             f"(default: {SSMConfig().lanes} in the simulation, any on a board).")
    group.add_argument("--data-width", type=int, choices=DATA_WIDTHS,
        help="Bits of the accelerator's memory ports; of a board, what it must have (default: 128 in the simulation, any on a "
             "board).")
    group.add_argument("--rounding",  choices=ROUNDINGS,
        help="How the state is rounded; of a board, what it must do (default: nearest in the simulation, any on a board).")
    group.add_argument("--resident-tiles", type=_resident_tiles, metavar="TILES",
        help="Head tiles kept on chip, 2 to 256, or 0; of a board, what it must have (default: 0 in the simulation, any on a "
             "board).")
    group.add_argument("--pass-tokens", type=int, choices=PASS_TOKENS,
        help="Tokens of a pass, of the engines that run whole models; of a board, what it must have (default: 1 in the simulation for "
             "commands that run a whole model, no such engines for others; any on a board).")
    group.add_argument("--vector-lanes", type=int, choices=VECTOR_LANES,
        help="Elements of their vector unit in a cycle, at least one for each 128 bits of --data-width; of a board, what it must have "
             f"(default: {ProgramConfig().vector_lanes} in the simulation, any on a board).")
    group.add_argument("--ip",        default=DEFAULT_IP, help="Address of the board (default: %(default)s).")
    group.add_argument("--udp-port",  type=udp_port, default=DEFAULT_PORT, metavar="PORT",
        help="UDP port of its Etherbone (default: %(default)s).")
    group.add_argument(*(["--port"] if with_port else []), "--uart-port", dest="port", metavar="PORT",
        help="Serial port of its UARTBone, or host:port or socket://host:port of a TCP server.")
    group.add_argument("--baudrate",  type=baudrate, default=DEFAULT_BAUDRATE, help="Of the port (default: %(default)s).")
    group.add_argument("--csr-csv",   metavar="FILE", help="csr.csv of the board's gateware.")
    group.add_argument("--firmware",  metavar="FILE",
        help="firmware.bin to load unless it is running (default: the simulation's, or what runs on the board).")
    group.add_argument("--reload",    action="store_true", help="Load the firmware even if it is running.")
    group.add_argument("--timeout-scale", type=number(float, "a number", 0.001, 1e6), metavar="FACTOR",
        help=f"How many times slower than a board's the device's clock is (default: {SIM_TIMEOUT_SCALE} in the "
             "simulation, 1 on a board).")


def simulated_system(args: Namespace, whole_model: bool = False) -> SystemConfig:
    """The SystemConfig of the simulation that the options ask for. whole_model: it is to run one.

    Raises
    ------
    UsageError : options do not fit together.
    """
    program = None
    if args.pass_tokens is not None or args.vector_lanes is not None or whole_model:
        program = ProgramConfig(args.pass_tokens or 1, args.vector_lanes or ProgramConfig.vector_lanes)
    try:
        return SystemConfig.of(args.lanes or SSMConfig.lanes, args.data_width, program, resident_tiles=args.resident_tiles or 0,
            stochastic_rounding=args.rounding == "stochastic")
    except ValueError as error:
        raise UsageError(str(error)) from error


def requested_config(args: Namespace) -> SSMConfig:
    """What is known of the gateware before it has been asked: of a simulation all, of a board the protocol's limits."""
    if args.transport == "sim":
        return simulated_system(args).ssm
    return SSMConfig(max_headdim=256, max_d_state=512, max_heads=65535, max_groups=65535)

# Device -------------------------------------------------------------------------------------------

@contextmanager
def open_device(args: Namespace, log: Log = lambda message: None, whole_model: bool = False, data: "np.ndarray | None" = None) -> Iterator[Device]:
    """Context manager: a booted :class:`~host.device.device.Device`, as the options of :func:`add_device_arguments` say.

    Parameters
    ----------
    log         : Called with a line for each step.
    whole_model : It is to run one: a simulation is built with the engines for it, a board must have them.
    data        : uint8, what the data region of a simulation holds at the start.
    """
    if args.transport == "sim":
        context = _simulated_device(simulated_system(args, whole_model), args, log, data)
    else:
        context = _board_device(args, log)
    with context as device:
        if args.lanes is not None and device.info.lanes != args.lanes:
            raise UsageError(f"--lanes {args.lanes} is not what the device has: {device.info.lanes}.")
        if args.data_width not in (None, device.info.data_width):
            raise UsageError(f"--data-width {args.data_width} is not what the device has: {device.info.data_width}.")
        if args.resident_tiles not in (None, device.info.resident_tiles):
            raise UsageError(f"--resident-tiles {args.resident_tiles} is not what the device has: "
                f"{device.info.resident_tiles}.")
        rounding = ROUNDINGS[device.info.config.stochastic_rounding]
        if args.rounding not in (None, rounding):
            raise UsageError(f"--rounding {args.rounding} is not what the device does: {rounding}.")
        for name in ("pass_tokens", "vector_lanes"):
            wanted, found = getattr(args, name), getattr(device.info.program, name, "none")
            if wanted not in (None, found):
                raise UsageError(f"--{name.replace('_', '-')} {wanted} is not what the device has: {found}.")
        if whole_model:
            program_of(device)
        yield device


@contextmanager
def _simulated_device(config: SystemConfig, args: Namespace, log: Log, data: "np.ndarray | None") -> Iterator[Device]:
    environment.require("gateware", "litex", "migen")
    from tools.simulation.runner import Simulation
    log(f"Starting a simulation with {config.ssm.lanes} lanes (the first time, it is built).")
    simulation = Simulation(config, verbose=args.verbose, dram=[] if data is None else [(DATA_OFFSET, data)])
    try:
        try:
            simulation.__enter__()
        except (OSError, RuntimeError, ValueError) as error:
            raise CommandError(f"The simulation did not start: {error}") from error
        csr = CSRMap.from_csv(simulation.csr_csv)
        with simulated_transport(simulation, csr) as transport:
            device = Device(transport, csr, args.timeout_scale or SIM_TIMEOUT_SCALE)
            _boot(device, args.firmware or simulation.firmware, args.reload, log)
            yield device
    finally:
        simulation.close()


def simulated_transport(simulation: "Simulation", csr: CSRMap) -> Transport:
    if simulation.transport_kind == "etherbone":
        return Etherbone(sock=simulation.open_socket(), timeout=SIM_TIMEOUT, alive=simulation.alive, **_gateware(csr))
    host, port = simulation.endpoint
    return UARTBone(f"socket://{host}:{port}", timeout=SIM_TIMEOUT, alive=simulation.alive,
        resync_time=_resync_time(csr, SIM_TIMEOUT_SCALE))


@contextmanager
def _board_device(args: Namespace, log: Log) -> Iterator[Device]:
    if args.csr_csv is None:
        raise UsageError("--csr-csv is missing: give csr.csv from the folder the board's gateware was built in.")
    csr = CSRMap.from_csv(args.csr_csv)
    with _board_transport(args, csr) as transport:
        device = Device(transport, csr, args.timeout_scale or 1.0)
        _boot(device, args.firmware, args.reload, log)
        yield device


def _board_transport(args: Namespace, csr: CSRMap) -> Transport:
    if args.transport == "etherbone":
        return Etherbone(args.ip, args.udp_port, **_gateware(csr))
    if args.port is None:
        raise UsageError("--uart-port is missing: give a serial port such as /dev/ttyUSB1, or host:port of a TCP server.")
    return UARTBone(port_url(args.port), args.baudrate, resync_time=_resync_time(csr, args.timeout_scale or 1.0))


def _gateware(csr: CSRMap) -> dict[str, Any]:
    """What Etherbone must know of the gateware."""
    return {"buffer_depth": csr.constants.get("etherbone_buffer_depth", LITEX_BUFFER_DEPTH),
        "window": csr.constants.get("etherbone_window", 0)}


def _resync_time(csr: CSRMap, timeout_scale: float) -> float:
    """Seconds of silence after which UARTBone has given a command up, whose time is the device's: simulated, it takes longer."""
    return 1.5*csr.constants.get("uartbone_timeout_ms", 1000*GATEWARE_TIMEOUT)/1000*timeout_scale


def port_url(port: str) -> str:
    """A port as pyserial takes it: host:port becomes socket://host:port; a serial port or URL stays as it is."""
    host, colon, number = port.rpartition(":")
    return f"socket://{port}" if colon and host and "/" not in port and number.isdigit() else port


def _boot(device: Device, firmware: str | None, reload: bool, log: Log) -> None:
    log(f"Connected by {device.transport.name}.")
    loaded = device.boot(firmware, reload)
    log(f"Firmware {'loaded' if loaded else 'already running'}: {device.info.lanes} lanes.")
