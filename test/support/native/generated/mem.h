/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Stands in for LiteX's generated header. test/support/native/fake.c maps this memory at this very address.
 */

#ifndef NATIVE_MEM_H
#define NATIVE_MEM_H

#define MAIN_RAM_BASE 0x40000000L
#define MAIN_RAM_SIZE 0x02000000

#endif
