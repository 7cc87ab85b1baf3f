/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "ssm.h"

#define COUNTER_MASK  ((1ULL << SSM_COUNTER_BITS) - 1)

volatile uint32_t ssm_events;
uint32_t          ssm_queue_depth;

static struct ssm_counters taken;

static void counters_read(struct ssm_counters *counters)
{
	ssm_counters_latch_write(1);
	counters->lane_busy   = ssm_counters_lane_busy_read();
	counters->read_beats  = ssm_counters_read_beats_read();
	counters->write_beats = ssm_counters_write_beats_read();
}

void COLD ssm_init(void)
{
	ssm_reset();
	ssm_queue_depth = 1 << FIELD(SSM_CAPABILITIES_QUEUE_DEPTH, ssm_capabilities_read());
	ssm_ev_enable_write(SSM_EVENT_DONE | SSM_EVENT_ERROR);
	irq_setmask(1 << SSM_INTERRUPT);
	irq_setie(1);
}

int COLD ssm_reset(void)
{
	uint64_t start = cycles_now();
	int      busy;

	ssm_control_write(FIELD_SET(SSM_CONTROL_RESET, 1));
	do {
		busy = ssm_busy();
	} while (busy && cycles_now() - start < TIMEOUT_RESET);
	ssm_ev_pending_write(SSM_EVENT_DONE | SSM_EVENT_ERROR);
	ssm_events_clear();
	counters_read(&taken);
	return !busy;
}

void ssm_isr(void)
{
	uint32_t pending = ssm_ev_pending_read();

	ssm_ev_pending_write(pending);
	ssm_events |= pending;
}

void ssm_counters_take(struct ssm_counters *counters)
{
	struct ssm_counters now;

	counters_read(&now);
	counters->lane_busy   = (now.lane_busy   - taken.lane_busy)   & COUNTER_MASK;
	counters->read_beats  = (now.read_beats  - taken.read_beats)  & COUNTER_MASK;
	counters->write_beats = (now.write_beats - taken.write_beats) & COUNTER_MASK;
	taken = now;
}
