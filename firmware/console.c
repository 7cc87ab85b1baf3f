/*
 * This file is part of the Mamba-2 LiteX accelerator.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <generated/csr.h>

#include "console.h"

#ifdef CSR_UART_BASE

#define FULL_POLLS 100000 /* A character at 9,600 baud; a crossover UART that nobody reads stays full for ever. */

static int put(char character)
{
	unsigned int polls = FULL_POLLS;

	while (uart_txfull_read())
		if (!--polls)
			return 0;
	uart_rxtx_write(character);
	return 1;
}

void console_print(const char *text)
{
	while (*text && put(*text))
		text++;
}

#else

void console_print(const char *text)
{
	(void)text;
}

#endif
