/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands in for LiteX's generated header: the CSRs the firmware uses, as accesses to test/support/native/fake.c.
 */

#ifndef NATIVE_CSR_H
#define NATIVE_CSR_H

#include <stdint.h>

#define CSRS_32(CSR) \
	CSR(mailbox_boot) CSR(mailbox_doorbell) CSR(mailbox_completed) CSR(mailbox_latch) \
	CSR(ssm_version) CSR(ssm_capabilities) CSR(ssm_control) CSR(ssm_headdim) CSR(ssm_d_state) \
	CSR(ssm_x_stride) CSR(ssm_bc_stride) CSR(ssm_y_stride) \
	CSR(ssm_tile_x) CSR(ssm_tile_bc) CSR(ssm_tile_y) CSR(ssm_tile_state_in) CSR(ssm_tile_state_out) \
	CSR(ssm_x_step) CSR(ssm_bc_step) CSR(ssm_y_step) CSR(ssm_state_step) \
	CSR(ssm_tile_heads) CSR(ssm_tile_tokens) CSR(ssm_tile_seed) CSR(ssm_tile_push) CSR(ssm_status) CSR(ssm_tiles_done) CSR(ssm_errors) \
	CSR(ssm_counters_latch) CSR(ssm_ev_pending) CSR(ssm_ev_enable) \
	CSR(checksum_address) CSR(checksum_length) CSR(checksum_control) CSR(checksum_status) CSR(checksum_crc) \
	CSR(program_version) CSR(program_control) CSR(program_errors) CSR(program_status) CSR(program_ev_pending) CSR(program_ev_enable) \
	CSR(program_address) CSR(program_descriptors) CSR(program_tape_beats) CSR(program_token) CSR(program_seed) CSR(program_start) \
	CSR(program_index) CSR(program_base_tape) CSR(program_base_embedding) CSR(program_base_parameters) CSR(program_base_state_in) \
	CSR(program_base_state_out) CSR(program_base_window_in) CSR(program_base_window_out) CSR(program_base_records) \
	CSR(program_base_results) CSR(program_base_x_records) CSR(program_base_bc_records) CSR(program_counters_latch)
#define CSRS_64(CSR) \
	CSR(mailbox_cycles) CSR(mailbox_doorbell_cycles) \
	CSR(ssm_counters_lane_busy) CSR(ssm_counters_read_beats) CSR(ssm_counters_write_beats) \
	CSR(program_counters_cycles) CSR(program_counters_read_beats) CSR(program_counters_write_beats) CSR(program_counters_tape_wait) \
	CSR(program_counters_wait_move) CSR(program_counters_wait_gemv) CSR(program_counters_wait_vector) CSR(program_counters_wait_ssm) \
	CSR(program_counters_wait_head)

/* Modules: what a test leaves out is not there for the firmware. */
#ifndef WITHOUT_SSM
#define CSR_SSM_BASE 0
#endif
#ifndef WITHOUT_CHECKSUM
#define CSR_CHECKSUM_BASE 0
#endif
#if defined(PROGRAM_PASS_TOKENS) && !defined(WITHOUT_PROGRAM)
#define CSR_PROGRAM_BASE 0
#endif

/* Fields: OFFSET and SIZE. */
#define CSR_CHECKSUM_CONTROL_START_OFFSET 0
#define CSR_CHECKSUM_CONTROL_RESET_OFFSET 1
#define CSR_CHECKSUM_STATUS_BUSY_OFFSET 0
#define CSR_PROGRAM_CONTROL_RESET_OFFSET 0
#define CSR_PROGRAM_STATUS_BUSY_OFFSET 0
#define CSR_PROGRAM_EV_PENDING_DONE_OFFSET 0
#define CSR_PROGRAM_EV_PENDING_ERROR_OFFSET 1
#define CSR_PROGRAM_TOKEN_TOKEN_OFFSET 0
#define CSR_PROGRAM_TOKEN_PLACE_OFFSET 24
#define CSR_PROGRAM_START_ZERO_STATE_OFFSET 0
#define CSR_PROGRAM_START_NO_STORE_OFFSET 1
#define CSR_PROGRAM_START_DEFERRED_OFFSET 8
#define CSR_SSM_CONTROL_RESET_OFFSET 0
#define CSR_SSM_EV_PENDING_DONE_OFFSET 0
#define CSR_SSM_EV_PENDING_ERROR_OFFSET 1
#define CSR_SSM_CAPABILITIES_LANES_OFFSET 0
#define CSR_SSM_CAPABILITIES_LANES_SIZE 8
#define CSR_SSM_CAPABILITIES_MAX_HEADDIM_OFFSET 8
#define CSR_SSM_CAPABILITIES_MAX_HEADDIM_SIZE 10
#define CSR_SSM_CAPABILITIES_MAX_D_STATE_OFFSET 18
#define CSR_SSM_CAPABILITIES_MAX_D_STATE_SIZE 10
#define CSR_SSM_CAPABILITIES_QUEUE_DEPTH_OFFSET 28
#define CSR_SSM_CAPABILITIES_QUEUE_DEPTH_SIZE 4
#define CSR_SSM_STATUS_BUSY_OFFSET 0
#define CSR_SSM_STATUS_BUSY_SIZE 1
#define CSR_SSM_STATUS_QUEUE_FREE_OFFSET 8
#define CSR_SSM_STATUS_QUEUE_FREE_SIZE 8
#define CSR_SSM_TILE_TOKENS_TOKENS_OFFSET 0
#define CSR_SSM_TILE_TOKENS_FIRST_TOKEN_OFFSET 16
#define CSR_SSM_TILE_HEADS_HEADS_OFFSET 0
#define CSR_SSM_TILE_HEADS_GROUP_HEADS_OFFSET 16
#define CSR_SSM_TILE_PUSH_ZERO_STATE_OFFSET 0
#define CSR_SSM_TILE_PUSH_NO_STORE_OFFSET 1
#define CSR_SSM_TILE_PUSH_INTERRUPT_OFFSET 2
#define CSR_SSM_TILE_PUSH_RESIDENT_OFFSET 3
#define CSR_SSM_TILE_PUSH_TILE_OFFSET 8

#define CSR_NUMBER(name) CSR_##name,
enum { CSRS_32(CSR_NUMBER) CSRS_64(CSR_NUMBER) CSR_COUNT };

uint64_t fake_csr_read(int csr);
void fake_csr_write(int csr, uint32_t value);

#define CSR_ACCESS_32(name) \
	static inline uint32_t name##_read(void) { return fake_csr_read(CSR_##name); } \
	static inline void name##_write(uint32_t value) { fake_csr_write(CSR_##name, value); }
#define CSR_ACCESS_64(name) \
	static inline uint64_t name##_read(void) { return fake_csr_read(CSR_##name); }
CSRS_32(CSR_ACCESS_32)
CSRS_64(CSR_ACCESS_64)

#endif
