/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Cuts a block into head tiles and runs them.
 */

#ifndef SCHEDULER_H
#define SCHEDULER_H

#include "block.h"

/*
 * Runs a block for at most `timeout` cycles (0: block_timeout()). Posts descriptors as long as the queue has room, so
 * the core loads and stores tiles while it computes others, and calls dram_acquire() while the core works. Returns an
 * ERROR code, its detail (the core's error bits, or its status at the time-out), and adds the tiles completed. After an
 * error the core is reset.
 */
uint32_t scheduler_run(const struct block *block, uint32_t timeout, uint32_t *detail, uint32_t *tiles);

#endif
