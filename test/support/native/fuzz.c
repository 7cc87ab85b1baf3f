/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzzes the ring: an input is a list of what a host does (jobs, images of models, doorbells) and of how core, checksum unit and
 * the engines that run programs behave, some of it while jobs run. It aborts when
 *   - the firmware waits without end,
 *   - the core is told to read or write outside the regions named by a job that was in the ring,
 *   - a program is started, or told of addresses, that no job and no image that was in DRAM name, or outside the data region, or
 *     what is written overlaps what is read,
 *   - the CPU writes to a table that no job named, or changes a request or the info block (other places are
 *     AddressSanitizer's),
 *   - a job is not answered, or a good job does not run afterwards.
 * Built with libFuzzer, or with FUZZ_SEEDED, where main() makes the inputs from a seed.
 */

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "image.h"
#include "info.h"
#include "ring.h"
#include "ssm.h"

#define REQUEST_BYTES  offsetof(struct job, result_sequence)
#define MAX_OPERATIONS 40
#define MAX_REGIONS    1024
#define MAX_ACCESSES   4000000 /* To CSRs, in one poll. */

#define CHECK(condition) do { if (!(condition)) fail(#condition, __LINE__); } while (0)

enum kind {X, BC, Y, STATE_IN, STATE_OUT, KINDS}; /* Of a region. */

/* Inputs ------------------------------------------------------------------------------------------ */

static const uint8_t *input;
static size_t         input_left;

static uint8_t take8(void)
{
	return input_left ? input_left--, *input++ : 0;
}

static uint32_t take32(void)
{
	uint32_t value = take8();

	value |= (uint32_t)take8() << 8;
	value |= (uint32_t)take8() << 16;
	return value | (uint32_t)take8() << 24;
}

static void fail(const char *condition, int line)
{
	fprintf(stderr, "fuzz.c:%d: not so: %s\n", line, condition);
	abort();
}

/* What the Host Wrote ----------------------------------------------------------------------------- */

static struct job ring[RING_ENTRIES];
static uint8_t    table_named[TABLE_SIZE/4];
static struct info published;

static struct {
	enum kind kind;
	uint64_t  first, end;
} named[MAX_REGIONS];
static unsigned named_count;

static unsigned checksums; /* Starts of the checksum unit. */

#ifdef PROGRAM_RUNS_MODELS
#define MAX_IMAGES      64
#define MAX_GENERATIONS 256
#define IMAGE_AT        (DATA_BASE + 0x10000)
#define IMAGE_SIZE      0x8000
#define VOCABULARY      100
#define RESIDUAL        0x100

/* All images that were ever at IMAGE_AT, and all jobs GENERATE, BATCH and PASS. */
static struct image images[MAX_IMAGES];
static unsigned     image_count;
static struct job   generations[MAX_GENERATIONS];
static unsigned     generation_count;
#endif

static uint64_t answers[32]; /* By error. */

static uint32_t ceil_multiple(uint32_t value, uint32_t multiple)
{
	return (value + multiple - 1)/multiple*multiple;
}

/* Bytes of a record of so many elements. */
static uint64_t record_bytes(uint32_t elements)
{
	return ceil_multiple(2*elements, ALIGNMENT);
}

/* Regions that leave the data region are not named: their job must be refused. */
static void name_region(enum kind kind, uint64_t first, uint64_t bytes)
{
	if (first < DATA_BASE || first + bytes > (uint64_t)DATA_BASE + DATA_SIZE || named_count == MAX_REGIONS)
		return;
	named[named_count].kind  = kind;
	named[named_count].first = first;
	named[named_count].end   = first + bytes;
	named_count++;
}

static void name_regions(const struct job *job)
{
	uint64_t i, blocks;
	enum kind kind;

	if (job->opcode == OPCODE_SSM && job->ssm.heads <= 0xffff && job->ssm.headdim <= 0xffff && job->ssm.d_state <= 0xffff
		&& job->ssm.groups <= 0xffff && job->ssm.tokens <= 0xffff) {
		uint64_t P = ceil_multiple(job->ssm.headdim, 8), N = ceil_multiple(job->ssm.d_state, ssm_built.lanes > 8 ? ssm_built.lanes : 8);

		name_region(X,         job->ssm.x_address,  (uint64_t)job->ssm.tokens*job->ssm.heads*record_bytes(8 + P));
		name_region(BC,        job->ssm.bc_address, (uint64_t)job->ssm.tokens*job->ssm.groups*record_bytes(2*N));
		name_region(Y,         job->ssm.y_address,  (uint64_t)job->ssm.tokens*job->ssm.heads*record_bytes(P));
		name_region(STATE_IN,  job->ssm.state_in,   (uint64_t)job->ssm.heads*record_bytes(job->ssm.headdim*N));
		name_region(STATE_OUT, job->ssm.state_out,  (uint64_t)job->ssm.heads*record_bytes(job->ssm.headdim*N));
	} else if (job->opcode == OPCODE_SELFTEST) {
		for (kind = X; kind < KINDS; kind++)
			name_region(kind, DATA_BASE + DATA_SIZE - SCRATCH_BYTES, SCRATCH_BYTES);
	} else if (job->opcode == OPCODE_CHECKSUM && job->checksum.block_bytes && job->checksum.table >= TABLE_BASE) {
		blocks = ((uint64_t)job->checksum.region_bytes + job->checksum.block_bytes - 1)/job->checksum.block_bytes;
		for (i = 0; i < blocks && job->checksum.table - TABLE_BASE + 4*i < TABLE_SIZE; i++)
			table_named[(job->checksum.table - TABLE_BASE)/4 + i] = 1;
	}
}

#ifdef PROGRAM_RUNS_MODELS
static int in_data(uint64_t first, uint64_t bytes)
{
	return first >= DATA_BASE && first % ALIGNMENT == 0 && first + bytes <= (uint64_t)DATA_BASE + DATA_SIZE;
}

static void open_region(uint64_t first, uint64_t bytes)
{
	if (in_data(first, bytes))
		fake_open(first, bytes);
}

/* What the CPU may read and write for a job. */
static void name_generation(const struct job *job)
{
	const struct job_generate *generate = &job->generate;
	const struct job_batch    *batch    = &job->batch;
	const struct job_pass     *pass     = &job->pass;

	if (generation_count == MAX_GENERATIONS)
		return;
	if (job->opcode == OPCODE_BATCH && batch->session_count <= MAX_PASS_TOKENS && batch->stop_tokens <= MAX_STOP_TOKENS && batch->tokens <= MAX_TOKENS) {
		generations[generation_count++] = *job;
		open_region(batch->model, HEADER_BYTES);
		open_region(batch->texts, 4*(TEXT_WORDS*batch->session_count + batch->stop_tokens));
		open_region(batch->output, OUTPUT_HEAD_BYTES + 4ull*batch->tokens*batch->session_count);
	}
	if (job->opcode == OPCODE_PASS && pass->tokens <= MAX_PASS_TOKENS) {
		generations[generation_count++] = *job;
		open_region(pass->model, HEADER_BYTES);
		open_region(pass->input, 4*pass->tokens);
	}
	if (job->opcode != OPCODE_GENERATE || generate->prompt_tokens > MAX_PROMPT_TOKENS
		|| generate->stop_tokens > MAX_STOP_TOKENS || generate->tokens > MAX_TOKENS)
		return;
	generations[generation_count++] = *job;
	open_region(generate->model, HEADER_BYTES);
	open_region(generate->prompt, 4*(generate->prompt_tokens + generate->stop_tokens));
	if (!(job->flags & JOB_LOGITS))
		open_region(generate->output, OUTPUT_HEAD_BYTES + 4*generate->tokens);
}
#endif

static uint32_t slot_address(unsigned slot)
{
	return DRAM_BASE + RING_OFFSET + slot*JOB_BYTES;
}

static void write_ring(unsigned slot)
{
	fake_dram_write(slot_address(slot), (const uint8_t *)&ring[slot], REQUEST_BYTES);
	name_regions(&ring[slot]);
#ifdef PROGRAM_RUNS_MODELS
	name_generation(&ring[slot]);
#endif
}

#ifdef PROGRAM_RUNS_MODELS
static struct image good_image(void)
{
	struct image image = {.magic = IMAGE_MAGIC, .version = IMAGE_VERSION, .image_bytes = IMAGE_SIZE, .data_width = MEMORY_DATA_WIDTH,
		.lanes = ssm_built.lanes, .pass_tokens = PROGRAM_PASS_TOKENS, .scratch = PROGRAM_SCRATCH, .activations = PROGRAM_ACTIVATIONS,
		.vocabulary = VOCABULARY, .logit_rows = VOCABULARY + 4, .state_bytes = 0x800, .window_bytes = 0x100, .window_step = 0x30,
		.sessions = PROGRAM_PASS_TOKENS, .deferred = 7, .x_stride = 0x40, .bc_stride = 0x40, .residual_bytes = RESIDUAL, .tape = 0x4000,
		.embedding = 0x5000, .parameters = 0x5400, .records = 0x5800, .results = 0x6000, .zero_window = 0x6400};
	unsigned i;

	for (i = 0; i < PROGRAMS; i++)
		image.programs[i] = (struct image_program){0x1000 + 0x100*i, 1 + i%4, 0x4000 + ALIGNMENT*i, 4*i};
	return image;
}

static uint32_t image_word(void)
{
	uint8_t kind = take8();

	switch (kind & 3) {
	case 0:
		return take8();
	case 1:
		return ALIGNMENT*(take8() | (uint32_t)(take8() & 3) << 8);
	case 2:
		return IMAGE_SIZE - ALIGNMENT*(take8()%16) + (kind >> 5 == 7);
	default:
		return take32();
	}
}

static void write_image(unsigned changes, unsigned stage)
{
	struct image *image = &images[image_count];
	uint32_t     *words = (uint32_t *)image;

	if (image_count == MAX_IMAGES)
		return;
	image_count++;
	*image       = good_image();
	image->stage = stage;
	for (; changes; changes--) {
		uint8_t choice = take8();

		words[(choice & 1 ? choice >> 1 : choice >> 4)%(sizeof(*image)/4)] = image_word();
	}
	fake_dram_write(IMAGE_AT, (const uint8_t *)image, sizeof(*image));
	open_region((uint64_t)IMAGE_AT + image->results, 8*CANDIDATES*PROGRAM_PASS_TOKENS);
}

/* Some tokens, now and then one that is none. */
static void write_prompt(uint32_t address)
{
	uint32_t tokens[4], i;

	for (i = 0; i < 4; i++) {
		tokens[i] = take8();
		tokens[i] = tokens[i] < 240 ? tokens[i]%VOCABULARY : tokens[i];
	}
	fake_dram_write(address, (const uint8_t *)tokens, sizeof(tokens));
}

/* Texts which may run but for their tokens and, rarely, how these are drawn. */
static void write_texts(uint32_t address, uint32_t choice)
{
	uint32_t texts[MAX_PASS_TOKENS*TEXT_WORDS], token = 0, top = 0, i;

	for (i = 0; i < MAX_PASS_TOKENS; i++) {
		uint32_t *text = texts + TEXT_WORDS*i;

		if (i < 2) {
			token = take8();
			top   = take8();
		}
		text[0] = token < 240 ? token%VOCABULARY : token;
		text[1] = token;
		text[2] = top;
		text[3] = choice >> 2 & 1;
		text[4] = choice & 1 ? 0x10000 : 0;
		text[5] = top < 250 ? 1 + top%CANDIDATES + (top << 24) : top;
	}
	fake_dram_write(address, (const uint8_t *)texts, sizeof(texts));
}
#endif

/* Checks ------------------------------------------------------------------------------------------ */

static int inside(enum kind kind, uint64_t first, uint64_t bytes)
{
	unsigned i;

	for (i = 0; i < named_count; i++)
		if (named[i].kind == kind && first >= named[i].first && first + bytes <= named[i].end)
			return 1;
	return 0;
}

static void check_records(enum kind kind, uint32_t address, uint32_t stride, uint32_t tokens, uint32_t bytes)
{
	CHECK(inside(kind, address, (uint64_t)(tokens - 1)*stride + bytes));
}

static void operation(int in_run);

static void on_push(const struct fake_tile *tile)
{
	uint32_t tokens = tile->tokens & 0xffff, from = tile->tokens >> 16;
	uint32_t P      = ceil_multiple(tile->headdim, 8);
	uint32_t N      = ceil_multiple(tile->d_state, ssm_built.lanes > 8 ? ssm_built.lanes : 8);

	CHECK(tokens && from <= tokens && tile->headdim && tile->d_state);
	check_records(X,  tile->x,  tile->x_stride,  tokens, record_bytes(8 + P));
	check_records(BC, tile->bc, tile->bc_stride, tokens, record_bytes(2*N));
	if (from < tokens)
		check_records(Y, tile->y, tile->y_stride, tokens - from, record_bytes(P));
	if (!(tile->flags & (JOB_ZERO_STATE | JOB_RESIDENT)))
		CHECK(inside(STATE_IN, tile->state_in, record_bytes(tile->headdim*N)));
	if (!(tile->flags & JOB_NO_STORE))
		CHECK(inside(STATE_OUT, tile->state_out, record_bytes(tile->headdim*N)));
	operation(1);
}

static void on_done(const struct fake_tile *tile)
{
	(void)tile;
	operation(1);
}

static void on_checksum(uint32_t address, uint32_t bytes)
{
	checksums++;
	CHECK(bytes && bytes%ALIGNMENT == 0 && address%ALIGNMENT == 0);
	CHECK(address >= DATA_BASE && (uint64_t)address + bytes <= (uint64_t)DATA_BASE + DATA_SIZE);
	operation(1);
}

#ifdef PROGRAM_RUNS_MODELS
static int apart(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a + a_bytes <= b || b + b_bytes <= a;
}

/* Whether it is one of an image's of so many tokens, and lies in it: of a batch, or another one. */
static int of_image(const struct fake_program *program, const struct image *image, int batch)
{
	uint32_t most = batch ? image->sessions : image->pass_tokens, model = IMAGE_AT, end = image->image_bytes, kind, n;
	int      found = 0;

	for (n = 0; n < PROGRAMS; n++) {
		kind   = n/MAX_PASS_TOKENS;
		found |= n%MAX_PASS_TOKENS < most
			&& (!image->stage || kind == PROGRAM_LAYERS || (kind == PROGRAM_HEAD && !(image->stage & STAGE_NO_HEAD))) && (kind == PROGRAM_BATCH ? batch : kind == PROGRAM_EACH || !batch)
			&& program->address == model + image->programs[n].program
			&& program->descriptors == image->programs[n].descriptors && program->bases[0] == model + image->programs[n].tape_place
			&& program->tape_beats == image->programs[n].tape_beats;
	}
	for (n = 0; n < FAKE_TOKENS; n++)
		if (program->tokens[n] != FAKE_NO_TOKEN && program->tokens[n] >= image->vocabulary)
			return 0;
	return found && in_data(model, end) && program->address - model >= HEADER_BYTES && program->address - model + 64ull*program->descriptors <= end
		&& program->bases[0] - model >= HEADER_BYTES && program->bases[0] - model + (uint64_t)program->tape_beats*PROGRAM_BEAT_BYTES <= end
		&& image->results + 8ull*CANDIDATES*image->pass_tokens <= end && image->zero_window + image->window_bytes <= end;
}

static int may_run_batch(const struct fake_program *program, const struct job_batch *batch, const struct image *image)
{
	const uint32_t *bases = program->bases;
	uint64_t state = image->state_bytes, size = batch->session_count*(state + image->window_bytes);
	uint64_t output = OUTPUT_HEAD_BYTES + 4ull*batch->tokens*batch->session_count, texts = 4ull*(TEXT_WORDS*batch->session_count + batch->stop_tokens);
	uint32_t model = IMAGE_AT, sessions = batch->sessions, records = model + image->records;

	return batch->model == model && bases[1] == model + image->embedding && bases[2] == model + image->parameters && bases[7] == records
		&& bases[3] == sessions && bases[4] == sessions && bases[5] == sessions + state && bases[6] == sessions + state
		&& bases[8] == model + image->results && bases[9] == records && bases[10] == records && !(program->start & ~2u)
		&& batch->session_count && batch->session_count <= image->sessions && of_image(program, image, 1)
		&& in_data(sessions, size) && in_data(batch->output, output) && in_data(batch->texts, texts)
		&& apart(sessions, size, model, image->image_bytes) && apart(sessions, size, batch->texts, texts)
		&& apart(batch->output, output, model, image->image_bytes) && apart(batch->output, output, sessions, size)
		&& apart(batch->output, output, batch->texts, texts);
}

static int may_run_pass(const struct fake_program *program, const struct job *job, const struct image *image)
{
	const struct job_pass *pass  = &job->pass;
	const uint32_t        *bases = program->bases;
	int      zero = job->flags & JOB_ZERO_STATE, embeds = !(image->stage & STAGE_NO_EMBEDDING), ends = !(image->stage & STAGE_NO_HEAD);
	uint64_t state = image->state_bytes, size = state + image->window_bytes, residuals = (uint64_t)pass->tokens*image->residual_bytes;
	uint64_t input = embeds ? 4*pass->tokens : residuals, output = !ends ? residuals : job->flags & JOB_CANDIDATES ? 8*CANDIDATES : 0;
	uint32_t model = IMAGE_AT, out = pass->session_out, in = zero ? out : pass->session_in, records = model + image->records;

	/* After LAYERS the session that is written takes the place of the one before. */
	if (!(bases[3] == in && bases[5] == (zero ? model + image->zero_window : in + (uint32_t)state))
		&& !(bases[3] == out && bases[5] == out + state && !(program->start & 1)))
		return 0;
	return pass->model == model && bases[1] == (embeds ? model + image->embedding : pass->input) && bases[2] == model + image->parameters
		&& bases[4] == out && bases[6] == out + state && bases[7] == records && bases[8] == pass->output && bases[9] == records
		&& bases[10] == records && !(program->start & ~(zero ? 3u : 2u)) && pass->tokens && pass->tokens <= image->pass_tokens
		&& image->residual_bytes && image->residual_bytes <= MAX_RESIDUAL && of_image(program, image, 0)
		&& in_data(out, size) && (zero || in_data(in, size)) && in_data(pass->input, input) && in_data(pass->output, output)
		&& apart(out, size, model, image->image_bytes) && apart(out, size, pass->input, input)
		&& (zero || in == out || apart(out, size, in, size))
		&& apart(pass->output, output, model, image->image_bytes) && apart(pass->output, output, out, size)
		&& apart(pass->output, output, pass->input, input) && (zero || apart(pass->output, output, in, size));
}

/* Whether a program may be one of a job with an image. */
static int may_run(const struct fake_program *program, const struct job *job, const struct image *image)
{
	const struct job_generate *generate = &job->generate;
	const uint32_t            *bases    = program->bases;
	uint64_t state = image->state_bytes, window = image->window_bytes, size = state + window, output;
	uint32_t model = IMAGE_AT, end = image->image_bytes;
	int      zero  = job->flags & JOB_ZERO_STATE, logits = job->flags & JOB_LOGITS;
	unsigned n, found = 0, deferred = program->start >> 8;

	if (job->opcode == OPCODE_BATCH)
		return may_run_batch(program, &job->batch, image);
	if (job->opcode == OPCODE_PASS)
		return may_run_pass(program, job, image);
	/* The registers, */
	if (image->stage || generate->model != model || bases[1] != model + image->embedding || bases[2] != model + image->parameters
		|| bases[7] != model + image->records || bases[4] != generate->session_out || bases[6] != generate->session_out + state)
		return 0;
	if (bases[3] != generate->session_out && (zero || bases[3] != generate->session_in))
		return 0;
	for (n = 0; n < (job->flags & JOB_SPECULATE ? MAX_PASS_TOKENS : 1) && n < image->pass_tokens; n++)
		found |= bases[5] == generate->session_out + state + n*image->window_step;
	if (!found && bases[5] != (zero ? model + image->zero_window : generate->session_in + state))
		return 0;
	if ((program->start & 1 && !zero) || deferred > image->deferred
		|| (deferred && deferred > generate->store_every + (job->flags & JOB_SPECULATE ? image->pass_tokens : 0))
		|| bases[9] - model - image->records > MAX_DEFERRED*image->x_stride || bases[10] - model - image->records > MAX_DEFERRED*image->bc_stride)
		return 0;
	output = OUTPUT_HEAD_BYTES + 4ull*generate->tokens;
	if (logits && image->pass_tokens) /* Those of a pass are filled up, so the last pass's begin before this. */
		output = (generate->prompt_tokens/image->pass_tokens + 1ull)*ceil_multiple(4*image->logit_rows*image->pass_tokens, ALIGNMENT);
	if (bases[8] != model + image->results && !(logits && bases[8] % ALIGNMENT == 0 && bases[8] >= generate->output
		&& bases[8] < generate->output + output))
		return 0;
	/* the program, */
	if (!of_image(program, image, 0))
		return 0;
	/* what it says all this leads to, */
	if (!in_data(generate->session_out, size) || (!zero && !in_data(generate->session_in, size))
		|| !in_data(generate->output, logits ? 4*image->logit_rows : output)
		|| !in_data(generate->prompt, 4ull*(generate->prompt_tokens + generate->stop_tokens)))
		return 0;
	for (n = 1; n < 9; n++)
		if ((n < 3 || n > 6) && (n != 8 || !logits) && (bases[n] - model < HEADER_BYTES || bases[n] - model >= end || bases[n] % ALIGNMENT))
			return 0;
	/* and what is written. */
	return apart(generate->session_out, size, model, end) && apart(generate->session_out, size, generate->prompt, 4*generate->prompt_tokens)
		&& (zero || generate->session_in == generate->session_out || apart(generate->session_out, size, generate->session_in, size))
		&& (logits || (apart(generate->output, output, model, end) && apart(generate->output, output, generate->session_out, size)
			&& (zero || apart(generate->output, output, generate->session_in, size))
			&& apart(generate->output, output, generate->prompt, 4*generate->prompt_tokens)));
}

static void on_program(const struct fake_program *program)
{
	struct {
		uint32_t token, logit;
	} candidate;
	unsigned job, image, row, found = 0;

	for (job = 0; job < generation_count && !found; job++)
		for (image = 0; image < image_count && !found; image++)
			found = may_run(program, &generations[job], &images[image]);
	CHECK(found);
	for (row = 0; row < PROGRAM_PASS_TOKENS && program->bases[8] - IMAGE_AT < IMAGE_SIZE; row++) {
		candidate.token = take8();
		candidate.logit = 0x3f800000;
		if (candidate.token >= 225 && candidate.token < 245)
			candidate.logit = take32() | 0x7f800000;
		if (candidate.token < 128) /* So that texts repeat themselves. */
			candidate.token &= 3;
		else if (candidate.token < 250)
			candidate.token %= VOCABULARY;
		fake_dram_write(program->bases[8] + 8*CANDIDATES*row, (const uint8_t *)&candidate, sizeof(candidate));
	}
	operation(1);
}
#endif

static void check_memory(void)
{
	struct job      job;
	struct info     info;
	unsigned        i;

	for (i = 0; i < RING_ENTRIES; i++) {
		fake_dram_read(slot_address(i), (uint8_t *)&job, JOB_BYTES);
		CHECK(!memcmp(&job, &ring[i], REQUEST_BYTES));
	}
	fake_dram_read(DRAM_BASE + INFO_OFFSET, (uint8_t *)&info, sizeof(info));
	CHECK(!memcmp(&info, &published, sizeof(info)));
	for (i = 0; i < TABLE_SIZE/4 && checksums; i++)
		if (!table_named[i])
			CHECK(!dram(TABLE_BASE)[i]);
}

/* Operations -------------------------------------------------------------------------------------- */

static uint32_t completed(void)
{
	return fake_host_read(CSR_mailbox_completed);
}

static void poll(void)
{
	uint32_t before = completed();
	struct job job;

	fake_accesses_left = MAX_ACCESSES;
	ring_poll();
	CHECK((int32_t)(completed() - before) >= 0);
	if (completed() != before) {
		fake_dram_read(slot_address(before%RING_ENTRIES), (uint8_t *)&job, JOB_BYTES);
		CHECK(job.status == STATUS_DONE || job.status == STATUS_FAILED);
		CHECK((job.status == STATUS_DONE) == (job.error == ERROR_NONE));
		answers[job.error%32]++;
	}
}

/* Two heads, three tokens; checksums of forty blocks. */
static struct job good_job(uint32_t opcode)
{
	struct job job = {.version = PROTOCOL_VERSION, .opcode = opcode};

	if (opcode == OPCODE_CHECKSUM) {
		job.checksum.region       = DATA_BASE;
		job.checksum.region_bytes = 40*ALIGNMENT;
		job.checksum.block_bytes  = ALIGNMENT;
		job.checksum.table        = TABLE_BASE;
	} else if (opcode == OPCODE_SSM) {
		job.ssm.heads      = 2;
		job.ssm.headdim    = 8;
		job.ssm.d_state    = 16;
		job.ssm.groups     = 1;
		job.ssm.tokens     = 3;
		job.ssm.x_address  = DATA_BASE;
		job.ssm.bc_address = DATA_BASE + 0x1000;
		job.ssm.y_address  = DATA_BASE + 0x2000;
		job.ssm.state_in   = DATA_BASE + 0x3000;
		job.ssm.state_out  = DATA_BASE + 0x4000;
#ifdef PROGRAM_RUNS_MODELS
	} else if (opcode == OPCODE_GENERATE) {
		job.generate.model         = IMAGE_AT;
		job.generate.session_in    = DATA_BASE + 0x20000;
		job.generate.session_out   = DATA_BASE + 0x21000;
		job.generate.prompt        = DATA_BASE + 0x22000;
		job.generate.prompt_tokens = 3;
		job.generate.tokens        = 2;
		job.generate.output        = DATA_BASE + 0x23000;
		job.generate.top           = 1;
		job.generate.stop_tokens   = 1;
		job.generate.store_every   = 4;
	} else if (opcode == OPCODE_BATCH) {
		job.batch.model         = IMAGE_AT;
		job.batch.sessions      = DATA_BASE + 0x20000;
		job.batch.texts         = DATA_BASE + 0x22000;
		job.batch.session_count = 1;
		job.batch.tokens        = 2;
		job.batch.output        = DATA_BASE + 0x23000;
		job.batch.stop_tokens   = 1;
	} else if (opcode == OPCODE_PASS) {
		job.pass.model       = IMAGE_AT;
		job.pass.session_in  = DATA_BASE + 0x20000;
		job.pass.session_out = DATA_BASE + 0x21000;
		job.pass.input       = DATA_BASE + 0x22000;
		job.pass.tokens      = 2;
		job.pass.output      = DATA_BASE + 0x23000;
#endif
	}
	return job;
}

static uint32_t word(void)
{
	static const uint32_t edges[] = {
		0, DATA_BASE, DATA_BASE + DATA_SIZE, TABLE_BASE, TABLE_BASE + TABLE_SIZE, DRAM_BASE, 0x80000000, 0xffffffff,
	};
	uint8_t kind = take8();

	switch (kind & 3) {
	case 0:
		return take8();
	case 1:
		return edges[kind >> 2 & 7] + ALIGNMENT*((int8_t)take8()/32) + (kind >> 5 == 7);
	case 2:
		return DATA_BASE + ALIGNMENT*(take8() | (uint32_t)take8() << 8);
	default:
		return take32();
	}
}

static void post(void)
{
	static const uint8_t opcodes[16] = {
		OPCODE_NOP, OPCODE_SELFTEST, OPCODES, OPCODE_CHECKSUM, OPCODE_CHECKSUM, OPCODE_CHECKSUM, OPCODE_SSM,
		OPCODE_SSM, OPCODE_SSM, OPCODE_SSM, OPCODE_SSM,
#ifdef PROGRAM_RUNS_MODELS
		OPCODE_PASS, OPCODE_GENERATE, OPCODE_GENERATE, OPCODE_GENERATE, OPCODE_BATCH,
#else
		OPCODE_SSM, OPCODE_SSM, OPCODE_SSM, OPCODE_SSM, OPCODE_SSM,
#endif
	};
	uint8_t   choice = take8();
	unsigned  slot   = (completed() + (choice >> 4 & 3))%RING_ENTRIES;
	uint32_t *words  = (uint32_t *)&ring[slot];
	unsigned  changes;

	if (!(choice & 0x80))
		ring[slot] = good_job(opcodes[choice & 15]);
	for (changes = choice >> 6 & 1 ? take8()%6 : 0; changes; changes--) {
		unsigned number = take8();

		words[number%(ring[slot].opcode == OPCODE_CHECKSUM ? 9 : REQUEST_BYTES/4)] = word();
	}
#ifdef PROGRAM_RUNS_MODELS
	if (ring[slot].opcode == OPCODE_GENERATE) {
		struct job_generate *job = &ring[slot].generate;

		choice = take8();
		if (choice & 1) {
			ring[slot].flags = choice >> 1 & 1 ? JOB_ZERO_STATE : ring[slot].flags;
			if (choice >> 5 & 1) {
				ring[slot].flags |= JOB_SPECULATE;
				job->tokens       = 9;
			}
			job->inverse     = choice >> 2 & 1 ? 0x10000 : 0;
			if (choice >> 3 & 1) {
				ring[slot].flags |= JOB_LOGITS;
				job->tokens       = 0;
			}
		}
		if (choice >> 4 & 1 && in_data(job->prompt, 0))
			write_prompt(job->prompt);
		if (!image_count || choice >> 6)
			write_image(choice >> 6 & 1, 0);
		if (choice >> 5 & 1) { /* One region next to another one. */
			uint32_t *regions[] = {&job->session_in, &job->session_out, &job->prompt, &job->output, &job->model};
			uint8_t   which     = take8();

			*regions[which%4] = *regions[(which >> 2)%5] + ALIGNMENT*((int8_t)take8()/4);
		}
		/* More would only take long. */
		if (job->prompt_tokens <= MAX_PROMPT_TOKENS)
			job->prompt_tokens %= 600;
		if (job->tokens <= MAX_TOKENS)
			job->tokens %= 600;
	} else if (ring[slot].opcode == OPCODE_BATCH) {
		struct job_batch *job = &ring[slot].batch;

		choice = take8();
		job->session_count += choice >> 1 & 1;
		if (!(choice >> 4 & 1) && in_data(job->texts, 0))
			write_texts(job->texts, choice);
		if (!image_count || choice >> 6)
			write_image(choice >> 6 & 1, 0);
		if (choice >> 5 & 1) {
			uint32_t *regions[] = {&job->sessions, &job->texts, &job->output, &job->model};
			uint8_t   which     = take8();

			*regions[which%3] = *regions[(which >> 2)%4] + ALIGNMENT*((int8_t)take8()/4);
		}
		if (job->tokens <= MAX_TOKENS)
			job->tokens %= 600;
	} else if (ring[slot].opcode == OPCODE_PASS) {
		struct job_pass *job = &ring[slot].pass;

		choice = take8();
		if (choice & 1)
			ring[slot].flags = (choice >> 1 & 1 ? JOB_ZERO_STATE : 0) | (choice >> 2 & 1 ? JOB_CANDIDATES : 0);
		if (!(choice >> 4 & 1) && in_data(job->input, 0))
			write_prompt(job->input);
		if (!image_count || choice >> 6)
			write_image(choice >> 6 & 1, choice >> 2 & 3);
		if (choice >> 5 & 1) {
			uint32_t *regions[] = {&job->session_in, &job->session_out, &job->input, &job->output, &job->model};
			uint8_t   which     = take8();

			*regions[which%4] = *regions[(which >> 2)%5] + ALIGNMENT*((int8_t)take8()/4);
		}
	}
#endif
	write_ring(slot);
}

static void behave(void)
{
	uint8_t choice = take8();

	fake_knobs.hang            = (choice & 7)  == 1;
	fake_knobs.stuck           = (choice & 15) == 9;
	fake_knobs.deaf            = choice >> 4 & 1;
	fake_knobs.push_errors     = choice >> 5 == 1 ? take8() : 0;
	fake_knobs.checksum_errors = choice >> 5 == 2 ? take8() & 6 : 0;
	fake_knobs.tile_cycles     = choice >> 5 == 3 ? take8() : 24;
#ifdef PROGRAM_RUNS_MODELS
	fake_knobs.program_cycles  = choice >> 5 == 3 ? take8() : 100;
	fake_knobs.program_errors  = choice >> 5 == 4 ? take8() : 0;
	fake_knobs.ssm_errors      = choice >> 5 == 5 ? take8() : 0;
#endif
	fake_knobs.access_cycles   = fake_knobs.hang ? 1u << 30 : fake_knobs.stuck ? 1u << 12 : 8; /* To be soon at the end. */
}

static void operation(int in_run)
{
	static unsigned depth;

	if (!input_left || depth > 2)
		return;
	depth++;
	switch (take8()%(in_run ? 16 : 8)) { /* While a job runs, half of the time nothing. */
	case 0:
	case 1:
		post();
		break;
	case 2:
		fake_host_write(CSR_mailbox_doorbell, completed() + 1 + take8()%4);
		break;
	case 3:
		fake_host_write(CSR_mailbox_doorbell, completed() + (int8_t)take8());
		break;
	case 4:
		fake_host_write(CSR_mailbox_doorbell, take32());
		break;
	case 5:
		behave();
		break;
	case 6:
		fake_host_write(CSR_mailbox_boot, take8() & 1 ? 0xffffffff : 0);
		break;
	case 7:
		if (!in_run)
			poll();
		break;
	}
	depth--;
}

/* After all that, a good job of each kind runs. */
static void recover(void)
{
	static const uint8_t opcodes[] = {
		OPCODE_CHECKSUM, OPCODE_SSM,
#ifdef PROGRAM_RUNS_MODELS
		OPCODE_GENERATE, OPCODE_BATCH, OPCODE_PASS,
#endif
	};
	unsigned i, slot;
	struct job job;

	input_left = 0;
	fake_knobs.hang = fake_knobs.stuck = fake_knobs.deaf = fake_knobs.push_errors = fake_knobs.checksum_errors = 0;
	fake_knobs.program_errors = fake_knobs.ssm_errors = 0;
	fake_knobs.access_cycles = 8;
	fake_host_write(CSR_mailbox_boot, 0);
	for (i = 0; i < RING_ENTRIES + 2; i++) /* What was rung for before. */
		poll();
	CHECK((int32_t)(fake_host_read(CSR_mailbox_doorbell) - completed()) <= 0);
#ifdef PROGRAM_RUNS_MODELS
	image_count = generation_count = 0;
	write_image(0, 0);
	write_texts(DATA_BASE + 0x22000, 0); /* A prompt too. */
#endif
	for (i = 0; i < sizeof(opcodes)/sizeof(opcodes[0]); i++) {
		slot       = completed()%RING_ENTRIES;
		ring[slot] = good_job(opcodes[i]);
		write_ring(slot);
		fake_host_write(CSR_mailbox_doorbell, completed() + 1);
		poll();
		fake_dram_read(slot_address(slot), (uint8_t *)&job, JOB_BYTES);
		CHECK(job.status == STATUS_DONE && completed() == (uint32_t)fake_host_read(CSR_mailbox_doorbell));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int mapped;
	unsigned   operations;

	if (!mapped) {
		fake_map();
		mapped = 1;
	}
	fake_on_push     = on_push;
	fake_on_done     = on_done;
	fake_on_checksum = on_checksum;
#ifdef PROGRAM_RUNS_MODELS
	fake_on_program  = on_program;
	image_count      = 0;
	generation_count = 0;
#endif
	fake_power_up();
	fake_accesses_left = MAX_ACCESSES;
	memset(ring, 0, sizeof(ring));
	memset(table_named, 0, sizeof(table_named));
	named_count = 0;
	checksums   = 0;
	input_left  = 0;
	engines_init();
	ring_init();
	info_publish();
	fake_dram_read(DRAM_BASE + INFO_OFFSET, (uint8_t *)&published, sizeof(published));

	input      = data;
	input_left = size;
	for (operations = 0; input_left && operations < MAX_OPERATIONS; operations++)
		operation(0);
	check_memory();
	recover();
	return 0;
}

#ifdef FUZZ_SEEDED
/* fuzz SEED INPUTS: so many random inputs; prints the number of answers by error. */
int main(int argc, char **argv)
{
	uint64_t x      = argc > 1 ? strtoull(argv[1], NULL, 0)*2 + 1 : 1;
	uint64_t inputs = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
	uint8_t  data[256];
	size_t   size, i;

	for (; inputs; inputs--) {
		for (i = 0; i < sizeof(data); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			data[i] = x >> 24;
		}
		size = 16 + x%(sizeof(data) - 16);
		LLVMFuzzerTestOneInput(data, size);
	}
	for (i = 0; i < 32; i++)
		printf("%llu ", (unsigned long long)answers[i]);
	printf("\n");
	return 0;
}
#endif
