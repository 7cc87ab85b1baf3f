/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "checksum.h"
#include "info.h"
#include "request.h"

#if SSM_RESIDENT_TILES
#define FLAGS SSM_FLAGS
#else
#define FLAGS (SSM_FLAGS & ~JOB_RESIDENT)
#endif

static int in_range(uint32_t value, uint32_t low, uint32_t high)
{
	return low <= value && value <= high;
}

/*
 * Whether so many bytes from an aligned address on lie in the region of a base and a size. bytes is a product of three
 * sizes at most, which at their maxima needs 42 bits.
 */
static uint32_t check_inside(uint32_t address, uint64_t bytes, uint32_t base, uint32_t size, uint32_t *detail)
{
	uint32_t offset = address - base;

	*detail = address;
	if (address % ALIGNMENT)
		return ERROR_BAD_ALIGNMENT;
	if (offset >= size || bytes > size - offset)
		return ERROR_BAD_ADDRESS;
	return ERROR_NONE;
}

static uint32_t check_region(struct region *region, uint32_t address, uint64_t bytes, uint32_t *detail)
{
	uint32_t error = check_inside(address, bytes, DATA_BASE, DATA_SIZE, detail);

	if (error)
		return error;
	region->first = address;
	region->end   = address + bytes;
	return ERROR_NONE;
}

static uint32_t check_regions(struct block *block, uint32_t *detail)
{
	struct region *x         = &block->x_region;
	struct region *bc        = &block->bc_region;
	struct region *y         = &block->y_region;
	struct region *state_in  = &block->state_in_region;
	struct region *state_out = &block->state_out_region;
	uint64_t       heads     = (uint64_t)block->tokens*block->heads;
	uint64_t       groups    = (uint64_t)block->tokens*block->groups;
	uint64_t       state     = (uint64_t)block->heads*block->tile_bytes;
	uint32_t       error;

	*y         = (struct region){0, 0};
	*state_in  = (struct region){0, 0};
	*state_out = (struct region){0, 0};
	if ((error = check_region(x, block->x, heads*block->x_bytes, detail)))
		return error;
	if ((error = check_region(bc, block->bc, groups*block->bc_bytes, detail)))
		return error;
	if (block_writes_y(block) && (error = check_region(y, block->y, heads*block->y_bytes, detail)))
		return error;
	if (block_reads_state(block) && (error = check_region(state_in, block->state_in, state, detail)))
		return error;
	if (block_writes_state(block) && (error = check_region(state_out, block->state_out, state, detail)))
		return error;

	*detail = block->y;
	if (region_overlap(y, x) || region_overlap(y, bc) || region_overlap(y, state_in) || region_overlap(y, state_out))
		return ERROR_OVERLAP;
	*detail = block->state_out;
	if (region_overlap(state_out, x) || region_overlap(state_out, bc))
		return ERROR_OVERLAP;
	if (region_overlap(state_out, state_in) && state_out->first != state_in->first) /* In place, tile by tile, is fine. */
		return ERROR_OVERLAP;
	return ERROR_NONE;
}

static uint32_t check_block(const struct job *job, struct block *block, uint32_t *detail)
{
	*detail = job->ssm.heads;
	if (!in_range(job->ssm.heads, 1, SSM_MAX_HEADS))
		return ERROR_BAD_HEADS;
	*detail = job->ssm.headdim;
	if (!in_range(job->ssm.headdim, 1, info.max_headdim))
		return ERROR_BAD_HEADDIM;
	*detail = job->ssm.d_state;
	if (!in_range(job->ssm.d_state, 1, info.max_d_state))
		return ERROR_BAD_D_STATE;
	*detail = job->ssm.groups;
	if (!in_range(job->ssm.groups, 1, SSM_MAX_GROUPS))
		return ERROR_BAD_GROUPS;
	block_init(block, job->ssm.heads, job->ssm.headdim, job->ssm.d_state, job->ssm.groups);
	if (block->group_heads*block->groups != block->heads)
		return ERROR_BAD_GROUPS;
	*detail = job->ssm.tokens;
	if (!in_range(job->ssm.tokens, 1, SSM_MAX_TOKENS))
		return ERROR_BAD_TOKENS;
	*detail = job->ssm.first_token;
	if (job->ssm.first_token > job->ssm.tokens)
		return ERROR_BAD_FIRST_TOKEN;
	block->tokens      = job->ssm.tokens;
	block->first_token = job->ssm.first_token;
#if SSM_RESIDENT_TILES
	*detail = job->ssm.tile;
	if (job->flags & JOB_RESIDENT && (job->ssm.tile >= SSM_RESIDENT_TILES || job->ssm.heads > SSM_RESIDENT_TILES - job->ssm.tile))
		return ERROR_BAD_TILE;
#endif
	block->flags       = job->flags;
	block->tile        = job->ssm.tile;
	block->seed        = job->ssm.seed;
	block->x           = job->ssm.x_address;
	block->bc          = job->ssm.bc_address;
	block->y           = job->ssm.y_address;
	block->state_in    = job->ssm.state_in;
	block->state_out   = job->ssm.state_out;
	return check_regions(block, detail);
}

static uint32_t check_size(uint32_t bytes, uint32_t *detail)
{
	*detail = bytes;
	return bytes && bytes % ALIGNMENT == 0 ? ERROR_NONE : ERROR_BAD_SIZE;
}

static uint32_t check_checksum(const struct job *job, uint32_t *detail)
{
	uint32_t error;

	if ((error = check_size(job->checksum.region_bytes, detail)) || (error = check_size(job->checksum.block_bytes, detail)))
		return error;
	if ((error = check_inside(job->checksum.region, job->checksum.region_bytes, DATA_BASE, DATA_SIZE, detail)))
		return error;
	return check_inside(job->checksum.table, 4ull*checksum_blocks(job), TABLE_BASE, TABLE_SIZE, detail);
}

uint32_t request_check(const struct job *job, struct block *block, uint32_t *detail)
{
	uint32_t error;

	*detail = job->version;
	if (job->version != PROTOCOL_VERSION)
		return ERROR_BAD_VERSION;
	*detail = job->opcode;
	if (job->opcode > OPCODE_CHECKSUM)
		return ERROR_BAD_OPCODE;
	*detail = job->flags;
	if (job->flags & ~(job->opcode == OPCODE_SSM ? FLAGS : 0))
		return ERROR_BAD_FLAGS;
	if (job->opcode == OPCODE_SSM && (error = check_block(job, block, detail)))
		return error;
	if (job->opcode == OPCODE_CHECKSUM && (error = check_checksum(job, detail)))
		return error;
	*detail = 0;
	return ERROR_NONE;
}
