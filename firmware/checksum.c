/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "checksum.h"
#include "request.h"

#define CONTROL_START FIELD_SET(CHECKSUM_CONTROL_START, 1)
#define CONTROL_RESET FIELD_SET(CHECKSUM_CONTROL_RESET, 1)

static struct counters done; /* For the last job. */

/* Blocks of a job's region, of which the last one may be shorter. */
static uint32_t checksum_blocks(const struct job_checksum *job)
{
	return (job->region_bytes - 1)/job->block_bytes + 1;
}

/* Brings the unit back to idle; 0 when it does not get there. */
static int checksum_reset(void)
{
	uint64_t start = cycles_now();

	checksum_control_write(CONTROL_RESET);
	while (checksum_status_read() & CHECKSUM_BUSY)
		if (cycles_now() - start >= TIMEOUT_RESET)
			return 0;
	return 1;
}

static uint32_t check_size(uint32_t bytes, uint32_t *detail)
{
	*detail = bytes;
	return bytes && bytes % ALIGNMENT == 0 ? ERROR_NONE : ERROR_BAD_SIZE;
}

uint32_t checksum_check(struct task *task)
{
	const struct job_checksum *job    = &task->job.checksum;
	uint32_t                  *detail = &task->detail;
	uint32_t error;

	if ((error = check_size(job->region_bytes, detail)) || (error = check_size(job->block_bytes, detail)))
		return error;
	if ((error = request_inside(job->region, job->region_bytes, DATA_BASE, DATA_SIZE, detail)))
		return error;
	return request_inside(job->table, 4ull*checksum_blocks(job), TABLE_BASE, TABLE_SIZE, detail);
}

uint32_t checksum_begin(struct task *task)
{
	const struct job_checksum *job = &task->job.checksum;
	volatile uint32_t *table   = dram(job->table);
	uint64_t           start   = cycles_now();
	uint64_t           timeout = task->job.timeout;
	uint32_t           address = job->region;
	uint32_t           left    = job->region_bytes;
	uint32_t           bytes, status;

	if (!timeout)
		timeout = (uint64_t)checksum_blocks(job)*TIMEOUT_SETUP + left/MIN_BEAT_BYTES*(uint64_t)TIMEOUT_FACTOR_CHECKSUM;
	if (checksum_status_read() & CHECKSUM_BUSY && !checksum_reset()) {
		task->detail = checksum_status_read();
		return ERROR_TIMEOUT;
	}
	done = (struct counters){0, 0, 0};
	for (; left; left -= bytes, address += bytes) {
		bytes = left < job->block_bytes ? left : job->block_bytes;
		checksum_address_write(address);
		checksum_length_write(bytes);
		checksum_control_write(CONTROL_START);
		while ((status = checksum_status_read()) & CHECKSUM_BUSY) {
			if (cycles_now() - start < timeout && !reboot_requested())
				continue;
			checksum_reset();
			task->detail = status;
			return ERROR_TIMEOUT;
		}
		if (status) { /* Of a region that was checked: the unit knows another memory. */
			task->detail = status;
			return ERROR_GATEWARE;
		}
		*table++ = checksum_crc_read();
		task->units++;
		done.bytes_read += bytes;
	}
	done.busy_cycles = cycles_now() - start;
	task->detail = 0;
	return task->job.timeout && cycles_now() - start >= timeout ? ERROR_TIMEOUT : ERROR_NONE;
}

static void COLD checksum_init(void)
{
	checksum_reset();
}

static void checksum_take(struct counters *counters)
{
	*counters = done;
	done      = (struct counters){0, 0, 0};
}

static void COLD checksum_describe(struct engine_info *info)
{
	info->kind = ENGINE_CHECKSUM;
}

const struct engine checksum_engine TABLE = {
	.init     = checksum_init,
	.reset    = checksum_reset,
	.take     = checksum_take,
	.describe = checksum_describe,
};
