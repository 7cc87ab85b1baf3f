#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Adds the accelerator to a LiteX SoC: all that firmware and host need of it (:func:`add_accelerator`), or its core alone."""

from litex.build.generic_platform import ConstraintError

from litex.soc.interconnect import wishbone

from cores.checksum import Checksum
from cores.console import Console
from cores.mailbox import Mailbox
from cores.memory.arbiter import Arbiter
from cores.ssm.ssm import COUNTER_BITS, SSM
from cores.unmapped import Unmapped, UnmappedRegion

from operations.config import BEAT_BYTES, FIRMWARE_CONSTANTS
from operations.protocol import DATA_OFFSET

from soc.boot import add_boot

# Constants ----------------------------------------------------------------------------------------

# Of the VexRiscv. All have interrupts and a multiplier; where they have a data cache, it writes through.
CPU_VARIANTS = ("lite", "standard", "imac", "full", "linux")

LINKS = ("etherbone", "uartbone") # Names under which LiteX adds those that the host speaks.

# Checks -------------------------------------------------------------------------------------------

def page_beats(sdram):
    """Beats in a row of a bank of a LiteDRAM core."""
    settings = sdram.controller.settings
    return 2**settings.geom.colbits*settings.phy.databits//8//BEAT_BYTES


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
        if width > 8*BEAT_BYTES:
            raise ValueError(f"data_width of LiteDRAM's ports must be at most {8*BEAT_BYTES}, is {width}.")

# SSM ----------------------------------------------------------------------------------------------

def add_ssm(soc, config):
    """Add the SSM core: its CSRs, its interrupt and its memory masters.

    With LiteDRAM (``soc.add_sdram`` called before) the masters are on native ports of the controller, 128 bits wide: two to
    read head tiles, one for inputs, and two to write head tiles, page by page in turn, the second of them also for y. Below 16
    lanes, for small FPGAs, one writes, and inputs share the second that reads. The first that reads has room for others
    (``soc.ssm_read_port0.get_port()``). Without LiteDRAM they are four Wishbone masters of the SoC's bus, and the memory is
    the region ``main_ram``. A LiteDRAM that is to be near its limit takes :func:`soc.dram.controller_settings`.

    Coherency: the native ports reach the DRAM behind the SoC's L2 cache, so the SoC must not have one
    (``l2_cache_size=0``); then host and CPU writes, which go through (the VexRiscv's data cache writes through), are in
    DRAM when the accelerator is told to start. What the accelerator or the host wrote, the CPU reads only after it
    invalidated its data cache.

    Parameters
    ----------
    soc    : a LiteX SoC (``SoCCore``).
    config : :class:`operations.config.SSMConfig`.

    Raises
    ------
    ValueError : as :func:`check_soc`, or the region main_ram is not a power of two.
    """
    name = "ssm" # Host and firmware know it, and its CSRs, by this name.
    check_soc(soc)
    region = soc.bus.regions["main_ram"]
    page   = None
    if hasattr(soc, "sdram"):
        page = page_beats(soc.sdram)
        reads, writes = [], []
        large = config.lanes >= 16
        for mode, ports, count, own in (("read", reads, 2, large), ("write", writes, 2 if large else 1, False)):
            for n in range(count + own):
                target = soc.sdram.crossbar.get_port(mode=mode, data_width=8*BEAT_BYTES)
                shared = Arbiter(target)
                soc.add_module(name=f"{name}_{mode}_port{n}", module=shared)
                ports.append(shared.get_port())
            if not own:
                ports.append(shared.get_port())
    else:
        ports = [wishbone.Interface(data_width=8*BEAT_BYTES, address_width=32, addressing="word") for _ in range(4)]
        for n, port in enumerate(ports):
            soc.bus.add_master(name=f"{name}_master{n}", master=port)
        reads, writes = ports[:2], ports[2:]

    soc.add_module(name=name, module=SSM(config, reads, writes, region.origin, region.size, page))
    if soc.irq.enabled:
        soc.irq.add(name, use_loc_if_exists=True)
    for constant, field in FIRMWARE_CONSTANTS.items():
        soc.add_constant(constant, int(getattr(config, field.name)))
    soc.add_constant("SSM_COUNTER_BITS", COUNTER_BITS)

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
    region = soc.bus.regions["main_ram"]
    if hasattr(soc, "sdram"):
        port = soc.ssm_read_port0.get_port()
    else:
        port = wishbone.Interface(data_width=8*BEAT_BYTES, address_width=32, addressing="word")
        soc.bus.add_master(name=f"{name}_master", master=port)
    soc.add_module(name=name, module=Checksum(port, region.origin, region.size))


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
    """Add the SSM core and all that firmware and host need beside it: mailbox, boot ROM, checksum unit; and, where the SoC has
    none, a console, and UARTBone on the serial port as the link to the host. The bus then
    answers at once also where it has nothing (:mod:`cores.unmapped`).

    Parameters
    ----------
    soc    : a LiteX SoC with its memory, as for :func:`add_ssm`.
    config : :class:`operations.config.SSMConfig`.

    Raises
    ------
    ValueError : as :func:`add_ssm`; the memory is too small for the firmware; or there is no link, and the serial port is not
        free.
    """
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
    add_checksum(soc)
    add_unmapped(soc)
