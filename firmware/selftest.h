/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Self-test: vectors of the bit-accurate model through the core, and a small model's passes through all engines.
 */

#ifndef SELFTEST_H
#define SELFTEST_H

#include "operations.h"

/*
 * The operation SELFTEST, see operations.h. begin() runs every vector, all of them together for as many cycles as the job may
 * take (0: each as scheduler_run(), each program as passes.h), with the end of the data region as scratch. The detail of
 * ERROR_SELFTEST_MISMATCH is the vector's index: those of the SSM core, then, where the build runs whole models, that of the model.
 */
uint32_t selftest_begin(struct task *task);

#endif
