/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <stddef.h>

#include "image.h"
#include "ssm.h"

#ifdef PROGRAM_RUNS_MODELS

#define WORD(member)     ((uint32_t)offsetof(struct image, member)/4)
#define KINDS            (PROGRAMS/MAX_PASS_TOKENS)
#define CANDIDATE_BYTES  8
#define DESCRIPTOR_BYTES 64
#define WINDOW_MULTIPLE  16
#define MAX_LOGIT_ROWS   (MAX_VOCABULARY + 64) /* More than a block of rows has. */

_Static_assert(sizeof(struct image) <= HEADER_BYTES, "the header");
_Static_assert(PROGRAM_PASS_TOKENS <= MAX_PASS_TOKENS, "the tokens of a pass");

static int in_range(uint32_t value, uint32_t low, uint32_t high)
{
	return low <= value && value <= high;
}

/* Whether so many bytes from an aligned place on lie in the image, behind its header. */
static int inside(const struct image *image, uint32_t place, uint64_t bytes)
{
	return place % ALIGNMENT == 0 && in_range(place, HEADER_BYTES, image->image_bytes - 1) && bytes <= image->image_bytes - place;
}

/* Whether it has programs of a kind. */
static int has_kind(const struct image *image, uint32_t kind)
{
	return !image->stage || kind == PROGRAM_LAYERS || (kind == PROGRAM_HEAD && !(image->stage & STAGE_NO_HEAD));
}

/* Number of a program's first word that is wrong; of its words: none is. */
static uint32_t COLD wrong_program_word(const struct image *image, const struct image_program *program)
{
	if (!inside(image, program->program, DESCRIPTOR_BYTES))
		return offsetof(struct image_program, program)/4;
	if (!program->descriptors || !inside(image, program->program, (uint64_t)program->descriptors*DESCRIPTOR_BYTES))
		return offsetof(struct image_program, descriptors)/4;
	if (!inside(image, program->tape_place, 0))
		return offsetof(struct image_program, tape_place)/4;
	if (!inside(image, program->tape_place, (uint64_t)program->tape_beats*PROGRAM_BEAT_BYTES))
		return offsetof(struct image_program, tape_beats)/4;
	return sizeof(*program)/4;
}

uint32_t COLD image_wrong_word(const struct image *image, uint32_t room)
{
	uint32_t kind, tokens, word;

	if (image->magic != IMAGE_MAGIC)
		return WORD(magic);
	if (image->version != IMAGE_VERSION)
		return WORD(version);
	if (image->image_bytes % ALIGNMENT || !in_range(image->image_bytes, HEADER_BYTES + ALIGNMENT, room))
		return WORD(image_bytes);
	if (image->data_width != MEMORY_DATA_WIDTH)
		return WORD(data_width);
	if (image->lanes != ssm_built.lanes)
		return WORD(lanes);
	if (!in_range(image->pass_tokens, 1, PROGRAM_PASS_TOKENS))
		return WORD(pass_tokens);
	if (image->scratch > PROGRAM_SCRATCH)
		return WORD(scratch);
	if (image->activations > PROGRAM_ACTIVATIONS)
		return WORD(activations);
	if (!in_range(image->vocabulary, 1, MAX_VOCABULARY))
		return WORD(vocabulary);
	if (!in_range(image->logit_rows, image->vocabulary, MAX_LOGIT_ROWS))
		return WORD(logit_rows);
	if (!image->state_bytes || image->state_bytes % ALIGNMENT)
		return WORD(state_bytes);
	if (image->window_bytes % ALIGNMENT)
		return WORD(window_bytes);
	if (image->window_step % WINDOW_MULTIPLE || (uint64_t)image->window_step*(image->pass_tokens - 1) > image->window_bytes)
		return WORD(window_step);
	if (!in_range(image->sessions, 1, image->pass_tokens))
		return WORD(sessions);
	if (image->deferred > MAX_DEFERRED)
		return WORD(deferred);
	if (image->x_stride % ALIGNMENT || image->x_stride > MAX_RECORDS)
		return WORD(x_stride);
	if (image->bc_stride % ALIGNMENT || image->bc_stride > MAX_RECORDS)
		return WORD(bc_stride);
	if (image->stage & ~(STAGE_NO_EMBEDDING | STAGE_NO_HEAD))
		return WORD(stage);
	if (image->residual_bytes % ALIGNMENT || !in_range(image->residual_bytes, ALIGNMENT, MAX_RESIDUAL))
		return WORD(residual_bytes);
	if (!inside(image, image->tape, 0))
		return WORD(tape);
	if (!inside(image, image->embedding, 0))
		return WORD(embedding);
	if (!inside(image, image->parameters, 0))
		return WORD(parameters);
	if (!inside(image, image->records, 0))
		return WORD(records);
	if (!inside(image, image->results, (uint64_t)image->pass_tokens*CANDIDATES*CANDIDATE_BYTES))
		return WORD(results);
	if (!inside(image, image->zero_window, image->window_bytes))
		return WORD(zero_window);
	for (kind = 0; kind < KINDS; kind++)
		for (tokens = 1; has_kind(image, kind) && tokens <= (kind == PROGRAM_BATCH ? image->sessions : image->pass_tokens); tokens++) {
			const struct image_program *program = image_program(image, kind, tokens);

			word = wrong_program_word(image, program);
			if (word < sizeof(*program)/4)
				return WORD(programs) + (program - image->programs)*(sizeof(*program)/4) + word;
		}
	return IMAGE_WORDS;
}

uint64_t image_timeout(const struct image *image, const struct image_program *program, uint32_t tokens)
{
	uint64_t bytes = (uint64_t)program->tape_beats*PROGRAM_BEAT_BYTES + tokens*image_session_bytes(image);

	return TIMEOUT_SETUP + (uint64_t)TIMEOUT_DESCRIPTOR*program->descriptors + TIMEOUT_FACTOR_PROGRAM*(bytes/MIN_BEAT_BYTES);
}

#endif
