/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "block.h"
#include "ssm.h"

/* The smallest multiple of a power of two that is not below value. */
static uint32_t ceil_multiple(uint32_t value, uint32_t multiple)
{
	return (value + multiple - 1) & -multiple;
}

void block_init(struct block *block, uint32_t heads, uint32_t headdim, uint32_t d_state, uint32_t groups)
{
	uint32_t headdim_padded = ceil_multiple(headdim, ROW_ELEMENTS);
	uint32_t multiple       = ssm_built.lanes > MIN_D_STATE_MULTIPLE ? ssm_built.lanes : MIN_D_STATE_MULTIPLE;
	uint32_t d_state_padded = ceil_multiple(d_state, multiple);

	block->heads       = heads;
	block->headdim     = headdim;
	block->d_state     = d_state;
	block->groups      = groups;
	block->group_heads = heads/groups;
	block->x_bytes     = ceil_multiple((SCALAR_ELEMENTS + headdim_padded)*ELEMENT_BYTES, ALIGNMENT);
	block->bc_bytes    = ceil_multiple(2*d_state_padded*ELEMENT_BYTES, ALIGNMENT);
	block->y_used      = headdim_padded*ELEMENT_BYTES;
	block->tile_used   = headdim*d_state_padded*ELEMENT_BYTES;
	block->y_bytes     = ceil_multiple(block->y_used, ALIGNMENT);
	block->tile_bytes  = ceil_multiple(block->tile_used, ALIGNMENT);
}

int block_may_follow(const struct block *block, const struct block *before, uint32_t queue_depth)
{
	const struct range *y     = &before->y_range;
	const struct range *state = &before->state_out_range;

	if (block->heads != before->heads || block->headdim != before->headdim || block->d_state != before->d_state
		|| block->groups != before->groups)
		return 0;
	if (range_overlap(y, &block->x_range) || range_overlap(y, &block->bc_range)
		|| range_overlap(y, &block->state_in_range) || range_overlap(y, &block->state_out_range))
		return 0;
	if (range_overlap(state, &block->x_range) || range_overlap(state, &block->bc_range)
		|| range_overlap(state, &block->y_range))
		return 0;
	return !range_overlap(state, &block->state_in_range)
		|| (block->state_in == before->state_out && block->heads >= queue_depth);
}

uint64_t block_timeout(const struct block *block)
{
	uint32_t token = block->tile_bytes/MIN_LANES_BYTES
		+ (block->x_bytes + block->bc_bytes + block->y_bytes)/MIN_BEAT_BYTES;
	uint64_t tile  = (uint64_t)block->tokens*token + 2*block->tile_bytes/MIN_BEAT_BYTES;

	return TIMEOUT_SETUP + TIMEOUT_FACTOR_SSM*block->heads*tile;
}
