/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A run of the SSM block: its geometry, the sizes of its records in DRAM (as operations/ssm.py has them) and where
 * they lie.
 */

#ifndef BLOCK_H
#define BLOCK_H

#include <stdint.h>

#include "protocol.h"

/* Bytes from first to before end. Empty (0, 0) when the block does not touch it: then it overlaps nothing. */
struct range {
	uint32_t first;
	uint32_t end;
};

struct block {
	uint32_t heads;
	uint32_t headdim;
	uint32_t d_state;
	uint32_t groups;
	uint32_t group_heads; /* Heads that share a group. */
	uint32_t tokens;
	uint32_t first_token;
	uint32_t flags;       /* JOB_ZERO_STATE, JOB_NO_STORE, JOB_RESIDENT. */
	uint32_t tile;        /* Place on chip of the first head's tile. */
	uint32_t seed;        /* Of stochastic rounding. */
	/* Bytes of a record. */
	uint32_t x_bytes;
	uint32_t bc_bytes;
	uint32_t y_bytes;
	uint32_t tile_bytes;
	/* Of which these are used. */
	uint32_t y_used;
	uint32_t tile_used;
	/* Addresses of the first record. */
	uint32_t x;
	uint32_t bc;
	uint32_t y;
	uint32_t state_in;
	uint32_t state_out;
	/* All of the records. */
	struct range x_range;
	struct range bc_range;
	struct range y_range;
	struct range state_in_range;
	struct range state_out_range;
};

/* Sets the geometry, from sizes of which none is 0, and the records' bytes. */
void block_init(struct block *block, uint32_t heads, uint32_t headdim, uint32_t d_state, uint32_t groups);

/* Whether the block touches these records at all: an address of one it does not touch means nothing. */
static inline int block_reads_state(const struct block *block)
{
	return !(block->flags & (JOB_ZERO_STATE | JOB_RESIDENT));
}

static inline int block_writes_state(const struct block *block)
{
	return !(block->flags & JOB_NO_STORE);
}

static inline int block_writes_y(const struct block *block)
{
	return block->first_token != block->tokens;
}

static inline int range_overlap(const struct range *a, const struct range *b)
{
	return a->first < b->end && b->first < a->end;
}

/*
 * Whether the tiles of a block may be posted while those before, of another block, are not completed: the geometry is the
 * same, and nothing is read before it is written. The core does not order a tile's loading after the storing of one before;
 * but with as many heads as the queue holds tiles, the tile that a head continues is completed before its own gets in.
 */
int block_may_follow(const struct block *block, const struct block *before, uint32_t queue_depth);

/* Cycles after which a run of the block is surely stuck. */
uint64_t block_timeout(const struct block *block);

#endif
