/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The job ring: takes what the host rang for, answers.
 */

#ifndef RING_H
#define RING_H

/* Empties the ring: doorbell and completed are 0 again. */
void ring_init(void);

/* Runs the next job when there is one. */
void ring_poll(void);

#endif
