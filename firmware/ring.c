/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <stddef.h>

#include "platform.h"
#include "request.h"
#include "ring.h"
#include "scheduler.h"
#include "selftest.h"
#include "ssm.h"

#define REQUEST_WORDS (offsetof(struct job, result_sequence)/4)

static uint32_t completed;     /* Jobs completed. */
static uint32_t rung;          /* The doorbell as last seen, */
static uint64_t rung_time;     /* and when it was written. */
static uint64_t finished_time; /* When the last job was completed. */

static volatile struct job *slot(uint32_t index)
{
	return (volatile struct job *)dram(DRAM_BASE + RING_OFFSET + index%RING_ENTRIES*JOB_BYTES);
}

/* Copies the request: what is checked is what is run, whatever the host writes meanwhile. */
static void fetch(uint32_t index, struct job *job)
{
	volatile uint32_t *source = (volatile uint32_t *)slot(index);
	uint32_t          *words  = (uint32_t *)job;
	uint32_t i;

#pragma GCC unroll 16
	for (i = 0; i < REQUEST_WORDS; i++)
		words[i] = source[i];
}

static uint32_t run(const struct job *job, uint32_t *detail, uint32_t *tiles)
{
	struct block block;
	uint32_t     error = request_check(job, &block, detail);

	if (!error && job->opcode == OPCODE_SSM)
		return scheduler_run(&block, job->timeout, detail, tiles); /* Empties the cache meanwhile. */
	dram_acquire();
	if (!error && job->opcode == OPCODE_SELFTEST)
		return selftest_run(job->timeout, detail, tiles);
	return error;
}

/*
 * Cycles since the job could have started: since its doorbell, or since the end of the job before. Only the last
 * doorbell's time is known. That is enough: of jobs rung for at once all but the first, and of those rung for while
 * another ran all, start where the job before ended, which is later than their doorbell.
 */
static uint64_t cycles_taken(void)
{
	uint64_t start = rung_time > finished_time ? rung_time : finished_time;

	finished_time = cycles_now();
	return finished_time - start;
}

static void answer(volatile struct job *result, uint32_t sequence, uint32_t error, uint32_t detail, uint32_t tiles)
{
	struct ssm_counters counters;
	uint64_t            cycles;

	ssm_counters_take(&counters);
	result->result_sequence  = sequence;
	result->error            = error;
	result->error_detail     = detail;
	result->lane_busy_low    = counters.lane_busy;
	result->lane_busy_high   = counters.lane_busy   >> 32;
	result->read_beats_low   = counters.read_beats;
	result->read_beats_high  = counters.read_beats  >> 32;
	result->write_beats_low  = counters.write_beats;
	result->write_beats_high = counters.write_beats >> 32;
	result->tiles            = tiles;
	cycles = cycles_taken(); /* Last, so that it holds all of the above. */
	result->cycles_low       = cycles;
	result->cycles_high      = cycles >> 32;
	result->status           = error ? STATUS_FAILED : STATUS_DONE;
}

static void __attribute__((noinline)) take(void) /* So that polling saves no registers. */
{
	volatile struct job *result = slot(completed);
	struct job           job;
	uint32_t             detail = 0;
	uint32_t             tiles  = 0;
	uint32_t             error;

	fetch(completed, &job);
	result->status = STATUS_RUNNING;
	error = run(&job, &detail, &tiles);
	answer(result, job.sequence, error, detail, tiles);
	completed++;
}

/* The slots no longer tell which jobs they hold, so none is run. All are answered: no host waits for ever. */
static void COLD overrun(void)
{
	uint32_t jobs = rung - completed;
	uint32_t i;

	for (i = 0; i < RING_ENTRIES; i++)
		answer(slot(i), slot(i)->sequence, ERROR_RING_OVERRUN, jobs, 0);
	dram_acquire();
	completed = rung;
}

void COLD ring_init(void)
{
	completed     = 0;
	rung          = 0;
	rung_time     = 0;
	finished_time = cycles_now();
	mailbox_doorbell_write(0);
	mailbox_completed_write(0);
}

void ring_poll(void)
{
	uint32_t doorbell = mailbox_doorbell_read();

	if ((int32_t)(doorbell - completed) <= 0) /* Behind: a late copy of an earlier doorbell. */
		return;
	if (doorbell != rung) {
		rung      = doorbell;
		rung_time = mailbox_doorbell_cycles_read();
	}
	if (rung - completed > RING_ENTRIES)
		overrun();
	else
		take();
	mailbox_completed_write(completed);
}
