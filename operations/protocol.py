#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What host and firmware say to each other: DRAM map, info block, job ring, opcodes and error codes.

This file is the one place for it. The host imports it; ``c_header()`` writes ``protocol.h`` for the firmware, and the
firmware's build stamps ``PROTOCOL_VERSION`` into its info block, which the host checks before anything else.

DRAM, from the start of main RAM::

    0x0000_0000  firmware: image, data, stack             FIRMWARE_SIZE
    0x0010_0000  info block (written by the firmware)     INFO_BYTES
    0x0010_0800  SHA-256 of the firmware's image          (written by the host that loaded it)
    0x0010_1000  job ring   (written by both)             RING_ENTRIES x JOB_BYTES
    0x0010_2000  tables of CRCs (written by the firmware) TABLE_SIZE
    0x0011_0000  manifest of what is loaded               MANIFEST_SIZE (written by the host, see host/device/manifest.py)
    0x0020_0000  data: tiles, records, weights            to the end of main RAM

A job, host to firmware and back::

    host      writes ring[n % RING_ENTRIES], reads it back, writes n + 1 to the CSR mailbox_doorbell
    firmware  takes ring[n], checks it, runs it, writes the result words, then n + 1 to the CSR mailbox_completed
    host      polls mailbox_completed (with a time-out), reads the result words

Indices n count jobs from 0 since the firmware started and wrap at 2**32. The host never has more than RING_ENTRIES
jobs between completed and doorbell. A doorbell behind completed is a late copy of an earlier one and
means nothing. All words are 32 bits, little endian; 64-bit values are low word first.
"""

from enum import IntEnum, IntFlag

from operations.config import SEED_STRIDE # From a head's seed to the next one's.

PROTOCOL_VERSION = 3

# DRAM Map (offsets from the start of main RAM) ----------------------------------------------------

FIRMWARE_OFFSET = 0x0000_0000
FIRMWARE_SIZE   = 0x0010_0000
INFO_OFFSET     = 0x0010_0000
STAMP_OFFSET    = 0x0010_0800
RING_OFFSET     = 0x0010_1000
TABLE_OFFSET    = 0x0010_2000
TABLE_SIZE      = 0x0000_e000
MANIFEST_OFFSET = 0x0011_0000
MANIFEST_SIZE   = 0x000f_0000
DATA_OFFSET     = 0x0020_0000

# Info Block ---------------------------------------------------------------------------------------

INFO_MAGIC = 0x324d5353 # "SSM2".

INFO_WORDS = (
    "magic",            # INFO_MAGIC; written last, so a valid magic means a complete block.
    "protocol_version", # PROTOCOL_VERSION.
    "firmware_version", # 0x00MMmmpp: major, minor, patch.
    "gateware_version", # As read from the CSR ssm_version.
    "lanes",            # L.
    "max_headdim",
    "max_d_state",
    "max_heads",
    "max_groups",
    "max_tokens",
    "clock_hz",
    "data_base",        # Bus address of the first byte a job may name.
    "data_size",        # Bytes from there.
    "ring_base",        # Bus address of the ring.
    "ring_entries",
    "job_bytes",
    "capabilities",     # Capability flags.
    "resident_tiles",   # Head tiles that can stay on chip; 0: none can.
    "boot_count",       # Counts starts of the firmware since the DRAM was last undefined; for diagnosis.
)
INFO_BYTES = 4*len(INFO_WORDS)


class Capability(IntFlag):
    SSM      = 1 << 0 # Opcode SSM.
    SELFTEST = 1 << 1 # Opcode SELFTEST.
    STOCHASTIC_ROUNDING = 1 << 2 # The state is rounded stochastically, by each job's seed; else to nearest even.
    CHECKSUM = 1 << 3 # Opcode CHECKSUM.

# Job Ring -----------------------------------------------------------------------------------------

RING_ENTRIES = 16
JOB_BYTES    = 128

JOB_WORDS = (
    # Request: written by the host.
    "version",         # PROTOCOL_VERSION.
    "sequence",        # Chosen by the host; copied to result_sequence.
    "opcode",          # Opcode.
    "flags",           # JobFlag.
    "timeout",         # Cycles this job may take from when it begins, a NOP as many as it likes; 0: the firmware's own estimate.
    # Operands, by opcode: those of SSM; others give these words names of their own, see OPERANDS.
    "heads",           # H.
    "headdim",         # P.
    "d_state",         # N.
    "groups",          # G.
    "tokens",          # T.
    "x_address",       # T*H x records.
    "bc_address",      # T*G BC records.
    "y_address",       # T*H y records.
    "state_in",        # H head tiles (not read with JobFlag.ZERO_STATE).
    "state_out",       # H head tiles (not written with JobFlag.NO_STORE); may equal state_in.
    "first_token",     # y is written from this token on: 0 .. tokens; earlier tokens only advance the state.
    "tile",            # Where on chip head 0's tile lies or comes to lie; head h's is `tile` + h.
    "seed",            # Of stochastic rounding: token t of head h takes seed + t + h*SEED_STRIDE.
    # Result: written by the firmware.
    "result_sequence",
    "status",          # Status.
    "error",           # Error.
    "error_detail",    # The offending value, or the gateware's error bits.
    "cycles_low",      # Clock cycles from doorbell (or the end of the job before) to completion.
    "cycles_high",
    "lane_busy_low",   # Cycles in which the lanes took a vector.
    "lane_busy_high",
    "read_beats_low",  # 16-byte beats read by the accelerator's DMA.
    "read_beats_high",
    "write_beats_low", # Likewise written.
    "write_beats_high",
    "tiles",           # Head tiles completed.
    "reserved0",
)
assert 4*len(JOB_WORDS) == JOB_BYTES

JOB_REQUEST_WORDS = JOB_WORDS.index("result_sequence")
JOB_OPERANDS      = JOB_WORDS.index("heads") # The first one.


class Opcode(IntEnum):
    NOP      = 0 # Completes at once.
    SSM      = 1 # Runs T tokens of the SSM block.
    SELFTEST = 2 # Runs the firmware's vectors through the core, using the end of the data region as scratch.
    CHECKSUM = 3 # Writes the CRC-32 (zlib's) of each block of a region to a table.


# Names of an opcode's operands, from JOB_WORDS[JOB_OPERANDS] on, where they are not those of SSM.
OPERANDS = {
    Opcode.CHECKSUM: (
        "region",       # Address of the first block, in the data region; a multiple of 16.
        "region_bytes", # A multiple of 16 that is not 0.
        "block_bytes",  # Likewise; the last block may be shorter.
        "table",        # Address in the tables: a word for each block; a multiple of 16.
    ),
}


class JobFlag(IntFlag):
    ZERO_STATE = 1 << 0 # Start from a state of zeros.
    NO_STORE   = 1 << 1 # Do not store the state.
    RESIDENT   = 1 << 3 # Take the state as a job before has left it on chip (state_in is not read).


class Status(IntEnum):
    EMPTY   = 0 # Never written by the firmware.
    RUNNING = 1
    DONE    = 2
    FAILED  = 3 # See error and error_detail.


class Error(IntEnum):
    NONE              = 0
    BAD_VERSION       = 1
    BAD_OPCODE        = 2
    BAD_FLAGS         = 3
    BAD_HEADS         = 4
    BAD_HEADDIM       = 5
    BAD_D_STATE       = 6
    BAD_GROUPS        = 7
    BAD_TOKENS        = 8
    BAD_FIRST_TOKEN   = 9
    BAD_ALIGNMENT     = 10 # An address is not a multiple of 16.
    BAD_ADDRESS       = 11 # A region is not inside the data region, or a table not inside the tables.
    OVERLAP           = 12 # A region that is written overlaps another one (state_out = state_in is allowed).
    RING_OVERRUN      = 13 # More jobs rung for than the ring holds.
    TIMEOUT           = 14 # The accelerator did not finish in time; if it still ran, it was reset.
    GATEWARE          = 15 # The accelerator raised an error; error_detail holds its error bits.
    SELFTEST_MISMATCH = 16 # error_detail holds the index of the failing vector.
    ABORTED           = 17 # Begun behind a job that failed, and reset with it; error_detail holds that job's sequence.
    BAD_TILE          = 18 # With RESIDENT: there are not as many tiles on chip.
    BAD_SIZE          = 19 # A size is 0 or not a multiple of 16.

# C Header -----------------------------------------------------------------------------------------

def _c_words(words, indent=1):
    return [indent*"\t" + f"uint32_t {word};" for word in words]


def c_header():
    """The text of ``protocol.h``: every constant above, and the structures of the info block and of a job."""
    lines = [
        "/* Generated from operations/protocol.py: do not edit. */",
        "#ifndef PROTOCOL_H",
        "#define PROTOCOL_H",
        "",
        "#include <stdint.h>",
        "",
    ]
    for name in ("PROTOCOL_VERSION", "FIRMWARE_OFFSET", "FIRMWARE_SIZE", "INFO_OFFSET", "INFO_MAGIC", "RING_OFFSET",
                 "TABLE_OFFSET", "TABLE_SIZE", "DATA_OFFSET", "RING_ENTRIES", "JOB_BYTES", "SEED_STRIDE"):
        lines.append(f"#define {name} 0x{globals()[name]:x}u")
    for enum, prefix in ((Capability, "CAPABILITY"), (Opcode, "OPCODE"), (JobFlag, "JOB"), (Status, "STATUS"),
                         (Error, "ERROR")):
        lines.append("")
        lines += [f"#define {prefix}_{member.name} {member.value}u" for member in enum]
    lines += ["", "struct info {", *_c_words(INFO_WORDS), "};"]
    lines += ["", "struct job {", *_c_words(JOB_WORDS[:JOB_OPERANDS]), "\tunion {"]
    for words in (JOB_WORDS[JOB_OPERANDS:JOB_REQUEST_WORDS], *OPERANDS.values()):
        lines += ["\t\tstruct {", *_c_words(words, indent=3), "\t\t};"]
    lines += ["\t};", *_c_words(JOB_WORDS[JOB_REQUEST_WORDS:]), "};"]
    lines += ["", "#endif", ""]
    return "\n".join(lines)
