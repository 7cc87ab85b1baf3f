/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "engine.h"
#include "info.h"

static volatile struct info *published(void)
{
	return (volatile struct info *)dram(DRAM_BASE + INFO_OFFSET);
}

/* Starts so far; the magic can't tell whether the block is a former firmware's, as a reboot clears it. */
static uint32_t former_boots(void)
{
	volatile struct info *former = published();

	if (former->job_bytes != JOB_BYTES || former->ring_base != DRAM_BASE + RING_OFFSET)
		return 0;
	return former->boot_count;
}

void COLD info_publish(void)
{
	struct info        info   = {.magic = INFO_MAGIC};
	volatile uint32_t *words  = dram(DRAM_BASE + INFO_OFFSET);
	const uint32_t    *source = (const uint32_t *)&info;
	uint32_t i;

	info.protocol_version = PROTOCOL_VERSION;
	info.firmware_version = FIRMWARE_VERSION;
	info.clock_hz         = CONFIG_CLOCK_FREQUENCY;
	info.data_base        = DATA_BASE;
	info.data_size        = DATA_SIZE;
	info.data_width       = MEMORY_DATA_WIDTH;
	info.ring_base        = DRAM_BASE + RING_OFFSET;
	info.ring_entries     = RING_ENTRIES;
	info.job_bytes        = JOB_BYTES;
	info.boot_count       = former_boots() + 1;
	info.engine_count     = engines_describe(info.engines);
#ifdef CSR_SSM_BASE
	info.gateware_version = ssm_version_read();
#endif
	for (i = 1; i < sizeof(info)/4; i++)
		words[i] = source[i];
	words[0] = info.magic; /* Last: a valid magic means a complete block. */
}

void info_retract(void)
{
	published()->magic = 0;
}
