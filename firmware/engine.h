/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The engines of this gateware. One that it does not have is not listed, and nothing of it is built.
 */

#ifndef ENGINE_H
#define ENGINE_H

#include "platform.h"

/* What an engine did for a job. */
struct counters {
	uint64_t busy_cycles;
	uint64_t bytes_read;
	uint64_t bytes_written;
};

struct engine {
	uint32_t interrupts;                       /* As bits of the CPU's mask. */
	void (*init)(void);
	int  (*reset)(void);                       /* Brings it back to idle; 0 when it does not get there. */
	void (*take)(struct counters *counters);   /* What it did since the last call, or since its reset. */
	void (*describe)(struct engine_info *info);
};

extern const struct engine ssm_engine;
extern const struct engine checksum_engine;
extern const struct engine program_engine;

/* Tables that are read at each job lie with the data, in SRAM: constants are in DRAM. */
#define TABLE __attribute__((section(".data.tables")))

/* Events of any engine since engine_events_clear(); set by interrupts. */
extern volatile uint32_t engine_events;

static inline void engine_events_clear(void)
{
	engine_events = 0;
}

/* Waits a while for an event, at most some thousand cycles. */
void engine_wait(void);

/* Resets all engines and turns their interrupts on. */
void engines_init(void);

void engines_reset(void);

/* Writes what they are; returns how many. */
uint32_t engines_describe(struct engine_info *info);

/* Takes the interrupts of all engines. */
void engines_isr(void);

#endif
