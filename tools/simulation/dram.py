#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The simulated DRAM: how its addresses map to its banks, and the files that fill them at the start."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Constants ----------------------------------------------------------------------------------------

ROW_WORDS = 128 # Of a bank: 1024 columns, eight a word.
ROWS      = {128: 2**14, 256: 2**14, 512: 2**13} # By the bits of a word.

# Banks --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class DRAMBanks:
    """Banks whose rows lie one after the other: row 0 of bank 0, of bank 1, ..., then row 1 of bank 0.

    word_bits : of a word, which is what a port of the controller moves.
    words     : of a bank.
    """
    word_bits : int
    words     : int
    count     : int = 8

    @classmethod
    def of(cls, data_width: int | None) -> "DRAMBanks":
        """Those of the simulated SoC with ports of so many bits; None: 128."""
        width = data_width or min(ROWS)
        return cls(width, ROW_WORDS*ROWS[width])

    @property
    def size(self) -> int:
        """Bytes of the DRAM."""
        return self.count*self.words*self.word_bits//8

    def write_files(self, folder: Path, parts: Sequence[tuple[int, np.ndarray]]) -> list[Path]:
        """Write a file for each bank. parts: (address in the DRAM, uint8 data) of what is to be there; between them are zeros.

        Raises
        ------
        ValueError : a part does not fit in the DRAM.
        """
        end = max((address + len(data) for address, data in parts), default=0)
        if end > self.size:
            raise ValueError(f"the simulated DRAM must hold all up to byte {end}, has {self.size} bytes.")
        beat  = self.word_bits//8
        row   = self.count*ROW_WORDS*beat
        image = np.zeros(-(-end//row)*row, np.uint8)
        for address, data in parts:
            image[address:address + len(data)] = data
        rows  = image.reshape(-1, self.count, ROW_WORDS, beat)
        paths = [folder/f"bank{bank}" for bank in range(self.count)]
        for bank, path in enumerate(paths):
            rows[:, bank, :, ::-1].tofile(path)
        return paths
