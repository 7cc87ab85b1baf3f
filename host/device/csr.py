#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The SoC's map, from the csr.csv that LiteX writes beside the gateware."""

import csv

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.errors import UsageError

# CSRMap -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class CSRMap:
    """Addresses and constants of a SoC.

    Attributes
    ----------
    registers : {name: (address in bytes, number of 32-bit words)}
    memories  : {name: (address in bytes, size in bytes)}
    constants : {name: int, str or None}
    bases     : {name of a module: address in bytes}
    """
    registers : dict[str, tuple[int, int]]
    memories  : dict[str, tuple[int, int]]
    constants : dict[str, Any]
    bases     : dict[str, int]

    @classmethod
    def from_csv(cls, path: Path | str) -> "CSRMap":
        """Parse a csr.csv.

        Raises
        ------
        UsageError : the file cannot be read, is not a csr.csv, or has CSRs that are not 32 bits wide.
        """
        result = cls({}, {}, {}, {})
        try:
            with open(path, newline="") as file:
                for kind, name, *values, size, _ in csv.reader(line for line in file if not line.startswith("#")):
                    value = ",".join(values) # Of a constant, which may hold commas.
                    if kind == "csr_register":
                        result.registers[name] = (int(value, 0), int(size))
                    elif kind == "memory_region":
                        result.memories[name] = (int(value, 0), int(size))
                    elif kind == "csr_base":
                        result.bases[name] = int(value, 0)
                    elif kind == "constant":
                        result.constants[name] = int(value) if value.lstrip("-").isdigit() else value or None
        except OSError as error:
            raise UsageError(f"{path}: cannot read the SoC's map ({error.strerror}): give csr.csv from the folder the "
                "gateware was built in.") from error
        except (ValueError, csv.Error) as error:
            raise UsageError(f"{path}: not a csr.csv of LiteX ({error}).") from error
        for name, found in (("main_ram", result.memories), ("mailbox_doorbell", result.registers),
                ("ssm_version", result.registers), ("ssm_capabilities", result.registers)):
            if name not in found:
                raise UsageError(f"{path}: has no {name}: give csr.csv of a SoC with this project's accelerator.")
        if (width := result.constants.get("config_csr_data_width")) != 32:
            raise UsageError(f"{path}: csr_data_width must be 32, is {width}.")
        return result
