/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Which candidate is the next token, as model/exact/sampling.py has it: in integers alone.
 */

#ifndef SAMPLING_H
#define SAMPLING_H

#include <stdint.h>

/* As BEST writes them; binary32 as its bits. */
struct candidate {
	uint32_t token;
	uint32_t logit;
};

/* Whether a logit is a finite number. */
static inline int sampling_finite(uint32_t logit)
{
	return (logit >> 23 & 0xff) != 0xff;
}

/* The number of one of the candidates, best first, of which the best one is finite. inverse 0: the first one; top_p 0: of all. */
uint32_t sampling_choose(const volatile struct candidate *candidates, uint32_t count, uint32_t inverse, uint32_t top_p, uint32_t seed,
	uint32_t place);

#endif
