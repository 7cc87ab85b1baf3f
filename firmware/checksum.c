/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "checksum.h"

#define CONTROL_START 1
#define CONTROL_RESET 2

#define BEAT_BYTES     16
#define RESET_TIMEOUT  100000 /* Cycles; what is outstanding at the DRAM takes a thousand at most. */
#define TIMEOUT_BLOCK  100000 /* Cycles of a block that do not grow with it, rounded up generously. */
#define TIMEOUT_FACTOR 64     /* The DRAM is shared with host and CPU. */

/* Brings the unit back to idle; 0 when it does not get there. */
static int reset(void)
{
	uint64_t start = cycles_now();

	checksum_control_write(CONTROL_RESET);
	while (checksum_status_read() & CHECKSUM_BUSY)
		if (cycles_now() - start >= RESET_TIMEOUT)
			return 0;
	return 1;
}

uint32_t checksum_run(const struct job *job, uint32_t *detail)
{
	volatile uint32_t *table   = dram(job->table);
	uint64_t           start   = cycles_now();
	uint64_t           timeout = job->timeout;
	uint32_t           address = job->region;
	uint32_t           left    = job->region_bytes;
	uint32_t           bytes, status;

	if (!timeout)
		timeout = (uint64_t)checksum_blocks(job)*TIMEOUT_BLOCK + left/BEAT_BYTES*(uint64_t)TIMEOUT_FACTOR;
	if (checksum_status_read() & CHECKSUM_BUSY && !reset()) {
		*detail = checksum_status_read();
		return ERROR_TIMEOUT;
	}
	for (; left; left -= bytes, address += bytes) {
		bytes = left < job->block_bytes ? left : job->block_bytes;
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
