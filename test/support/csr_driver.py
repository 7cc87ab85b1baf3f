#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""CSRs of compiled peripherals, read and written as a CPU does."""

# CSR Driver ---------------------------------------------------------------------------------------

class CSRDriver:
    """A harness with ``compiled``, whose inputs are those of a CSR bus, and ``registers``: {name: (address, words)}."""
    def write(self, name, value):
        """A write, and the two cycles until it shows: a CPU's next access is never nearer."""
        address, words = self.registers[name]
        assert words == 1
        self.compiled.poke(adr=address, dat_w=value, we=1)
        self.compiled.step()
        self.compiled.poke(we=0)
        self.compiled.step(2)

    def read(self, name):
        address, words = self.registers[name]
        value = 0
        for word in range(words):
            self.compiled.poke(adr=address + word, re=1)
            self.compiled.step()
            value = value << 32 | self.compiled.peek("dat_r")
        self.compiled.poke(re=0)
        return value
