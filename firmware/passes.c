/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "passes.h"
#include "request.h"
#include "sampling.h"

#ifdef PROGRAM_RUNS_MODELS

_Static_assert(PHASE_WORDS(prefill_cycles_low, decode_cycles_low) == 2*3 && PHASE_WORDS(decode_cycles_low, decode_wait_move_low) == 2*3
	&& sizeof(struct output) - offsetof(struct output, decode_wait_move_low) == 8*WAITS && sizeof(struct output) <= OUTPUT_HEAD_BYTES,
	"the counts of a phase");

/* In DRAM: of a pass a few words of them are read. */
struct image passes_image SLOW;
static uint32_t stops[MAX_STOP_TOKENS] SLOW;

/* Checks ------------------------------------------------------------------------------------------ */

void COLD passes_init(struct passes *passes, struct task *task, uint32_t model, uint32_t session, uint32_t stop_tokens)
{
	*passes = (struct passes){.task = task, .model = model, .session = session, .stop_tokens = stop_tokens, .deadline = UINT64_MAX};
	if (task->job.timeout)
		passes->deadline = cycles_now() + task->job.timeout;
	dram_acquire();
}

uint32_t COLD passes_check_draws(const struct draws *draws, uint32_t *detail)
{
	uint32_t top_k = draws->top & 0xffff;

	*detail = draws->top;
	return !top_k || top_k > CANDIDATES ? ERROR_BAD_TOP_K : ERROR_NONE;
}

uint32_t COLD passes_check_stops(uint32_t stop_tokens, uint32_t *detail)
{
	*detail = stop_tokens;
	return stop_tokens > MAX_STOP_TOKENS ? ERROR_BAD_STOP_TOKENS : ERROR_NONE;
}

uint32_t COLD passes_check_image(const struct passes *passes)
{
	volatile uint32_t *source = dram(passes->model);
	uint32_t          *words  = (uint32_t *)&passes_image;
	uint32_t i;

	for (i = 0; i < IMAGE_WORDS; i++)
		words[i] = source[i];
	passes->task->detail = image_wrong_word(&passes_image, DATA_BASE + DATA_SIZE - passes->model);
	return passes->task->detail < IMAGE_WORDS ? ERROR_BAD_IMAGE : ERROR_NONE;
}

uint32_t COLD passes_check_whole(const struct passes *passes)
{
	passes->task->detail = passes_image.stage;
	return passes_image.stage ? ERROR_BAD_STAGE : ERROR_NONE;
}

uint32_t COLD passes_check_regions(struct task *task, uint32_t image, const struct job_regions *regions)
{
	uint32_t *detail  = &task->detail;
	uint64_t  session = image_session_bytes(&passes_image);
	struct range model, input, in = {0, 0}, out, output;
	uint32_t error;

	if ((error = request_range(&model, image, passes_image.image_bytes, detail)))
		return error;
	if (!(task->job.flags & JOB_ZERO_STATE) && (error = request_range(&in, regions->session_in, session, detail)))
		return error;
	if ((error = request_range(&out, regions->session_out, session, detail)))
		return error;
	if ((error = request_range(&input, regions->input, regions->input_bytes, detail)))
		return error;
	if ((error = request_range(&output, regions->output, regions->output_bytes, detail)))
		return error;
	*detail = regions->session_out;
	if (range_overlap(&out, &model) || range_overlap(&out, &input))
		return ERROR_OVERLAP;
	if (range_overlap(&out, &in) && out.first != in.first)
		return ERROR_OVERLAP;
	*detail = regions->output;
	if (range_overlap(&output, &model) || range_overlap(&output, &input) || range_overlap(&output, &in) || range_overlap(&output, &out))
		return ERROR_OVERLAP;
	return ERROR_NONE;
}

uint32_t passes_check_token(const struct passes *passes, uint32_t token)
{
	if (token < passes_image.vocabulary)
		return ERROR_NONE;
	passes->task->detail = token;
	return ERROR_BAD_TOKEN;
}

void COLD passes_take_stops(const struct passes *passes, const volatile uint32_t *tokens)
{
	uint32_t i;

	for (i = 0; i < passes->stop_tokens; i++)
		stops[i] = tokens[i];
}

/* Passes ------------------------------------------------------------------------------------------ */

uint32_t COLD passes_begin(const struct passes *passes, uint32_t session_in)
{
	uint32_t zero = passes->zero_state;

	if (program_busy() && !program_reset()) {
		passes->task->detail = program_index_read();
		return ERROR_TIMEOUT;
	}
	program_base_embedding_write(passes->model + passes_image.embedding);
	program_base_parameters_write(passes->model + passes_image.parameters);
	program_base_records_write(passes->model + passes_image.records);
	program_base_results_write(passes->model + passes_image.results);
	/* A state of zeros is not read, but its address is still a legal one. */
	program_base_state_in_write(zero ? passes->session : session_in);
	program_base_window_in_write(zero ? passes->model + passes_image.zero_window : session_in + passes_image.state_bytes);
	program_base_state_out_write(passes->session);
	program_base_window_out_write(passes->session + passes_image.state_bytes);
	return ERROR_NONE;
}

/* Runs the program of a kind for so many tokens; `store`, `deferred`: as program_begin has it. */
static uint32_t HOT run(struct passes *passes, uint32_t kind, uint32_t tokens, int store, uint32_t deferred)
{
	struct task                *task    = passes->task;
	const struct image_program *program = image_program(&passes_image, kind, tokens);
	uint64_t now = cycles_now();
	uint64_t deadline;
	uint32_t error;
	int      completed;

	if (!passes->phase->start)
		passes->phase->start = now;
	program_begin(passes->model, program, passes->zero_state, store, deferred);
	deadline = now + image_timeout(&passes_image, program, deferred + tokens);
	do {
		engine_wait();
		engine_events_clear();
		error = program_look(&completed, &task->detail);
		now   = cycles_now();
		passes->phase->end = now;
		if (error)
			return error;
		if (now >= passes->deadline || (!completed && (now >= deadline || reboot_requested()))) {
			task->detail = program_index_read();
			return ERROR_TIMEOUT;
		}
	} while (!completed);
	return ERROR_NONE;
}

uint32_t HOT passes_layers(struct passes *passes, uint32_t kind, uint32_t tokens, int store)
{
	uint32_t deferred = passes->deferred;
	uint32_t records  = passes->model + passes_image.records;

	program_seed_write(passes->seed + passes->place - deferred);
	program_base_x_records_write(records + deferred*passes_image.x_stride);
	program_base_bc_records_write(records + deferred*passes_image.bc_stride);
	return run(passes, kind, tokens, store, deferred);
}

uint32_t HOT passes_head(struct passes *passes, uint32_t kind, uint32_t tokens)
{
	return run(passes, kind, tokens, 0, 0);
}

/* All tokens that were run are in the state that is stored; the next pass begins with it. */
static void HOT stored(struct passes *passes)
{
	passes->deferred   = 0;
	passes->zero_state = 0;
	program_base_state_in_write(passes->session);
}

void HOT passes_keep(struct passes *passes, uint32_t kind, uint32_t tokens, int store)
{
	uint32_t window = kind == PROGRAM_DRAFTS ? passes_image.window_step*(tokens - 1) : 0;

	passes->place    += tokens;
	passes->units    += tokens;
	passes->deferred += tokens;
	if (store)
		stored(passes);
	program_base_window_in_write(passes->session + passes_image.state_bytes + window);
}

uint32_t HOT passes_store(struct passes *passes)
{
	uint32_t most   = passes_image.deferred;
	uint32_t tokens = passes->deferred > most ? passes->deferred - most : 1;
	uint32_t error;

	if (!passes->deferred)
		return ERROR_NONE;
	program_seed_write(passes->seed + passes->place - passes->deferred);
	error = run(passes, PROGRAM_STATE, tokens, 1, passes->deferred - tokens);
	stored(passes);
	program_base_window_in_write(passes->session + passes_image.state_bytes);
	return error;
}

/* Tokens ------------------------------------------------------------------------------------------ */

uint32_t ROOMY passes_choose(const struct passes *passes, const struct draws *draws, uint32_t row, uint32_t seed, uint32_t place, uint32_t *token)
{
	const volatile struct candidate *candidates = (const volatile struct candidate *)dram(passes->model + passes_image.results);
	uint32_t top_k = draws->top & 0xffff;
	uint32_t count = top_k < passes_image.vocabulary ? top_k : passes_image.vocabulary;

	candidates += CANDIDATES*row;
	dram_acquire();
	passes->task->detail = candidates->logit;
	if (!sampling_finite(passes->task->detail))
		return ERROR_BAD_LOGITS;
	*token = candidates[sampling_choose(candidates, count, draws->inverse, draws->top >> 16, seed, place)].token;
	return passes_check_token(passes, *token);
}

int passes_is_stop(const struct passes *passes, uint32_t token)
{
	uint32_t i;

	for (i = 0; i < passes->stop_tokens; i++)
		if (stops[i] == token)
			return 1;
	return 0;
}

int passes_cancelled(const struct passes *passes)
{
	return passes->task->slot->cancel == ~passes->task->job.sequence;
}

/* Job --------------------------------------------------------------------------------------------- */

void COLD passes_clear(uint32_t output, int written)
{
	uint32_t i;

	for (i = 0; i < sizeof(struct output)/4 && written; i++)
		dram(output)[i] = 0;
}

void COLD passes_tell(volatile uint32_t *words, uint32_t count, const struct phase *phase, int written)
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

uint32_t COLD passes_end(struct passes *passes, uint32_t error)
{
	passes->task->units = passes->units;
	if (error)
		program_reset();
	else
		passes->task->detail = 0;
	return error;
}

#endif
