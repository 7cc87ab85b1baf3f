/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands in for the CPU's header. The cache itself is tested in the simulated SoC.
 */

#ifndef NATIVE_SYSTEM_H
#define NATIVE_SYSTEM_H

static inline void flush_cpu_dcache(void) {}

#endif
