#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""A model as the device has it: the tape, the parameters, and the programs that run a pass of tokens.

::

    layers:  EMBED
             for each layer: ROUND, NORM, QUANTISE, MATRIX (dt, B, C, x), MATRIX (z), SUM (dt), SUM (dA), SUM (convolution and SiLU),
                             STORE (records), SSM, SUM (silu(z)), LOAD (y), SUM (gate), NORM, QUANTISE, MATRIX, ADD
    head:    ROUND, NORM, QUANTISE, MATRIX, BEST

A stage has some of the layers: where they are not the first ones, a LOAD of the residual stream takes EMBED's place; where they are not the last
ones, a STORE of it ends them, and there is no head.

The tokens of a pass follow one another, or are of as many sessions (a batch): then each token's row of in_proj lies behind a window of its
own, and the SSM core has a descriptor for each session.

The rows of z are the last ones of in_proj: while their weights are read, all is done that is in front of the SSM core.
Weights of vectors are loaded when nothing waits for them: a layer's norm during the layer before.

In the scratchpad each token has its rows of in_proj; in front of the first token's lie the window's. silu(z) takes the place of z, and y
that of the convolution's results.
"""

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.exact.network import binary16
from model.exact.norm import eps_units
from model.exact.tape import block_rows, pack_matrix, tape_beats

from operations.config import ALIGNMENT, ELEMENT_BYTES, SEED_STRIDE, SSMConfig, ceil_multiple, check_choice, check_range
from operations.image import MAX_DEFERRED, Stage
from operations.numerics import CANDIDATES, COLUMNS, GROUP, Function
from operations.program import OFFSET_BITS, SCRATCH_MULTIPLE, Code, Register, Unit, pack
from operations.ssm import SCALAR_ELEMENTS, Geometry, pack_x

# Helpers ------------------------------------------------------------------------------------------

class Places:
    """Addresses one after the other, each a multiple of `multiple`."""
    def __init__(self, multiple):
        self.multiple = multiple
        self.size     = 0

    def take(self, size):
        first     = self.size
        self.size = ceil_multiple(first + size, self.multiple)
        return first


@dataclass(frozen=True)
class Rows:
    """Where the results of in_proj and the windows lie in the scratchpad, in elements.

    Parameters
    ----------
    window : the first row of token 0's window, which the next ones and its own row follow,
    step   : so far from each other.
    row    : token 0's own row.
    stride : from a token's to the next one's.
    """
    window : int
    step   : int
    row    : int
    stride : int


class Parameters:
    """Bytes of parameters, each at a multiple of ALIGNMENT."""
    def __init__(self):
        self.places = Places(ALIGNMENT)
        self.parts  = []

    def add(self, array):
        """Its offset. array: float16."""
        data = array.astype("<f2").tobytes()
        self.parts.append(data + bytes(-len(data) % ALIGNMENT))
        return self.places.take(len(data))

    def to_bytes(self):
        return b"".join(self.parts)

# Program ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Sizes:
    """Bytes of a session's memory: the state's head tiles, the convolutions' windows, the SSM core's records and the candidates."""
    state   : int
    window  : int
    records : int
    results : int


class DeviceModel:
    """A quantised model laid out for a build of the device.

    Parameters
    ----------
    model  : :class:`model.weights.QuantizedModel`, all of whose matrices are quantised.
    width  : of the tape's beats, bits.
    config : of the SSM core.
    tokens : R, the most in a pass: 1, 2, 4 or 8.
    sessions : the most of a batch, 1 to `tokens`. None: as many as one register reaches.
    deferred : tokens whose records lie in front of those of the pass, at most.
    layers : (first, end) of a stage's layers; None: the whole model.

    Attributes
    ----------
    tape       : bytes: the layers' matrices, then the head's, then an embedding's of its own. Made when it is asked for.
    matrix_bytes : [size] of each matrix there.
    layer_matrices : how many of these are the layers',
    layers_bytes : and their bytes, one right behind the other.
    head_at, embedding : where the head and the embedding begin there, bytes, multiples of ALIGNMENT.
    parameters : bytes.
    records    : bytes, as they are before the first pass.
    sizes      : :class:`Sizes`.
    sessions   : the most of a batch.
    stage      : :class:`operations.image.Stage`.
    weights    : of its layers.
    scratch    : elements of the scratchpad that the programs use.
    activations : words of sixteen columns of the activations' memory, likewise.

    Raises
    ------
    ValueError : a parameter does not fit binary16, or a size is none that the device has.
    """
    def __init__(self, model, width=128, config=SSMConfig(), tokens=1, deferred=MAX_DEFERRED, sessions=None, layers=None):
        check_choice("tokens", tokens, (1, 2, 4, 8))
        check_range("deferred", deferred, 0, MAX_DEFERRED)
        first, end = (0, model.n_layer) if layers is None else layers
        if not 0 <= first < end <= model.n_layer:
            raise ValueError(f"layers must be one or more of 0 to {model.n_layer - 1}, are {first} to {end - 1}.")
        layer = model.config.layer
        for name in ("d_model", "d_inner"):
            if getattr(layer, name) % GROUP:
                raise ValueError(f"{name} must be a multiple of {GROUP}, is {getattr(layer, name)}.")
        for name in ("headdim", "d_state"):
            if getattr(layer, name) % SCRATCH_MULTIPLE:
                raise ValueError(f"{name} must be a multiple of {SCRATCH_MULTIPLE}, is {getattr(layer, name)}.")
        if (layer.d_inner//layer.ngroups) % SCRATCH_MULTIPLE:
            raise ValueError(f"ngroups must leave groups of a multiple of {SCRATCH_MULTIPLE} channels, is {layer.ngroups}.")
        self.model    = model
        self.layers_at = first
        self.weights  = model.layers[first:end]
        self.stage    = (Stage(0) if first == 0 else Stage.NO_EMBEDDING) | (Stage(0) if end == model.n_layer else Stage.NO_HEAD)
        self.has_embedding = not self.stage & Stage.NO_EMBEDDING
        self.has_head      = not self.stage & Stage.NO_HEAD
        self.width    = width
        self.layer    = layer
        self.geometry = Geometry(config, layer.heads, layer.headdim, layer.d_state, layer.ngroups)
        self._sections()
        self._tape()
        self._parameters()
        self._records(tokens, tokens + deferred)
        self.session_bytes = self.sizes.state + self.sizes.window
        self.sessions      = min(tokens, max(1, 2**OFFSET_BITS//self.session_bytes)) if sessions is None else sessions
        check_range("sessions", self.sessions, 1, tokens)
        self._scratchpad(tokens)

    # Layout.

    def _sections(self):
        """Where the parts of in_proj's results lie: dt, B, C, x, z, each at a multiple of SCRATCH_MULTIPLE, which whole blocks make up."""
        layer  = self.layer
        x, B, C = layer.xbc_sizes
        places = Places(SCRATCH_MULTIPLE)
        sizes  = {"dt": layer.heads, "B": B, "C": C, "x": x, "z": layer.d_inner}
        self.sections = {name: (places.take(size), size) for name, size in sizes.items()}
        self.rows     = places.size
        self.first    = self.sections["z"][0] # Rows in front of z.

    def _ordered(self, rows):
        """Rows of in_proj, or what belongs to each of them, in the order of the sections; zeros between."""
        layer  = self.layer
        starts = dict(zip(("z", "x", "B", "C", "dt"), np.cumsum([0, layer.d_inner, *layer.xbc_sizes]).tolist()))
        result = np.zeros((self.rows, *rows.shape[1:]), rows.dtype)
        for name, (first, size) in self.sections.items():
            result[first:first + size] = rows[starts[name]:starts[name] + size]
        return result

    def _block(self, matrix):
        return block_rows(matrix.type == "q4_0", self.width)

    def _vocabulary_matrices(self):
        """The head, and an embedding of its own, as far as it has them."""
        model = self.model
        return [model.head]*self.has_head + [model.embedding]*(self.has_embedding and not (model.tied and self.has_head))

    def matrices(self):
        """The matrices as they lie on the tape: the layers', then the head's, then that of an embedding of its own. An iterator of
        arrays, of which it keeps none; see also :attr:`matrix_bytes`."""
        for layer in self.weights:
            matrix = layer.in_proj
            integers, scales = self._ordered(matrix.integers), self._ordered(matrix.scales)
            for part in (slice(self.first), slice(self.first, None)):
                yield pack_matrix(integers[part], scales[part], matrix.type == "q4_0", self.width)
            yield pack_matrix(layer.out_proj.integers, layer.out_proj.scales, layer.out_proj.type == "q4_0", self.width)
        for matrix in self._vocabulary_matrices():
            yield pack_matrix(matrix.integers, matrix.scales, matrix.type == "q4_0", self.width)

    def _tape(self):
        model = self.model
        size  = lambda rows, matrix: tape_beats(rows, matrix.shape[1], matrix.type == "q4_0", self.width)*self.width//8
        self.matrix_bytes = [size(rows, matrix) for layer in self.weights
            for rows, matrix in ((self.first, layer.in_proj), (self.rows - self.first, layer.in_proj), (model.d_model, layer.out_proj))]
        self.layer_matrices = len(self.matrix_bytes)
        self.layers_bytes   = sum(self.matrix_bytes)
        self.head_at      = ceil_multiple(self.layers_bytes, ALIGNMENT)
        others    = [size(model.vocab_size, matrix) for matrix in self._vocabulary_matrices()]
        self.embedding    = self.head_at if len(others) < 2 else ceil_multiple(self.head_at + others[0], ALIGNMENT)
        self.matrix_bytes += others

    @cached_property
    def tape(self):
        tape = bytearray()
        for n, matrix in enumerate(self.matrices()):
            if n >= self.layer_matrices:
                tape += bytes(-len(tape) % ALIGNMENT)
            tape += matrix.tobytes()
        return bytes(tape)

    def _parameters(self):
        layer, parameters, found = self.layer, Parameters(), []
        order = np.concatenate([np.arange(sum(layer.xbc_sizes[:2]) - layer.xbc_sizes[1], sum(layer.xbc_sizes)), np.arange(layer.d_inner)])
        for n, weights in enumerate(self.weights, self.layers_at): # The convolution's channels are B, C, x here.
            conv = np.concatenate([binary16(f"layer {n}.conv weight", weights.conv_weight).T, binary16(f"layer {n}.conv bias", weights.conv_bias)[None]])
            dt   = binary16(f"layer {n}.dt_bias", weights.dt_bias)
            pad  = lambda vector: np.pad(vector, (0, -len(vector) % SCRATCH_MULTIPLE))
            found.append({
                "norm"     : parameters.add(binary16(f"layer {n}.norm", weights.norm)),
                "conv"     : parameters.add(conv[:, order]),
                "dt"       : parameters.add(np.concatenate([pad(np.ones_like(dt)), pad(dt)])),
                "A"        : parameters.add(pad(binary16(f"layer {n}.A", weights.A))),
                "ssm_norm" : parameters.add(binary16(f"layer {n}.ssm_norm", weights.ssm_norm)),
            })
            for name, bias in (("in_bias", weights.in_bias), ("out_bias", weights.out_bias)) if layer.bias else ():
                bias = pad(binary16(f"layer {n}.{name.replace('_', '_proj ')}", bias if name == "out_bias" else self._ordered(bias)))
                found[-1][name] = parameters.add(np.concatenate([np.ones_like(bias), bias]))
        self.last_norm  = parameters.add(binary16("the last norm", self.model.norm)) if self.has_head else None
        self.places     = found
        self.parameters = parameters.to_bytes()

    def _records(self, tokens, all_tokens):
        """x and BC records of a layer stay while their tokens are deferred; so each layer has its own. y records serve all. The x records
        have D from the beginning."""
        geometry, layer = self.geometry, self.layer
        places, parts  = Places(ALIGNMENT), []
        self.x_at      = []
        self.x_stride  = layer.heads*geometry.x_record_bytes
        self.bc_stride = layer.ngroups*geometry.bc_record_bytes
        for n, weights in enumerate(self.weights, self.layers_at):
            D    = binary16(f"layer {n}.D", weights.D)
            none = np.zeros((all_tokens, layer.heads), np.float16)
            data = pack_x(geometry, np.zeros((all_tokens, layer.heads, layer.headdim), np.float16), none, none, D)
            self.x_at.append(places.take(len(data)))
            parts.append(data)
        self.bc_at   = [places.take(all_tokens*self.bc_stride) for _ in self.weights]
        self.y_stride = layer.heads*geometry.y_record_bytes
        self.y_at     = places.take(tokens*self.y_stride)
        self.records = b"".join(parts).ljust(places.size, b"\0")
        self.tile_bytes   = layer.heads*geometry.tile_bytes
        self.window_step  = layer.d_xbc*ELEMENT_BYTES if layer.d_conv > 1 else 0
        self.window_bytes = ceil_multiple((layer.d_conv + tokens - 2)*self.window_step, ALIGNMENT)
        self.sizes = Sizes(self.tile_bytes*len(self.weights), self.window_bytes*len(self.weights),
            places.size, tokens*CANDIDATES*8)

    def _scratchpad(self, tokens):
        layer, places = self.layer, Places(SCRATCH_MULTIPLE)
        width = lambda size: ceil_multiple(size, max(SCRATCH_MULTIPLE, block_rows(True, self.width)))
        self.strides = {
            "residual" : 2*layer.d_model,
            "hidden"   : width(layer.d_model), # What comes out of a norm, or of out_proj.
            "xbc"      : layer.d_xbc,  # And y.
            "dt"       : ceil_multiple(layer.heads, SCRATCH_MULTIPLE),
            "dA"       : ceil_multiple(layer.heads, SCRATCH_MULTIPLE),
        }
        self.at = {name: places.take(tokens*stride) for name, stride in self.strides.items()}
        before  = layer.d_conv - 1
        own     = before*self.first + self.rows # Of a session: of its window's rows only what is in front of z.
        first   = places.take(max((before + tokens)*self.rows, self.sessions*own))
        self.text  = Rows(first, self.rows,  first + before*self.rows,  self.rows)
        self.batch = Rows(first, self.first, first + before*self.first, own)
        vectors = {"norm": layer.d_model, "conv": (layer.d_conv + 1)*layer.d_xbc, "dt_bias": 2*self.strides["dt"], "A": self.strides["dt"],
            "ssm_norm": layer.d_inner} | ({"in_bias": 2*self.rows, "out_bias": 2*layer.d_model} if layer.bias else {})
        self.at.update((name, places.take(size)) for name, size in vectors.items())
        self.scratch     = places.size
        self.activations = max(layer.d_model, layer.d_inner)//COLUMNS

    def scratch_of(self, tokens, sessions):
        """Elements of the scratchpad that programs for so many tokens would use, in batches of so many sessions."""
        other = copy(self)
        other.sessions = sessions
        other._scratchpad(tokens)
        return other.scratch

    # Programs.

    def layers(self, tokens, batch=False, drafts=False):
        """The words of the program that takes `tokens` tokens through all its layers, without its END.

        batch: they are of as many sessions. drafts: the window after each of them is stored, not only that after the last.
        """
        if self.has_embedding:
            words = pack(Code.EMBED, **self._stream, table=(Register.EMBEDDING, 0), groups=self.layer.d_model//GROUP, tokens=tokens,
                flags=self._narrow(self.model.embedding))
        else:
            words = pack(Code.LOAD, memory=(Register.EMBEDDING, 0), **self._residuals(tokens))
        words += self._load("norm", self.places[0]["norm"], self.layer.d_model)
        for n in range(len(self.weights)):
            words += self._layer(n, tokens, batch, drafts)
        if not self.has_head:
            words += pack(Code.STORE, {Unit.VECTOR: 0}, memory=(Register.RESULTS, 0), **self._residuals(tokens))
        return words

    @property
    def residual_bytes(self):
        """Of a token's residual vector."""
        return 4*self.layer.d_model

    def _residuals(self, tokens):
        """Of a LOAD or STORE: the residual stream."""
        return {"scratch": self.at["residual"], "scratch_token_stride": self.strides["residual"], "elements": self.strides["residual"],
            "memory_token_stride": self.residual_bytes, "tokens": tokens}

    def head(self, tokens=1, first=0):
        """The words of the program that follows, to the best candidates of `tokens` tokens of the pass, from the one with this number on;
        without its END."""
        words = self._last_norm(tokens, first) + self._logits(tokens)
        return words + pack(Code.BEST, {Unit.GEMV: 0}, target=(Register.RESULTS, 0), tokens=tokens)

    def all_logits(self, tokens):
        """The words of the program that follows, to all logits of each token; without its END."""
        return pack(Code.LOGITS, target=(Register.RESULTS, 0)) + self._last_norm(tokens) + self._logits(tokens)

    def states(self, tokens):
        """The words of the program that stores the layers' states after so many tokens, and those that are deferred in front of them; and
        puts their windows in place."""
        words = []
        for n in range(len(self.weights)):
            words += self._ssm(n, tokens, {})
            if self.layer.d_conv > 1:
                for code, register in ((Code.LOAD, Register.WINDOW_IN), (Code.STORE, Register.WINDOW_OUT)):
                    words += pack(code, memory=(register, n*self.window_bytes), **self._window(self.text.window, self.rows))
        return words

    def _last_norm(self, tokens, first=0):
        words = self._load("norm", self.last_norm, self.layer.d_model)
        return words + self._norm(tokens, first)

    def _logits(self, tokens):
        head = self.model.head
        return pack(Code.MATRIX, {}, [*self._narrow(head), "HEAD"], groups=self.layer.d_model//GROUP, tokens=tokens, rows=self.logit_rows,
            vocabulary=self.model.vocab_size)

    @property
    def logit_rows(self):
        """Of the vocabulary, with those that fill the last block."""
        return ceil_multiple(self.model.vocab_size, self._block(self.model.head))

    @staticmethod
    def end():
        return pack(Code.END)

    @property
    def _stream(self):
        return {"residual": self.at["residual"], "residual_stride": self.strides["residual"]}

    def _narrow(self, matrix):
        return ["NARROW"] if matrix.type == "q4_0" else []

    def _load(self, name, place, elements):
        """Parameters, in place of those that are not read any more."""
        return pack(Code.LOAD, memory=(Register.PARAMETERS, place), scratch=self.at[name], elements=elements)

    def _norm(self, tokens, first=0, waits=None):
        """The residual stream, rounded and normalised, in front of a matrix; from the token with this number on. waits: beside that for GEMV."""
        layer  = self.layer
        place  = {"target": self.at["hidden"], "target_stride": self.strides["hidden"], "tokens": tokens}
        stream = self._stream | {"residual": self.at["residual"] + first*self.strides["residual"]}
        words  = pack(Code.ROUND, {Unit.GEMV: 0} | (waits or {}), **stream, **place, elements=layer.d_model)
        words += pack(Code.NORM, {Unit.MOVE: 0}, **place, source=self.at["hidden"], source_stride=self.strides["hidden"],
            weight=self.at["norm"], elements=layer.d_model, **self._eps(layer.d_model))
        return words + pack(Code.QUANTISE, {Unit.VECTOR: 0}, source=self.at["hidden"], source_stride=self.strides["hidden"],
            groups=layer.d_model//GROUP, tokens=tokens)

    def _eps(self, size):
        units = eps_units(size, self.layer.norm_eps)
        return {"eps_low": units & 2**32 - 1, "eps_high": units >> 32}

    def _window(self, row, step, more=0):
        """Of a LOAD or STORE: a window whose first row lies there, and `more` tokens' rows behind it."""
        return {"scratch": row + self.sections["B"][0], "elements": self.layer.d_xbc, "rows": self.layer.d_conv - 1 + more,
            "memory_row_stride": self.window_step, "scratch_row_stride": step}

    def _layer(self, n, tokens, batch, drafts):
        layer, at, strides, geometry = self.layer, self.at, self.strides, self.geometry
        places, weights = self.places[n], self.weights[n]
        dt, B, C, x, z = (self.sections[name][0] for name in ("dt", "B", "C", "x", "z"))
        rows      = self.batch if batch else self.text
        row       = rows.row
        sessions  = tokens if batch else 1
        window_at = [s*self.session_bytes + n*self.window_bytes for s in range(sessions)]

        def vector(name, stem="target"):
            return {stem: at[name], f"{stem}_stride": strides[name]}

        def section(first, stem):
            return {stem: row + first, f"{stem}_stride": rows.stride}

        # The norm waits for its weights alone, which are loaded long since; no vector is under way when QUANTISE begins.
        words  = self._norm(tokens, waits=None if n or self.has_embedding else {Unit.MOVE: 1}) # The residual stream is loaded, in front of the weights.
        for first, end, waits in ((0, self.first, {Unit.MOVE: 0}), (self.first, self.rows, {})):
            words += pack(Code.MATRIX, waits, self._narrow(weights.in_proj), target=row + first, target_stride=rows.stride,
                groups=layer.d_model//GROUP, tokens=tokens, rows=ceil_multiple(end - first, self._block(weights.in_proj)))
        words += self._load("dt_bias", places["dt"], 2*strides["dt"])
        words += self._load("A", places["A"], strides["dt"])
        for s, place in enumerate(window_at) if layer.d_conv > 1 else ():
            words += pack(Code.LOAD, memory=(Register.WINDOW_IN, place), **self._window(rows.window + s*rows.stride, rows.step))
        words += self._load("conv", places["conv"], (layer.d_conv + 1)*layer.d_xbc)
        words += self._load("ssm_norm", places["ssm_norm"], layer.d_inner)
        if layer.bias:
            words += self._load("in_bias", places["in_bias"], 2*self.rows)
            words += self._load("out_bias", places["out_bias"], 2*layer.d_model)
            words += self._bias("in_bias", row, self.first, self.rows, rows.stride, tokens, {Unit.GEMV: 1, Unit.MOVE: 0})
        # Under the rows of z.
        ready  = {Unit.GEMV: 1, Unit.MOVE: 0}
        low, high = (int(np.float16(limit).view(np.uint16)) for limit in layer.dt_limit)
        words += pack(Code.SUM, ready, ["BIAS"], **vector("dt"), **section(dt, "a"), b=at["dt_bias"], b_term_stride=strides["dt"], terms=2,
            elements=layer.heads, tokens=tokens, function=Function.SOFTPLUS, low=low, high=high)
        words += pack(Code.SUM, **vector("dA"), **vector("dt", "a"), b=at["A"], elements=layer.heads, tokens=tokens, function=Function.EXP)
        # The convolution's terms are rows of the window and of tokens, one below the other.
        words += pack(Code.SUM, {}, ["BIAS"], **vector("xbc"), a=rows.window + B, a_stride=rows.stride, a_term_stride=rows.step,
            b=at["conv"], b_term_stride=layer.d_xbc, terms=layer.d_conv + 1, elements=layer.d_xbc, tokens=tokens, function=Function.SILU)
        # All sums but those of dt, dA and the convolution have retired: that of a bias.
        behind = tokens if not batch and not drafts else 1 # So many rows behind the first one's lies the window that is stored.
        for s, place in enumerate(window_at) if layer.d_conv > 1 else ():
            words += pack(Code.STORE, {Unit.VECTOR: 3}, memory=(Register.WINDOW_OUT, place),
                **self._window(rows.window + s*rows.stride + behind*rows.step, rows.step, tokens - 1 if drafts else 0))
        # Records.
        heads  = {"rows": layer.heads, "memory_row_stride": geometry.x_record_bytes, "memory_token_stride": self.x_stride, "tokens": tokens}
        x_at   = self.x_at[n]
        for name, offset in (("dt", 0), ("dA", 1)):
            words += pack(Code.SCATTER, {Unit.VECTOR: 1}, memory=(Register.X_RECORDS, x_at + offset*ELEMENT_BYTES), scratch=at[name],
                scratch_row_stride=1, scratch_token_stride=strides[name], **heads)
        words += pack(Code.STORE, {Unit.VECTOR: 0}, memory=(Register.X_RECORDS, x_at + SCALAR_ELEMENTS*ELEMENT_BYTES), scratch=at["xbc"] + x - B,
            elements=layer.headdim, scratch_row_stride=layer.headdim, scratch_token_stride=strides["xbc"], **heads)
        groups = {"elements": layer.d_state, "rows": layer.ngroups, "memory_row_stride": geometry.bc_record_bytes,
            "memory_token_stride": self.bc_stride, "scratch_row_stride": layer.d_state,
            "scratch_token_stride": strides["xbc"], "tokens": tokens}
        for first, offset in ((B, 0), (C, geometry.d_state_padded)):
            words += pack(Code.STORE, memory=(Register.BC_RECORDS, self.bc_at[n] + offset*ELEMENT_BYTES), scratch=at["xbc"] + first - B, **groups)
        # Not beside the rows of z: DRAM moves more when streams of reads and of reads and writes come one after the other.
        for s in range(sessions):
            words += self._ssm(n, 1 if batch else tokens, {} if s else {Unit.MOVE: 0, Unit.GEMV: 0}, s)
        # The gate, the norm, and out.
        if layer.bias:
            words += self._bias("in_bias", row, self.rows - self.first, self.rows, rows.stride, tokens, {}, self.first)
        words += pack(Code.SUM, {}, ["ONES"], **section(z, "target"), **section(z, "a"), elements=layer.d_inner, tokens=tokens,
            function=Function.SILU)
        words += pack(Code.LOAD, {Unit.SSM: 0}, memory=(Register.RECORDS, self.y_at), scratch=at["xbc"], elements=layer.headdim,
            rows=layer.heads, memory_row_stride=geometry.y_record_bytes, memory_token_stride=self.y_stride,
            scratch_row_stride=layer.headdim, scratch_token_stride=strides["xbc"], tokens=tokens)
        following = self.places[n + 1]["norm"] if n + 1 < len(self.places) else None
        if following is not None:
            words += self._load("norm", following, layer.d_model)
        words += pack(Code.SUM, {Unit.MOVE: int(following is not None)}, **vector("xbc"), **vector("xbc", "a"), **section(z, "b"),
            elements=layer.d_inner, tokens=tokens)
        words += pack(Code.NORM, **vector("xbc"), **vector("xbc", "source"), weight=at["ssm_norm"], elements=layer.d_inner//layer.ngroups,
            groups=layer.ngroups, tokens=tokens, **self._eps(layer.d_inner//layer.ngroups))
        words += pack(Code.QUANTISE, {Unit.VECTOR: 0}, **vector("xbc", "source"), groups=layer.d_inner//GROUP, tokens=tokens)
        words += pack(Code.MATRIX, {}, self._narrow(weights.out_proj), **vector("hidden"), groups=layer.d_inner//GROUP, tokens=tokens,
            rows=ceil_multiple(layer.d_model, self._block(weights.out_proj)))
        if layer.bias:
            words += self._bias("out_bias", at["hidden"], layer.d_model, layer.d_model, strides["hidden"], tokens, {Unit.GEMV: 0})
        return words + pack(Code.ADD, {Unit.GEMV: 0}, **self._stream, **vector("hidden", "source"), elements=layer.d_model, tokens=tokens)

    def _ssm(self, n, tokens, waits, session=0):
        """session: of a batch, whose token is the one with this number."""
        layer, geometry = self.layer, self.geometry
        state = session*self.session_bytes + n*self.tile_bytes
        return pack(Code.SSM, waits, x=(Register.RECORDS, self.x_at[n] + session*self.x_stride),
            bc=(Register.RECORDS, self.bc_at[n] + session*self.bc_stride), y=(Register.RECORDS, self.y_at + session*self.y_stride),
            state_in=(Register.STATE_IN, state), state_out=(Register.STATE_OUT, state), heads=layer.heads,
            headdim=layer.headdim, d_state=layer.d_state, group_heads=layer.heads//layer.ngroups, tokens=tokens,
            x_step=geometry.x_record_bytes, y_step=geometry.y_record_bytes, bc_step=geometry.bc_record_bytes, state_step=geometry.tile_bytes,
            x_stride=self.x_stride, y_stride=self.y_stride, bc_stride=self.bc_stride,
            seed=(self.layers_at + n)*layer.heads*SEED_STRIDE % 2**32)

    def _bias(self, name, place, elements, term, stride, tokens, waits, first=0):
        """To what a matrix has given, in its place. The ones and the bias lie `term` elements from each other."""
        return pack(Code.SUM, waits, ["BIAS"], target=place + first, target_stride=stride, a=place + first, a_stride=stride,
            b=self.at[name] + first, b_term_stride=term, terms=2, elements=elements, tokens=tokens)
