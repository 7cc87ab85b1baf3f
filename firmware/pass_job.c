/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "pass_job.h"
#include "passes.h"
#include "request.h"

#ifdef PROGRAM_RUNS_MODELS

#define CANDIDATES_BYTES (8*CANDIDATES)

/* Checks ------------------------------------------------------------------------------------------ */

uint32_t COLD pass_job_check(struct task *task)
{
	const struct job_pass *job = &task->job.pass;

	task->detail = job->tokens;
	if (!job->tokens || job->tokens > MAX_PASS_TOKENS)
		return ERROR_BAD_TOKENS;
	return request_inside(job->model, HEADER_BYTES, DATA_BASE, DATA_SIZE, &task->detail);
}

static inline int has_embedding(void)
{
	return !(passes_image.stage & STAGE_NO_EMBEDDING);
}

static inline int has_head(void)
{
	return !(passes_image.stage & STAGE_NO_HEAD);
}

static uint32_t COLD check_regions(struct task *task)
{
	const struct job_pass   *job       = &task->job.pass;
	uint64_t                 residuals = (uint64_t)job->tokens*passes_image.residual_bytes;
	const struct job_regions regions   = {
		.session_in   = job->session_in,
		.session_out  = job->session_out,
		.input        = job->input,
		.input_bytes  = has_embedding() ? 4*job->tokens : residuals,
		.output       = job->output,
		.output_bytes = !has_head() ? residuals : task->job.flags & JOB_CANDIDATES ? CANDIDATES_BYTES : 0,
	};

	return passes_check_regions(task, job->model, &regions);
}

/* All that may be wrong; and takes the tokens. */
static uint32_t COLD check_all(const struct passes *passes, uint32_t *tokens)
{
	struct task           *task  = passes->task;
	const struct job_pass *job   = &task->job.pass;
	volatile uint32_t     *words = dram(job->input);
	uint32_t error, i;

	if ((error = passes_check_image(passes)))
		return error;
	task->detail = passes_image.stage;
	if (task->job.flags & JOB_CANDIDATES && !has_head())
		return ERROR_BAD_STAGE;
	task->detail = job->tokens;
	if (job->tokens > passes_image.pass_tokens)
		return ERROR_BAD_TOKENS;
	if ((error = check_regions(task)))
		return error;
	for (i = 0; i < job->tokens && has_embedding(); i++) {
		tokens[i] = words[i];
		if ((error = passes_check_token(passes, tokens[i])))
			return error;
	}
	return ERROR_NONE;
}

/* Job --------------------------------------------------------------------------------------------- */

static uint32_t COLD run_pass(struct passes *passes, const uint32_t *tokens)
{
	const struct job_pass *job = &passes->task->job.pass;
	uint32_t error, i;

	for (i = 0; i < job->tokens && has_embedding(); i++)
		program_name_token(i, tokens[i]);
	if (!has_embedding())
		program_base_embedding_write(job->input);
	program_base_results_write(job->output);
	if ((error = passes_layers(passes, PROGRAM_LAYERS, job->tokens, 1)))
		return error;
	passes_keep(passes, PROGRAM_LAYERS, job->tokens, 1);
	return passes->task->job.flags & JOB_CANDIDATES ? passes_head(passes, PROGRAM_HEAD, job->tokens) : ERROR_NONE;
}

uint32_t COLD pass_job_begin(struct task *task)
{
	const struct job_pass *job   = &task->job.pass;
	struct phase           phase = {0, 0};
	uint32_t tokens[MAX_PASS_TOKENS];
	struct passes passes;
	uint32_t error;

	passes_init(&passes, task, job->model, job->session_out, 0);
	passes.phase      = &phase;
	passes.seed       = job->seed;
	passes.place      = job->place;
	passes.zero_state = task->job.flags & JOB_ZERO_STATE;
	if ((error = check_all(&passes, tokens)) || (error = passes_begin(&passes, job->session_in)))
		return error;
	return passes_end(&passes, run_pass(&passes, tokens));
}

#endif
