/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "drafts.h"
#include "platform.h"

#ifdef CSR_PROGRAM_BASE

_Static_assert(!(HISTORY & (HISTORY - 1)), "a power of two");

/* The last tokens, in turn. In DRAM: the data cache has them, where there is one. */
static uint32_t history[HISTORY] SLOW;
static uint32_t length; /* Of the whole text, up to a few times HISTORY: places below it, modulo HISTORY, hold its last tokens. */

static inline uint32_t at(uint32_t place)
{
	return history[place & (HISTORY - 1)];
}

void drafts_clear(void)
{
	length = 0;
}

void drafts_add(uint32_t token)
{
	history[length++ & (HISTORY - 1)] = token;
}

uint32_t ROOMY drafts_find(uint32_t *drafts, uint32_t count)
{
	uint32_t first = length < HISTORY ? 0 : length - HISTORY;
	uint32_t best = 0, match = DRAFT_LEAST - 1, last, place, same, i;

	if (!count || length < DRAFT_LEAST)
		return 0;
	last = at(length - 1);
	for (place = length - 1; place > first && match < DRAFT_MOST; place--) {
		if (at(place - 1) != last)
			continue;
		for (same = 1; same < DRAFT_MOST && same < place - first && at(place - 1 - same) == at(length - 1 - same); same++)
			;
		if (same > match) {
			match = same;
			best  = place;
		}
	}
	if (!best)
		return 0;
	for (i = 0; i < count; i++)
		drafts[i] = best + i < length ? at(best + i) : drafts[best + i - length];
	return count;
}

#endif
