/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The info block: what this firmware and gateware are and can do.
 */

#ifndef INFO_H
#define INFO_H

#include "platform.h"

/* The firmware's own copy, which no host can change. */
extern struct info info;

/* Fills `info` from the gateware, after engines_init(). */
void info_init(void);

/* Writes `info` to DRAM: from then on the host may ring. */
void info_publish(void);

/* Withdraws it. */
void info_retract(void);

#endif
