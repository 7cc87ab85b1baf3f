/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Checksums: the CRC-32 of each block of a region, by the gateware's checksum unit.
 */

#ifndef CHECKSUM_H
#define CHECKSUM_H

#include "platform.h"

#define CHECKSUM_BUSY FIELD_SET(CHECKSUM_STATUS_BUSY, 1)

/* Blocks of a job's region, of which the last one may be shorter. */
static inline uint32_t checksum_blocks(const struct job *job)
{
	return (job->checksum.region_bytes - 1)/job->checksum.block_bytes + 1;
}

/*
 * Writes the CRC of each block to the table of a job that request_check() has passed. Returns an ERROR code and its
 * detail, which is the unit's status; the table is then incomplete.
 */
uint32_t checksum_run(const struct job *job, uint32_t *detail);

#endif
