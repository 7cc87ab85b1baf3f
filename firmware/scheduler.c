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

struct run {
	const struct block *block;
	uint64_t            start;
	uint32_t            timeout; /* Cycles; 0: block_timeout(). */
	uint32_t           *detail;
};

/* An error, or ERROR_NONE: go on waiting. */
static uint32_t check(const struct run *run)
{
	uint64_t timeout = run->timeout ? run->timeout : block_timeout(run->block);

	*run->detail = ssm_errors_read();
	if (*run->detail)
		return ERROR_GATEWARE;
	if (cycles_now() - run->start >= timeout || reboot_requested()) {
		*run->detail = ssm_status_read();
		return ERROR_TIMEOUT;
	}
	return ERROR_NONE;
}

/* Writes what all tiles of the block have in common. */
static void configure(const struct block *block)
{
	ssm_headdim_write(block->headdim);
	ssm_d_state_write(block->d_state);
	ssm_x_stride_write(block->heads*block->x_bytes);
	ssm_bc_stride_write(block->groups*block->bc_bytes);
	ssm_y_stride_write(block->heads*block->y_bytes);
	ssm_tile_tokens_write(block->first_token << 16 | block->tokens);
}

static uint32_t post(const struct run *run)
{
	const struct block *block = run->block;
	/* A region that is not used still needs a legal address: x stands in. */
	int      y_used          = block_writes_y(block);
	int      state_in_used   = block_reads_state(block);
	int      state_out_used  = block_writes_state(block);
	uint32_t y_bytes         = y_used         ? block->y_bytes    : 0;
	uint32_t state_in_bytes  = state_in_used  ? block->tile_bytes : 0;
	uint32_t state_out_bytes = state_out_used ? block->tile_bytes : 0;
	uint32_t x               = block->x;
	uint32_t bc              = block->bc;
	uint32_t y               = y_used         ? block->y          : x;
	uint32_t state_in        = state_in_used  ? block->state_in   : x;
	uint32_t state_out       = state_out_used ? block->state_out  : x;
	uint32_t seed            = block->seed;
	uint32_t heads           = block->heads;
	uint32_t group_heads     = block->group_heads;
	uint32_t room            = 0;
	uint32_t error;

	ssm_tile_bc_write(bc);
	for (;;) {
		while (!room) {
			room = ssm_queue_free();
			if (!room && (error = check(run)))
				return error;
		}
		room--;
		ssm_tile_x_write(x);
		ssm_tile_y_write(y);
		ssm_tile_state_in_write(state_in);
		ssm_tile_state_out_write(state_out);
		ssm_seed(seed);
		if (!--heads) {
			ssm_tile_push_write(block->flags | SSM_TILE_INTERRUPT);
			return ERROR_NONE;
		}
		ssm_tile_push_write(block->flags);
		x         += block->x_bytes;
		y         += y_bytes;
		state_in  += state_in_bytes;
		state_out += state_out_bytes;
		seed      += SEED_STRIDE;
		if (!--group_heads) {
			group_heads = block->group_heads;
			bc += block->bc_bytes;
			ssm_tile_bc_write(bc);
		}
	}
}

static uint32_t wait(const struct run *run, uint32_t tiles_done)
{
	uint32_t error, polls;

	do {
		for (polls = EVENT_POLLS; polls && !ssm_events; polls--);
		if (ssm_tiles_done_read() == tiles_done) {
			*run->detail = ssm_errors_read();
			return *run->detail ? ERROR_GATEWARE : ERROR_NONE;
		}
		error = check(run);
	} while (!error);
	return error;
}

uint32_t scheduler_run(const struct block *block, uint32_t timeout, uint32_t *detail, uint32_t *tiles)
{
	struct run run = {block, cycles_now(), timeout, detail};
	uint32_t   tiles_before;
	uint32_t   error;

	if (ssm_busy() && !ssm_reset()) {
		*detail = ssm_status_read();
		return ERROR_TIMEOUT;
	}
	ssm_events_clear();
	tiles_before = ssm_tiles_done_read();
	configure(block);
	error = post(&run);
	dram_acquire();
	if (!error)
		error = wait(&run, tiles_before + block->heads);
	if (error) {
		*tiles += ssm_tiles_done_read() - tiles_before;
		ssm_reset();
	} else {
		*tiles += block->heads;
	}
	return error;
}
