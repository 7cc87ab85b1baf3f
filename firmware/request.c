/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "request.h"

uint32_t request_check(struct task *task)
{
	const struct job       *job = &task->job;
	const struct operation *operation;
	uint32_t error;

	task->operation = 0;
	task->detail = job->version;
	if (job->version != PROTOCOL_VERSION)
		return ERROR_BAD_VERSION;
	task->detail = job->opcode;
	if (job->opcode >= OPCODES)
		return ERROR_BAD_OPCODE;
	operation = task->operation = &operations[job->opcode];
	if (!operation->begin)
		return ERROR_BAD_OPCODE;
	task->detail = job->flags;
	if (job->flags & ~operation->flags)
		return ERROR_BAD_FLAGS;
	if (operation->check && (error = operation->check(task)))
		return error;
	task->detail = 0;
	return ERROR_NONE;
}
