#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Layouts of a head tile's command and descriptor, as :mod:`operations.ssm` describes their fields."""

from cores.memory.bursts import RECORD_BITS

from operations.ssm import ADDRESS_FIELDS, command_fields

# Layouts ------------------------------------------------------------------------------------------

ADDRESSES = tuple(field.name for field in ADDRESS_FIELDS)


def command_layout(config):
    """Of what the core is told."""
    return [(field.name, field.bits) for field in command_fields(config)]


def descriptor_layout(config, address_bits=ADDRESS_FIELDS[0].bits):
    """Of where the records are, by the upper `address_bits` of their addresses; and of the command."""
    return [(name, address_bits) for name in ADDRESSES] + command_layout(config)


def tile_layout(config):
    """Of a descriptor on its way to the DMA: its addresses over ALIGNMENT, and whether the tile's end interrupts."""
    return descriptor_layout(config, RECORD_BITS) + [("interrupt", 1)]


def reads_state(descriptor):
    """Expression: the tile of this descriptor, or command, is loaded from memory."""
    return ~(descriptor.zero_state | getattr(descriptor, "resident", 0))
