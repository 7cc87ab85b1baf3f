/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "block.h"
#include "info.h"

#define ELEMENT_BYTES   2
#define BEAT_BYTES      16
#define BEAT_ELEMENTS   (BEAT_BYTES/ELEMENT_BYTES)

#define TIMEOUT_SETUP   100000 /* Cycles of a run that do not grow with the block, rounded up generously. */
#define TIMEOUT_FACTOR  8      /* The DRAM is shared with host and CPU. */
#define MIN_LANES_BYTES 8      /* A cycle's share of a tile with the fewest lanes. */

/* The smallest multiple of a power of two that is not below value. */
static uint32_t ceil_multiple(uint32_t value, uint32_t multiple)
{
	return (value + multiple - 1) & -multiple;
}

void block_init(struct block *block, uint32_t heads, uint32_t headdim, uint32_t d_state, uint32_t groups)
{
	uint32_t headdim_padded = ceil_multiple(headdim, BEAT_ELEMENTS);
	uint32_t d_state_padded = ceil_multiple(d_state, info.lanes > BEAT_ELEMENTS ? info.lanes : BEAT_ELEMENTS);

	block->heads       = heads;
	block->headdim     = headdim;
	block->d_state     = d_state;
	block->groups      = groups;
	block->group_heads = heads/groups;
	block->x_bytes     = ceil_multiple(BEAT_BYTES + headdim_padded*ELEMENT_BYTES, 64);
	block->bc_bytes    = ceil_multiple(2*d_state_padded*ELEMENT_BYTES, 64);
	block->y_used      = headdim_padded*ELEMENT_BYTES;
	block->tile_used   = headdim*d_state_padded*ELEMENT_BYTES;
	block->y_bytes     = ceil_multiple(block->y_used, 64);
	block->tile_bytes  = ceil_multiple(block->tile_used, 64);
}

int block_may_follow(const struct block *block, const struct block *before, uint32_t queue_depth)
{
	const struct region *y     = &before->y_region;
	const struct region *state = &before->state_out_region;

	if (block->heads != before->heads || block->headdim != before->headdim || block->d_state != before->d_state
		|| block->groups != before->groups)
		return 0;
	if (region_overlap(y, &block->x_region) || region_overlap(y, &block->bc_region)
		|| region_overlap(y, &block->state_in_region) || region_overlap(y, &block->state_out_region))
		return 0;
	if (region_overlap(state, &block->x_region) || region_overlap(state, &block->bc_region)
		|| region_overlap(state, &block->y_region))
		return 0;
	return !region_overlap(state, &block->state_in_region)
		|| (block->state_in == before->state_out && block->heads >= queue_depth);
}

uint64_t block_timeout(const struct block *block)
{
	uint32_t token = block->tile_bytes/MIN_LANES_BYTES
		+ (block->x_bytes + block->bc_bytes + block->y_bytes)/BEAT_BYTES;
	uint64_t tile  = (uint64_t)block->tokens*token + 2*block->tile_bytes/BEAT_BYTES;

	return TIMEOUT_SETUP + TIMEOUT_FACTOR*block->heads*tile;
}
