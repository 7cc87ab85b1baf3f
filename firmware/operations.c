/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "batch.h"
#include "checksum.h"
#include "generate.h"
#include "operations.h"
#include "pass_job.h"
#include "selftest.h"
#include "ssm_job.h"

static uint32_t nop(struct task *task)
{
	(void)task;
	return ERROR_NONE;
}

const struct operation operations[OPCODES] TABLE = {
	[OPCODE_NOP] = {
		.begin = nop,
	},
#ifdef CSR_SSM_BASE
	[OPCODE_SSM] = {
		.engine = &ssm_engine,
		.flags  = SSM_RESIDENT_TILES ? SSM_FLAGS : SSM_FLAGS & ~JOB_RESIDENT,
		.check  = ssm_job_check,
		.begin  = ssm_job_begin,
		.follow = ssm_job_follow,
		.post   = ssm_job_post,
		.look   = ssm_job_look,
		.time   = ssm_job_time,
		.end    = ssm_job_end,
	},
	[OPCODE_SELFTEST] = {
#ifdef PROGRAM_RUNS_MODELS
		.engine = &program_engine,
#else
		.engine = &ssm_engine,
#endif
		.flags  = SELFTEST_FLAGS,
		.begin  = selftest_begin,
	},
#endif
#ifdef CSR_CHECKSUM_BASE
	[OPCODE_CHECKSUM] = {
		.engine = &checksum_engine,
		.flags  = CHECKSUM_FLAGS,
		.check  = checksum_check,
		.begin  = checksum_begin,
	},
#endif
#ifdef PROGRAM_RUNS_MODELS
	[OPCODE_GENERATE] = {
		.engine = &program_engine,
		.flags  = GENERATE_FLAGS,
		.check  = generate_check,
		.begin  = generate_begin,
	},
#endif
#if defined(PROGRAM_RUNS_MODELS) && !SSM_STOCHASTIC_ROUNDING /* Of which a pass has one seed. */
	[OPCODE_BATCH] = {
		.engine = &program_engine,
		.flags  = BATCH_FLAGS,
		.check  = batch_check,
		.begin  = batch_begin,
	},
#endif
#ifdef PROGRAM_RUNS_MODELS
	[OPCODE_PASS] = {
		.engine = &program_engine,
		.flags  = PASS_FLAGS,
		.check  = pass_job_check,
		.begin  = pass_job_begin,
	},
#endif
};
