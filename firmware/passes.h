/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Passes of a whole model, and the choice of tokens: what the operations GENERATE, BATCH and PASS have in common.
 */

#ifndef PASSES_H
#define PASSES_H

#include <stddef.h>

#include "image.h"
#include "operations.h"

#ifdef PROGRAM_RUNS_MODELS

#define PHASE_WORDS(first, end) ((offsetof(struct output, end) - offsetof(struct output, first))/4)

/* Programs one after the other, of the prompt or of the tokens after it. */
struct phase {
	uint64_t start; /* Of the first one, 0: there was none, */
	uint64_t end;   /* and the end of the last one. */
};

/* How a job chooses tokens. */
struct draws {
	uint32_t inverse;
	uint32_t top;
};

struct passes {
	struct task  *task;
	uint32_t      model;      /* The image's address, */
	uint32_t      session;    /* that of the session that is written, */
	uint32_t      seed;       /* and what the place of a pass's first token is added to. */
	uint32_t      place;      /* Of the first token of the pass. */
	uint32_t      stop_tokens;
	uint64_t      deadline;   /* Of the job. */
	struct phase *phase;
	uint32_t      units;      /* Tokens run, */
	uint32_t      deferred;   /* and of these the last ones, after which no state is stored yet. */
	uint32_t      zero_state; /* Of the next pass. */
};

/* What a job of one session reads and writes, beside the image. */
struct job_regions {
	uint32_t session_in; /* Not looked at with ZERO_STATE. */
	uint32_t session_out;
	uint32_t input;
	uint64_t input_bytes;
	uint32_t output;
	uint64_t output_bytes;
};

/* Of the job that is under way: a copy, which the host can't change. */
extern struct image passes_image;

/* The passes of a job, whose time begins to run. */
void passes_init(struct passes *passes, struct task *task, uint32_t model, uint32_t session, uint32_t stop_tokens);

/* ERROR codes. */
uint32_t passes_check_draws(const struct draws *draws, uint32_t *detail);
uint32_t passes_check_stops(uint32_t stop_tokens, uint32_t *detail);

/* Copies and checks the image's header: an ERROR code. */
uint32_t passes_check_image(const struct passes *passes);

/* That it is a whole model's: an ERROR code. */
uint32_t passes_check_whole(const struct passes *passes);

/* That the regions lie in the data, and those that are written apart from the others: an ERROR code. */
uint32_t passes_check_regions(struct task *task, uint32_t image, const struct job_regions *regions);

/* An ERROR code. */
uint32_t passes_check_token(const struct passes *passes, uint32_t token);

/* Copies the tokens that end a text. */
void passes_take_stops(const struct passes *passes, const volatile uint32_t *tokens);

/* Brings the engines to idle if they are not, and sets the registers: an ERROR code. */
uint32_t passes_begin(const struct passes *passes, uint32_t session_in);

/* Runs the layers for tokens that are named; `store`: and stores the state. Returns an ERROR code. */
uint32_t passes_layers(struct passes *passes, uint32_t kind, uint32_t tokens, int store);

/* Runs a program that does not run the SSM core: an ERROR code. */
uint32_t passes_head(struct passes *passes, uint32_t kind, uint32_t tokens);

/* Of the layers' last pass the first tokens stay, whose state was stored or is deferred. */
void passes_keep(struct passes *passes, uint32_t kind, uint32_t tokens, int store);

/* Stores the state of what is deferred: an ERROR code. */
uint32_t passes_store(struct passes *passes);

/* The token that follows, from the candidates of a row: an ERROR code. place: the token's. */
uint32_t passes_choose(const struct passes *passes, const struct draws *draws, uint32_t row, uint32_t seed, uint32_t place, uint32_t *token);

/* Whether a token ends a text. */
int passes_is_stop(const struct passes *passes, uint32_t token);

/* Whether the host wants the job to end. */
int passes_cancelled(const struct passes *passes);

/* The words in front of what a job writes: zeros, if it has them. */
void passes_clear(uint32_t output, int written);

/* Writes the counts since the last call as those of a phase: so many of them, the first one its cycles. */
void passes_tell(volatile uint32_t *words, uint32_t count, const struct phase *phase, int written);

/* The job's end, after an error or without: the error. */
uint32_t passes_end(struct passes *passes, uint32_t error);

#endif

#endif
