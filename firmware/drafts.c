/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "drafts.h"
#include "platform.h"

#ifdef CSR_PROGRAM_BASE

_Static_assert(!(HISTORY & (HISTORY - 1)), "a power of two");

/* The last tokens, that with number n at n modulo HISTORY. In DRAM: the data cache has them, where there is one. */
static uint32_t history[HISTORY] SLOW;
static uint32_t first, end; /* Their numbers. */
static uint32_t end_place;  /* Of the text, behind the last one. */

static inline uint32_t at(uint32_t number)
{
	return history[number & (HISTORY - 1)];
}

void COLD drafts_begin(uint32_t place, int anew)
{
	if (anew || end_place - place > end - first) /* Further back than is known, or further on. */
		end = first;
	else
		end -= end_place - place;
	end_place = place;
}

void drafts_add(uint32_t token)
{
	history[end++ & (HISTORY - 1)] = token;
	if (end - first > HISTORY)
		first++;
	end_place++;
}

uint32_t ROOMY drafts_find(uint32_t *drafts, uint32_t count)
{
	uint32_t length = end - first;
	uint32_t back, best = 0, match = DRAFT_LEAST - 1, same, i; /* Places are counted back from the end. */

	for (back = 1; back < length && match < DRAFT_MOST; back++) {
		for (same = 0; same < DRAFT_MOST && same < length - back && at(end - back - 1 - same) == at(end - 1 - same); same++)
			;
		if (same > match) {
			match = same;
			best  = back;
		}
	}
	for (i = 0; best && i < count; i++)
		drafts[i] = i < best ? at(end - best + i) : drafts[i - best];
	return best ? count : 0;
}

#endif
