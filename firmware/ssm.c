/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "ssm.h"

#define COUNTER_MASK ((1ULL << SSM_COUNTER_BITS) - 1)
#define EVENTS       (SSM_EVENT_DONE | SSM_EVENT_ERROR)
#define BEAT_BYTES   (MEMORY_DATA_WIDTH/8)

struct engine_ssm ssm_built;
uint32_t          ssm_queue_depth;

/* As the core counts. */
struct counts {
	uint64_t lane_busy;
	uint64_t read_beats;
	uint64_t write_beats;
};

static struct counts taken;

static void counts_read(struct counts *counts)
{
	ssm_counters_latch_write(1);
	counts->lane_busy   = ssm_counters_lane_busy_read();
	counts->read_beats  = ssm_counters_read_beats_read();
	counts->write_beats = ssm_counters_write_beats_read();
}

static void COLD ssm_init(void)
{
	uint32_t capabilities = ssm_capabilities_read();

	ssm_built.version             = ssm_version_read();
	ssm_built.lanes               = FIELD(SSM_CAPABILITIES_LANES, capabilities);
	ssm_built.max_headdim         = FIELD(SSM_CAPABILITIES_MAX_HEADDIM, capabilities);
	ssm_built.max_d_state         = FIELD(SSM_CAPABILITIES_MAX_D_STATE, capabilities);
	ssm_built.max_heads           = SSM_MAX_HEADS;
	ssm_built.max_groups          = SSM_MAX_GROUPS;
	ssm_built.max_tokens          = SSM_MAX_TOKENS;
	ssm_built.resident_tiles      = SSM_RESIDENT_TILES;
	ssm_built.stochastic_rounding = SSM_STOCHASTIC_ROUNDING;
	ssm_queue_depth               = 1 << FIELD(SSM_CAPABILITIES_QUEUE_DEPTH, capabilities);
	ssm_reset();
	ssm_ev_enable_write(EVENTS);
}

int COLD ssm_reset(void)
{
	uint64_t start = cycles_now();
	int      busy;

	ssm_control_write(FIELD_SET(SSM_CONTROL_RESET, 1));
	do {
		busy = ssm_busy();
	} while (busy && cycles_now() - start < TIMEOUT_RESET);
	ssm_ev_pending_write(EVENTS);
	engine_events_clear();
	counts_read(&taken);
	return !busy;
}

void ssm_isr(void)
{
	uint32_t pending = ssm_ev_pending_read();

	ssm_ev_pending_write(pending);
	engine_events |= pending;
}

static void ssm_take(struct counters *counters)
{
	struct counts now;

	counts_read(&now);
	counters->busy_cycles   = (now.lane_busy   - taken.lane_busy)   & COUNTER_MASK;
	counters->bytes_read    = ((now.read_beats  - taken.read_beats)  & COUNTER_MASK)*BEAT_BYTES;
	counters->bytes_written = ((now.write_beats - taken.write_beats) & COUNTER_MASK)*BEAT_BYTES;
	taken = now;
}

static void COLD ssm_describe(struct engine_info *info)
{
	info->kind = ENGINE_SSM;
	info->ssm  = ssm_built;
}

const struct engine ssm_engine TABLE = {
	.interrupts = 1 << SSM_INTERRUPT,
	.init       = ssm_init,
	.reset      = ssm_reset,
	.take       = ssm_take,
	.describe   = ssm_describe,
};
