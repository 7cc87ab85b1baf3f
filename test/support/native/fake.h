/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * A SoC for the native firmware: DRAM, mailbox, checksum unit, an SSM core that queues tiles, and engines that run programs,
 * which leave all computation, and all mischief, to hooks.
 */

#ifndef FAKE_H
#define FAKE_H

#include <stdint.h>

struct fake_tile {
	uint32_t x, bc, y, state_in, state_out, tokens, flags;
	uint32_t headdim, d_state, x_stride, bc_stride, y_stride, seed;
};

#define FAKE_TOKENS   8
#define FAKE_NO_TOKEN UINT32_MAX /* None was named since the program before. */

/* A program as it was started. The base registers are in the order of operations.program.Register. */
struct fake_program {
	uint32_t address, descriptors, tape_beats, seed, start;
	uint32_t bases[11];
	uint32_t tokens[FAKE_TOKENS];
};

/* At the end of the data region: what the self-test may use. */
#ifdef PROGRAM_PASS_TOKENS
#define SCRATCH_BYTES 0xa000
#else
#define SCRATCH_BYTES 0x2000
#endif

/* What a test sets. */
struct fake_knobs {
	uint32_t lanes, max_headdim, max_d_state, queue_depth;
	uint32_t access_cycles;   /* Time that an access to a CSR takes. */
	uint32_t tile_cycles;     /* Time that a tile takes. */
	uint32_t program_cycles;  /* Time that a program takes. */
	uint32_t hang;            /* No tile, no checksum and no program is ever completed. */
	uint32_t deaf;            /* No interrupt is ever raised. */
	uint32_t stuck;           /* A reset does not end. */
	uint32_t push_errors;     /* Error bits that the next descriptor raises; it is dropped. */
	uint32_t checksum_errors; /* Error bits that the next start of the checksum unit raises; nothing is read. */
	uint32_t program_errors;  /* Error bits that the next program raises; it ends. */
	uint32_t ssm_errors;      /* Error bits that the SSM core then raises. */
};
extern struct fake_knobs fake_knobs;

/* Accesses to CSRs after which the firmware counts as waiting without end: the process aborts. Counts down. */
extern uint64_t fake_accesses_left;

/* Called at a push and at a tile's completion. */
extern void (*fake_on_push)(const struct fake_tile *tile);
extern void (*fake_on_done)(const struct fake_tile *tile);

/* Called at a start of the checksum unit. */
extern void (*fake_on_checksum)(uint32_t address, uint32_t bytes);

/* Called at a start of a program. */
extern void (*fake_on_program)(const struct fake_program *program);

/* Opens DRAM to the firmware's CPU until the next power-up, beside what always is. */
void fake_open(uint32_t address, uint32_t bytes);

/* Maps the DRAM; once. What the firmware's CPU must not touch is poisoned for AddressSanitizer. */
void fake_map(void);

/* Power-up: zeros in DRAM and CSRs, default knobs. */
void fake_power_up(void);

/* The host's and the accelerator's way to DRAM. Return 0 when the bytes are not all in it. */
int fake_dram_read(uint32_t address, uint8_t *data, uint32_t bytes);
int fake_dram_write(uint32_t address, const uint8_t *data, uint32_t bytes);

/* The host's way to CSRs. */
uint64_t fake_host_read(int csr);
void fake_host_write(int csr, uint32_t value);

#endif
