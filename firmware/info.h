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

/* Writes it to DRAM, after engines_init(): from then on the host may ring. */
void info_publish(void);

/* Withdraws it. */
void info_retract(void);

#endif
