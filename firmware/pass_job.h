/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The operation PASS, see operations.h: one pass of a session's tokens, through a whole model or a stage of one.
 */

#ifndef PASS_JOB_H
#define PASS_JOB_H

#include "operations.h"
#include "program.h"

#ifdef PROGRAM_RUNS_MODELS

/* As those of GENERATE (generate.h). */
uint32_t pass_job_check(struct task *task);
uint32_t pass_job_begin(struct task *task);

#endif

#endif
