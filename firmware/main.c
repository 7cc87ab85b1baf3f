/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "console.h"
#include "engine.h"
#include "info.h"
#include "ring.h"

#define MCAUSE_INTERRUPT 0x80000000

int main(void);
void isr(void);

static void COLD __attribute__((noreturn)) reboot(void)
{
	irq_setie(0);
	irq_setmask(0);
	info_retract();
	engines_reset();
	((void (*)(void))ROM_BOOT_ADDRESS)();
	for (;;);
}

/* Called by crt0's trap entry. */
void isr(void)
{
	if (!(csrr(mcause) & MCAUSE_INTERRUPT)) {
		console_print("firmware: exception, back to the boot ROM\n");
		reboot(); /* The host sees the info block gone, and can load a firmware again. */
	}
	engines_isr();
}

int main(void)
{
	irq_setie(0);
	dram_acquire();
	engines_init();
	ring_init();
	info_publish();
	console_print("firmware: ready\n");
	while (!reboot_requested())
		ring_poll();
	reboot();
}
