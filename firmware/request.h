/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Check of what a host asks for. Nothing of a request is used before it passed; afterwards every address that its
 * block leads to lies in a region the request names, inside the data region or, of a table of CRCs, the tables.
 */

#ifndef REQUEST_H
#define REQUEST_H

#include "block.h"
#include "platform.h"

/*
 * Returns an ERROR code and, in detail, the offending value. With OPCODE_SSM the block is filled in. The job must be a
 * copy that the host can't change any more.
 */
uint32_t request_check(const struct job *job, struct block *block, uint32_t *detail);

#endif
