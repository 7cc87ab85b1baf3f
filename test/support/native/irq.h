/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands in for the CPU's header.
 */

#ifndef NATIVE_IRQ_H
#define NATIVE_IRQ_H

void irq_setmask(unsigned int mask);
void irq_setie(unsigned int enable);
unsigned int irq_pending(void);

#endif
