#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""What host and firmware say to each other: DRAM map, info block, job ring, opcodes and error codes.

This file and operations/operations.py, the list of operations, are the one place for it. The host imports them;
operations/header.py writes ``protocol.h`` for the firmware, which has ``PROTOCOL_VERSION`` in its info block, and the host checks
that before anything else.

DRAM, from the start of main RAM::

    0x0000_0000  firmware: image, data, stack             FIRMWARE_SIZE
    0x0010_0000  info block (written by the firmware)     4 x INFO_WORDS
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

from enum import IntEnum

from operations.operations import JobFlag as JobFlag, Opcode as Opcode # What a job asks for, told to who imports this file.
from operations.operations import OPERATIONS, Engine

PROTOCOL_VERSION = 10

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

INFO_HEAD = (
    "magic",            # INFO_MAGIC; written last, so a valid magic means a complete block.
    "protocol_version", # PROTOCOL_VERSION.
    "firmware_version", # 0x00MMmmpp: major, minor, patch.
    "gateware_version", # As read from the CSR ssm_version.
    "clock_hz",
    "data_base",        # Bus address of the first byte a job may name.
    "data_size",        # Bytes from there.
    "data_width",       # Bits of the engines' ports to memory.
    "ring_base",        # Bus address of the ring.
    "ring_entries",
    "job_bytes",
    "boot_count",       # Counts starts of the firmware since the DRAM was last undefined; for diagnosis.
    "engine_count",     # Engines that are there, each described by ENGINE_WORDS words behind these ones.
)

ENGINES_MAX  = 4
ENGINE_WORDS = 16 # Its kind (Engine), then what ENGINE_INFO says; the others are not used.
ENGINE_INFO  = {
    Engine.SSM: (
        "version",             # Of the gateware.
        "lanes",               # L.
        "max_headdim",
        "max_d_state",
        "max_heads",
        "max_groups",
        "max_tokens",
        "resident_tiles",      # Head tiles that can stay on chip; 0: none can.
        "stochastic_rounding", # 1: the state is rounded stochastically, by each job's seed; 0: to nearest even.
    ),
    Engine.CHECKSUM: (),
    Engine.PROGRAM: (
        "version",             # Of the gateware.
        "pass_tokens",         # R.
        "vector_lanes",        # V.
        "scratch",             # Elements of the scratchpad.
        "activations",         # Words of sixteen columns.
        "units",               # A bit for each of operations.program.Unit that is there.
    ),
}
INFO_WORDS = len(INFO_HEAD) + ENGINES_MAX*ENGINE_WORDS
assert INFO_OFFSET + 4*INFO_WORDS <= STAMP_OFFSET

# Mailbox ------------------------------------------------------------------------------------------

REBOOT = 0xffff_ffff # In the CSR mailbox_boot: back to the boot ROM, which clears it.

# Job Ring -----------------------------------------------------------------------------------------

RING_ENTRIES = 16
JOB_BYTES    = 128

JOB_HEAD = (
    "version",         # PROTOCOL_VERSION.
    "sequence",        # Chosen by the host; copied to result_sequence.
    "opcode",          # Opcode.
    "flags",           # JobFlag.
    "timeout",         # Cycles this job may take from when it begins, a NOP any number; 0: the firmware's own estimate.
)
JOB_OPERANDS = 13 # Words; what they are, the operation's fields say.

JOB_RESULT = ( # Written by the firmware.
    "result_sequence",
    "status",          # Status.
    "error",           # Error.
    "error_detail",    # The offending value, or the gateware's error bits.
    "cycles_low",      # Clock cycles from doorbell (or the end of the job before) to completion.
    "cycles_high",
    "bytes_read_low",    # From memory by the engine,
    "bytes_read_high",
    "bytes_written_low", # and to memory.
    "bytes_written_high",
    "busy_cycles_low",   # Cycles in which the engine computed: in which the lanes took a vector.
    "busy_cycles_high",
    "units",             # Completed, of what the operation counts: head tiles, blocks.
)
JOB_CONTROL = ( # Written by the host at any time.
    "cancel",            # The job's sequence, each bit inverted: it is to end early, if its operation can.
)
JOB_REQUEST_WORDS = len(JOB_HEAD) + JOB_OPERANDS # Written by the host.
assert 4*(JOB_REQUEST_WORDS + len(JOB_RESULT) + len(JOB_CONTROL)) == JOB_BYTES
assert max(len(operation.fields) for operation in OPERATIONS) <= JOB_OPERANDS


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
    BAD_ALIGNMENT     = 10 # An address is not a multiple of ALIGNMENT.
    BAD_ADDRESS       = 11 # A region is not inside the data region, or a table not inside the tables.
    OVERLAP           = 12 # A region that is written overlaps another one (state_out = state_in is allowed).
    RING_OVERRUN      = 13 # More jobs rung for than the ring holds.
    TIMEOUT           = 14 # The accelerator did not finish in time; if it still ran, it was reset.
    GATEWARE          = 15 # The accelerator raised an error; error_detail holds its error bits; of a program also those of the SSM core,
                           # from bit 8 on, and from bit 16 on the number of the descriptor.
    SELFTEST_MISMATCH = 16 # error_detail holds the index of the failing vector.
    ABORTED           = 17 # Begun behind a job that failed, and reset with it; error_detail holds that job's sequence.
    BAD_TILE          = 18 # With RESIDENT: there are not as many tiles on chip.
    BAD_SIZE          = 19 # A size is 0 or not a multiple of ALIGNMENT.
    BAD_IMAGE         = 20 # A model's image is not what this build runs; error_detail holds the number of the header's word.
    BAD_TOKEN         = 21 # A token is not in the vocabulary.
    BAD_TOP_K         = 22 # error_detail holds the word top.
    BAD_STOP_TOKENS   = 23
    BAD_LOGITS        = 24 # The best logit is not a finite number; error_detail holds its bits.
    BAD_STORE_EVERY   = 25 # More tokens than the image has room for the records of.
    BAD_SESSIONS      = 26 # More sessions than the image has programs for.
    BAD_STAGE         = 27 # The image is a stage's, which has not what the job asks for; error_detail holds its word.
