#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Sizes of a block's records, from its geometry."""

from migen import *

from litex.gen import *

from cores.ssm.inputs import WORD_ELEMENTS

from operations.ssm import ROW_ELEMENTS, SCALAR_ELEMENTS

# Record Sizes -------------------------------------------------------------------------------------

class RecordSizes(LiteXModule):
    """From P (``headdim``) and N (``d_state``), in registers three cycles later, as :class:`operations.ssm.Geometry` has them:

    ========== ==========================================================
    columns    vectors of L elements in a row of the state
    tile_words of L elements, in a head tile
    rows       of ROW_ELEMENTS elements, in x, and in y
    x_words    of WORD_ELEMENTS elements, in x
    bc_words   likewise, in B, and in C
    *_beats    of the memory port, in a head tile, x record, BC record and y record
    ========== ==========================================================
    """
    def __init__(self, config, data_width):
        lanes        = config.lanes
        multiple     = config.d_state_multiple
        elements     = data_width//16 # Of a beat.
        max_columns  = max(config.max_d_state//lanes, 2)
        max_rows     = -(-config.max_headdim//ROW_ELEMENTS)
        self.headdim = Signal(max=config.max_headdim + 1)
        self.d_state = Signal(max=config.max_d_state + 1)

        self.columns    = Signal(max=max_columns + 1)
        self.tile_words = Signal(max=config.max_tile_words + 1)
        self.rows       = Signal(max=max_rows + 1)
        self.x_words    = Signal(max=2*max_rows + 1)
        self.bc_words   = Signal(max=max(config.max_d_state//WORD_ELEMENTS, 2) + 1)
        self.tile_beats = Signal(max=config.max_headdim*config.max_d_state//elements + 2)
        self.x_beats    = Signal(max=(SCALAR_ELEMENTS + config.max_headdim)//elements + 2)
        self.bc_beats   = Signal(max=2*config.max_d_state//elements + 2)
        self.y_beats    = Signal(max=config.max_headdim//elements + 2)

        # # #

        def quotient(value, divisor):
            """Rounded up, by a power of two."""
            return (value + divisor - 1)[log2_int(divisor):] if divisor > 1 else value

        padded = Signal(max=config.max_d_state + multiple)
        self.comb += padded.eq(quotient(self.d_state, multiple) << log2_int(multiple))
        self.sync += [
            self.columns.eq(padded >> log2_int(lanes)),
            # headdim*columns, spelt out so that it takes no DSP.
            self.tile_words.eq(sum((Mux(self.columns[n], self.headdim << n, 0) for n in range(len(self.columns))), Constant(0))),
            self.rows.eq(quotient(self.headdim, ROW_ELEMENTS)),
            self.y_beats.eq(quotient(self.headdim, elements)),
            self.bc_beats.eq(quotient(padded, elements//2)),
            self.x_beats.eq(quotient(self.headdim + SCALAR_ELEMENTS, elements)),
        ]
        self.comb += [
            self.x_words.eq(self.rows << log2_int(ROW_ELEMENTS//WORD_ELEMENTS)),
            self.bc_words.eq(padded >> log2_int(WORD_ELEMENTS)),
            self.tile_beats.eq(self.tile_words << log2_int(lanes//elements) if lanes >= elements else
                quotient(self.tile_words, elements//lanes)),
        ]
