#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Adds the accelerator to a LiteX SoC: all that firmware and host need of it (:func:`add_accelerator`), or its core alone."""

from litex.build.generic_platform import ConstraintError

from litex.soc.interconnect import wishbone

from cores.checksum import Checksum
from cores.common.counters import COUNTER_BITS
from cores.console import Console
from cores.mailbox import Mailbox
from cores.memory.arbiter import Arbiter
from cores.memory.region import Region
from cores.program.program import Program, ProgramPorts
from cores.ssm.ssm import SSM, SSMPorts
from cores.unmapped import Unmapped, UnmappedRegion

from operations.config import CPU_VARIANTS, DATA_WIDTHS, FIRMWARE_CONSTANTS, SystemConfig
from operations.numerics import LANE_BITS
from operations.program import Unit
from operations.protocol import DATA_OFFSET

from soc.boot import add_boot

# Constants ----------------------------------------------------------------------------------------

STATE_READ_PORTS = 2

LINKS = ("etherbone", "uartbone") # Names under which LiteX adds those that the host speaks.

# Checks -------------------------------------------------------------------------------------------

def page_beats(sdram, data_width):
    """Beats of a port in a row of a bank of a LiteDRAM core."""
    settings = sdram.controller.settings
    return 2**settings.geom.colbits*settings.phy.databits//data_width


def check_soc(soc):
    """Raise ValueError unless the accelerator, its firmware and its host work in this SoC. docs/architecture.md lists what
    is supported."""
    def check(name, value, *supported):
        if value not in supported:
            raise ValueError(f"{name} must be {' or '.join(map(str, supported))}, is {value}.")

    if hasattr(soc, "ssm"):
        raise ValueError("a SoC must have one accelerator, this one has one already.")
    cpu = getattr(soc, "cpu", None)
    # Other CPUs have interrupts of another kind, and data caches that write back.
    check("cpu_type",          getattr(cpu, "name", None),   "vexriscv")
    check("cpu_variant",       cpu.variant.split("+")[0],    *CPU_VARIANTS)
    check("csr_data_width",    soc.csr.data_width,    32)
    check("csr_ordering",      soc.csr.ordering,      "big")
    check("bus_standard",      soc.bus.standard,      "wishbone")
    check("bus_data_width",    soc.bus.data_width,    32)
    check("bus_address_width", soc.bus.address_width, 32)
    if hasattr(soc, "l2_cache"):
        raise ValueError(f"l2_cache_size must be 0, is {soc.constants['CONFIG_L2_SIZE']}: the accelerator's ports go round it.")
    if "main_ram" not in soc.bus.regions:
        raise ValueError("a SoC must have the region main_ram, this one has none: add the memory before the accelerator.")
    if hasattr(soc, "sdram"):
        width = soc.sdram.crossbar.controller.data_width
        if width > max(DATA_WIDTHS):
            raise ValueError(f"data_width of LiteDRAM's ports must be at most {max(DATA_WIDTHS)}, is {width}.")


def memory_width(soc, memory):
    """Bits of the accelerator's ports in a SoC: those of LiteDRAM's ports, which are converted where they are narrower.

    Raises ValueError unless the :class:`operations.config.MemoryConfig` asks for just that, or leaves it open.
    """
    if not hasattr(soc, "sdram"):
        return memory.data_width or min(DATA_WIDTHS)
    width = max(soc.sdram.crossbar.controller.data_width, min(DATA_WIDTHS))
    if memory.data_width not in (None, width):
        raise ValueError(f"data_width must be {width}, as LiteDRAM's ports have it, or None, is {memory.data_width}.")
    return width


def memory_region(soc):
    """The memory that the accelerator may touch."""
    region = soc.bus.regions["main_ram"]
    return Region(region.origin, region.origin + region.size)

def data_region(soc):
    """The part of it that programs may touch: not firmware, job ring and tables."""
    region = memory_region(soc)
    return Region(region.base + DATA_OFFSET, region.limit)

# SSM ----------------------------------------------------------------------------------------------

def add_ports(soc, memory, width):
    """The :class:`cores.ssm.ssm.SSMPorts` of a SoC, on its LiteDRAM or else on its bus.

    Each port of LiteDRAM has an arbiter, by which others may use it: ``soc.state_read0_port.get_port()``.
    """
    if not hasattr(soc, "sdram"):
        ports = [wishbone.Interface(data_width=width, address_width=32, addressing="word") for _ in range(4)]
        for n, port in enumerate(ports):
            soc.bus.add_master(name=f"ssm_master{n}", master=port)
        state_read, inputs, state_write, y = ports
        return SSMPorts([state_read], [state_write], inputs, y)

    def arbiter(name, mode):
        module = Arbiter(soc.sdram.crossbar.get_port(mode=mode, data_width=width))
        soc.add_module(name=f"{name}_port", module=module)
        return module

    reads  = [arbiter(f"state_read{n}",  "read")  for n in range(STATE_READ_PORTS)]
    inputs = arbiter("input", "read") if memory.input_port else reads[-1]
    writes = [arbiter(f"state_write{n}", "write") for n in range(memory.state_write_ports)]
    return SSMPorts(
        state_reads  = [port.get_port() for port in reads],
        state_writes = [port.get_port() for port in writes],
        inputs       = inputs.get_port(),
        y            = writes[-1].get_port(),
        page_beats   = page_beats(soc.sdram, width))


def add_ssm(soc, config):
    """Add the SSM core: its CSRs, its interrupt and its memory masters.

    With LiteDRAM (``soc.add_sdram`` called before) the masters are on native ports of the controller, of the ports' own width from
    128 bits on: two to read head tiles, page by page in turn, and the others as the :class:`operations.config.MemoryConfig` says.
    Without LiteDRAM they are four Wishbone masters of the SoC's bus, and the memory is the region ``main_ram``. A LiteDRAM that is
    to be near its limit takes :func:`soc.dram.controller_settings`.

    Coherency: the native ports reach the DRAM behind the SoC's L2 cache, so the SoC must not have one
    (``l2_cache_size=0``); then host and CPU writes, which go through (the VexRiscv's data cache writes through), are in
    DRAM when the accelerator is told to start. What the accelerator or the host wrote, the CPU reads only after it
    invalidated its data cache.

    Parameters
    ----------
    soc    : a LiteX SoC (``SoCCore``).
    config : :class:`operations.config.SystemConfig`, with an SSM core.

    Raises
    ------
    ValueError : as :func:`check_soc`.
    """
    name = "ssm" # Host and firmware know it, and its CSRs, by this name.
    check_soc(soc)
    width = memory_width(soc, config.memory)
    ports = add_ports(soc, config.memory, width)
    unit   = config.program is not None and Unit.SSM.name in config.program.units
    region = data_region(soc) if unit else memory_region(soc)
    soc.add_module(name=name, module=SSM(config.ssm, ports, region, unit))
    if soc.irq.enabled:
        soc.irq.add(name, use_loc_if_exists=True)
    for constant, field in FIRMWARE_CONSTANTS.items():
        soc.add_constant(constant, int(getattr(config.ssm, field.name)))
    soc.add_constant("SSM_COUNTER_BITS", COUNTER_BITS)
    soc.add_constant("MEMORY_DATA_WIDTH", width)

# Programs -----------------------------------------------------------------------------------------

def add_program_ports(soc):
    """The :class:`cores.program.program.ProgramPorts` of a SoC: shares of the SSM core's ports to LiteDRAM, or else masters of its bus."""
    if not hasattr(soc, "sdram"):
        width = soc.constants["MEMORY_DATA_WIDTH"]
        ports = [wishbone.Interface(data_width=width, address_width=32, addressing="word") for _ in range(6)]
        for n, port in enumerate(ports):
            soc.bus.add_master(name=f"program_master{n}", master=port)
        return ProgramPorts(ports[:1], *ports[1:])
    reads  = [getattr(soc, f"state_read{n}_port") for n in range(STATE_READ_PORTS)]
    inputs = getattr(soc, "input_port", reads[-1])
    writes = [getattr(soc, name) for name in ("state_write1_port", "state_write0_port") if hasattr(soc, name)][0]
    return ProgramPorts(
        tape        = [port.get_port() for port in reads],
        descriptors = inputs.get_port(),
        loads       = inputs.get_port(),
        embedding   = inputs.get_port(),
        stores      = writes.get_port(),
        results     = writes.get_port(),
        page_beats  = page_beats(soc.sdram, reads[0].target.data_width))


def add_program(soc, config, name="program"):
    """Add the engines that run a whole model's programs, and their interrupt. :func:`add_ssm` is to be called before.

    Parameters
    ----------
    soc    : a LiteX SoC.
    config : :class:`operations.config.SystemConfig`, with a program.

    Raises
    ------
    ValueError : the vector unit is too narrow for the ports.
    """
    soc.check_if_exists(name)
    program = config.program
    width   = soc.constants["MEMORY_DATA_WIDTH"]
    if program.vector_lanes < width//LANE_BITS: # Before a port is taken.
        raise ValueError(f"vector_lanes must be at least {width//LANE_BITS} with ports of {width} bits, is {program.vector_lanes}.")
    unit = Unit.SSM.name in program.units
    soc.add_module(name=name, module=Program(program, add_program_ports(soc), data_region(soc), soc.ssm if unit else None))
    if soc.irq.enabled:
        soc.irq.add(name, use_loc_if_exists=True)
    for constant, value in {"PASS_TOKENS": program.pass_tokens, "VECTOR_LANES": program.vector_lanes, "SCRATCH": program.elements,
            "ACTIVATIONS": program.activations, "UNITS": sum(1 << unit for unit in getattr(soc, name).units),
            "COUNTER_BITS": COUNTER_BITS}.items():
        soc.add_constant(f"PROGRAM_{constant}", value)

# Parts --------------------------------------------------------------------------------------------

def add_mailbox(soc, name="mailbox"):
    """Add a :class:`Mailbox` and its interrupt to a LiteX SoC."""
    soc.check_if_exists(name)
    soc.add_module(name=name, module=Mailbox())
    if soc.irq.enabled:
        soc.irq.add(name, use_loc_if_exists=True)


def add_checksum(soc, name="checksum"):
    """Add a :class:`Checksum` to a LiteX SoC, on the accelerator's first port to LiteDRAM, or else as a master of its bus.

    The rules of coherency are those of :func:`soc.accelerator.add_ssm`, which is to be called before.
    """
    soc.check_if_exists(name)
    if hasattr(soc, "sdram"):
        port = soc.state_read0_port.get_port()
    else:
        port = wishbone.Interface(data_width=soc.constants["MEMORY_DATA_WIDTH"], address_width=32, addressing="word")
        soc.bus.add_master(name=f"{name}_master", master=port)
    soc.add_module(name=name, module=Checksum(port, memory_region(soc)))


def add_console(soc, name="uart"):
    """Add a :class:`Console` as the SoC's UART."""
    soc.check_if_exists(name)
    soc.add_module(name=name, module=Console())
    if soc.irq.enabled:
        soc.irq.add(name, use_loc_if_exists=True)


def add_unmapped(soc, name="unmapped"):
    """Add :class:`Unmapped` to the bus of a LiteX SoC."""
    soc.add_module(name=name, module=Unmapped(soc.bus, name))
    soc.bus.add_slave(name=name, slave=getattr(soc, name).bus, region=UnmappedRegion())

# Accelerator --------------------------------------------------------------------------------------

def add_accelerator(soc, config):
    """Add the SSM core, with a program's configuration the engines of a whole model, and all that firmware and host need beside them: mailbox, boot ROM, checksum unit; and, where the SoC has
    none, a console, and UARTBone on the serial port as the link to the host. The bus then
    answers at once also where it has nothing (:mod:`cores.unmapped`).

    Parameters
    ----------
    soc    : a LiteX SoC with its memory, as for :func:`add_ssm`.
    config : :class:`operations.config.SystemConfig`.

    Raises
    ------
    ValueError : as :func:`add_ssm`; the memory is too small for the firmware; or there is no link, and the serial port is not
        free.
    """
    if not isinstance(config, SystemConfig) or config.ssm is None:
        raise ValueError(f"config must be a SystemConfig with an SSM core, is {config!r}.")
    check_soc(soc)
    memory = soc.bus.regions["main_ram"]
    if memory.size <= DATA_OFFSET:
        raise ValueError(f"main_ram must have more than {DATA_OFFSET} bytes, which firmware and job ring take, has "
            f"{memory.size}.")
    if not any(hasattr(soc, link) for link in LINKS):
        try:
            soc.add_uartbone()
        except ConstraintError:
            raise ValueError("a SoC must have a link to the host, this one has none, and no free serial port: add Etherbone "
                "(--with-etherbone), or leave the serial port to UARTBone (--no-uart).") from None
    if not hasattr(soc, "uart"):
        add_console(soc)
    add_mailbox(soc)
    add_boot(soc)
    add_ssm(soc, config)
    if config.program is not None:
        add_program(soc, config)
    add_checksum(soc)
    add_unmapped(soc)
