#!/usr/bin/env python3

#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Writes the SSM core as stand-alone Verilog, for systems without LiteX.

The configuration is a YAML file, see examples/*.yml: `name` of the module and the file; `memory`, none for AXI4-Streams
only, axi4 for a core that fetches and stores its tiles itself; `data_width`, bits of head tiles' streams and of AXI4; and the
parameters of operations.config.SSMConfig.
"""

from tools import environment # First: the packages are there.

environment.check("litex", "migen", "yaml")

import re

from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import yaml

from migen import *

from litex.gen import *
from litex.gen.fhdl import verilog
from litex.gen.fhdl.verilog import _ieee_1800_2017_verilog_reserved_keywords as KEYWORDS

from cores.ssm.axi_tiles import AXITiles
from cores.ssm.core import SSMCore
from cores.ssm.inputs import SCALARS_LAYOUT, WORD_BITS
from cores.ssm.layouts import command_layout, descriptor_layout

from operations.config import ALIGNMENT, DATA_WIDTHS, GATEWARE_VERSION, SSMConfig, check_choice
from operations.ssm import ADDRESS_FIELDS, ROW_ELEMENTS, command_fields

from tools.arguments import Parser
from tools.errors import UsageError
from tools.files import check_writable, write_atomically

# Constants ----------------------------------------------------------------------------------------

MEMORIES   = ("none", "axi4")
WITHOUT    = ("max_heads", "max_groups", "max_tokens") # They bound jobs in DRAM, not the core.
PARAMETERS = tuple(field.name for field in fields(SSMConfig) if field.name not in WITHOUT)
KEYS       = ("name", "memory", "data_width", *PARAMETERS)

# Configuration ------------------------------------------------------------------------------------

class Loader(yaml.SafeLoader):
    """YAML's, but a key may stand there once only."""
    def construct_mapping(self, node, deep=False):
        values = super().construct_mapping(node, deep=deep)
        keys   = [self.construct_object(key, deep=True) for key, _ in node.value]
        for n, key in enumerate(keys):
            if key in keys[:n]:
                raise yaml.YAMLError(f"{key!r} must stand there once, stands there {keys.count(key)} times")
        return values


def load_config(path):
    """(name, memory, data width, SSMConfig) of a YAML file. Raises ValueError that names the file, the key, its value and what it must be."""
    try:
        values = yaml.load(Path(path).read_text(), Loader)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} cannot be read: it is not text.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error: # A date of month 13 is a ValueError.
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    try:
        return check_config({} if values is None else values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_config(values):
    """(name, memory, data width, SSMConfig) of {key: value}."""
    if not isinstance(values, dict):
        raise ValueError(f"a configuration must be lines of `key: value`, is {values!r}.")
    for key in values:
        if key not in KEYS:
            raise ValueError(f"key must be one of {', '.join(KEYS)}, is {key!r}.")
    parameters = dict(values)
    name       = parameters.pop("name", "ssm_core")
    memory     = parameters.pop("memory", MEMORIES[0])
    width      = parameters.pop("data_width", DATA_WIDTHS[0])
    check_choice("memory", memory, MEMORIES)
    check_choice("data_width", width, DATA_WIDTHS)
    config     = SSMConfig(**parameters)
    if not (isinstance(name, str) and name.isascii() and name.isidentifier()) or name in KEYWORDS:
        raise ValueError(f"name must be letters, digits and _, a letter first, and no keyword of Verilog, is {name!r}.")
    if name in [signal.name_override for signal, _, _ in Top(config, memory, width).ports]:
        raise ValueError(f"name must not be that of a port, is {name!r}.")
    return name, memory, width, config

# Top ----------------------------------------------------------------------------------------------

class Top(LiteXModule):
    """The module that is written; `ports` holds (signal, direction, description) of each of its ports, in order."""
    def __init__(self, config, memory, data_width):
        self.ports = []
        self.cd_sys = ClockDomain("sys")
        self.cd_sys.clk.name_override = "aclk"
        aresetn = self.port("aresetn", 1, "in", "Reset, active low, synchronous to aclk.")
        self.ports.insert(0, (self.cd_sys.clk, "in", "Clock of everything."))
        self.comb += self.cd_sys.rst.eq(~aresetn)

        self.core = core = SSMCore(config, data_width)
        self.comb += [
            core.headdim.eq(self.port("headdim", len(core.headdim), "in",
                f"P, 1 to {config.max_headdim}. Change it, and those below, only while no tile is under way.")),
            core.d_state.eq(self.port("d_state", len(core.d_state), "in", f"N, 1 to {config.max_d_state}.")),
        ]
        {"none": self.add_streams, "axi4": self.add_memory}[memory](config, core)

    def port(self, name, width, direction, description=""):
        signal = Signal(width, name_override=name)
        self.ports.append((signal, direction, description))
        return signal

    def add_stream(self, name, endpoint, layout, description):
        """An AXI4-Stream of the endpoint. Its payload is `layout`, from bit 0 on; s_ names are sinks, m_ sources."""
        sink    = name.startswith("s_")
        width   = sum(width for _, width in layout)
        forward, backward = ("in", "out") if sink else ("out", "in")
        tvalid  = self.port(f"{name}_tvalid", 1, forward)
        tready  = self.port(f"{name}_tready", 1, backward)
        tdata   = self.port(f"{name}_tdata", (width + 7)//8*8, forward, description)
        payload = Cat(*[getattr(endpoint, field) for field, _ in layout])
        if sink:
            self.comb += endpoint.valid.eq(tvalid), tready.eq(endpoint.ready), payload.eq(tdata[:width])
        else:
            tlast = self.port(f"{name}_tlast", 1, forward, "Ends a record.")
            self.comb += [
                tvalid.eq(endpoint.valid),
                endpoint.ready.eq(tready),
                tdata.eq(payload),
                tlast.eq(endpoint.last),
            ]

    def add_streams(self, config, core):
        beat = [("data", core.data_width)]
        word = [("data", WORD_BITS)]
        self.add_stream("s_axis_command", core.command,      command_layout(config), "One a tile, see below.")
        self.add_stream("s_axis_state",   core.state_sink,   beat, "Head tiles, but of commands with zero_state or resident.")
        self.add_stream("s_axis_scalars", core.scalars_sink, SCALARS_LAYOUT, "For each tile, each token: dt, dA, D.")
        self.add_stream("s_axis_x",       core.x_sink,       word, "For each tile, each token: x, padded.")
        self.add_stream("s_axis_bc",      core.bc_sink,      word, "For each tile without same_bc, each token: B, then C, padded.")
        self.add_stream("m_axis_state",   core.state_source, beat, "Head tiles, but of commands with no_store.")
        self.add_stream("m_axis_y",       core.y_source,     [("data", 16*ROW_ELEMENTS)], "y, padded, of tokens from first_token on.")
        self.comb += self.port("done", 1, "out", "A pulse a tile: its state has left, its y left or waits.").eq(core.stored)

    def add_memory(self, config, core):
        self.tiles = tiles = AXITiles(config, core)
        for name, title in (("x", "x"), ("bc", "BC"), ("y", "y")):
            self.comb += getattr(tiles, f"{name}_stride").eq(self.port(f"{name}_stride", 32, "in",
                f"Bytes from a token's {title} record to the next one's, a multiple of {ALIGNMENT}."))
        self.add_stream("s_axis_descriptor", tiles.descriptor, descriptor_layout(config), "One a tile, see below.")
        self.add_axi("m_axi_state", tiles.state_axi, "Head tiles.")
        self.add_axi("m_axi_token", tiles.token_axi, "x and BC records, read; y records, written.")
        for name, description in (
            ("done",    "A pulse a descriptor, in order: its y and its state are in memory, or it went wrong."),
            ("refused", "With done: the descriptor, a size or a stride is not legal; nothing was read or written."),
            ("failed",  "With done: memory answered with an error. After one to a read the state and further y are not written.")):
            self.comb += self.port(name, 1, "out", description).eq(getattr(tiles, name))

    def add_axi(self, name, axi, description):
        for channel in ("aw", "w", "b", "ar", "r"):
            endpoint = getattr(axi, channel)
            ours     = channel in ("aw", "w", "ar")
            forward, backward = ("out", "in") if ours else ("in", "out")
            names    = ["valid"] + [field for field, _ in endpoint.description.payload_layout]
            names   += ["id"] if channel != "w" else []
            names   += ["last"] if channel in ("w", "r") else []
            for field in names:
                signal = getattr(endpoint, field)
                port   = self.port(f"{name}_{channel}{field}", len(signal), forward)
                self.comb += port.eq(signal) if ours else signal.eq(port)
                if description:
                    self.ports[-1], description = (*self.ports[-1][:2], description), ""
            self.comb += (endpoint.ready.eq(self.port(f"{name}_{channel}ready", 1, backward)) if ours else
                self.port(f"{name}_{channel}ready", 1, backward).eq(endpoint.ready))

# Verilog ------------------------------------------------------------------------------------------

def field_table(fields):
    """Lines: the bits of a stream's tdata."""
    lines, bit = [], 0
    for field in fields:
        bits = f"[{bit + field.bits - 1}:{bit}]" if field.bits > 1 else f"[{bit}]"
        lines.append(f"  {bits:10} {field.name:12} {field.text}")
        bit += field.bits
    return lines


def stream_records(config):
    """Lines: what goes over the streams."""
    return [
        f"Contents, of binary16, little endian; L = {config.lanes}, P = headdim, N = d_state,",
        f"NP = N padded to a multiple of {config.d_state_multiple}",
        "  state       head tiles: word k*P + p of L elements holds h[p][k*L .. k*L + L - 1]; P*NP/L words",
        "  scalars     dt, dA, D",
        f"  x, y        of P elements, padded with zeros to a multiple of {ROW_ELEMENTS}",
        "  bc          B[0 .. NP-1]; then C[0 .. NP-1]",
    ]


def memory_records(config):
    """Lines: what lies in memory."""
    return [
        f"Records, of binary16, little endian, each from a multiple of {ALIGNMENT} bytes on; L = {config.lanes}, P = headdim,",
        f"N = d_state, NP = N padded to a multiple of {config.d_state_multiple}",
        "  head tile   word k*P + p of L elements holds h[p][k*L .. k*L + L - 1]; P*NP/L words",
        "  x record    dt, dA, D, 5 zeros; then x[0 .. P-1]",
        "  BC record   B[0 .. NP-1]; then C[0 .. NP-1]",
        "  y record    y[0 .. P-1]",
    ]


RECORDS = {"none": stream_records, "axi4": memory_records}


def header(name, memory, data_width, config, ports):
    """The comment that the file begins with."""
    stream_name, fields = {
        "none": ("s_axis_command",    command_fields(config)),
        "axi4": ("s_axis_descriptor", ADDRESS_FIELDS + command_fields(config)),
    }[memory]
    release = ".".join(str(GATEWARE_VERSION >> 8*n & 255) for n in (2, 1, 0))
    lines   = [
        f"{name}: the SSM block of Mamba-2 on head tiles.",
        "",
        "SPDX-License-Identifier: BSD-2-Clause",
        "",
        "For each tile, T tokens of  h = dA*h + dt*x*B,  y = sum(h*C) + D*x  in binary16, each rounded once.",
        "",
        f"Written by cores/ssm/gen.py, gateware {release}, LiteX {version('litex')}, Migen {version('migen')}.",
        "",
        "Parameters",
        *[f"  {key:12} {value}" for key, value in
            {"memory": memory, "data_width": data_width, **{key: getattr(config, key) for key in PARAMETERS}}.items()],
        "",
        "Ports",
        *[f"  {direction:4} {f'[{len(signal) - 1}:0]' if len(signal) > 1 else '':8} {signal.name_override:28} {text}".rstrip()
            for signal, direction, text in ports],
        "",
        f"Bits of {stream_name}_tdata; the rest is ignored",
        *field_table(fields),
        "",
        *RECORDS[memory](config),
    ]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


def sort_blocks(source):
    """Combinational blocks come in the order of Python's sets: sort them, so that the file is the same each time."""
    block  = re.compile(r"^always @\(\*\) begin\n.*?^end\n", re.MULTILINE | re.DOTALL)
    blocks = iter(sorted(block.findall(source)))
    return block.sub(lambda _: next(blocks), source)


def gather_initial_values(source):
    """Move the initial values from the declarations to an initial block.

    A simulator runs an always @(*) block when something it reads changes. Values in declarations are there from the
    start and change nothing, so a block that reads nothing else would show its outputs before the first change only.
    """
    values      = []
    declaration = re.compile(r"^(reg\b[^=\n;]*?)(\w+) = ([^;\n]+);$", re.MULTILINE)

    def declare(match):
        values.append(f"    {match[2]} <= {match[3]};\n")
        return f"{match[1]}{match[2]};"

    source = declaration.sub(declare, source)
    return source.replace("endmodule\n", f"initial begin\n{''.join(values)}end\n\nendmodule\n")


def generate(name, memory, data_width, config):
    """The Verilog of a configuration, as text."""
    top    = Top(config, memory, data_width)
    ports  = top.ports
    # An always block a signal: in blocks of several, Icarus Verilog goes round and round.
    source = str(verilog.convert(top, ios={signal for signal, _, _ in ports}, name=name, regular_comb=False))
    source = gather_initial_values(sort_blocks(source))
    # LiteX's own header bears a date.
    body   = "\n".join(line for line in source.splitlines() if not line.startswith("//"))
    return f"{header(name, memory, data_width, config, ports)}\n{body.strip()}\n"

# Main ---------------------------------------------------------------------------------------------

def main(arguments=None):
    parser = Parser(prog="python -m cores.ssm.gen", description=__doc__.splitlines()[0])
    parser.add_argument("config",       help="YAML file, see examples/*.yml.")
    parser.add_argument("--output-dir", default="build/gen", help="Where NAME.v is written (default: %(default)s).")
    arguments = parser.parse_args(arguments)
    try:
        name, memory, data_width, config = load_config(arguments.config)
        path = Path(arguments.output_dir)/f"{name}.v"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--output-dir must be a folder, is {arguments.output_dir!r} ({error.strerror}).") from None
        check_writable(str(path))
        text = generate(name, memory, data_width, config)
        write_atomically(str(path), lambda file: file.write(text.encode()))
    except (ValueError, UsageError) as error:
        parser.error(error)
    print(f"Wrote {path}: {len(text.splitlines())} lines.")


if __name__ == "__main__":
    main()
