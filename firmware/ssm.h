/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Driver of the SSM core: reset, interrupt, queue of tile descriptors, counters.
 */

#ifndef SSM_H
#define SSM_H

#include "platform.h"

/* Flags written with a descriptor. All but the interrupt are the job's. */
#define SSM_TILE_ZERO_STATE JOB_ZERO_STATE
#define SSM_TILE_NO_STORE   JOB_NO_STORE
#define SSM_TILE_RESIDENT   JOB_RESIDENT
#define SSM_TILE_INTERRUPT  4u

/* Sources of the interrupt. */
#define SSM_EVENT_DONE  1u
#define SSM_EVENT_ERROR 2u

struct ssm_counters {
	uint64_t lane_busy;
	uint64_t read_beats;
	uint64_t write_beats;
};

/* Descriptors that can be in flight. */
extern uint32_t ssm_queue_depth;

/* Events since ssm_events_clear(); set by the interrupt. */
extern volatile uint32_t ssm_events;

static inline void ssm_events_clear(void)
{
	ssm_events = 0;
}

static inline int ssm_busy(void)
{
	return ssm_status_read() & 1;
}

/* Descriptors the queue has room for. */
static inline uint32_t ssm_queue_free(void)
{
	return (ssm_status_read() >> 8) & 0xff;
}

/* Seed of the next descriptor; where the core rounds to nearest there is none. */
static inline void ssm_seed(uint32_t seed)
{
#if SSM_STOCHASTIC_ROUNDING
	ssm_tile_seed_write(seed);
#else
	(void)seed;
#endif
}

/* In the flags of a descriptor: where the first head's tile lies on chip. Too many heads begin again at the first place. */
static inline uint32_t ssm_place(uint32_t tile)
{
#if SSM_RESIDENT_TILES
	return tile%SSM_RESIDENT_TILES << 8;
#else
	(void)tile;
	return 0;
#endif
}

/* Resets the core and turns its interrupt on. */
void ssm_init(void);

/* Brings the core back to idle; 0 when it does not get there. */
int ssm_reset(void);

void ssm_isr(void);

/* What was counted since the last call, or since the reset. */
void ssm_counters_take(struct ssm_counters *counters);

#endif
