/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include "console.h"
#include "info.h"
#include "ring.h"
#include "ssm.h"

#define MCAUSE_INTERRUPT 0x80000000

int main(void);
void isr(void);

static void COLD __attribute__((noreturn)) reboot(void)
{
	irq_setie(0);
	irq_setmask(0);
	info_retract();
	ssm_reset();
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
	ssm_isr();
}

int main(void)
{
	irq_setie(0);
	dram_acquire();
	info_init();
	ssm_init();
	ring_init();
	info_publish();
	console_print("firmware: ready\n");
	while (!reboot_requested())
		ring_poll();
	reboot();
}
