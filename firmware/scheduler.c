/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "platform.h"
#include "scheduler.h"
#include "ssm.h"

/* Looks at the events between two looks at the CSRs: they are in SRAM, so waiting leaves the bus to the others. */
#define EVENT_POLLS 256

/* In the flags of a descriptor: where the first head's tile lies on chip. */
static uint32_t first_place(const struct block *block)
{
#if SSM_RESIDENT_TILES
	return block->tile%SSM_RESIDENT_TILES << SSM_TILE_PLACE;
#else
	(void)block;
	return 0;
#endif
}

static void start(struct run *run, const struct block *block, uint32_t timeout, uint32_t tiles_done)
{
	/* A region that is not used still needs a legal address: x stands in. */
	int y_used         = block_writes_y(block);
	int state_in_used  = block_reads_state(block);
	int state_out_used = block_writes_state(block);

	run->block           = block;
	run->timeout         = timeout ? timeout : block_timeout(block);
	run->target          = tiles_done + block->heads;
	run->heads           = block->heads;
	run->group_heads     = block->group_heads;
	run->x               = block->x;
	run->bc              = block->bc;
	run->y               = y_used         ? block->y          : block->x;
	run->state_in        = state_in_used  ? block->state_in   : block->x;
	run->state_out       = state_out_used ? block->state_out  : block->x;
	run->seed            = block->seed;
	run->flags           = block->flags | first_place(block);
	run->y_bytes         = y_used         ? block->y_bytes    : 0;
	run->state_in_bytes  = state_in_used  ? block->tile_bytes : 0;
	run->state_out_bytes = state_out_used ? block->tile_bytes : 0;
}

/* Writes what the first tile needs; later ones what differs from the tile before. */
static void begin_tiles(const struct run *run)
{
	ssm_tile_tokens_write(run->block->first_token << 16 | run->block->tokens);
	ssm_tile_x_write(run->x);
	ssm_tile_bc_write(run->bc);
	ssm_tile_y_write(run->y);
	ssm_tile_state_in_write(run->state_in);
	ssm_tile_state_out_write(run->state_out);
	ssm_seed(run->seed);
}

static void next_tile(struct run *run)
{
	const struct block *block = run->block;

	run->x += block->x_bytes;
	ssm_tile_x_write(run->x);
	if (run->y_bytes) {
		run->y += run->y_bytes;
		ssm_tile_y_write(run->y);
	}
	if (run->state_in_bytes) {
		run->state_in += run->state_in_bytes;
		ssm_tile_state_in_write(run->state_in);
	}
	if (run->state_out_bytes) {
		run->state_out += run->state_out_bytes;
		ssm_tile_state_out_write(run->state_out);
	}
	if (!--run->group_heads) {
		run->group_heads = block->group_heads;
		run->bc         += block->bc_bytes;
		ssm_tile_bc_write(run->bc);
	}
	run->seed += SEED_STRIDE;
	ssm_seed(run->seed);
	if (SSM_RESIDENT_TILES) {
		/* More heads than tiles on chip begin again at the first one: none of these can stay. */
		run->flags += 1 << SSM_TILE_PLACE;
		if (run->flags >> SSM_TILE_PLACE == SSM_RESIDENT_TILES)
			run->flags &= (1 << SSM_TILE_PLACE) - 1;
	}
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
	begin_tiles(run);
	return ERROR_NONE;
}

void scheduler_follow(struct run *run, const struct block *block, uint32_t timeout, const struct run *before)
{
	start(run, block, timeout, before->target);
	begin_tiles(run);
}

int scheduler_post(struct run *run)
{
	uint32_t room = run->heads ? ssm_queue_free() : 0;

	while (room && run->heads) {
		room--;
		if (!--run->heads) {
			ssm_tile_push_write(run->flags | SSM_TILE_INTERRUPT);
			break;
		}
		ssm_tile_push_write(run->flags);
		next_tile(run);
	}
	return run->heads != 0;
}

void scheduler_wait(void)
{
	uint32_t polls;

	for (polls = EVENT_POLLS; polls && !ssm_events; polls--);
}

uint32_t scheduler_look(const struct run *run, int *completed, uint32_t *detail)
{
	*completed = (int32_t)(ssm_tiles_done_read() - run->target) >= 0;
	*detail    = ssm_errors_read();
	if (*detail)
		return ERROR_GATEWARE;
	if (!*completed && (cycles_now() - run->start >= run->timeout || reboot_requested())) {
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

uint32_t scheduler_run(const struct block *block, uint32_t timeout, uint32_t *detail, uint32_t *tiles)
{
	struct run run;
	uint32_t   error;
	int        completed = 0;

	error = scheduler_begin(&run, block, timeout, detail);
	if (error)
		return error;
	while (!error && !completed) {
		if (!scheduler_post(&run))
			scheduler_wait();
		ssm_events_clear();
		error = scheduler_look(&run, &completed, detail);
	}
	*tiles += scheduler_tiles(&run);
	if (error)
		ssm_reset();
	return error;
}
