/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Messages of the boot. Nothing else prints: a character takes a serial port 9,000 cycles.
 */

#ifndef CONSOLE_H
#define CONSOLE_H

/* Prints a text, or as much of it as somebody takes. Nothing without a UART. */
void console_print(const char *text);

#endif
