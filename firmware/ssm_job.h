/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The operation SSM, see operations.h.
 */

#ifndef SSM_JOB_H
#define SSM_JOB_H

#include "operations.h"

uint32_t ssm_job_check(struct task *task);
uint32_t ssm_job_begin(struct task *task);
int      ssm_job_follow(struct task *task, const struct task *before);
int      ssm_job_post(struct task *task);
uint32_t ssm_job_look(struct task *task, int *completed);
void     ssm_job_time(struct task *task, uint64_t start);
void     ssm_job_end(struct task *task);

#endif
