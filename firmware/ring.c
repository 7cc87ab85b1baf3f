/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <stddef.h>

#include "request.h"
#include "ring.h"

#define REQUEST_WORDS (offsetof(struct job, result_sequence)/4)

/* Times an engine is looked at for room, between two looks at how the job fares. An event calls for one at once. */
#define POSTS 64

/*
 * A job under way: while one runs, the next one is fetched and checked, and where its operation allows it, it is posted behind
 * the other one, so that the engine goes on without a break.
 */
struct entry {
	enum {EMPTY, FETCHED, RUNNING, ENDED} state;
	struct task task;
	uint64_t    rung_time; /* 0: while another job ran. */
	uint32_t    error;
};

static struct entry entries[2];

static uint32_t completed;     /* Jobs completed. */
static uint32_t rung;          /* The doorbell as last seen, */
static uint64_t rung_time;     /* and when it was written. */
static uint64_t finished_time; /* When the last job was completed. */

static volatile struct job *slot(uint32_t index)
{
	return (volatile struct job *)dram(DRAM_BASE + RING_OFFSET + index%RING_ENTRIES*JOB_BYTES);
}

static struct entry *entry(uint32_t index)
{
	return &entries[index%2];
}

/* Jobs rung for and not completed. A doorbell behind `completed` is a late copy of an earlier one. */
static uint32_t pending(void)
{
	uint32_t doorbell = mailbox_doorbell_read();

	if ((int32_t)(doorbell - completed) <= 0)
		return 0;
	if (doorbell != rung) {
		rung      = doorbell;
		rung_time = mailbox_doorbell_cycles_read();
	}
	return rung - completed;
}

/* Copies the request, and checks the copy: what is checked is what is run, whatever the host writes meanwhile. */
static void fetch(struct entry *entry, uint32_t index, uint64_t rung_time)
{
	volatile struct job *result = slot(index);
	volatile uint32_t   *source = (volatile uint32_t *)result;
	uint32_t            *words  = (uint32_t *)&entry->task.job;
	uint32_t i;

#pragma GCC unroll 17
	for (i = 0; i < REQUEST_WORDS; i++)
		words[i] = source[i];
	dram_acquire();
	result->status    = STATUS_RUNNING;
	entry->rung_time  = rung_time;
	entry->task.units = 0;
	entry->task.slot  = result;
	entry->error      = request_check(&entry->task);
	entry->state      = entry->error ? ENDED : FETCHED;
}

static void begin(struct entry *entry)
{
	entry->error = entry->task.operation->begin(&entry->task);
	entry->state = entry->error || !entry->task.operation->post ? ENDED : RUNNING;
}

/* Takes the next job, if there is one, while the core has enough to do. */
static void look_ahead(struct entry *next)
{
	uint32_t jobs;

	if (next->state == EMPTY) {
		jobs = pending();
		if (jobs > 1 && jobs <= RING_ENTRIES)
			fetch(next, completed + 1, 0);
	}
}

/* Keeps the next job's posts coming. Returns whether there are more that the engine had no room for. */
static int run_ahead(const struct entry *entry, struct entry *next)
{
	const struct operation *operation = entry->task.operation;

	if (next->state == FETCHED && next->task.operation == operation && operation->follow(&next->task, &entry->task))
		next->state = RUNNING;
	return next->state == RUNNING && operation->post(&next->task);
}

static void run(struct entry *entry, struct entry *next)
{
	const struct operation *operation = entry->task.operation;
	uint32_t posts = 0;
	int      done  = 0;
	int      more;

	while (!done && !entry->error) {
		more = operation->post(&entry->task);
		look_ahead(next);
		if (!more && !run_ahead(entry, next))
			engine_wait();
		else if (++posts % POSTS && !engine_events)
			continue;
		engine_events_clear();
		entry->error = operation->look(&entry->task, &done);
	}
	operation->end(&entry->task);
	entry->state = ENDED;
	if (entry->error) {
		operation->engine->reset();
		if (next->state == RUNNING) { /* Some of it may have been stored: to run it again would be wrong. */
			next->error       = ERROR_ABORTED;
			next->task.detail = entry->task.job.sequence;
			next->state       = ENDED;
		}
	}
}

/*
 * Cycles since the job could have started: since its doorbell, or since the end of the job before. Only the last
 * doorbell's time is known. That is enough: of jobs rung for at once all but the first, and of those rung for while
 * another ran all, start where the job before ended, which is later than their doorbell.
 */
static uint64_t cycles_taken(uint64_t rung_time)
{
	uint64_t start = rung_time > finished_time ? rung_time : finished_time;

	finished_time = cycles_now();
	return finished_time - start;
}

/* The results of a job; of one that was not begun, without an engine. */
static void answer(volatile struct job *result, uint64_t rung_time, uint32_t sequence, uint32_t error, uint32_t detail,
	uint32_t units, const struct engine *engine)
{
	struct counters counters;
	uint64_t        cycles;

	if (engine)
		engine->take(&counters);
	else
		counters = (struct counters){0, 0, 0};
	result->result_sequence    = sequence;
	result->error              = error;
	result->error_detail       = detail;
	result->busy_cycles_low    = counters.busy_cycles;
	result->busy_cycles_high   = counters.busy_cycles   >> 32;
	result->bytes_read_low     = counters.bytes_read;
	result->bytes_read_high    = counters.bytes_read    >> 32;
	result->bytes_written_low  = counters.bytes_written;
	result->bytes_written_high = counters.bytes_written >> 32;
	result->units              = units;
	cycles = cycles_taken(rung_time); /* Last, so that it holds all of the above. */
	result->cycles_low         = cycles;
	result->cycles_high        = cycles >> 32;
	result->status             = error ? STATUS_FAILED : STATUS_DONE;
}

static void __attribute__((noinline)) take(void) /* So that polling saves no registers. */
{
	struct entry *job  = entry(completed);
	struct entry *next = entry(completed + 1);

	if (job->state == EMPTY)
		fetch(job, completed, rung_time);
	if (job->state == FETCHED)
		begin(job);
	else if (job->state == RUNNING)
		job->task.operation->time(&job->task, finished_time);
	if (job->state == RUNNING)
		run(job, next);
	answer(slot(completed), job->rung_time, job->task.job.sequence, job->error, job->task.detail, job->task.units,
		job->task.operation ? job->task.operation->engine : 0);
	job->state = EMPTY;
	completed++;
}

/* The slots no longer tell which jobs they hold, so none is run. All are answered: no host waits for ever. */
static void COLD __attribute__((noinline)) overrun(void)
{
	uint32_t jobs = rung - completed;
	uint32_t i;

	for (i = 0; i < RING_ENTRIES; i++)
		answer(slot(i), rung_time, slot(i)->sequence, ERROR_RING_OVERRUN, jobs, 0, 0);
	dram_acquire();
	completed = rung;
}

void COLD ring_init(void)
{
	entries[0].state = EMPTY;
	entries[1].state = EMPTY;
	completed        = 0;
	rung             = 0;
	rung_time        = 0;
	finished_time    = cycles_now();
	mailbox_doorbell_write(0);
	mailbox_completed_write(0);
}

void ring_poll(void)
{
	int under_way = entry(completed)->state != EMPTY; /* Begun behind the job before. */

	if (!under_way && !pending())
		return;
	if (!under_way && rung - completed > RING_ENTRIES)
		overrun();
	else
		take();
	mailbox_completed_write(completed);
}
