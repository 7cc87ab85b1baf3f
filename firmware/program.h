/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Driver of the engines that run programs (operations/program.py), as one engine (engine.h). The SSM core is one of them.
 */

#ifndef PROGRAM_ENGINE_H
#define PROGRAM_ENGINE_H

#include "engine.h"

#ifdef CSR_PROGRAM_BASE

#define PROGRAM_ALL_UNITS (1u << UNIT_MOVE | 1u << UNIT_GEMV | 1u << UNIT_VECTOR | 1u << UNIT_SSM | 1u << UNIT_HEAD)

/* Whether there are all units that a whole model needs. */
#if defined(CSR_SSM_BASE) && (PROGRAM_UNITS & PROGRAM_ALL_UNITS) == PROGRAM_ALL_UNITS
#define PROGRAM_RUNS_MODELS
#endif

#define PROGRAM_BEAT_BYTES (MEMORY_DATA_WIDTH/8)

/* Whom the dispatcher waited for, in the order of operations.image.CAUSES. */
enum {WAIT_MOVE, WAIT_GEMV, WAIT_VECTOR, WAIT_SSM, WAIT_HEAD, WAIT_TAPE, WAITS};

/* What was done for programs, by the SSM core as well. */
struct program_counts {
	uint64_t cycles; /* In which one ran. */
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint64_t waits[WAITS];
};

static inline int program_busy(void)
{
	return (program_status_read() & FIELD_SET(PROGRAM_STATUS_BUSY, 1)) != 0;
}

/* Names a token of the pass. */
static inline void program_name_token(uint32_t place, uint32_t token)
{
	program_token_write(FIELD_SET(PROGRAM_TOKEN_TOKEN, token) | FIELD_SET(PROGRAM_TOKEN_PLACE, place));
}

/*
 * Starts a program of the image at an address; idle engines, and all other registers set. The SSM core runs so many tokens that were
 * deferred before its own, and stores the state or not.
 */
void program_begin(uint32_t image, const struct image_program *program, int zero_state, int store, uint32_t deferred);

/*
 * How it fares: ERROR_GATEWARE, its detail the errors of the program, those of the SSM core from bit 8
 * on, and from bit 16 on the number of the descriptor that is issued next, or was the last one; or its
 * completion.
 */
uint32_t program_look(int *completed, uint32_t *detail);

/* What was done since the last call, or since the reset. It stays part of what the engine tells of the job. */
void program_count(struct program_counts *counts);

/* Brings them back to idle, with the SSM core; 0 when one does not get there. */
int program_reset(void);

/* Its interrupts, to engine_events. */
void program_isr(void);

#endif

#endif
