/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "engine.h"
#include "program.h"
#include "ssm.h"

/* Looks at the events between two looks at the CSRs: they are in SRAM, so waiting leaves the bus to the others. */
#define EVENT_POLLS 256

volatile uint32_t engine_events;

static const struct engine *const engines[] = {
#ifdef CSR_SSM_BASE
	&ssm_engine,
#endif
#ifdef CSR_CHECKSUM_BASE
	&checksum_engine,
#endif
#ifdef CSR_PROGRAM_BASE
	&program_engine,
#endif
	0,
};

_Static_assert(sizeof(engines)/sizeof(engines[0]) - 1 <= ENGINES_MAX, "too many engines for the info block");

void engine_wait(void)
{
	uint32_t polls;

	for (polls = EVENT_POLLS; polls && !engine_events; polls--);
}

void COLD engines_init(void)
{
	uint32_t i, interrupts = 0;

	for (i = 0; engines[i]; i++) {
		engines[i]->init();
		interrupts |= engines[i]->interrupts;
	}
	irq_setmask(interrupts);
	irq_setie(1);
}

void COLD engines_reset(void)
{
	uint32_t i;

	for (i = 0; engines[i]; i++)
		engines[i]->reset();
}

uint32_t COLD engines_describe(struct engine_info *info)
{
	uint32_t i;

	for (i = 0; engines[i]; i++)
		engines[i]->describe(&info[i]);
	return i;
}

void engines_isr(void)
{
#ifdef CSR_PROGRAM_BASE
	if (irq_pending() & 1 << PROGRAM_INTERRUPT)
		program_isr();
#endif
#ifdef CSR_SSM_BASE
	ssm_isr();
#endif
}
