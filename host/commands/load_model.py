#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""``stream.py load --model``: a whole model to the device, or with --plan only what lies where, and what a token costs."""

from argparse import Namespace
from typing import Any

from host.commands.load import VERIFIED
from host.commands.whole_model import build_image, load_quantized, model_types, open_model, simulated_memory
from host.connect import open_device, requested_config, simulated_system
from host.device.model import job_bytes
from host.device.verified import ByteCounts

from model.image import SESSIONS, Image

from operations.config import MemoryConfig, ProgramConfig, SystemConfig
from operations.image import ProgramKind
from operations.protocol import DATA_OFFSET

from tools.errors import UsageError
from tools.files import save_json
from tools.simulation.settings import SYS_CLK_FREQ

# Plan ---------------------------------------------------------------------------------------------

def planned_build(args: Namespace) -> tuple[SystemConfig, int, int]:
    """(the build that the options say, or that the board has; bytes of its data region; its clock)."""
    memory = args.memory and (args.memory << 20) - DATA_OFFSET
    if args.transport == "sim":
        system = simulated_system(args, True)
        return system, memory or simulated_memory(system), int(SYS_CLK_FREQ)
    if memory and None not in (args.lanes, args.data_width, args.pass_tokens):
        program = ProgramConfig(args.pass_tokens, args.vector_lanes or ProgramConfig.vector_lanes)
        ssm     = requested_config(args)
        return SystemConfig.of(args.lanes, args.data_width, program, max_headdim=ssm.max_headdim, max_d_state=ssm.max_d_state,
            max_heads=ssm.max_heads, max_groups=ssm.max_groups), memory, int(SYS_CLK_FREQ)
    with open_device(args, args.log, whole_model=True) as device:
        info = device.info
        return SystemConfig(MemoryConfig(info.data_width), info.config, program=info.program), memory or info.data_size, info.clock_hz


def plan_summary(image: Image, size: int, clock_hz: int) -> dict[str, Any]:
    """What lies where in a data region of `size` bytes, and what a token costs; ready for JSON."""
    model   = image.model
    peak    = image.data_width//8
    work    = job_bytes(image)
    token   = image.traffic(1)
    whole   = image.traffic(image.program.pass_tokens, ProgramKind.LAYERS)
    rows    = [(part.name, part.place, part.size) for part in image.parts]
    rows   += [(f"session {n}", image.size + n*image.session_bytes, image.session_bytes) for n in range(SESSIONS)]
    rows   += [("prompts, output", image.size + SESSIONS*image.session_bytes, work)]
    needed  = image.memory_bytes(results=work)
    return {
        "layers"                   : model.n_layer,
        "type"                     : model_types(model)[0],
        "head_type"                : model_types(model)[1],
        "lanes"                    : image.ssm.lanes,
        "data_width"               : image.data_width,
        "pass_tokens"              : image.program.pass_tokens,
        "map"                      : [{"name": name, "offset": offset, "bytes": count} for name, offset, count in rows],
        "image_bytes"              : image.size,
        "session_bytes"            : image.session_bytes,
        "memory_bytes"             : needed,
        "data_size"                : size,
        "fits"                     : needed <= size,
        "scratch"                  : image.device.scratch,
        "scratch_built"            : image.program.elements,
        "activations"              : image.device.activations,
        "activations_built"        : image.program.activations,
        "read_bytes"               : token.read,
        "write_bytes"              : token.written,
        "prompt_read_bytes"        : whole.read/image.program.pass_tokens,
        "prompt_write_bytes"       : whole.written/image.program.pass_tokens,
        "clock_hz"                 : clock_hz,
        "peak_bytes_per_cycle"     : peak,
        "tokens_per_second"        : image.tokens_per_second(clock_hz, peak),
        "prompt_tokens_per_second" : image.prompt_tokens_per_second(clock_hz, peak),
        "batch"                    : image.device.sessions,
        "batch_tokens_per_second"  : image.batch_tokens_per_second(clock_hz, peak),
    }


def show_plan(summary: dict[str, Any]) -> None:
    print(f"{summary['layers']} layers {summary['type']}, head {summary['head_type']}, for {summary['lanes']} lanes, ports of {summary['data_width']} bits, "
          f"{summary['pass_tokens']} token{'' if summary['pass_tokens'] == 1 else 's'} a pass")
    print(f"{'':<17}{'offset':>12}{'bytes':>14}")
    for row in summary["map"]:
        print(f"{row['name']:<17}{'0x%08x' % row['offset']:>12}{row['bytes']:>14}")
    print(f"{'together':<17}{'':>12}{summary['memory_bytes']:>14} of {summary['data_size']} of the data region")
    print(f"on chip          {summary['scratch']} of {summary['scratch_built']} elements of scratchpad, {summary['activations']} of "
          f"{summary['activations_built']} words of activations")
    print(f"a token          {summary['read_bytes']} bytes read, {summary['write_bytes']} written; of a prompt {summary['prompt_read_bytes']:.0f} and "
          f"{summary['prompt_write_bytes']:.0f}")
    print(f"at most          {summary['tokens_per_second']:.2f} token/s, of a prompt {summary['prompt_tokens_per_second']:.2f}: "
          f"{summary['peak_bytes_per_cycle']} bytes a cycle at {summary['clock_hz']/1e6:g} MHz")
    if summary["batch"] > 1:
        print(f"texts            {summary['batch']} at once, at most {summary['batch_tokens_per_second']:.2f} token/s")


def show_loaded(counts: ByteCounts) -> None:
    print(f"loaded           {counts.size} bytes, all right on the device (CRC-32, computed there); {counts.moved} sent, {counts.again} of them again")

# Command ------------------------------------------------------------------------------------------

def load_model(args: Namespace) -> None:
    """Load a model, or show the plan of it."""
    try:
        model = load_quantized(args)
        if args.plan:
            system, size, clock_hz = planned_build(args)
            image   = build_image(model, system)
            summary = {"model": args.model} | plan_summary(image, size, clock_hz)
            show_plan(summary)
            image.check_memory(size, results=job_bytes(image))
            save_json(args.json, summary)
            return
        with open_model(args, model) as there:
            image   = there.image
            counts  = there.counts
            info    = there.device.info
            summary = {"model": args.model} | plan_summary(image, info.data_size, info.clock_hz) | {"bytes": counts.size, "sent": counts.moved,
                "sent_again": counts.again, "verified": VERIFIED, "transport": there.device.transport.name}
    except ValueError as error: # CheckpointError is one.
        raise UsageError(str(error)) from error
    save_json(args.json, summary)
    show_plan(summary)
    show_loaded(counts)
