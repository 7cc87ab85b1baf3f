/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "checksum.h"

#define CONTROL_START FIELD_SET(CHECKSUM_CONTROL_START, 1)
#define CONTROL_RESET FIELD_SET(CHECKSUM_CONTROL_RESET, 1)

/* Brings the unit back to idle; 0 when it does not get there. */
static int reset(void)
{
	uint64_t start = cycles_now();

	checksum_control_write(CONTROL_RESET);
	while (checksum_status_read() & CHECKSUM_BUSY)
		if (cycles_now() - start >= TIMEOUT_RESET)
			return 0;
	return 1;
}

uint32_t checksum_run(const struct job *job, uint32_t *detail)
{
	volatile uint32_t *table   = dram(job->checksum.table);
	uint64_t           start   = cycles_now();
	uint64_t           timeout = job->timeout;
	uint32_t           address = job->checksum.region;
	uint32_t           left    = job->checksum.region_bytes;
	uint32_t           bytes, status;

	if (!timeout)
		timeout = (uint64_t)checksum_blocks(job)*TIMEOUT_SETUP + left/MIN_BEAT_BYTES*(uint64_t)TIMEOUT_FACTOR_CHECKSUM;
	if (checksum_status_read() & CHECKSUM_BUSY && !reset()) {
		*detail = checksum_status_read();
		return ERROR_TIMEOUT;
	}
	for (; left; left -= bytes, address += bytes) {
		bytes = left < job->checksum.block_bytes ? left : job->checksum.block_bytes;
		checksum_address_write(address);
		checksum_length_write(bytes);
		checksum_control_write(CONTROL_START);
		while ((status = checksum_status_read()) & CHECKSUM_BUSY) {
			if (cycles_now() - start < timeout && !reboot_requested())
				continue;
			reset();
			*detail = status;
			return ERROR_TIMEOUT;
		}
		if (status) { /* Of a region that was checked: the unit knows another memory. */
			*detail = status;
			return ERROR_GATEWARE;
		}
		*table++ = checksum_crc_read();
	}
	*detail = 0;
	return job->timeout && cycles_now() - start >= timeout ? ERROR_TIMEOUT : ERROR_NONE;
}
