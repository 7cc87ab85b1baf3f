/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "program.h"
#include "ssm.h"

#ifdef CSR_PROGRAM_BASE

#define COUNTER_MASK ((1ULL << PROGRAM_COUNTER_BITS) - 1)
#define EVENTS       (FIELD_SET(PROGRAM_EV_PENDING_DONE, 1) | FIELD_SET(PROGRAM_EV_PENDING_ERROR, 1))

/* As the engines count. */
struct counts {
	uint64_t cycles;
	uint64_t read_beats;
	uint64_t write_beats;
	uint64_t waits[WAITS];
};

static struct counts   taken SLOW;
static struct counters job SLOW; /* All that was counted for the job. */

static void COLD counts_read(struct counts *counts)
{
	program_counters_latch_write(1);
	counts->cycles             = program_counters_cycles_read();
	counts->read_beats         = program_counters_read_beats_read();
	counts->write_beats        = program_counters_write_beats_read();
	counts->waits[WAIT_MOVE]   = program_counters_wait_move_read();
	counts->waits[WAIT_GEMV]   = program_counters_wait_gemv_read();
	counts->waits[WAIT_VECTOR] = program_counters_wait_vector_read();
	counts->waits[WAIT_SSM]    = program_counters_wait_ssm_read();
	counts->waits[WAIT_HEAD]   = program_counters_wait_head_read();
	counts->waits[WAIT_TAPE]   = program_counters_tape_wait_read();
}

void COLD program_count(struct program_counts *counts)
{
	struct counters ssm = {0, 0, 0};
	struct counts   now;
	uint32_t i;

#ifdef CSR_SSM_BASE
	ssm_engine.take(&ssm);
#endif
	counts_read(&now);
	counts->cycles        = (now.cycles - taken.cycles) & COUNTER_MASK;
	counts->bytes_read    = ssm.bytes_read    + ((now.read_beats  - taken.read_beats)  & COUNTER_MASK)*PROGRAM_BEAT_BYTES;
	counts->bytes_written = ssm.bytes_written + ((now.write_beats - taken.write_beats) & COUNTER_MASK)*PROGRAM_BEAT_BYTES;
	for (i = 0; i < WAITS; i++)
		counts->waits[i] = (now.waits[i] - taken.waits[i]) & COUNTER_MASK;
	taken = now;
	job.busy_cycles   += counts->cycles;
	job.bytes_read    += counts->bytes_read;
	job.bytes_written += counts->bytes_written;
}

static void COLD program_take(struct counters *counters)
{
	struct program_counts counts;

	program_count(&counts);
	*counters = job;
	job       = (struct counters){0, 0, 0};
}

static void COLD program_init(void)
{
	program_reset();
	job = (struct counters){0, 0, 0};
	program_ev_enable_write(EVENTS);
}

int COLD program_reset(void)
{
	uint64_t start = cycles_now();
	int      idle  = 1, busy;

	program_control_write(FIELD_SET(PROGRAM_CONTROL_RESET, 1)); /* First: it pushes tiles into the SSM core. */
#ifdef CSR_SSM_BASE
	idle = ssm_reset();
#endif
	do {
		busy = program_busy();
	} while (busy && cycles_now() - start < TIMEOUT_RESET);
	program_ev_pending_write(EVENTS);
	engine_events_clear();
	counts_read(&taken);
	return idle && !busy;
}

void program_isr(void)
{
	uint32_t pending = program_ev_pending_read();

	program_ev_pending_write(pending);
	engine_events |= pending;
}

void program_begin(uint32_t image, const struct image_program *program, int zero_state, int store, uint32_t deferred)
{
	program_base_tape_write(image + program->tape_place);
	program_tape_beats_write(program->tape_beats);
	program_address_write(image + program->program);
	program_descriptors_write(program->descriptors);
	engine_events_clear();
	program_start_write(FIELD_SET(PROGRAM_START_ZERO_STATE, zero_state) | FIELD_SET(PROGRAM_START_NO_STORE, !store)
		| FIELD_SET(PROGRAM_START_DEFERRED, deferred));
}

uint32_t program_look(int *completed, uint32_t *detail)
{
	*detail = program_errors_read();
#ifdef CSR_SSM_BASE
	*detail |= ssm_errors_read() << 8;
#endif
	*completed = !program_busy();
	if (!*detail)
		return ERROR_NONE;
	*detail |= program_index_read() << 16;
	return ERROR_GATEWARE;
}

static void COLD program_describe(struct engine_info *info)
{
	info->kind                 = ENGINE_PROGRAM;
	info->program.version      = program_version_read();
	info->program.pass_tokens  = PROGRAM_PASS_TOKENS;
	info->program.vector_lanes = PROGRAM_VECTOR_LANES;
	info->program.scratch      = PROGRAM_SCRATCH;
	info->program.activations  = PROGRAM_ACTIVATIONS;
	info->program.units        = PROGRAM_UNITS;
}

const struct engine program_engine TABLE = {
	.interrupts = 1 << PROGRAM_INTERRUPT,
	.init       = program_init,
	.reset      = program_reset,
	.take       = program_take,
	.describe   = program_describe,
};

#endif
