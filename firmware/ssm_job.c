/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "request.h"
#include "ssm.h"
#include "ssm_job.h"

static int in_range(uint32_t value, uint32_t low, uint32_t high)
{
	return low <= value && value <= high;
}

static uint32_t check_ranges(struct block *block, uint32_t *detail)
{
	struct range *x         = &block->x_range;
	struct range *bc        = &block->bc_range;
	struct range *y         = &block->y_range;
	struct range *state_in  = &block->state_in_range;
	struct range *state_out = &block->state_out_range;
	uint64_t       heads     = (uint64_t)block->tokens*block->heads;
	uint64_t       groups    = (uint64_t)block->tokens*block->groups;
	uint64_t       state     = (uint64_t)block->heads*block->tile_bytes;
	uint32_t       error;

	*y         = (struct range){0, 0};
	*state_in  = (struct range){0, 0};
	*state_out = (struct range){0, 0};
	if ((error = request_range(x, block->x, heads*block->x_bytes, detail)))
		return error;
	if ((error = request_range(bc, block->bc, groups*block->bc_bytes, detail)))
		return error;
	if (block_writes_y(block) && (error = request_range(y, block->y, heads*block->y_bytes, detail)))
		return error;
	if (block_reads_state(block) && (error = request_range(state_in, block->state_in, state, detail)))
		return error;
	if (block_writes_state(block) && (error = request_range(state_out, block->state_out, state, detail)))
		return error;

	*detail = block->y;
	if (range_overlap(y, x) || range_overlap(y, bc) || range_overlap(y, state_in) || range_overlap(y, state_out))
		return ERROR_OVERLAP;
	*detail = block->state_out;
	if (range_overlap(state_out, x) || range_overlap(state_out, bc))
		return ERROR_OVERLAP;
	if (range_overlap(state_out, state_in) && state_out->first != state_in->first) /* In place, tile by tile, is fine. */
		return ERROR_OVERLAP;
	return ERROR_NONE;
}

uint32_t ssm_job_check(struct task *task)
{
	const struct job_ssm *job    = &task->job.ssm;
	struct block         *block  = &task->ssm.block;
	uint32_t             *detail = &task->detail;
	uint32_t              flags  = task->job.flags;

	*detail = job->heads;
	if (!in_range(job->heads, 1, SSM_MAX_HEADS))
		return ERROR_BAD_HEADS;
	*detail = job->headdim;
	if (!in_range(job->headdim, 1, ssm_built.max_headdim))
		return ERROR_BAD_HEADDIM;
	*detail = job->d_state;
	if (!in_range(job->d_state, 1, ssm_built.max_d_state))
		return ERROR_BAD_D_STATE;
	*detail = job->groups;
	if (!in_range(job->groups, 1, SSM_MAX_GROUPS))
		return ERROR_BAD_GROUPS;
	block_init(block, job->heads, job->headdim, job->d_state, job->groups);
	if (block->group_heads*block->groups != block->heads)
		return ERROR_BAD_GROUPS;
	*detail = job->tokens;
	if (!in_range(job->tokens, 1, SSM_MAX_TOKENS))
		return ERROR_BAD_TOKENS;
	*detail = job->first_token;
	if (job->first_token > job->tokens)
		return ERROR_BAD_FIRST_TOKEN;
	block->tokens      = job->tokens;
	block->first_token = job->first_token;
#if SSM_RESIDENT_TILES
	*detail = job->tile;
	if (flags & JOB_RESIDENT && (job->tile >= SSM_RESIDENT_TILES || job->heads > SSM_RESIDENT_TILES - job->tile))
		return ERROR_BAD_TILE;
#endif
	block->flags       = flags;
	block->tile        = job->tile;
	block->seed        = job->seed;
	block->x           = job->x_address;
	block->bc          = job->bc_address;
	block->y           = job->y_address;
	block->state_in    = job->state_in;
	block->state_out   = job->state_out;
	return check_ranges(block, detail);
}

uint32_t ssm_job_begin(struct task *task)
{
	return scheduler_begin(&task->ssm.run, &task->ssm.block, task->job.timeout, &task->detail);
}

int ssm_job_follow(struct task *task, const struct task *before)
{
	if (!block_may_follow(&task->ssm.block, &before->ssm.block, ssm_queue_depth))
		return 0;
	scheduler_follow(&task->ssm.run, &task->ssm.block, task->job.timeout, &before->ssm.run);
	return 1;
}

int ssm_job_post(struct task *task)
{
	return scheduler_post(&task->ssm.run);
}

uint32_t ssm_job_look(struct task *task, int *completed)
{
	return scheduler_look(&task->ssm.run, completed, &task->detail);
}

void ssm_job_time(struct task *task, uint64_t start)
{
	task->ssm.run.start = start;
}

void ssm_job_end(struct task *task)
{
	task->units = scheduler_tiles(&task->ssm.run);
}
