/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A model's image (operations/image.py): whether this build runs it.
 */

#ifndef IMAGE_H
#define IMAGE_H

#include "program.h"

#ifdef PROGRAM_RUNS_MODELS

#define IMAGE_WORDS (sizeof(struct image)/4)

/* The program of so many tokens. */
static inline const struct image_program *image_program(const struct image *image, uint32_t kind, uint32_t tokens)
{
	return &image->programs[kind*MAX_PASS_TOKENS + tokens - 1];
}

static inline uint64_t image_session_bytes(const struct image *image)
{
	return (uint64_t)image->state_bytes + image->window_bytes;
}

/*
 * Number of the first word of a header that is wrong, of an image that has room for so many bytes; IMAGE_WORDS: none is. Every
 * place that is then used lies inside the image, as far as the header tells sizes.
 */
uint32_t image_wrong_word(const struct image *image, uint32_t room);

/* Cycles after which a pass of so many tokens is surely stuck. */
uint64_t image_timeout(const struct image *image, const struct image_program *program, uint32_t tokens);

#endif

#endif
