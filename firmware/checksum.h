/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Checksums: the CRC-32 of each block of a region, by the gateware's checksum unit.
 */

#ifndef CHECKSUM_H
#define CHECKSUM_H

#include "operations.h"

#define CHECKSUM_BUSY FIELD_SET(CHECKSUM_STATUS_BUSY, 1)

/* The operation CHECKSUM, see operations.h. begin() writes the CRC of each block to the table; with an error, whose detail is
 * the unit's status, the table is incomplete. */
uint32_t checksum_check(struct task *task);
uint32_t checksum_begin(struct task *task);

#endif
