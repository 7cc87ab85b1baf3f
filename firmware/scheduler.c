/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "platform.h"
#include "scheduler.h"
#include "ssm.h"

static void start(struct run *run, const struct block *block, uint32_t timeout, uint32_t tiles_done)
{
	run->block   = block;
	run->strict  = timeout != 0;
	run->timeout = timeout ? timeout : block_timeout(block);
	run->target  = tiles_done + block->heads;
	run->posted  = 0;
}

uint32_t scheduler_begin(struct run *run, const struct block *block, uint32_t timeout, uint32_t *detail)
{
	run->start = cycles_now();
	if (ssm_busy() && !ssm_reset()) {
		*detail = ssm_status_read();
		return ERROR_TIMEOUT;
	}
	start(run, block, timeout, ssm_tiles_done_read());
	ssm_headdim_write(block->headdim);
	ssm_d_state_write(block->d_state);
	ssm_x_stride_write(block->heads*block->x_bytes);
	ssm_bc_stride_write(block->groups*block->bc_bytes);
	ssm_y_stride_write(block->heads*block->y_bytes);
	ssm_x_step_write(block->x_bytes);
	ssm_bc_step_write(block->bc_bytes);
	ssm_y_step_write(block->y_bytes);
	ssm_state_step_write(block->tile_bytes);
	ssm_tile_heads_write(FIELD_SET(SSM_TILE_HEADS_GROUP_HEADS, block->group_heads)
		| FIELD_SET(SSM_TILE_HEADS_HEADS, block->heads));
	return ERROR_NONE;
}

void scheduler_follow(struct run *run, const struct block *block, uint32_t timeout, const struct run *before)
{
	start(run, block, timeout, before->target);
}

int scheduler_post(struct run *run)
{
	const struct block *block = run->block;

	if (run->posted)
		return 0;
	if (!ssm_queue_free())
		return 1;
	ssm_tile_tokens_write(FIELD_SET(SSM_TILE_TOKENS_FIRST_TOKEN, block->first_token)
		| FIELD_SET(SSM_TILE_TOKENS_TOKENS, block->tokens));
	ssm_tile_x_write(block->x);
	ssm_tile_bc_write(block->bc);
	/* What is not used still needs a legal address: x stands in, of larger records. */
	ssm_tile_y_write(block_writes_y(block) ? block->y + block->first_token*block->heads*block->y_bytes : block->x);
	ssm_tile_state_in_write(block->state_in);
	ssm_tile_state_out_write(block->state_out);
	ssm_seed(block->seed);
	ssm_tile_push_write(block->flags | SSM_TILE_INTERRUPT | ssm_place(block->tile));
	run->posted = 1;
	return 0;
}

uint32_t scheduler_look(const struct run *run, int *completed, uint32_t *detail)
{
	int late;

	*completed = (int32_t)(ssm_tiles_done_read() - run->target) >= 0;
	*detail    = ssm_errors_read();
	if (*detail)
		return ERROR_GATEWARE;
	late = (run->strict || !*completed) && cycles_now() - run->start >= run->timeout;
	if (late || (!*completed && reboot_requested())) {
		*detail = ssm_status_read();
		return ERROR_TIMEOUT;
	}
	return ERROR_NONE;
}

uint32_t scheduler_tiles(const struct run *run)
{
	uint32_t missing = run->target - ssm_tiles_done_read();

	return (int32_t)missing > 0 ? run->block->heads - missing : run->block->heads;
}

uint32_t COLD scheduler_run(const struct block *block, uint32_t timeout, uint32_t *detail, uint32_t *tiles)
{
	struct run run;
	uint32_t   error;
	int        completed = 0;

	error = scheduler_begin(&run, block, timeout, detail);
	if (error)
		return error;
	while (!error && !completed) {
		if (!scheduler_post(&run))
			engine_wait();
		engine_events_clear();
		error = scheduler_look(&run, &completed, detail);
	}
	*tiles += scheduler_tiles(&run);
	if (error)
		ssm_reset();
	return error;
}
