#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A model's image, as operations/image.py says it: its bytes for a build of the device, what it takes of memory, and what a token costs.

::

    header | programs | layers' matrices | head | embedding, unless it is the head | parameters | zero window || records | results
    |------------------------------- only read: `constant_bytes` ----------------------------------------------||--- written ---|

A stage's image has the head or the embedding only where it has the last layer or the first one.
"""

import hashlib

from dataclasses import dataclass

import numpy as np

from model.exact.network import LayerState, binary16
from model.program import DeviceModel, Places

from operations.config import ALIGNMENT, ELEMENT_BYTES, ProgramConfig, SSMConfig, ceil_multiple
from operations.image import (HEADER_BYTES, IMAGE_HEAD, IMAGE_MAGIC, IMAGE_VERSION, MAX_DEFERRED, MAX_VOCABULARY, OUTPUT_HEAD_BYTES,
    PROGRAM_ENTRY, PROGRAMS, ProgramKind, program_number, stage_kinds)
from operations.numerics import CANDIDATES, GROUP
from operations.program import DESCRIPTOR_WORDS, Code, unpack
from operations.protocol import DATA_OFFSET
from operations.ssm import pack_state, unpack_state

# Constants ----------------------------------------------------------------------------------------

CANDIDATE_BYTES  = 8
DESCRIPTOR_BYTES = 4*DESCRIPTOR_WORDS
TRAFFIC_KINDS    = ("layers", "head", "state", "vectors", "programs") # Weights of the two, the SSM core's tiles and records, all else.
SESSIONS         = 2 # That a host keeps on a device: one to go on from, one that a job writes.

# Traffic ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Traffic:
    """Bytes read and written."""
    read    : int = 0
    written : int = 0

    def __add__(self, other):
        return Traffic(self.read + other.read, self.written + other.written)

    @property
    def total(self):
        return self.read + self.written


def descriptor_traffic(code, operands, tape_bytes, deferred=0, store=True):
    """The :class:`Traffic` of a descriptor. tape_bytes: of a MATRIX; deferred, store: of an SSM, tokens before its own, and whether the
    state is stored."""
    tokens = operands.get("tokens", 1)
    if code in (Code.LOAD, Code.STORE, Code.SCATTER):
        size = tokens*operands["rows"]*operands.get("elements", 1)*ELEMENT_BYTES
        return Traffic(size) if code == Code.LOAD else Traffic(0, size)
    if code == Code.MATRIX:
        return Traffic(tape_bytes)
    if code == Code.EMBED:
        return Traffic(tokens*operands["groups"]*(GROUP + ELEMENT_BYTES))
    if code == Code.BEST:
        return Traffic(0, tokens*CANDIDATES*CANDIDATE_BYTES)
    if code == Code.SSM:
        heads, groups = operands["heads"], operands["heads"]//operands["group_heads"]
        state = heads*operands["state_step"]
        return Traffic(state + (deferred + tokens)*(heads*operands["x_step"] + groups*operands["bc_step"]),
            state*store + tokens*heads*operands["y_step"])
    return Traffic()

# Image --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Part:
    """Of an image: bytes from `place` on."""
    name  : str
    place : int
    size  : int


class Image:
    """A quantised model for a build.

    Parameters
    ----------
    model      : :class:`model.weights.QuantizedModel`, all of whose matrices are quantised.
    data_width : of the tape's beats, bits.
    ssm        : :class:`operations.config.SSMConfig` of the build.
    program    : :class:`operations.config.ProgramConfig` of the build.
    layers     : (first, end) of a stage's layers; None: the whole model.

    Attributes
    ----------
    device         : :class:`model.program.DeviceModel`.
    parts          : [:class:`Part`], one after the other.
    size           : Bytes of the whole image.
    constant_bytes : Of what is only read, at its beginning.
    session_bytes  : Of a session.

    Raises
    ------
    ValueError : the model does not fit the build: by how much, and what would.
    """
    def __init__(self, model, data_width=128, ssm=SSMConfig(), program=ProgramConfig(), layers=None):
        if model.vocab_size > MAX_VOCABULARY:
            raise ValueError(f"vocabulary must be 1 to {MAX_VOCABULARY}, is {model.vocab_size}.")
        self.model      = model
        self.data_width = data_width
        self.ssm        = ssm
        self.program    = program
        self.layers     = layers or (0, model.n_layer)
        self.device     = self._device()
        self._check()
        self.session_bytes = self.device.session_bytes
        self._programs()
        self._layout()

    # Limits.

    def _device(self):
        """With batches of as many sessions as there is room for on chip."""
        build  = self.program
        device = DeviceModel(self.model, self.data_width, self.ssm, build.pass_tokens, layers=self.layers)
        if device.stage: # It has no batches.
            return DeviceModel(self.model, self.data_width, self.ssm, build.pass_tokens, sessions=1, layers=self.layers)
        most   = next((count for count in range(device.sessions, 1, -1) if device.scratch_of(build.pass_tokens, count) <= build.elements), 1)
        return device if most == device.sessions else DeviceModel(self.model, self.data_width, self.ssm, build.pass_tokens, sessions=most)

    def _check(self):
        """Raise ValueError unless the model fits the build's memories on chip."""
        device, build = self.device, self.program
        if device.scratch > build.elements:
            fits    = [tokens for tokens in (1, 2, 4) if tokens < build.pass_tokens and
                device.scratch_of(tokens, 1) <= build.elements]
            advice  = f"with scratch = {ceil_multiple(device.scratch, 1024)}" if device.scratch <= 2**20 else "for a smaller model"
            advice += f", or with pass_tokens = {fits[-1]}" if fits else ""
            raise ValueError(f"the model's scratchpad must be of at most {build.elements} elements with pass_tokens = {build.pass_tokens}, "
                f"is of {device.scratch}, {device.scratch - build.elements} too many: build the device {advice}.")
        if device.activations > build.activations:
            words  = 1 << (device.activations - 1).bit_length()
            advice = f"with activations = {words}" if words <= 2048 else "for a smaller model"
            raise ValueError(f"the model's activations must be of at most {build.activations} words, are of {device.activations}, "
                f"{device.activations - build.activations} too many: build the device {advice}.")

    def memory_bytes(self, sessions=SESSIONS, results=0):
        """Of a device's data region: image, sessions and so many bytes of prompts and results."""
        return self.size + sessions*self.session_bytes + results

    def check_memory(self, size, sessions=SESSIONS, results=0):
        """Raise ValueError unless a data region of `size` bytes holds all."""
        needed = self.memory_bytes(sessions, results)
        if needed > size:
            others = "" if self.model.head.type == "q4_0" else ", or --type q4_0, which takes about half"
            raise ValueError(f"the model takes {needed} bytes of the device's memory (image {self.size}, {sessions} sessions of "
                f"{self.session_bytes}), {needed - size} more than the {size} that are free: a memory of "
                f"{1 << (needed + DATA_OFFSET - 1).bit_length() >> 20} MiB holds it{others}.")

    # Layout.

    def _programs(self):
        """{(kind, tokens): words}."""
        device, self.programs = self.device, {}
        make = { # In the order in which they lie in the image.
            ProgramKind.LAYERS : device.layers,
            ProgramKind.HEAD   : lambda tokens: device.head(1, tokens - 1),
            ProgramKind.LOGITS : device.all_logits,
            ProgramKind.STATE  : device.states,
            ProgramKind.DRAFTS : lambda tokens: device.layers(tokens, drafts=True),
            ProgramKind.EACH   : device.head,
            ProgramKind.BATCH  : lambda tokens: device.layers(tokens, batch=True),
        }
        kinds = stage_kinds(device.stage)
        for tokens in range(1, self.program.pass_tokens + 1):
            for kind, words in make.items():
                if kind in kinds and (kind != ProgramKind.BATCH or tokens <= device.sessions):
                    self.programs[kind, tokens] = np.array(words(tokens) + device.end(), "<u4").reshape(-1, DESCRIPTOR_WORDS)

    def _layout(self):
        device, places, parts = self.device, Places(ALIGNMENT), []
        def take(name, size):
            parts.append(Part(name, places.take(size), size))
            return parts[-1].place
        take("header", HEADER_BYTES)
        self.program_places, found = {}, {}
        for key, words in self.programs.items(): # Of one token some are the same.
            content = words.tobytes()
            if content not in found:
                found[content] = take("programs", words.nbytes)
            self.program_places[key] = found[content]
        layers      = device.layer_matrices
        self.tape   = take("layers", sum(device.matrix_bytes[:layers]))
        others      = iter(device.matrix_bytes[layers:])
        self.head   = take("head", next(others)) if device.has_head else self.tape
        self.embedding = self.head
        if device.has_embedding and not (self.model.tied and device.has_head):
            self.embedding = take("embedding", next(others))
        self.parameters     = take("parameters", len(device.parameters))
        self.zero_window    = take("zero window", device.sizes.window)
        self.constant_bytes = self.records = take("records", device.sizes.records)
        self.results        = take("results", device.sizes.results)
        self.size  = places.size
        first      = parts[1].place
        end        = self.tape
        self.parts = [parts[0], Part("programs", first, end - first), *(part for part in parts[1:] if part.name != "programs")]

    def header(self):
        """Its words."""
        device = self.device
        values = {
            "magic"        : IMAGE_MAGIC,
            "version"      : IMAGE_VERSION,
            "image_bytes"  : self.size,
            "data_width"   : self.data_width,
            "lanes"        : self.ssm.lanes,
            "pass_tokens"  : self.program.pass_tokens,
            "scratch"      : device.scratch,
            "activations"  : device.activations,
            "vocabulary"   : self.model.vocab_size,
            "logit_rows"   : device.logit_rows,
            "state_bytes"  : device.sizes.state,
            "window_bytes" : device.sizes.window,
            "window_step"  : device.window_step,
            "sessions"     : device.sessions,
            "deferred"     : MAX_DEFERRED,
            "x_stride"     : device.x_stride,
            "bc_stride"    : device.bc_stride,
            "stage"        : device.stage,
            "residual_bytes" : device.residual_bytes,
            **{name: getattr(self, name) for name in IMAGE_HEAD[IMAGE_HEAD.index("tape"):]},
        }
        entries = np.zeros((PROGRAMS, len(PROGRAM_ENTRY)), "<u4")
        for (kind, tokens), words in self.programs.items():
            entries[program_number(kind, tokens)] = (self.program_places[kind, tokens], len(words), *self._tape_of(kind))
        return np.concatenate([np.array([values[name] for name in IMAGE_HEAD], "<u4"), entries.reshape(-1)])

    def _tape_of(self, kind):
        """(place, beats) of the matrices that a kind of program reads."""
        layers = self.device.layer_matrices
        if kind == ProgramKind.STATE:
            place, sizes = self.tape, []
        elif kind in (ProgramKind.LAYERS, ProgramKind.DRAFTS, ProgramKind.BATCH):
            place, sizes = self.tape, self.device.matrix_bytes[:layers]
        else:
            place, sizes = self.head, self.device.matrix_bytes[layers:layers + 1]
        return place, sum(sizes)*8//self.data_width

    def tape_bytes(self, kind):
        """That a kind of program reads."""
        return self._tape_of(kind)[1]*self.data_width//8

    def to_bytes(self):
        """uint8 (size,). Only one matrix at a time is held beside it."""
        image = np.zeros(self.size, np.uint8)
        def put(place, data):
            data = np.frombuffer(data, np.uint8)
            image[place:place + len(data)] = data
        put(0, self.header().tobytes())
        for key, words in self.programs.items():
            put(self.program_places[key], words.tobytes())
        device = self.device
        layers = device.layer_matrices
        places = [self.tape + sum(self.device.matrix_bytes[:n]) for n in range(layers)] + \
            [self.head]*device.has_head + [self.embedding]
        for place, matrix in zip(places, self.device.matrices()):
            put(place, matrix.reshape(-1))
        put(self.parameters, self.device.parameters)
        put(self.records,    self.device.records)
        return image

    # Costs.

    def traffic(self, tokens=1, *kinds):
        """The :class:`Traffic` of a pass of so many tokens: of its programs of these kinds (default: LAYERS, and HEAD where it has one)."""
        kinds = kinds or (ProgramKind.LAYERS, *[ProgramKind.HEAD]*self.device.has_head)
        return sum(self.traffic_by_kind(tokens, *kinds).values(), Traffic())

    def traffic_by_kind(self, tokens, *kinds, deferred=0, store=True):
        """{of what, TRAFFIC_KINDS: :class:`Traffic`} of programs for so many tokens. deferred, store: as of :func:`descriptor_traffic`."""
        found = dict.fromkeys(TRAFFIC_KINDS, Traffic())
        for kind in kinds:
            words = self.programs[kind, tokens]
            found["programs"] += Traffic(words.nbytes)
            found["layers" if self._tape_of(kind)[0] == self.tape else "head"] += Traffic(self.tape_bytes(kind))
            for descriptor, _, _, operands in map(unpack, words.tolist()):
                found["state" if descriptor.code == Code.SSM else "vectors"] += descriptor_traffic(descriptor.code, operands, 0, deferred, store)
            if kind == ProgramKind.LOGITS:
                found["head"] += Traffic(0, self.logit_bytes(tokens))
        return found

    def tokens_per_second(self, clock_hz, peak_bytes):
        """The most that DRAM's bytes a cycle allow when tokens are generated one by one."""
        return clock_hz*peak_bytes/self.traffic(1).total

    def prompt_tokens_per_second(self, clock_hz, peak_bytes):
        """Likewise of a prompt, in whole passes."""
        tokens = self.program.pass_tokens
        return tokens*clock_hz*peak_bytes/self.traffic(tokens, ProgramKind.LAYERS).total

    def batch_tokens_per_second(self, clock_hz, peak_bytes):
        """Likewise of as many sessions as can be decoded together."""
        sessions = self.device.sessions
        return sessions*clock_hz*peak_bytes/self.traffic(sessions, ProgramKind.BATCH, ProgramKind.EACH).total

    # Results.

    def logit_bytes(self, tokens):
        """Of a pass of so many tokens, with LOGITS."""
        return ceil_multiple(4*self.device.logit_rows*tokens, ALIGNMENT)

    def passes(self, tokens):
        """[tokens of a pass] of a prompt."""
        most = self.program.pass_tokens
        return [min(most, tokens - first) for first in range(0, tokens, most)]

    def output_bytes(self, prompt_tokens, tokens, logits=False):
        """Of what a job GENERATE writes to `output`; or BATCH, where `tokens` are those of all sessions."""
        if logits:
            return sum(map(self.logit_bytes, self.passes(prompt_tokens)))
        return OUTPUT_HEAD_BYTES + ceil_multiple(4*tokens, ALIGNMENT)

    def unpack_logits(self, data, prompt_tokens):
        """float32 (prompt_tokens, vocabulary) of what a job with LOGITS has written."""
        rows, lanes, result, at = self.device.logit_rows, self.data_width//128, [], 0
        for tokens in self.passes(prompt_tokens):
            logits = np.frombuffer(data, "<f4", rows*tokens, at).reshape(-1, tokens, lanes)
            result.append(logits.transpose(1, 0, 2).reshape(tokens, rows)[:, :self.model.vocab_size])
            at += self.logit_bytes(tokens)
        return np.concatenate(result)

    # Sessions.

    def _channels(self):
        """The convolution's channels, x|B|C, in the order of the device's windows."""
        layer = self.model.config.layer
        return np.concatenate([np.arange(layer.d_inner, layer.d_xbc), np.arange(layer.d_inner)])

    def pack_session(self, states):
        """The bytes of a session. states: [:class:`model.exact.network.LayerState`]."""
        device  = self.device
        tiles   = b"".join(pack_state(device.geometry, state.h) for state in states)
        windows = b"".join(state.window[:, self._channels()].astype("<f2").tobytes().ljust(device.window_bytes, b"\0") for state in states)
        return tiles + windows

    def unpack_session(self, data):
        """The inverse of :meth:`pack_session`."""
        device, layer = self.device, self.model.config.layer
        shape  = (layer.d_conv - 1, layer.d_xbc)
        states = []
        for n in range(len(device.weights)):
            h      = unpack_state(device.geometry, data[n*device.tile_bytes:(n + 1)*device.tile_bytes])
            given  = np.frombuffer(data, "<f2", shape[0]*shape[1], device.sizes.state + n*device.window_bytes).reshape(shape)
            window = np.empty(shape, np.float16)
            window[:, self._channels()] = given
            states.append(LayerState(h.astype(np.float16), window))
        return states

# Fingerprint --------------------------------------------------------------------------------------

def fingerprint(model):
    """Digest of a quantised model: of its sizes, and of its weights as the device has them. uint8 (32,)."""
    digest, layer = hashlib.sha256(), model.config.layer
    digest.update(repr((model.vocab_size, model.n_layer, model.tied, layer.d_model, layer.d_state, layer.headdim, layer.ngroups, layer.expand,
        layer.d_conv, float(layer.norm_eps), tuple(map(float, layer.dt_limit)))).encode())
    def matrix(value):
        digest.update(f"{value.type} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value.integers))
        digest.update(np.ascontiguousarray(value.scales))
    for n, weights in enumerate(model.layers):
        for name in ("norm", "conv_weight", "conv_bias", "dt_bias", "A", "D", "ssm_norm", *(("in_bias", "out_bias") if layer.bias else ())):
            digest.update(np.ascontiguousarray(binary16(f"layer {n}.{name}", getattr(weights, name))))
        matrix(weights.in_proj)
        matrix(weights.out_proj)
    digest.update(np.ascontiguousarray(binary16("the last norm", model.norm)))
    matrix(model.head)
    if not model.tied:
        matrix(model.embedding)
    return np.frombuffer(digest.digest(), np.uint8)
