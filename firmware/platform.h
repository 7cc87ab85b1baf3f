/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * What the firmware needs of the SoC beside its CSRs. A native build replaces the headers included here by its own
 * (see test/support/native).
 */

#ifndef PLATFORM_H
#define PLATFORM_H

#include <stdint.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>
#include <irq.h>
#include <system.h>

#include "protocol.h"

/* A field of a CSR, by the name that csr.h has for it: taken from the CSR's value, and in its place in a value. */
#define FIELD(name, value)     ((uint32_t)(value) >> CSR_##name##_OFFSET & ((1u << CSR_##name##_SIZE) - 1))
#define FIELD_SET(name, value) ((uint32_t)(value) << CSR_##name##_OFFSET)

#define DRAM_BASE ((uint32_t)MAIN_RAM_BASE)
#define DRAM_SIZE ((uint32_t)MAIN_RAM_SIZE)

/* The region whose addresses a job may name. */
#define DATA_BASE (DRAM_BASE + DATA_OFFSET)
#define DATA_SIZE (DRAM_SIZE - DATA_OFFSET)

/* The region that tables of CRCs lie in. */
#define TABLE_BASE (DRAM_BASE + TABLE_OFFSET)

/* Keeps what no job needs out of the code that shares the instruction cache. */
#define COLD __attribute__((cold))

/* The opposite, where the compiler would take it for such code as its caller is. */
#define HOT __attribute__((hot, noinline))

/* Code and tables of which there is too much for the smallest SRAM. */
#if SRAM_SIZE >= 0x4000
#define ROOMY HOT
#define ROOMY_TABLE TABLE
#else
#define ROOMY COLD
#define ROOMY_TABLE
#endif

/* Keeps data of the CPU's out of the SRAM; not cleared at the start. */
#define SLOW __attribute__((section(".bss.dram")))

/* DRAM that host or accelerator read and write as well, by its bus address. */
static inline volatile uint32_t *dram(uint32_t address)
{
	return (volatile uint32_t *)(uintptr_t)address;
}

/*
 * Coherency: nothing snoops the data cache, and there is no L2 cache. The cache is write-through, so what the CPU
 * stores is in DRAM before its next CSR access. What host or accelerator write is seen as long as it was not cached
 * before, and only reading caches. So this call, which empties the cache, stands between each reading of a ring entry
 * and the answer that lets the host write the entry again, and between the accelerator's writing and its reading.
 */
static inline void dram_acquire(void)
{
#ifndef FIRMWARE_NO_INVALIDATE /* For the test that must fail without it. */
	flush_cpu_dcache();
#endif
}

/* Clock cycles since the SoC's reset. */
static inline uint64_t cycles_now(void)
{
	mailbox_latch_write(1);
	return mailbox_cycles_read();
}

/* The host asks for the boot ROM, to load another firmware. */
static inline int reboot_requested(void)
{
	return mailbox_boot_read() == REBOOT;
}

#endif
