#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What the simulated SoC and those who talk to it agree on."""

SYS_CLK_FREQ = 100e6

MAC_ADDRESS  = 0x10e2d5000000
IP_ADDRESS   = "192.168.1.50"
HOST_ADDRESS = "192.168.1.100"
UDP_PORT     = 1234
