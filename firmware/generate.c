/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <stddef.h>

#include "block.h"
#include "generate.h"
#include "image.h"
#include "request.h"
#include "sampling.h"

#ifdef PROGRAM_RUNS_MODELS

#define PHASE_WORDS(first, end) ((offsetof(struct output, end) - offsetof(struct output, first))/4)

_Static_assert(PHASE_WORDS(prefill_cycles_low, decode_cycles_low) == 2*3 && PHASE_WORDS(decode_cycles_low, decode_wait_move_low) == 2*3
	&& sizeof(struct output) - offsetof(struct output, decode_wait_move_low) == 8*WAITS && sizeof(struct output) <= OUTPUT_HEAD_BYTES,
	"the counts of a phase");

/* Passes of the prompt, or of the tokens after it. */
struct phase {
	uint64_t start; /* Of the first pass, 0: there was none, */
	uint64_t end;   /* and the end of the last one. */
};

struct generation {
	struct task  *task;
	uint64_t      deadline; /* Of the job. */
	struct phase *phase;
	uint32_t      units;      /* Tokens run, */
	uint32_t      deferred;   /* and of these the last ones, after which no state is stored yet. */
	uint32_t      zero_state; /* Of the next pass. */
};

/* Copies, which the host can't change. In DRAM: of a pass a few words of them are read. */
static struct image image SLOW;
static uint32_t     stops[MAX_STOP_TOKENS] SLOW;

/* Checks ------------------------------------------------------------------------------------------ */

static uint64_t prompt_bytes(const struct job_generate *job)
{
	return 4ull*(job->prompt_tokens + job->stop_tokens);
}

uint32_t COLD generate_check(struct task *task)
{
	const struct job_generate *job    = &task->job.generate;
	uint32_t                  *detail = &task->detail;
	uint32_t error;

	*detail = job->prompt_tokens;
	if (!job->prompt_tokens || job->prompt_tokens > MAX_PROMPT_TOKENS)
		return ERROR_BAD_TOKENS;
	*detail = job->tokens;
	if (job->tokens > MAX_TOKENS || (job->tokens && task->job.flags & JOB_LOGITS))
		return ERROR_BAD_TOKENS;
	*detail = job->top_k;
	if (!job->top_k || job->top_k > CANDIDATES)
		return ERROR_BAD_TOP_K;
	*detail = job->stop_tokens;
	if (job->stop_tokens > MAX_STOP_TOKENS)
		return ERROR_BAD_STOP_TOKENS;
	*detail = job->store_every;
	if (!job->store_every || job->store_every > MAX_DEFERRED + 1)
		return ERROR_BAD_STORE_EVERY;
	if ((error = request_inside(job->model, HEADER_BYTES, DATA_BASE, DATA_SIZE, detail)))
		return error;
	return request_inside(job->prompt, prompt_bytes(job), DATA_BASE, DATA_SIZE, detail);
}

static uint32_t COLD check_image(struct task *task)
{
	const struct job_generate *job    = &task->job.generate;
	volatile uint32_t         *source = dram(job->model);
	uint32_t                  *words  = (uint32_t *)&image;
	uint32_t i;

	for (i = 0; i < IMAGE_WORDS; i++)
		words[i] = source[i];
	task->detail = image_wrong_word(&image, DATA_BASE + DATA_SIZE - job->model);
	if (task->detail < IMAGE_WORDS)
		return ERROR_BAD_IMAGE;
	task->detail = job->store_every;
	return job->store_every > image.deferred + 1 ? ERROR_BAD_STORE_EVERY : ERROR_NONE;
}

/* Bytes of the logits of a pass. */
static uint32_t logits_bytes(uint32_t tokens)
{
	return (4*image.logit_rows*tokens + ALIGNMENT - 1) & -ALIGNMENT;
}

static uint64_t COLD output_bytes(const struct task *task)
{
	const struct job_generate *job = &task->job.generate;
	uint32_t rest = job->prompt_tokens%image.pass_tokens;

	if (!(task->job.flags & JOB_LOGITS))
		return OUTPUT_HEAD_BYTES + 4ull*job->tokens;
	return (uint64_t)(job->prompt_tokens/image.pass_tokens)*logits_bytes(image.pass_tokens) + (rest ? logits_bytes(rest) : 0);
}

static uint32_t COLD check_regions(struct task *task)
{
	const struct job_generate *job     = &task->job.generate;
	uint32_t                  *detail  = &task->detail;
	uint64_t                   session = image_session_bytes(&image);
	struct range model, prompt, in = {0, 0}, out, output;
	uint32_t error;

	if ((error = request_range(&model, job->model, image.image_bytes, detail)))
		return error;
	if (!(task->job.flags & JOB_ZERO_STATE) && (error = request_range(&in, job->session_in, session, detail)))
		return error;
	if ((error = request_range(&out, job->session_out, session, detail)))
		return error;
	if ((error = request_range(&prompt, job->prompt, prompt_bytes(job), detail)))
		return error;
	if ((error = request_range(&output, job->output, output_bytes(task), detail)))
		return error;
	*detail = job->session_out;
	if (range_overlap(&out, &model) || range_overlap(&out, &prompt))
		return ERROR_OVERLAP;
	if (range_overlap(&out, &in) && out.first != in.first)
		return ERROR_OVERLAP;
	*detail = job->output;
	if (range_overlap(&output, &model) || range_overlap(&output, &prompt) || range_overlap(&output, &in) || range_overlap(&output, &out))
		return ERROR_OVERLAP;
	return ERROR_NONE;
}

static uint32_t check_token(struct task *task, uint32_t token)
{
	if (token < image.vocabulary)
		return ERROR_NONE;
	task->detail = token;
	return ERROR_BAD_TOKEN;
}

/* All tokens, so that a wrong one changes nothing; copies those that end the text. */
static uint32_t COLD check_prompt(struct task *task)
{
	const struct job_generate *job   = &task->job.generate;
	volatile uint32_t         *words = dram(job->prompt);
	uint32_t error, i;

	for (i = 0; i < job->prompt_tokens; i++)
		if ((error = check_token(task, words[i])))
			return error;
	for (i = 0; i < job->stop_tokens; i++)
		stops[i] = words[job->prompt_tokens + i];
	return ERROR_NONE;
}

/* Passes ------------------------------------------------------------------------------------------ */

/* Runs the program of a kind for so many tokens; `store`, `deferred`: as program_begin has it. */
static uint32_t HOT run(struct generation *generation, uint32_t kind, uint32_t tokens, int store, uint32_t deferred)
{
	struct task                *task    = generation->task;
	const struct image_program *program = image_program(&image, kind, tokens);
	uint64_t now = cycles_now();
	uint64_t deadline;
	uint32_t error;
	int      completed;

	if (!generation->phase->start)
		generation->phase->start = now;
	program_begin(task->job.generate.model, program, generation->zero_state, store, deferred);
	deadline = now + image_timeout(&image, program, deferred + tokens);
	do {
		engine_wait();
		engine_events_clear();
		error = program_look(&completed, &task->detail);
		now   = cycles_now();
		generation->phase->end = now;
		if (error)
			return error;
		if (now >= generation->deadline || (!completed && (now >= deadline || reboot_requested()))) {
			task->detail = program_index_read();
			return ERROR_TIMEOUT;
		}
	} while (!completed);
	return ERROR_NONE;
}

/* All tokens that were run are in the state that is stored; the next pass begins with it. */
static void HOT stored(struct generation *generation)
{
	generation->deferred   = 0;
	generation->zero_state = 0;
	program_base_state_in_write(generation->task->job.generate.session_out);
}

/* The layers of a pass whose tokens are named, from `place` in the text on; `last`: no other can follow. */
static uint32_t HOT run_layers(struct generation *generation, uint32_t place, uint32_t tokens, int last)
{
	const struct job_generate *job = &generation->task->job.generate;
	uint32_t deferred = generation->deferred;
	uint32_t records  = job->model + image.records;
	int      store    = last || deferred + tokens >= job->store_every;
	uint32_t error;

	program_seed_write(job->seed + place - deferred);
	program_base_x_records_write(records + deferred*image.x_stride);
	program_base_bc_records_write(records + deferred*image.bc_stride);
	error = run(generation, PROGRAM_LAYERS, tokens, store, deferred);
	if (error)
		return error;
	generation->deferred += tokens;
	if (store)
		stored(generation);
	if (!generation->units) /* The first one. */
		program_base_window_in_write(job->session_out + image.state_bytes);
	generation->units += tokens;
	return ERROR_NONE;
}

/* The state after all tokens, where some are deferred, at the end of a text: `place` is that of the next one. */
static uint32_t COLD store_state(struct generation *generation, uint32_t place)
{
	uint32_t deferred = generation->deferred;

	if (!deferred)
		return ERROR_NONE;
	program_seed_write(generation->task->job.generate.seed + place - deferred);
	return run(generation, PROGRAM_STATE, 1, 1, deferred - 1);
}

static void COLD set_registers(struct generation *generation)
{
	const struct job_generate *job = &generation->task->job.generate;
	uint32_t zero = generation->zero_state;

	program_base_embedding_write(job->model + image.embedding);
	program_base_parameters_write(job->model + image.parameters);
	program_base_records_write(job->model + image.records);
	program_base_results_write(job->model + image.results);
	/* A state of zeros is not read, but its address is still a legal one. */
	program_base_state_in_write(zero ? job->session_out : job->session_in);
	program_base_window_in_write(zero ? job->model + image.zero_window : job->session_in + image.state_bytes);
	program_base_state_out_write(job->session_out);
	program_base_window_out_write(job->session_out + image.state_bytes);
}

static uint32_t ROOMY run_prompt(struct generation *generation)
{
	struct task               *task   = generation->task;
	const struct job_generate *job    = &task->job.generate;
	volatile uint32_t         *prompt = dram(job->prompt);
	uint32_t logits = job->output;
	uint32_t at = 0;
	uint32_t tokens, token, i, error;

	do {
		tokens = job->prompt_tokens - at < image.pass_tokens ? job->prompt_tokens - at : image.pass_tokens;
		for (i = 0; i < tokens; i++) {
			token = prompt[at + i]; /* Once: it may no longer be what was checked. */
			if ((error = check_token(task, token)))
				return error;
			program_name_token(i, token);
		}
		if ((error = run_layers(generation, job->place + at, tokens, at + tokens == job->prompt_tokens && job->tokens <= 1)))
			return error;
		if (task->job.flags & JOB_LOGITS) {
			program_base_results_write(logits);
			if ((error = run(generation, PROGRAM_LOGITS, tokens, 0, 0)))
				return error;
			logits += logits_bytes(tokens);
		}
		at += tokens;
	} while (at < job->prompt_tokens);
	return job->tokens ? run(generation, PROGRAM_HEAD, tokens, 0, 0) : ERROR_NONE;
}

/* The token that follows, from what HEAD has written. */
static uint32_t ROOMY choose(struct task *task, uint32_t place, uint32_t *token)
{
	const struct job_generate       *job        = &task->job.generate;
	const volatile struct candidate *candidates = (const volatile struct candidate *)dram(job->model + image.results);
	uint32_t count = job->top_k < image.vocabulary ? job->top_k : image.vocabulary;

	dram_acquire();
	task->detail = candidates->logit;
	if (!sampling_finite(task->detail))
		return ERROR_BAD_LOGITS;
	*token = candidates[sampling_choose(candidates, count, job->inverse, job->seed, place)].token;
	return check_token(task, *token);
}

static int is_stop(const struct job_generate *job, uint32_t token)
{
	uint32_t i;

	for (i = 0; i < job->stop_tokens; i++)
		if (stops[i] == token)
			return 1;
	return 0;
}

/* Tokens from the candidates after the prompt on. */
static uint32_t HOT run_tokens(struct generation *generation)
{
	struct task               *task   = generation->task;
	const struct job_generate *job    = &task->job.generate;
	volatile struct output    *output = (volatile struct output *)dram(job->output);
	volatile uint32_t         *tokens = dram(job->output + OUTPUT_HEAD_BYTES);
	uint32_t place = job->place + job->prompt_tokens; /* Of the next token. */
	uint32_t count = 0;
	uint32_t token, error;

	for (;;) {
		if ((error = choose(task, place, &token)))
			return error;
		if (is_stop(job, token)) {
			output->reason = REASON_STOP;
			return store_state(generation, place);
		}
		program_name_token(0, token);
		tokens[count++] = token;
		output->count   = count;
		if (count == job->tokens) {
			output->reason = REASON_LENGTH;
			return ERROR_NONE;
		}
		if (task->slot->cancel == ~task->job.sequence) {
			output->reason = REASON_CANCELLED;
			return store_state(generation, place);
		}
		if ((error = run_layers(generation, place++, 1, count + 1 == job->tokens)))
			return error;
		if ((error = run(generation, PROGRAM_HEAD, 1, 0, 0)))
			return error;
	}
}

/* Job --------------------------------------------------------------------------------------------- */

/* Writes the counts since the last call as those of a phase: so many of them, the first one its cycles. */
static void COLD tell(volatile uint32_t *words, uint32_t count, const struct phase *phase, int written)
{
	struct program_counts counts;
	const uint64_t       *values = (const uint64_t *)&counts;
	uint32_t i;

	program_count(&counts);
	counts.cycles = phase->end - phase->start;
	for (i = 0; i < count && written; i++) {
		words[2*i]     = values[i];
		words[2*i + 1] = values[i] >> 32;
	}
}

static uint32_t COLD generate(struct generation *generation)
{
	struct task               *task    = generation->task;
	const struct job_generate *job     = &task->job.generate;
	volatile struct output    *output  = (volatile struct output *)dram(job->output);
	int                        written = !(task->job.flags & JOB_LOGITS);
	struct phase prefill = {0, 0}, decode = {0, 0};
	uint32_t error, i;

	for (i = 0; i < sizeof(*output)/4 && written; i++)
		dram(job->output)[i] = 0;
	set_registers(generation);
	generation->phase = &prefill;
	error = run_prompt(generation);
	tell(&output->prefill_cycles_low, PHASE_WORDS(prefill_cycles_low, decode_cycles_low)/2, &prefill, written);
	if (error || !job->tokens)
		return error;
	generation->phase = &decode;
	error = run_tokens(generation);
	tell(&output->decode_cycles_low, PHASE_WORDS(decode_cycles_low, decode_wait_move_low)/2 + WAITS, &decode, written);
	return error;
}

uint32_t COLD generate_begin(struct task *task)
{
	struct generation generation = {task, UINT64_MAX, 0, 0, 0, task->job.flags & JOB_ZERO_STATE};
	uint32_t error;

	if (task->job.timeout)
		generation.deadline = cycles_now() + task->job.timeout;
	dram_acquire();
	if ((error = check_image(task)) || (error = check_regions(task)) || (error = check_prompt(task)))
		return error;
	if (program_busy() && !program_reset()) {
		task->detail = program_index_read();
		return ERROR_TIMEOUT;
	}
	error = generate(&generation);
	task->units = generation.units;
	if (error)
		program_reset();
	else
		task->detail = 0;
	return error;
}

#endif
