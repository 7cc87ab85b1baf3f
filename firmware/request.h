/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Check of what a host asks for. Nothing of a request is used before it passed; afterwards every address that its
 * operation makes of it lies in a range the request names, inside the data region or, of a table of CRCs, the tables.
 */

#ifndef REQUEST_H
#define REQUEST_H

#include "operations.h"

/* Returns an ERROR code, with the offending value in the task's detail. The task holds the job; its operation is set. */
uint32_t request_check(struct task *task);

/*
 * Whether so many bytes from an aligned address on lie in the region of a base and a size: an ERROR code. bytes is a
 * product of three sizes at most, which at their maxima needs 42 bits.
 */
static inline uint32_t request_inside(uint32_t address, uint64_t bytes, uint32_t base, uint32_t size, uint32_t *detail)
{
	uint32_t offset = address - base;

	*detail = address;
	if (address % ALIGNMENT)
		return ERROR_BAD_ALIGNMENT;
	if (offset >= size || bytes > size - offset)
		return ERROR_BAD_ADDRESS;
	return ERROR_NONE;
}

/* The range of a request's bytes in the data region, if they lie there: an ERROR code. */
static inline uint32_t request_range(struct range *range, uint32_t address, uint64_t bytes, uint32_t *detail)
{
	uint32_t error = request_inside(address, bytes, DATA_BASE, DATA_SIZE, detail);

	if (error)
		return error;
	range->first = address;
	range->end   = address + bytes;
	return ERROR_NONE;
}

#endif
