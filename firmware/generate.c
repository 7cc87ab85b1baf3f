/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "drafts.h"
#include "generate.h"
#include "passes.h"
#include "request.h"

#ifdef PROGRAM_RUNS_MODELS

/* Checks ------------------------------------------------------------------------------------------ */

static uint64_t prompt_bytes(const struct job_generate *job)
{
	return 4ull*(job->prompt_tokens + job->stop_tokens);
}

static struct draws draws_of(const struct job_generate *job)
{
	return (struct draws){job->inverse, job->top};
}

uint32_t COLD generate_check(struct task *task)
{
	const struct job_generate *job    = &task->job.generate;
	struct draws               draws  = draws_of(job);
	uint32_t                  *detail = &task->detail;
	uint32_t error;

	*detail = job->prompt_tokens;
	if (!job->prompt_tokens || job->prompt_tokens > MAX_PROMPT_TOKENS)
		return ERROR_BAD_TOKENS;
	*detail = job->tokens;
	if (job->tokens > MAX_TOKENS || (job->tokens && task->job.flags & JOB_LOGITS))
		return ERROR_BAD_TOKENS;
	if ((error = passes_check_stops(job->stop_tokens, detail)) || (error = passes_check_draws(&draws, detail)))
		return error;
	*detail = job->store_every;
	if (!job->store_every || job->store_every > MAX_DEFERRED + 1)
		return ERROR_BAD_STORE_EVERY;
	if ((error = request_inside(job->model, HEADER_BYTES, DATA_BASE, DATA_SIZE, detail)))
		return error;
	return request_inside(job->prompt, prompt_bytes(job), DATA_BASE, DATA_SIZE, detail);
}

/* Bytes of the logits of a pass. */
static uint32_t logits_bytes(uint32_t tokens)
{
	return (4*passes_image.logit_rows*tokens + ALIGNMENT - 1) & -ALIGNMENT;
}

static uint64_t COLD output_bytes(const struct task *task)
{
	const struct job_generate *job = &task->job.generate;
	uint32_t rest = job->prompt_tokens%passes_image.pass_tokens;

	if (!(task->job.flags & JOB_LOGITS))
		return OUTPUT_HEAD_BYTES + 4ull*job->tokens;
	return (uint64_t)(job->prompt_tokens/passes_image.pass_tokens)*logits_bytes(passes_image.pass_tokens) + (rest ? logits_bytes(rest) : 0);
}

static uint32_t COLD check_regions(struct task *task)
{
	const struct job_generate *job     = &task->job.generate;
	const struct job_regions   regions = {
		.session_in   = job->session_in,
		.session_out  = job->session_out,
		.input        = job->prompt,
		.input_bytes  = prompt_bytes(job),
		.output       = job->output,
		.output_bytes = output_bytes(task),
	};

	return passes_check_regions(task, job->model, &regions);
}

/* The image, all regions, and all tokens, so that a wrong one changes nothing. */
static uint32_t COLD check_all(const struct passes *passes)
{
	struct task               *task  = passes->task;
	const struct job_generate *job   = &task->job.generate;
	volatile uint32_t         *words = dram(job->prompt);
	uint32_t error, i;

	if ((error = passes_check_image(passes)) || (error = passes_check_whole(passes)))
		return error;
	task->detail = job->store_every;
	if (job->store_every > passes_image.deferred + 1)
		return ERROR_BAD_STORE_EVERY;
	if ((error = check_regions(task)))
		return error;
	for (i = 0; i < job->prompt_tokens; i++)
		if ((error = passes_check_token(passes, words[i])))
			return error;
	passes_take_stops(passes, words + job->prompt_tokens);
	return ERROR_NONE;
}

/* Prompt ------------------------------------------------------------------------------------------ */

static inline int speculates(const struct passes *passes)
{
	return (passes->task->job.flags & JOB_SPECULATE) != 0;
}

static inline int stores(const struct passes *passes, uint32_t tokens)
{
	return passes->deferred + tokens >= passes->task->job.generate.store_every;
}

/* The layers of a pass without drafts; `last`: no other can follow. */
static uint32_t HOT run_layers(struct passes *passes, uint32_t tokens, int last)
{
	int      store = last || stores(passes, tokens);
	uint32_t error = passes_layers(passes, PROGRAM_LAYERS, tokens, store);

	if (!error)
		passes_keep(passes, PROGRAM_LAYERS, tokens, store);
	return error;
}

static uint32_t ROOMY run_prompt(struct passes *passes)
{
	struct task               *task   = passes->task;
	const struct job_generate *job    = &task->job.generate;
	volatile uint32_t         *prompt = dram(job->prompt);
	uint32_t logits = job->output;
	uint32_t at = 0;
	uint32_t tokens, token, i, error;

	if (speculates(passes))
		drafts_begin(job->place, task->job.flags & JOB_ZERO_STATE);
	do {
		tokens = job->prompt_tokens - at < passes_image.pass_tokens ? job->prompt_tokens - at : passes_image.pass_tokens;
		for (i = 0; i < tokens; i++) {
			token = prompt[at + i]; /* Once: it may no longer be what was checked. */
			if ((error = passes_check_token(passes, token)))
				return error;
			program_name_token(i, token);
			if (speculates(passes))
				drafts_add(token);
		}
		if ((error = run_layers(passes, tokens, at + tokens == job->prompt_tokens && job->tokens <= 1)))
			return error;
		if (task->job.flags & JOB_LOGITS) {
			program_base_results_write(logits);
			if ((error = passes_head(passes, PROGRAM_LOGITS, tokens)))
				return error;
			logits += logits_bytes(tokens);
		}
		at += tokens;
	} while (at < job->prompt_tokens);
	return job->tokens ? passes_head(passes, PROGRAM_HEAD, tokens) : ERROR_NONE;
}

/* Tokens ------------------------------------------------------------------------------------------ */

/* Takes a token that was chosen as the next one of the text, of which there are so many. Returns the REASON why it is the last one. */
static uint32_t HOT take(const struct passes *passes, uint32_t token, uint32_t *count)
{
	const struct job_generate *job    = &passes->task->job.generate;
	volatile struct output    *output = (volatile struct output *)dram(job->output);

	if (passes_is_stop(passes, token))
		return REASON_STOP;
	if (speculates(passes))
		drafts_add(token);
	dram(job->output + OUTPUT_HEAD_BYTES)[(*count)++] = token;
	output->count = *count;
	if (*count == job->tokens)
		return REASON_LENGTH;
	return passes_cancelled(passes) ? REASON_CANCELLED : REASON_NONE;
}

/* Drafts of the tokens behind the last one, up to so many: none that is not of this model. */
static uint32_t ROOMY find_drafts(uint32_t *drafts, uint32_t count)
{
	uint32_t found = drafts_find(drafts, count), i;

	for (i = 0; i < found && drafts[i] < passes_image.vocabulary; i++)
		;
	return i;
}

/* The pass of a token, and of drafts behind it, after which so many tokens may still come. */
static uint32_t HOT run_token(struct passes *passes, uint32_t token, const uint32_t *drafts, uint32_t drafted, uint32_t left)
{
	uint32_t error, i;

	program_name_token(0, token);
	for (i = 0; i < drafted; i++)
		program_name_token(i + 1, drafts[i]);
	if (drafted)
		error = passes_layers(passes, PROGRAM_DRAFTS, drafted + 1, 0);
	else
		error = run_layers(passes, 1, left == 1);
	return error ? error : passes_head(passes, drafted ? PROGRAM_EACH : PROGRAM_HEAD, drafted + 1);
}

/* Of a pass with drafts, those whose token came: so many stay, with the token that they follow. */
static uint32_t ROOMY keep_drafts(struct passes *passes, uint32_t right)
{
	passes_keep(passes, PROGRAM_DRAFTS, right + 1, 0);
	return stores(passes, 0) ? passes_store(passes) : ERROR_NONE;
}

/* Tokens from the candidates after the prompt on. */
static uint32_t HOT run_tokens(struct passes *passes)
{
	struct task               *task   = passes->task;
	const struct job_generate *job    = &task->job.generate;
	volatile struct output    *output = (volatile struct output *)dram(job->output);
	struct draws draws = draws_of(job);
	uint32_t drafts[MAX_PASS_TOKENS];
	uint32_t drafted = 0, count = 0, runs = 0, all_drafted = 0;
	uint32_t right, place, left, token, reason, error;

	for (;;) {
		place = passes->place + (drafted != 0); /* Of the next token: a pass with drafts is not kept yet. */
		for (right = 0; ; right++) {
			if ((error = passes_choose(passes, &draws, right, job->seed, place + right, &token)))
				return error;
			reason = take(passes, token, &count);
			if (reason != REASON_NONE || right == drafted || token != drafts[right])
				break;
		}
		if (drafted && (error = keep_drafts(passes, right)))
			return error;
		if (reason != REASON_NONE) {
			output->passes  = runs;
			output->drafted = all_drafted;
			output->reason  = reason;
			return passes_store(passes);
		}
		left    = job->tokens - count;
		drafted = 0;
		if (speculates(passes))
			drafted = find_drafts(drafts, (left < passes_image.pass_tokens ? left : passes_image.pass_tokens) - 1);
		all_drafted += drafted;
		runs++;
		if ((error = run_token(passes, token, drafts, drafted, left)))
			return error;
	}
}

/* Job --------------------------------------------------------------------------------------------- */

static uint32_t COLD generate(struct passes *passes)
{
	struct task               *task    = passes->task;
	const struct job_generate *job     = &task->job.generate;
	volatile struct output    *output  = (volatile struct output *)dram(job->output);
	int                        written = !(task->job.flags & JOB_LOGITS);
	struct phase prefill = {0, 0}, decode = {0, 0};
	uint32_t error;

	passes_clear(job->output, written);
	passes->phase = &prefill;
	error = run_prompt(passes);
	passes_tell(&output->prefill_cycles_low, PHASE_WORDS(prefill_cycles_low, decode_cycles_low)/2, &prefill, written);
	if (error || !job->tokens)
		return error;
	passes->phase = &decode;
	error = run_tokens(passes);
	passes_tell(&output->decode_cycles_low, PHASE_WORDS(decode_cycles_low, decode_wait_move_low)/2 + WAITS, &decode, written);
	return error;
}

uint32_t COLD generate_begin(struct task *task)
{
	const struct job_generate *job   = &task->job.generate;
	struct passes passes;
	uint32_t error;

	passes_init(&passes, task, job->model, job->session_out, job->stop_tokens);
	passes.seed       = job->seed;
	passes.place      = job->place;
	passes.zero_state = task->job.flags & JOB_ZERO_STATE;
	if ((error = check_all(&passes)) || (error = passes_begin(&passes, job->session_in)))
		return error;
	return passes_end(&passes, generate(&passes));
}

#endif
