/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>

#include "checksum.h"
#include "engine.h"
#include "fake.h"
#include "protocol.h"
#include "ssm.h"

#define QUEUE_MAX 64

#define ERROR_QUEUE_OVERFLOW 1

struct fake_knobs fake_knobs;
uint64_t fake_accesses_left = UINT64_MAX;
void (*fake_on_push)(const struct fake_tile *tile);
void (*fake_on_done)(const struct fake_tile *tile);
void (*fake_on_checksum)(uint32_t address, uint32_t bytes);
void (*fake_on_program)(const struct fake_program *program);

static uint64_t         csrs[CSR_COUNT];
static uint64_t         now;
static uint64_t         head_since; /* When the tile at the queue's head began. */
static struct fake_tile queue[QUEUE_MAX];
static uint32_t         queued;
static struct fake_tile next;        /* Of the last push: the tile that waits for room, */
static uint32_t         heads;       /* with so many to come, */
static uint32_t         group_heads; /* so many of them of its group. */
static int              resetting;
static uint64_t         checksum_end; /* When the checksum unit is idle again. */
static int              program_resetting;
static int              running;      /* A program, */
static uint64_t         program_end;  /* until then. */
static uint32_t         tokens[FAKE_TOKENS];
static unsigned int     irq_mask, irq_enable;

/* What fake_open() has opened. */
static struct {
	uint32_t address, bytes;
} opened[4096];
static unsigned opened_count;

/* Interrupts ---------------------------------------------------------------------------------------*/

void irq_setmask(unsigned int mask)
{
	irq_mask = mask;
}

void irq_setie(unsigned int enable)
{
	irq_enable = enable;
}

unsigned int irq_pending(void)
{
	return ((csrs[CSR_ssm_ev_pending] & csrs[CSR_ssm_ev_enable]) != 0) << SSM_INTERRUPT
		| ((csrs[CSR_program_ev_pending] & csrs[CSR_program_ev_enable]) != 0) << PROGRAM_INTERRUPT;
}

static void interrupt(void)
{
	static int serving;

	if (serving || fake_knobs.deaf || !irq_enable)
		return;
	serving = 1;
	if (irq_pending() & irq_mask)
		engines_isr();
	serving = 0;
}

/* SSM Core -----------------------------------------------------------------------------------------*/

static void raise_errors(uint32_t errors)
{
	csrs[CSR_ssm_errors]     |= errors;
	csrs[CSR_ssm_ev_pending] |= SSM_EVENT_ERROR;
}

/* Tiles into the queue, as it has room. */
static void fill(void)
{
	while (heads && queued < fake_knobs.queue_depth) {
		struct fake_tile tile = next;

		if (--heads)
			tile.flags &= ~SSM_TILE_INTERRUPT;
		next.x         += csrs[CSR_ssm_x_step];
		next.y         += csrs[CSR_ssm_y_step];
		next.state_in  += csrs[CSR_ssm_state_step];
		next.state_out += csrs[CSR_ssm_state_step];
		next.seed      += SSM_STOCHASTIC_ROUNDING ? SEED_STRIDE : 0;
		next.flags     += 1 << 8;
		if ((int)(next.flags >> 8) >= SSM_RESIDENT_TILES)
			next.flags &= 0xff;
		if (!--group_heads) {
			group_heads = csrs[CSR_ssm_tile_heads] >> 16;
			next.bc    += csrs[CSR_ssm_bc_step];
		}
		queue[queued++] = tile;
		if (fake_on_push)
			fake_on_push(&tile);
	}
}

static void push(uint32_t flags)
{
	struct fake_tile tile = {
		csrs[CSR_ssm_tile_x], csrs[CSR_ssm_tile_bc], csrs[CSR_ssm_tile_y],
		csrs[CSR_ssm_tile_state_in], csrs[CSR_ssm_tile_state_out], csrs[CSR_ssm_tile_tokens], flags,
		csrs[CSR_ssm_headdim], csrs[CSR_ssm_d_state],
		csrs[CSR_ssm_x_stride], csrs[CSR_ssm_bc_stride], csrs[CSR_ssm_y_stride], csrs[CSR_ssm_tile_seed],
	};

	if (fake_knobs.push_errors) {
		raise_errors(fake_knobs.push_errors);
		fake_knobs.push_errors = 0;
	} else if (heads || queued == fake_knobs.queue_depth) {
		raise_errors(ERROR_QUEUE_OVERFLOW);
	} else {
		if (!queued)
			head_since = now;
		next        = tile;
		heads       = csrs[CSR_ssm_tile_heads] & 0xffff;
		group_heads = csrs[CSR_ssm_tile_heads] >> 16;
		fill();
	}
}

static void advance_program(void)
{
	static const int waits[] = {CSR_program_counters_wait_move, CSR_program_counters_wait_gemv, CSR_program_counters_wait_vector,
		CSR_program_counters_wait_ssm, CSR_program_counters_wait_head, CSR_program_counters_tape_wait};
	unsigned i;

	if (!running || now < program_end)
		return;
	running = 0;
	csrs[CSR_program_counters_cycles]      += fake_knobs.program_cycles;
	csrs[CSR_program_counters_read_beats]  += 300;
	csrs[CSR_program_counters_write_beats] += 50;
	csrs[CSR_ssm_counters_read_beats]      += 20;
	csrs[CSR_ssm_counters_write_beats]     += 10;
	for (i = 0; i < sizeof(waits)/sizeof(waits[0]); i++)
		csrs[waits[i]] += i + 1;
	csrs[CSR_program_ev_pending] |= 1;
}

static void advance(void)
{
	now += fake_knobs.access_cycles;
	if (!fake_accesses_left--) {
		fprintf(stderr, "the firmware waits without end\n");
		abort();
	}
	advance_program();
	while (queued && !fake_knobs.hang && now - head_since >= fake_knobs.tile_cycles) {
		struct fake_tile tile = queue[0];

		memmove(&queue[0], &queue[1], --queued*sizeof(queue[0]));
		head_since += fake_knobs.tile_cycles;
		if (fake_on_done)
			fake_on_done(&tile);
		csrs[CSR_ssm_tiles_done] = (uint32_t)(csrs[CSR_ssm_tiles_done] + 1);
		csrs[CSR_ssm_counters_lane_busy]   += 1000;
		csrs[CSR_ssm_counters_read_beats]  += 200;
		csrs[CSR_ssm_counters_write_beats] += 100;
		if (tile.flags & SSM_TILE_INTERRUPT)
			csrs[CSR_ssm_ev_pending] |= SSM_EVENT_DONE;
		fill();
	}
}

static void reset(void)
{
	queued    = 0;
	heads     = 0;
	resetting = fake_knobs.stuck;
	csrs[CSR_ssm_tiles_done] = 0;
	csrs[CSR_ssm_errors]     = 0;
}

static uint32_t status(void)
{
	return (queued || heads || resetting) | (heads ? 0 : fake_knobs.queue_depth - queued) << 8;
}

static uint32_t capabilities(void)
{
	return fake_knobs.lanes | fake_knobs.max_headdim << 8 | fake_knobs.max_d_state << 18
		| (uint32_t)__builtin_ctz(fake_knobs.queue_depth) << 28;
}

/* Checksum Unit ------------------------------------------------------------------------------------*/

static void checksum_control(uint32_t control)
{
	uint32_t address = csrs[CSR_checksum_address], bytes = csrs[CSR_checksum_length];

	if (control & 2) {
		checksum_end = fake_knobs.stuck ? UINT64_MAX : now;
		csrs[CSR_checksum_status] = 0;
	} else if (control & 1 && now >= checksum_end) {
		csrs[CSR_checksum_status] = fake_knobs.checksum_errors;
		fake_knobs.checksum_errors = 0;
		if (fake_on_checksum)
			fake_on_checksum(address, bytes);
		if (csrs[CSR_checksum_status])
			return;
		csrs[CSR_checksum_crc] = crc32(0, (const uint8_t *)(uintptr_t)address, bytes);
		checksum_end = fake_knobs.hang ? UINT64_MAX : now + bytes/16;
	}
}

/* Programs -----------------------------------------------------------------------------------------*/

static void program_clear(void)
{
	running = 0;
	csrs[CSR_program_errors] = 0;
	memset(tokens, 0xff, sizeof(tokens));
}

static void program_start_at(uint32_t start)
{
	struct fake_program program = {csrs[CSR_program_address], csrs[CSR_program_descriptors], csrs[CSR_program_tape_beats],
		csrs[CSR_program_seed], start, {csrs[CSR_program_base_tape], csrs[CSR_program_base_embedding],
		csrs[CSR_program_base_parameters], csrs[CSR_program_base_state_in], csrs[CSR_program_base_state_out],
		csrs[CSR_program_base_window_in], csrs[CSR_program_base_window_out], csrs[CSR_program_base_records],
		csrs[CSR_program_base_results], csrs[CSR_program_base_x_records],
		csrs[CSR_program_base_bc_records]}, {0}};

	if (running || csrs[CSR_program_errors] || queued) {
		fprintf(stderr, "a program is started on an engine that is not idle\n");
		abort();
	}
	memcpy(program.tokens, tokens, sizeof(tokens));
	memset(tokens, 0xff, sizeof(tokens));
	if (fake_on_program)
		fake_on_program(&program);
	running     = 1;
	program_end = fake_knobs.hang ? UINT64_MAX : now + fake_knobs.program_cycles;
	if (fake_knobs.program_errors || fake_knobs.ssm_errors) {
		running = 0;
		csrs[CSR_program_errors]     = fake_knobs.program_errors;
		csrs[CSR_program_ev_pending] |= 2;
		if (fake_knobs.ssm_errors)
			raise_errors(fake_knobs.ssm_errors);
		fake_knobs.program_errors = fake_knobs.ssm_errors = 0;
	}
}

/* CSRs ---------------------------------------------------------------------------------------------*/

uint64_t fake_host_read(int csr)
{
	return csrs[csr];
}

void fake_host_write(int csr, uint32_t value)
{
	csrs[csr] = value;
	if (csr == CSR_mailbox_doorbell)
		csrs[CSR_mailbox_doorbell_cycles] = now;
}

uint64_t fake_csr_read(int csr)
{
	uint64_t value;

	advance();
	csrs[CSR_ssm_status]       = status();
	csrs[CSR_ssm_capabilities] = capabilities();
	csrs[CSR_program_status]   = running || program_resetting;
	value = csrs[csr];
	if (csr == CSR_checksum_status)
		value |= now < checksum_end;
	interrupt();
	return value;
}

void fake_csr_write(int csr, uint32_t value)
{
	advance();
	switch (csr) {
	case CSR_mailbox_latch:
		csrs[CSR_mailbox_cycles] = now;
		break;
	case CSR_ssm_control:
		reset();
		break;
	case CSR_ssm_tile_push:
		push(value);
		break;
	case CSR_checksum_control:
		checksum_control(value);
		break;
	case CSR_program_control:
		program_clear();
		program_resetting = fake_knobs.stuck;
		break;
	case CSR_program_start:
		program_start_at(value);
		break;
	case CSR_program_token:
		tokens[value >> 24 & (FAKE_TOKENS - 1)] = value & 0xfffff;
		break;
	case CSR_ssm_ev_pending:
	case CSR_program_ev_pending:
		csrs[csr] &= ~(uint64_t)value;
		break;
	default:
		fake_host_write(csr, value);
	}
	interrupt();
}

/* DRAM ---------------------------------------------------------------------------------------------*/

void fake_map(void)
{
	uint8_t *base = (uint8_t *)MAIN_RAM_BASE;
	uint8_t *end  = base + MAIN_RAM_SIZE;

	if (mmap(base, MAIN_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)
			!= base) {
		perror("mmap");
		exit(1);
	}
	ASAN_POISON_MEMORY_REGION(base, MAIN_RAM_SIZE);
	ASAN_UNPOISON_MEMORY_REGION(base + INFO_OFFSET, sizeof(struct info));
	ASAN_UNPOISON_MEMORY_REGION(base + RING_OFFSET, RING_ENTRIES*JOB_BYTES);
	ASAN_UNPOISON_MEMORY_REGION(base + TABLE_OFFSET, TABLE_SIZE);
	ASAN_UNPOISON_MEMORY_REGION(end - SCRATCH_BYTES, SCRATCH_BYTES);
}

void fake_open(uint32_t address, uint32_t bytes)
{
	if (opened_count == sizeof(opened)/sizeof(opened[0]))
		abort();
	opened[opened_count].address = address;
	opened[opened_count].bytes   = bytes;
	opened_count++;
	ASAN_UNPOISON_MEMORY_REGION((void *)(uintptr_t)address, bytes);
}

/* All lie in the data region. */
static void close_again(void)
{
	while (opened_count) {
		opened_count--;
		ASAN_POISON_MEMORY_REGION((void *)(uintptr_t)opened[opened_count].address,
			(opened[opened_count].bytes + ALIGNMENT - 1) & -ALIGNMENT);
	}
	ASAN_UNPOISON_MEMORY_REGION((uint8_t *)MAIN_RAM_BASE + MAIN_RAM_SIZE - SCRATCH_BYTES, SCRATCH_BYTES);
}

static int in_dram(uint32_t address, uint32_t bytes)
{
	return address >= MAIN_RAM_BASE && (uint64_t)address + bytes <= MAIN_RAM_BASE + MAIN_RAM_SIZE;
}

/* Loops instead of memcpy(), which AddressSanitizer checks everywhere. */
__attribute__((no_sanitize("address")))
int fake_dram_read(uint32_t address, uint8_t *data, uint32_t bytes)
{
	const volatile uint8_t *source = (const volatile uint8_t *)(uintptr_t)address;

	if (!in_dram(address, bytes))
		return 0;
	while (bytes--)
		*data++ = *source++;
	return 1;
}

__attribute__((no_sanitize("address")))
int fake_dram_write(uint32_t address, const uint8_t *data, uint32_t bytes)
{
	volatile uint8_t *target = (volatile uint8_t *)(uintptr_t)address;

	if (!in_dram(address, bytes))
		return 0;
	while (bytes--)
		*target++ = *data++;
	return 1;
}

void fake_power_up(void)
{
	static const struct fake_knobs knobs = {
		.lanes = 16, .max_headdim = 64, .max_d_state = 128, .queue_depth = 8, .access_cycles = 8, .tile_cycles = 100,
		.program_cycles = 1000,
	};

	madvise((void *)MAIN_RAM_BASE, MAIN_RAM_SIZE, MADV_DONTNEED); /* Zeros again. */
	memset(csrs, 0, sizeof(csrs));
	fake_knobs   = knobs;
	now          = 0;
	queued       = 0;
	heads        = 0;
	resetting    = 0;
	checksum_end = 0;
	program_resetting = 0;
	program_clear();
	close_again();
	irq_setie(0);
}
