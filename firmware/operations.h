/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The operations that this firmware knows, by their opcodes. Ring and checks know no more of a job than is said here.
 */

#ifndef OPERATIONS_H
#define OPERATIONS_H

#include "engine.h"
#include "scheduler.h"

struct operation;

/* A job under way. */
struct task {
	struct job              job;       /* Its request: a copy, which the host can't change. */
	const struct operation *operation;
	volatile struct job    *slot;      /* Of the ring, where the host may cancel it. */
	uint32_t                detail;    /* Of its error. */
	uint32_t                units;     /* Completed. */
	union {                            /* What its operation makes of the request. */
		struct {
			struct block block;
			struct run   run;
		} ssm;
	};
};

struct operation {
	const struct engine *engine; /* 0: it runs on the CPU alone. */
	uint32_t flags;              /* That a job may have. */

	/* Checks the operands; nothing of a request is used before. An ERROR code; 0: there are none. */
	uint32_t (*check)(struct task *task);

	/* Begins a job on an idle engine, and ends it where there is no post(). An ERROR code. 0: there is no such operation. */
	uint32_t (*begin)(struct task *task);

	/* Of an operation that goes on after begin(), beside what the CPU does: */

	/* Begins a job behind another one of this operation that is posted, if it may. Returns whether it did. */
	int (*follow)(struct task *task, const struct task *before);

	/* Gives the engine what it has room for. Returns whether there is more. */
	int (*post)(struct task *task);

	/* How it fares: an ERROR code, or its completion. */
	uint32_t (*look)(struct task *task, int *completed);

	/* Its time begins to run: of one that has begun behind another one. */
	void (*time)(struct task *task, uint64_t start);

	/* Counts its units; the engine is not reset yet. */
	void (*end)(struct task *task);
};

extern const struct operation operations[OPCODES];

#endif
