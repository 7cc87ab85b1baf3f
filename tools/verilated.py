#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Compiles a Migen module with Verilator into a shared library and drives it from Python.

The driving loops are in C++, so a unit runs at millions of cycles a second: this is how the tests put units through
hundreds of thousands of vectors, and how ``bench/`` plays cases through the core alone. Libraries are cached by the
hash of their Verilog in ``build/compiled/``.
"""

import ctypes
import hashlib
import os
import shutil
import tempfile

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from numpy.typing import ArrayLike

from migen import ClockDomain, Module, Signal

from litex.gen.fhdl import verilog

from litex.soc.interconnect.stream import Endpoint

from tools import processes
from tools.paths import BUILD

# Constants ----------------------------------------------------------------------------------------

CACHE = BUILD/"compiled"

# Helpers ------------------------------------------------------------------------------------------

def words_of(width: int) -> int:
    """64-bit words that hold a port of `width` bits."""
    return -(-width//64)


def pack_words(values: Iterable[int], width: int) -> np.ndarray:
    """Python integers to rows of 64-bit words, least significant first."""
    count = words_of(width)
    mask  = (1 << width) - 1
    data  = b"".join((int(value) & mask).to_bytes(8*count, "little") for value in values)
    return np.frombuffer(data, np.uint64).reshape(-1, count)


def unpack_words(rows: np.ndarray) -> list[int]:
    """The inverse of :func:`pack_words`, unsigned."""
    rows = np.ascontiguousarray(rows)
    return [int.from_bytes(row.tobytes(), "little") for row in rows]

# C++ ----------------------------------------------------------------------------------------------

_TEMPLATE = """
#include <cstdint>
#include <cstdlib>
#include "Vtop.h"
#include "verilated.h"

typedef uint64_t u64;
static inline void clock_low (Vtop *t) {{ t->sys_clk = 0; t->eval(); }}
static inline void clock_high(Vtop *t) {{ t->sys_clk = 1; t->eval(); }}

static void set_input(Vtop *t, int port, const u64 *v) {{
    switch (port) {{
{set_input}
    }}
}}
static void get_output(Vtop *t, int port, u64 *v) {{
    switch (port) {{
{get_output}
    }}
}}

extern "C" void *create(void)    {{ Vtop *t = new Vtop; t->sys_rst = 0; clock_low(t); return t; }}
extern "C" void destroy(void *p) {{ delete (Vtop *)p; }}
extern "C" void poke(void *p, int port, const u64 *v) {{ set_input((Vtop *)p, port, v); ((Vtop *)p)->eval(); }}
extern "C" void peek(void *p, int port, u64 *v)       {{ get_output((Vtop *)p, port, v); }}
extern "C" void reset(void *p) {{
    Vtop *t = (Vtop *)p;
    t->sys_rst = 1;
    for (int i = 0; i < 4; i++) {{ clock_low(t); clock_high(t); }}
    t->sys_rst = 0;
    clock_low(t);
}}
extern "C" void step(void *p, u64 cycles) {{
    for (u64 i = 0; i < cycles; i++) {{ clock_high((Vtop *)p); clock_low((Vtop *)p); }}
}}

/* Each cycle: inputs from a row of `in`, outputs as seen in that cycle to a row of `out`. */
extern "C" void run(void *p, u64 cycles, int n_in, const int *in_ports, const int *in_words, const u64 *in,
    int n_out, const int *out_ports, const int *out_words, u64 *out) {{
    Vtop *t = (Vtop *)p;
    for (u64 c = 0; c < cycles; c++) {{
        for (int i = 0; i < n_in; i++)  {{ set_input(t, in_ports[i], in); in += in_words[i]; }}
        clock_low(t);
        for (int i = 0; i < n_out; i++) {{ get_output(t, out_ports[i], out); out += out_words[i]; }}
        clock_high(t);
    }}
    clock_low(t);
}}

/* Streams: valid, ready and payload ports; every beat moves when both are set. A stream offers (or takes) a beat with
   probability `duty`/256 a cycle, but an offer stands until it is taken. Ends when all beats moved: returns the number
   of cycles; 0 if `limit` cycles were not enough, -1 if the payload of a waiting beat changed or its valid fell. */
struct stream {{
    int valid, ready, source;   /* Port numbers; source: the module drives it. */
    int ports;
    int port[16], words[16];
    u64 *data;
    u64 beats, moved, row;
    int duty, offering;
    u64 held[64];
    int holding;
}};
extern "C" int64_t streams(void *p, stream *s, int count, u64 limit, u64 seed) {{
    Vtop *t = (Vtop *)p;
    u64 x = seed*2654435761u + 88172645463325252ull, one = 1, zero = 0;
    for (u64 c = 0; c < limit; c++) {{
        bool done = true;
        for (int i = 0; i < count; i++) {{
            stream &q = s[i];
            x ^= x << 13; x ^= x >> 7; x ^= x << 17;
            if (!q.source) {{
                if (!q.offering) q.offering = q.moved < q.beats && (int)(x & 255) < q.duty;
                set_input(t, q.valid, q.offering ? &one : &zero);
                u64 *row = q.data + (q.offering ? q.moved : 0)*q.row;
                if (q.offering) for (int k = 0; k < q.ports; k++) {{ set_input(t, q.port[k], row); row += q.words[k]; }}
            }} else {{
                q.offering = (int)(x & 255) < q.duty;
                set_input(t, q.ready, q.offering ? &one : &zero);
            }}
        }}
        clock_low(t);
        for (int i = 0; i < count; i++) {{
            stream &q = s[i];
            u64 other = 0;
            if (!q.source) {{
                get_output(t, q.ready, &other);
                if (q.offering && other) {{ q.moved++; q.offering = 0; }}
            }} else {{
                u64 now[64], *row = now;
                get_output(t, q.valid, &other);
                for (int k = 0; k < q.ports; k++) {{ get_output(t, q.port[k], row); row += q.words[k]; }}
                if (q.holding && !other) return -1;
                if (q.holding) for (u64 k = 0; k < q.row; k++) if (now[k] != q.held[k]) return -1;
                q.holding = other && !q.offering;
                for (u64 k = 0; k < q.row; k++) q.held[k] = now[k];
                if (other && q.offering && q.moved < q.beats) {{
                    for (u64 k = 0; k < q.row; k++) q.data[q.moved*q.row + k] = now[k];
                    q.moved++;
                }}
            }}
            if (q.moved < q.beats) done = false;
        }}
        clock_high(t);
        if (done) {{
            for (int i = 0; i < count; i++) set_input(t, s[i].source ? s[i].ready : s[i].valid, &zero);
            clock_low(t);
            return c + 1;
        }}
    }}
    return 0;
}}
"""


class _Stream(ctypes.Structure):
    _fields_ = [
        ("valid", ctypes.c_int), ("ready", ctypes.c_int), ("source", ctypes.c_int), ("ports", ctypes.c_int),
        ("port", ctypes.c_int*16), ("words", ctypes.c_int*16), ("data", ctypes.c_void_p),
        ("beats", ctypes.c_uint64), ("moved", ctypes.c_uint64), ("row", ctypes.c_uint64),
        ("duty", ctypes.c_int), ("offering", ctypes.c_int), ("held", ctypes.c_uint64*64), ("holding", ctypes.c_int),
    ]

# VerilatedModule ----------------------------------------------------------------------------------

class VerilatedModule:
    """A module as a shared library.

    Parameters
    ----------
    module    : a Migen module, not finalised, clocked by the ``sys`` domain.
    inputs    : {name: Signal}, driven from here.
    outputs   : {name: Signal}, read from here.
    transform : what becomes of the Verilog, whose module is `top`, before it is compiled.

    Values are unsigned bit patterns: arrays of 64-bit words, (cycles,) up to 64 bits wide and (cycles, words) above.
    """
    _handle: ctypes.c_void_p | None = None

    def __init__(self, module: Module, inputs: dict[str, Signal], outputs: dict[str, Signal],
                 transform: Callable[[str], str] = lambda source: source):
        self.widths = {name: len(signal) for name, signal in {**inputs, **outputs}.items()}
        self.ports  = {name: number for number, name in enumerate(self.widths)}
        self.inputs, self.outputs = list(inputs), list(outputs)

        # Ports get the names they have here.
        for name, signal in {**inputs, **outputs}.items():
            signal.name_override = name
        module.clock_domains.cd_sys = clock = ClockDomain("sys")
        ios    = {clock.clk, clock.rst, *inputs.values(), *outputs.values()}
        source = str(verilog.convert(module, ios=ios, name="top"))
        source = "\n".join(line for line in source.splitlines() if not line.startswith("//"))
        self._library = ctypes.CDLL(str(self._build(transform(source))))
        self._library.create.restype  = ctypes.c_void_p
        self._library.streams.restype = ctypes.c_int64
        self._handle = ctypes.c_void_p(self._library.create())
        self.reset()

    def _wrapper(self) -> str:
        set_input, get_output = [], []
        for name, number in self.ports.items():
            width  = self.widths[name]
            chunks = range(-(-width//32))
            if name in self.inputs:
                # Verilator wants what is above a port's width to be 0.
                top  = f" & 0x{(1 << (width - 1) % 32 + 1) - 1:x}u"
                body = (f"t->{name} = v[0] & 0x{(1 << width) - 1:x}u;" if width <= 64 else " ".join(
                    f"t->{name}[{n}] = v[{n//2}] >> {32*(n % 2)}{top if n == chunks[-1] else ''};" for n in chunks))
                set_input.append(f"    case {number}: {body} break;")
            body = (f"v[0] = t->{name};" if width <= 64 else " ".join(
                (f"v[{n//2}] = t->{name}[{n}];" if n % 2 == 0 else f"v[{n//2}] |= (u64)t->{name}[{n}] << 32;")
                for n in chunks))
            get_output.append(f"    case {number}: {body} break;")
        return _TEMPLATE.format(set_input="\n".join(set_input), get_output="\n".join(get_output))

    def _build(self, source: str) -> Path:
        wrapper = self._wrapper()
        key     = hashlib.sha256((source + wrapper).encode()).hexdigest()[:16]
        library = CACHE/f"{key}.so"
        if library.exists():
            return library
        if shutil.which("verilator") is None:
            raise FileNotFoundError("verilator was not found on PATH: install it (Debian: apt-get install verilator).")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            (Path(folder)/"top.v").write_text(source)
            (Path(folder)/"wrapper.cpp").write_text(wrapper)
            command = ["verilator", "-Wno-fatal", "-Wno-lint", "-Wno-style", "-O3", "--x-assign", "fast", "--x-initial",
                "fast", "--noassert", "--cc", "--exe", "--build", "-j", "2", "-CFLAGS", "-fPIC", "-LDFLAGS", "-shared",
                # Half the compile time of -O2 at the same speed; ccache spares that of Verilator's own runtime.
                "-MAKEFLAGS", f"OPT_FAST=-O1 OPT_SLOW=-O0 OBJCACHE={'ccache' if shutil.which('ccache') else ''}",
                "--top-module", "top", "top.v", "wrapper.cpp", "-o", "library.so"]
            status, printed = processes.capture(command, folder)
            if status:
                raise RuntimeError(f"verilator failed:\n{printed}")
            os.replace(Path(folder)/"obj_dir"/"library.so", library)
        return library

    def close(self) -> None:
        if self._handle:
            self._library.destroy(self._handle)
            self._handle = None

    __del__ = close

    def __enter__(self) -> "VerilatedModule":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def reset(self) -> None:
        self._library.reset(self._handle)

    def step(self, cycles: int = 1) -> None:
        self._library.step(self._handle, ctypes.c_uint64(cycles))

    def poke(self, **values: int) -> None:
        """Sets inputs; they hold until set again."""
        for name, value in values.items():
            row = pack_words([value], self.widths[name])
            self._library.poke(self._handle, self.ports[name], row.ctypes.data_as(ctypes.c_void_p))

    def peek(self, name: str) -> int:
        """The value of a port, unsigned."""
        row = np.zeros((1, words_of(self.widths[name])), np.uint64)
        self._library.peek(self._handle, self.ports[name], row.ctypes.data_as(ctypes.c_void_p))
        return unpack_words(row)[0]

    def run(self, outputs: Sequence[str], **inputs: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Runs as many cycles as the inputs have rows; returns {name: rows} of the outputs as seen in each cycle."""
        cycles = len(next(iter(inputs.values())))
        rows   = np.concatenate([np.asarray(value).astype(np.uint64).reshape(cycles, words_of(self.widths[name]))
            for name, value in inputs.items()], axis=1)
        rows   = np.ascontiguousarray(rows)
        counts = [words_of(self.widths[name]) for name in outputs]
        result = np.zeros((cycles, sum(counts)), np.uint64)

        def integers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int]:
            return (ctypes.c_int*len(values))(*values)

        self._library.run(self._handle, ctypes.c_uint64(cycles),
            len(inputs), integers([self.ports[name] for name in inputs]),
            integers([words_of(self.widths[name]) for name in inputs]), rows.ctypes.data_as(ctypes.c_void_p),
            len(outputs), integers([self.ports[name] for name in outputs]), integers(counts),
            result.ctypes.data_as(ctypes.c_void_p))
        split = np.split(result, np.cumsum(counts)[:-1], axis=1)
        return {name: part[:, 0] if part.shape[1] == 1 else part for name, part in zip(outputs, split)}

    def streams(self, sinks: Mapping[str, Mapping[str, ArrayLike]], sources: Mapping[str, tuple[Sequence[str], int]],
                limit: int, duty: int | Mapping[str, int] = 256, seed: int = 1) -> tuple[dict[str, dict[str, np.ndarray]], int]:
        """Feeds sinks and drains sources, with idle cycles, until every beat has moved.

        sinks   : {prefix: {payload: rows}}; ports are ``prefix_valid``, ``prefix_ready``, ``prefix_payload``.
        sources : {prefix: ((payload, ...), beats)}.
        limit   : cycles after which a :class:`TimeoutError` names the streams that still wait.
        duty    : of 256 cycles, how many offer or take a beat; a number for all or {prefix: number}.

        Returns ({prefix: {payload: rows}} of the sources, cycles). A source that breaks the stream rules (a waiting
        beat changes or goes away) raises RuntimeError.
        """
        prefixes = list(sinks) + list(sources)
        array    = (_Stream*len(prefixes))()
        buffers  = []
        for stream, prefix in zip(array, prefixes):
            payloads = list(sinks[prefix] if prefix in sinks else sources[prefix][0])
            counts   = [words_of(self.widths[f"{prefix}_{payload}"]) for payload in payloads]
            if prefix in sinks:
                columns = [np.asarray(rows).astype(np.uint64).reshape(-1, count)
                    for rows, count in zip(sinks[prefix].values(), counts)]
                buffer  = np.ascontiguousarray(np.concatenate(columns, axis=1))
            else:
                buffer  = np.zeros((sources[prefix][1], sum(counts)), np.uint64)
            buffers.append(buffer)
            stream.valid  = self.ports[f"{prefix}_valid"]
            stream.ready  = self.ports[f"{prefix}_ready"]
            stream.source = prefix in sources
            stream.ports  = len(payloads)
            for n, (payload, count) in enumerate(zip(payloads, counts)):
                stream.port[n], stream.words[n] = self.ports[f"{prefix}_{payload}"], count
            stream.data   = buffer.ctypes.data
            stream.beats  = len(buffer)
            stream.row    = buffer.shape[1]
            stream.duty   = duty if isinstance(duty, int) else duty.get(prefix, 256)
        cycles = self._library.streams(self._handle, array, len(array), ctypes.c_uint64(limit), ctypes.c_uint64(seed))
        moved  = ", ".join(f"{prefix} {stream.moved} of {stream.beats}" for prefix, stream in zip(prefixes, array))
        if cycles == 0:
            raise TimeoutError(f"{limit} cycles were not enough; beats moved: {moved}.")
        if cycles < 0:
            raise RuntimeError(f"a source changed or withdrew a waiting beat; beats moved: {moved}.")
        result = {}
        for buffer, prefix in zip(buffers[len(sinks):], sources):
            payloads = list(sources[prefix][0])
            counts   = [words_of(self.widths[f"{prefix}_{payload}"]) for payload in payloads]
            parts    = np.split(buffer, np.cumsum(counts)[:-1], axis=1)
            result[prefix] = {payload: part[:, 0] if part.shape[1] == 1 else part
                for payload, part in zip(payloads, parts)}
        return result, cycles

# Helpers for Units --------------------------------------------------------------------------------

def stream_ports(prefix: str, endpoint: Endpoint, payloads: Iterable[str], drives: bool) -> tuple[dict[str, Signal],
                 dict[str, Signal]]:
    """({name: Signal} inputs, outputs) of a stream endpoint. `drives`: the module drives it (a source)."""
    forward  = {f"{prefix}_valid": endpoint.valid}
    forward.update({f"{prefix}_{payload}": getattr(endpoint, payload) for payload in payloads})
    backward = {f"{prefix}_ready": endpoint.ready}
    return (backward, forward) if drives else (forward, backward)


def stream_module(module: Module, streams: Iterable[tuple[str, Endpoint, Iterable[str], bool]],
                  outputs: Mapping[str, Signal] | None = None, inputs: Mapping[str, Signal] | None = None) -> VerilatedModule:
    """A module with the ports of some streams, each as :func:`stream_ports` takes it, and others."""
    inputs, outputs = dict(inputs or {}), dict(outputs or {})
    for stream in streams:
        ports = stream_ports(*stream)
        inputs.update(ports[0])
        outputs.update(ports[1])
    return VerilatedModule(module, inputs, outputs)
