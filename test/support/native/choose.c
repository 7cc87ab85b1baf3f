/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Runs the firmware's sampling. A case on stdin is words: count, inverse, top_p, seed, place, and so many candidates; the answer on
 * stdout is the number of the one that was chosen.
 */

#include <stdio.h>

#include "platform.h"
#include "sampling.h"

int main(void)
{
	struct candidate candidates[CANDIDATES];
	uint32_t         words[5], chosen;

	while (fread(words, sizeof(words), 1, stdin) == 1) {
		if (words[0] > CANDIDATES || fread(candidates, sizeof(candidates[0]), words[0], stdin) != words[0])
			return 1;
		chosen = sampling_choose(candidates, words[0], words[1], words[2], words[3], words[4]);
		fwrite(&chosen, sizeof(chosen), 1, stdout);
	}
	return 0;
}
