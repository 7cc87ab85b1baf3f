/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands in for LiteX's generated header. SSM_MAX_HEADS, PROGRAM_PASS_TOKENS and their like come from the command line.
 */

#ifndef NATIVE_SOC_H
#define NATIVE_SOC_H

#define CONFIG_CLOCK_FREQUENCY 100000000
#define SSM_INTERRUPT          2
#define PROGRAM_INTERRUPT      3

#endif
