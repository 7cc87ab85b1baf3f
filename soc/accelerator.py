#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Adds the SSM accelerator to a LiteX SoC."""

from litex.soc.interconnect import wishbone

from cores.ssm.config import BEAT_BYTES, FIRMWARE_CONSTANTS
from cores.ssm.memory import SharedPort
from cores.ssm.ssm import COUNTER_BITS, SSM

# SSM ----------------------------------------------------------------------------------------------

def page_beats(sdram):
    """Beats in a row of a bank of a LiteDRAM core."""
    settings = sdram.controller.settings
    return 2**settings.geom.colbits*settings.phy.databits//8//BEAT_BYTES


def add_ssm(soc, config, name="ssm", allow_l2_cache=False):
    """Add an SSM accelerator: its CSRs, its interrupt and its memory masters.

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
    soc            : a LiteX SoC (``SoCCore``).
    config         : :class:`cores.ssm.config.SSMConfig`.
    name           : name of the module, of its CSRs and its interrupt.
    allow_l2_cache : for a test of the rule above.

    Raises
    ------
    ValueError : the SoC has an L2 cache, no ``main_ram``, or no memory the masters could use.
    """
    soc.check_if_exists(name)
    if hasattr(soc, "l2_cache") and not allow_l2_cache:
        raise ValueError("an L2 cache between the bus and LiteDRAM is not allowed: the accelerator's ports go round it. "
            "Call add_sdram with l2_cache_size=0 (option --l2-size 0).")
    if "main_ram" not in soc.bus.regions:
        raise ValueError("a SoC without the region main_ram is not allowed: add the memory before the accelerator.")
    region = soc.bus.regions["main_ram"]
    page   = None
    if hasattr(soc, "sdram"):
        page = page_beats(soc.sdram)
        reads, writes = [], []
        large = config.lanes >= 16
        for mode, ports, count, own in (("read", reads, 2, large), ("write", writes, 2 if large else 1, False)):
            for n in range(count + own):
                target = soc.sdram.crossbar.get_port(mode=mode, data_width=8*BEAT_BYTES)
                shared = SharedPort(target)
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
