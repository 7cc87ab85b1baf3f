/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Runs the native firmware by commands on stdin, a line each; answers a line each. While the firmware runs, a line
 * tells of each descriptor ("push ..."), of each program ("program ...") and, when asked for, of each completed tile
 * ("done ..."): then commands are taken until "continue", so that a test can compute, or play the host.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "info.h"
#include "ring.h"
#include "ssm.h"

#define LINE_BYTES 0x100000

static void commands(void);

static uint32_t hook_push;    /* Stop at each push. */
static uint32_t hook_done;    /* Stop at each completed tile. */
static uint32_t hook_program; /* Stop at each program. */

static const struct {
	const char *name;
	uint32_t   *value;
} knobs[] = {
	{"lanes",           &fake_knobs.lanes},
	{"max_headdim",     &fake_knobs.max_headdim},
	{"max_d_state",     &fake_knobs.max_d_state},
	{"queue_depth",     &fake_knobs.queue_depth},
	{"access_cycles",   &fake_knobs.access_cycles},
	{"tile_cycles",     &fake_knobs.tile_cycles},
	{"program_cycles",  &fake_knobs.program_cycles},
	{"hang",            &fake_knobs.hang},
	{"deaf",            &fake_knobs.deaf},
	{"stuck",           &fake_knobs.stuck},
	{"push_errors",     &fake_knobs.push_errors},
	{"checksum_errors", &fake_knobs.checksum_errors},
	{"program_errors",  &fake_knobs.program_errors},
	{"ssm_errors",      &fake_knobs.ssm_errors},
	{"hook_push",       &hook_push},
	{"hook_done",       &hook_done},
	{"hook_program",    &hook_program},
};

#define CSR_NAME(name) #name,
static const char *csr_names[] = {CSRS_32(CSR_NAME) CSRS_64(CSR_NAME)};

static void tell(const char *event, const struct fake_tile *tile)
{
	printf("%s %u %u %u %u %u %u %u %u %u %u %u %u %u\n", event, tile->x, tile->bc, tile->y, tile->state_in,
		tile->state_out, tile->tokens, tile->flags, tile->headdim, tile->d_state, tile->x_stride, tile->bc_stride,
		tile->y_stride, tile->seed);
}

static void on_push(const struct fake_tile *tile)
{
	tell("push", tile);
	if (hook_push)
		commands();
}

static void on_done(const struct fake_tile *tile)
{
	if (hook_done) {
		tell("done", tile);
		commands();
	}
}

static void on_program(const struct fake_program *program)
{
	const uint32_t *words = (const uint32_t *)program;
	size_t i;

	printf("program");
	for (i = 0; i < sizeof(*program)/4; i++)
		printf(" %u", words[i]);
	printf("\n");
	if (hook_program)
		commands();
}

static int csr_number(const char *name)
{
	int i;

	for (i = 0; i < CSR_COUNT; i++)
		if (!strcmp(name, csr_names[i]))
			return i;
	fprintf(stderr, "no CSR %s\n", name);
	exit(1);
}

static void set_knob(const char *name, uint32_t value)
{
	size_t i;

	for (i = 0; i < sizeof(knobs)/sizeof(knobs[0]); i++)
		if (!strcmp(name, knobs[i].name)) {
			*knobs[i].value = value;
			return;
		}
	fprintf(stderr, "no knob %s\n", name);
	exit(1);
}

static void read_dram(uint32_t address, uint32_t bytes)
{
	uint8_t  data[LINE_BYTES/2];
	uint32_t i;

	if (bytes > sizeof(data) || !fake_dram_read(address, data, bytes))
		exit(1);
	for (i = 0; i < bytes; i++)
		printf("%02x", data[i]);
	printf("\n");
}

static void write_dram(uint32_t address, const char *hex)
{
	uint8_t  data[LINE_BYTES/2];
	uint32_t bytes;
	unsigned byte;

	for (bytes = 0; sscanf(hex + 2*bytes, "%2x", &byte) == 1; bytes++)
		data[bytes] = byte;
	if (!fake_dram_write(address, data, bytes))
		exit(1);
	printf("ok\n");
}

/* Until "continue" or the end of the input. */
static void commands(void)
{
	static char line[LINE_BYTES];
	char        name[32];
	unsigned    address, value;
	int         offset;

	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "continue\n"))
			return;
		if (!strcmp(line, "power_up\n")) {
			fake_power_up();
			hook_push = hook_done = hook_program = 0;
			printf("ok\n");
		} else if (!strcmp(line, "start\n")) {
			engines_init();
			ring_init();
			info_publish();
			printf("ok\n");
		} else if (!strcmp(line, "poll\n")) {
			ring_poll();
			printf("ok\n");
		} else if (sscanf(line, "set %31s %u", name, &value) == 2) {
			set_knob(name, value);
			printf("ok\n");
		} else if (sscanf(line, "csr %31s %u", name, &value) == 2) {
			fake_host_write(csr_number(name), value);
			printf("ok\n");
		} else if (sscanf(line, "csr %31s", name) == 1) {
			printf("%llu\n", (unsigned long long)fake_host_read(csr_number(name)));
		} else if (sscanf(line, "read %u %u", &address, &value) == 2) {
			read_dram(address, value);
		} else if (sscanf(line, "open %u %u", &address, &value) == 2) {
			fake_open(address, value);
			printf("ok\n");
		} else if (sscanf(line, "write %u %n", &address, &offset) == 1) {
			write_dram(address, line + offset);
		} else {
			fprintf(stderr, "no command %s", line);
			exit(1);
		}
		fflush(stdout);
	}
}

int main(void)
{
	fake_map();
	fake_power_up();
	fake_on_push    = on_push;
	fake_on_done    = on_done;
	fake_on_program = on_program;
	commands();
	return 0;
}
