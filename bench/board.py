#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The same work on a board and in the simulation, side by side: self-test, cases against the bit-accurate model, whole models where
the gateware runs them, DRAM, link.

    python bench/board.py --transport etherbone --ip 192.168.1.50 --csr-csv build/arty/a7-35/csr.csv \\
        --firmware build/arty/a7-35/firmware/firmware.bin

Without a board (--transport sim, the default) the simulation's half runs alone. Writes build/bench/board.json and .html.
Exit codes: 0 done; 1 a board was named and does not answer, or bits differ; 2 an option is wrong.
"""

try:
    from tools import environment # First: the packages are there.
except ImportError: # Not even this project's.
    raise SystemExit("board.py: error: this Python lacks the project's packages: run make setup, then . .venv/bin/activate.") from None

environment.check("litex", "matplotlib", "torch")

import argparse
import copy
import json
import sys
import time


import numpy as np

from host.connect import add_device_arguments, open_device
from host.device.block import run_block
from host.device.case import check_case
from host.device.device import Job
from host.device.model import DeviceDecoder, ModelOnDevice, device_image
from host.stream import log_to_stderr

from model.bitexact import ssm_block
from model.exact.decoder import ExactDecoder
from model.exact.network import ExactNetwork
from model.exact.sampling import Draws, inverse_of
from model.quantized import quantize_checkpoint

from operations.protocol import Opcode

from tools import page
from tools.errors import CommandError, UsageError
from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

OUTPUT     = BUILD/"bench"
SEED       = 11
LINK_BYTES = 1 << 18

# Name: mode, tokens, heads, headdim, d_state, groups.
CASES = {
    "decode, 130M layer"  : ("decode",  2, 24, 64, 128, 1),
    "prefill, 130M layer" : ("prefill", 8, 24, 64, 128, 1),
    "prefill, odd sizes"  : ("prefill", 3,  6, 13,  21, 3),
}

# Of the tiny model.
MATRICES = ("q4_0", "q8_0")
PROMPT   = tuple(range(1, 22))
TOKENS   = 12

# Measurement --------------------------------------------------------------------------------------

def make_case(tokens, heads, headdim, d_state, groups):
    random = np.random.default_rng(SEED)
    draw   = lambda *shape: random.standard_normal(shape).astype(np.float16)
    return {"x": draw(tokens, heads, headdim), "dt": abs(draw(tokens, heads)), "D": draw(heads),
        "dA": random.random((tokens, heads)).astype(np.float16), "B": draw(tokens, groups, d_state),
        "C": draw(tokens, groups, d_state), "h0": draw(heads, headdim, d_state)}


def differing(case, result, stochastic):
    """Values of y and of the state whose bits are not the model's."""
    expected = ssm_block(**case, seed=0 if stochastic else None)
    return sum(int(np.count_nonzero(one.view(np.uint16) != other.view(np.uint16)))
        for one, other in zip((result.y, result.h), expected))


def measure_model(device, kind):
    """Rows of a whole model whose matrices are of a kind: a prompt, then tokens drawn from the best, as the exact model draws them."""
    model = quantize_checkpoint("tiny", kind)
    draws = Draws(inverse=inverse_of(1.0), seed=SEED)
    there = ModelOnDevice(device, device_image(device, model))
    there.load()
    text  = DeviceDecoder(there, draws)
    exact = ExactDecoder(ExactNetwork(model, seed=draws.seed if device.info.config.stochastic_rounding else None), draws)
    for decoder in (text, exact):
        decoder.prefill(PROMPT)
    tokens, expected = (list(decoder.generate(TOKENS)) for decoder in (text, exact))
    figures, name    = text.figures, f"tiny model, {kind.upper()}"
    device.free()
    return {
        f"prompt, {name}"           : (figures.prefill_cycles/figures.prefill_tokens, "cycles a token"),
        f"token, {name}"            : (figures.decode_cycles/figures.decode_tokens, "cycles"),
        f"token, {name}, DRAM"      : ((figures.decode_read + figures.decode_written)/figures.decode_cycles, "bytes a cycle"),
        f"{name}, differing tokens" : (TOKENS - sum(one == other for one, other in zip(tokens, expected)), ""),
    }


def measure(device, on_board):
    """{row: (value, unit)}. Times of the link are those of the clock on the wall, which say something of a board alone."""
    rows   = {"lanes": (device.info.lanes, ""), "clock": (device.info.clock_hz/1e6, "MHz")}
    result = device.run(Job(Opcode.SELFTEST))
    rows["self-test"] = (result.cycles, "cycles")
    for name, (mode, *sizes) in CASES.items():
        case   = make_case(*sizes)
        result = run_block(device, check_case(case, device.info.config), mode)
        moved  = result.summary["dma_read_bytes"] + result.summary["dma_write_bytes"]
        rows[name]                       = (result.summary["cycles_per_token"], "cycles a token")
        rows[f"{name}, DRAM"]            = (moved/result.summary["cycles"], "bytes a cycle")
        rows[f"{name}, differing values"] = (differing(case, result, device.info.config.stochastic_rounding), "")

    if device.info.program is not None:
        for kind in MATRICES:
            rows |= measure_model(device, kind)

    device.free()
    data    = np.random.default_rng(SEED).bytes(LINK_BYTES)
    address = device.allocate(LINK_BYTES, "the link's benchmark")
    begin   = time.monotonic()
    device.write(address, data, verify=False)
    written = time.monotonic()
    back    = device.read(address, LINK_BYTES)
    seconds = {"link, writing": written - begin, "link, reading": time.monotonic() - written}
    if on_board:
        rows.update({name: (LINK_BYTES/1e6/value, "MB/s") for name, value in seconds.items()})
    rows["link, differing bytes"] = (sum(one != other for one, other in zip(data, bytes(back))), "")
    return rows

# Report -------------------------------------------------------------------------------------------

def table(columns):
    """Header and rows as strings. columns: {"board": rows or None, "simulation": rows}."""
    present = {name: rows for name, rows in columns.items() if rows is not None}
    names   = list(dict.fromkeys(name for rows in present.values() for name in rows))
    lines   = []
    for name in names:
        cells = [f"{rows[name][0]:,.6g}" if name in rows else "-" for rows in present.values()]
        both  = all(name in rows for rows in columns.values() if rows is not None) and len(present) == 2
        first, second = (rows[name][0] for rows in present.values()) if both else (0, 0)
        unit  = next(rows[name][1] for rows in present.values() if name in rows)
        lines.append([name, *cells, *([f"{first/second:.3f}" if second else "-"] if len(present) == 2 else []), unit])
    return ["", *present, *(["ratio"] if len(present) == 2 else []), "unit"], lines


def write(columns, note):
    header, lines = table(columns)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT/"board.json").write_text(json.dumps({name: rows and {row: {"value": value, "unit": unit}
        for row, (value, unit) in rows.items()} for name, rows in columns.items()}, indent=4) + "\n")
    (OUTPUT/"board.html").write_text(page.page("Board and simulation",
        page.paragraph(note) + page.table(header, lines, text=(0, len(header) - 1))))
    for row in (header, *lines):
        print(f"{row[0]:<36}" + "".join(f"{cell:>14}" for cell in row[1:-1]) + f"  {row[-1]}")
    print(f"{OUTPUT/'board.json'}, {OUTPUT/'board.html'}")


def wrong(columns):
    return any(value for rows in columns.values() if rows for name, (value, _) in rows.items() if "differing" in name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_device_arguments(parser)
    args, columns = parser.parse_args(), {"board": None}
    args.verbose  = False
    note, failed  = "No board was named (--transport etherbone or uart): this is the simulation alone.", False
    simulated     = copy.copy(args)
    try:
        if args.transport != "sim":
            try:
                with open_device(args, log_to_stderr) as device:
                    columns["board"] = measure(device, on_board=True)
                    for name in ("lanes", "resident_tiles", "data_width"):
                        setattr(simulated, name, getattr(device.info, name))
                    simulated.rounding = "stochastic" if device.info.config.stochastic_rounding else "nearest"
                    for name in ("pass_tokens", "vector_lanes"):
                        setattr(simulated, name, getattr(device.info.program, name, None))
                note = ("A board, and the simulation of the Arty's SoC with as many lanes and tokens at once. The simulated DRAM is as wide as the "
                    "board's, and else the Arty's.")
            except UsageError:
                raise
            except CommandError as error:
                note, failed = f"The board does not answer ({error}); this is the simulation alone.", True
            simulated.transport, simulated.firmware = "sim", None
        print(note, flush=True)
        with open_device(simulated, log_to_stderr) as device:
            columns["simulation"] = measure(device, on_board=False)
    except CommandError as error:
        print(f"board.py: error: {error}", file=sys.stderr)
        return error.exit_code
    write(columns, note)
    return int(failed or wrong(columns))


if __name__ == "__main__":
    sys.exit(main())
