/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "batch.h"
#include "passes.h"
#include "request.h"

#ifdef PROGRAM_RUNS_MODELS

/* Of each session. */
struct text {
	uint32_t token; /* The last one. */
	uint32_t place; /* Its place. */
	uint32_t seed;
	uint32_t ended; /* It only keeps its place among the others: nothing is chosen. */
	struct draws draws;
};

_Static_assert(sizeof(struct text) == 4*TEXT_WORDS, "a text");

/* Checks ------------------------------------------------------------------------------------------ */

static uint64_t texts_bytes(const struct job_batch *job)
{
	return 4ull*(TEXT_WORDS*job->session_count + job->stop_tokens);
}

uint32_t COLD batch_check(struct task *task)
{
	const struct job_batch *job    = &task->job.batch;
	uint32_t               *detail = &task->detail;
	uint32_t error;

	*detail = job->session_count;
	if (!job->session_count || job->session_count > MAX_PASS_TOKENS)
		return ERROR_BAD_SESSIONS;
	*detail = job->tokens;
	if (!job->tokens || job->tokens > MAX_TOKENS)
		return ERROR_BAD_TOKENS;
	if ((error = passes_check_stops(job->stop_tokens, detail)))
		return error;
	if ((error = request_inside(job->model, HEADER_BYTES, DATA_BASE, DATA_SIZE, detail)))
		return error;
	return request_inside(job->texts, texts_bytes(job), DATA_BASE, DATA_SIZE, detail);
}

static uint32_t COLD check_regions(struct task *task)
{
	const struct job_batch *job    = &task->job.batch;
	uint32_t               *detail = &task->detail;
	struct range model, texts, sessions, output;
	uint32_t error;

	if ((error = request_range(&model, job->model, passes_image.image_bytes, detail)))
		return error;
	if ((error = request_range(&texts, job->texts, texts_bytes(job), detail)))
		return error;
	if ((error = request_range(&output, job->output, OUTPUT_HEAD_BYTES + 4ull*job->tokens*job->session_count, detail)))
		return error;
	if ((error = request_range(&sessions, job->sessions, job->session_count*image_session_bytes(&passes_image), detail)))
		return error;
	*detail = job->sessions;
	if (range_overlap(&sessions, &model) || range_overlap(&sessions, &texts))
		return ERROR_OVERLAP;
	*detail = job->output;
	if (range_overlap(&output, &model) || range_overlap(&output, &texts) || range_overlap(&output, &sessions))
		return ERROR_OVERLAP;
	return ERROR_NONE;
}

/* All that may be wrong; and takes the texts. */
static uint32_t COLD check_all(const struct passes *passes, struct text *texts)
{
	struct task            *task  = passes->task;
	const struct job_batch *job   = &task->job.batch;
	volatile uint32_t      *words = dram(job->texts);
	volatile uint32_t      *text;
	uint32_t error, i;

	if ((error = passes_check_image(passes)) || (error = passes_check_whole(passes)))
		return error;
	task->detail = job->session_count;
	if (job->session_count > passes_image.sessions)
		return ERROR_BAD_SESSIONS;
	if ((error = check_regions(task)))
		return error;
	for (i = 0; i < job->session_count; i++) {
		text     = words + TEXT_WORDS*i;
		texts[i] = (struct text){text[0], text[1], text[2], text[3], {text[4], text[5]}};
		if ((error = passes_check_token(passes, texts[i].token)) || (error = passes_check_draws(&texts[i].draws, &task->detail)))
			return error;
	}
	passes_take_stops(passes, words + TEXT_WORDS*job->session_count);
	return ERROR_NONE;
}

/* Job --------------------------------------------------------------------------------------------- */

/* The next token of each text that has not ended: an ERROR code. `stopped`: one of them ends its text. */
static uint32_t ROOMY choose_all(const struct passes *passes, struct text *texts, volatile uint32_t *tokens, int *stopped)
{
	uint32_t count = passes->task->job.batch.session_count;
	uint32_t error, i;

	for (i = 0; i < count; i++) {
		if (!texts[i].ended) {
			if ((error = passes_choose(passes, &texts[i].draws, i, texts[i].seed, ++texts[i].place, &texts[i].token)))
				return error;
			*stopped |= passes_is_stop(passes, texts[i].token);
		}
		tokens[i] = texts[i].token;
	}
	return ERROR_NONE;
}

static uint32_t ROOMY run_batch(struct passes *passes, struct text *texts)
{
	const struct job_batch *job    = &passes->task->job.batch;
	volatile struct output *output = (volatile struct output *)dram(job->output);
	volatile uint32_t      *tokens = dram(job->output + OUTPUT_HEAD_BYTES);
	uint32_t count, reason, i, error;
	int      stopped = 0;

	for (count = 1; ; count++) {
		for (i = 0; i < job->session_count; i++)
			program_name_token(i, texts[i].token);
		output->passes = count;
		if ((error = passes_layers(passes, PROGRAM_BATCH, job->session_count, 1)))
			return error;
		passes_keep(passes, PROGRAM_BATCH, job->session_count, 1);
		if ((error = passes_head(passes, PROGRAM_EACH, job->session_count)) || (error = choose_all(passes, texts, tokens, &stopped)))
			return error;
		tokens        += job->session_count;
		output->count  = count;
		reason         = stopped ? REASON_STOP : count == job->tokens ? REASON_LENGTH : passes_cancelled(passes) ? REASON_CANCELLED : REASON_NONE;
		output->reason = reason;
		if (reason != REASON_NONE) /* Not what is there now: the host may write it. */
			return ERROR_NONE;
	}
}

uint32_t COLD batch_begin(struct task *task)
{
	const struct job_batch *job    = &task->job.batch;
	volatile struct output *output = (volatile struct output *)dram(job->output);
	struct phase            decode = {0, 0};
	struct text   texts[MAX_PASS_TOKENS];
	struct passes passes;
	uint32_t error;

	passes_init(&passes, task, job->model, job->sessions, job->stop_tokens);
	passes.phase = &decode;
	if ((error = check_all(&passes, texts)) || (error = passes_begin(&passes, job->sessions)))
		return error;
	passes_clear(job->output, 1);
	error = run_batch(&passes, texts);
	passes_tell(&output->decode_cycles_low, PHASE_WORDS(decode_cycles_low, decode_wait_move_low)/2 + WAITS, &decode, 1);
	return passes_end(&passes, error);
}

#endif
