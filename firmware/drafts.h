/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Drafts of the tokens that follow in a text, from the text itself, as model/exact/drafts.py has them.
 */

#ifndef DRAFTS_H
#define DRAFTS_H

#include <stdint.h>

/* A text goes on from a place, or with `anew` begins: what is known of it so far, from jobs before, up to there is kept. */
void drafts_begin(uint32_t place, int anew);

/* The text goes on with a token. */
void drafts_add(uint32_t token);

/* Writes so many tokens that may follow, or less. Returns how many. They may be of a text of another model. */
uint32_t drafts_find(uint32_t *drafts, uint32_t count);

#endif
