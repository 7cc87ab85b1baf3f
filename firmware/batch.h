/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The operation BATCH, see operations.h: tokens of several sessions, in passes of one token of each.
 */

#ifndef BATCH_H
#define BATCH_H

#include "operations.h"
#include "program.h"

#ifdef PROGRAM_RUNS_MODELS

/* As those of GENERATE (generate.h). */
uint32_t batch_check(struct task *task);
uint32_t batch_begin(struct task *task);

#endif

#endif
