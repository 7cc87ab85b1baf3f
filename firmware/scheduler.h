/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Cuts a block into head tiles and runs them.
 */

#ifndef SCHEDULER_H
#define SCHEDULER_H

#include "block.h"

/* A block under way. */
struct run {
	const struct block *block;
	uint64_t start;       /* When its time began to run, */
	uint64_t timeout;     /* and the cycles it may take. */
	int      strict;      /* The job says how many: one that is completed too late failed, too. */
	uint32_t target;      /* ssm_tiles_done when it is completed. */
	int      posted;
};

/*
 * Begins a block on an idle core; it may take `timeout` cycles (0: block_timeout()). Returns an ERROR code and its detail,
 * which is the core's status.
 */
uint32_t scheduler_begin(struct run *run, const struct block *block, uint32_t timeout, uint32_t *detail);

/* Begins a block behind another one that is posted; see block_may_follow(). Its time begins when set. */
void scheduler_follow(struct run *run, const struct block *block, uint32_t timeout, const struct run *before);

/* Posts the tiles of all heads, if no others wait for room in the queue. Returns whether it is still to be done. */
int scheduler_post(struct run *run);

/* How a run fares: an ERROR code, its detail (the core's error bits, or its status at the time-out), or its completion. */
uint32_t scheduler_look(const struct run *run, int *completed, uint32_t *detail);

/* Tiles completed of it; not after a reset. */
uint32_t scheduler_tiles(const struct run *run);

/* All of the above for one block: ends when it is completed, or with an error and the core reset. Adds its tiles. */
uint32_t scheduler_run(const struct block *block, uint32_t timeout, uint32_t *detail, uint32_t *tiles);

#endif
