/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Self-test: vectors of the bit-accurate model through the core.
 */

#ifndef SELFTEST_H
#define SELFTEST_H

#include <stdint.h>

/*
 * Runs every vector, each for at most `timeout` cycles (0: as scheduler_run()), with the end of the data region as
 * scratch. Returns an ERROR code; ERROR_SELFTEST_MISMATCH with the vector's index in detail. Adds the tiles completed.
 */
uint32_t selftest_run(uint32_t timeout, uint32_t *detail, uint32_t *tiles);

#endif
