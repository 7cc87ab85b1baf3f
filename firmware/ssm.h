/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Driver of the SSM core: reset, interrupt, queue of tile descriptors, counters, as an engine (engine.h).
 */

#ifndef SSM_H
#define SSM_H

#include "engine.h"

/* Written with a descriptor beside the job's flags, which are those of the gateware. */
#define SSM_TILE_INTERRUPT FIELD_SET(SSM_TILE_PUSH_INTERRUPT, 1)

_Static_assert(JOB_ZERO_STATE == FIELD_SET(SSM_TILE_PUSH_ZERO_STATE, 1), "ZERO_STATE");
_Static_assert(JOB_NO_STORE   == FIELD_SET(SSM_TILE_PUSH_NO_STORE, 1),   "NO_STORE");
#if SSM_RESIDENT_TILES
_Static_assert(JOB_RESIDENT   == FIELD_SET(SSM_TILE_PUSH_RESIDENT, 1),   "RESIDENT");
#endif

/* Sources of the interrupt. */
#define SSM_EVENT_DONE  FIELD_SET(SSM_EV_PENDING_DONE, 1)
#define SSM_EVENT_ERROR FIELD_SET(SSM_EV_PENDING_ERROR, 1)

/* What was built. */
extern struct engine_ssm ssm_built;

/* Descriptors that can be in flight. */
extern uint32_t ssm_queue_depth;

static inline int ssm_busy(void)
{
	return FIELD(SSM_STATUS_BUSY, ssm_status_read());
}

/* Descriptors the queue has room for. */
static inline uint32_t ssm_queue_free(void)
{
	return FIELD(SSM_STATUS_QUEUE_FREE, ssm_status_read());
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
	return FIELD_SET(SSM_TILE_PUSH_TILE, tile%SSM_RESIDENT_TILES);
#else
	(void)tile;
	return 0;
#endif
}

/* Brings the core back to idle; 0 when it does not get there. */
int ssm_reset(void);

/* Its interrupts, to engine_events. */
void ssm_isr(void);

#endif
