/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The operation GENERATE, see operations.h: a whole model, pass by pass, and the choice of tokens.
 */

#ifndef GENERATE_H
#define GENERATE_H

#include "operations.h"
#include "program.h"

#ifdef PROGRAM_RUNS_MODELS

/*
 * check() looks at the operands alone, as a job before may still write what they name. begin() copies and checks the image's
 * header, then all regions and the prompt; up to there nothing is written. The detail of ERROR_TIMEOUT is the index of the
 * descriptor that was under way.
 */
uint32_t generate_check(struct task *task);
uint32_t generate_begin(struct task *task);

#endif

#endif
