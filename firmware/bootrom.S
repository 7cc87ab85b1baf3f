/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Boot ROM: waits until the CSR mailbox_boot holds a firmware's address, clears it, and goes there.
 * MAILBOX_BOOT_ADDRESS and REBOOT come from the command line. Runs anywhere, without a stack.
 */

	.option norvc

	csrci mstatus, 8                # No interrupts: a former firmware's handlers are gone.
	li    a0, MAILBOX_BOOT_ADDRESS
	li    a1, REBOOT                # A reboot request, to a firmware that is already gone.
wait:
	lw    a2, 0(a0)
	beqz  a2, wait
	sw    zero, 0(a0)               # Taken.
	beq   a2, a1, wait
#ifdef CPU_HAS_DCACHE
	.word 0x500f                    # VexRiscv: flush the data cache; without one it does not know that.
#endif
	.word 0x100f                    # And the instruction cache.
	nop                             # What is in the pipeline was fetched before the flush.
	nop
	nop
	nop
	nop
	jr    a2
