#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The golden machine: it runs programs of descriptors over bytes as the device's memory, on the exact models. What it computes is what
the device computes, bit for bit.
"""

import numpy as np

from model.bitexact import ssm_block
from model.exact.elementwise import add_residual, product_sum
from model.exact.functions import exp, silu, softplus
from model.exact.head import best
from model.exact.linear import Linear
from model.exact.norm import rms_norm_units
from model.exact.rounding import rounded
from model.exact.tape import block_rows, tape_beats, unpack_matrix, unpack_row

from operations.config import SSMConfig, check_choice
from operations.numerics import CANDIDATES, COLUMNS, GROUP, LANE_BITS, MANTISSA_BITS, Function
from operations.program import DESCRIPTOR_WORDS, Code, Unit, unpack
from operations.ssm import Geometry, pack_state, pack_y, unpack_bc, unpack_state, unpack_x

# Constants ----------------------------------------------------------------------------------------

FUNCTIONS  = {Function.EXP: exp, Function.SOFTPLUS: softplus, Function.SILU: silu, Function.NONE: lambda x: x}
INFINITY16 = 0x7c00

CANDIDATE = np.dtype([("token", "<u4"), ("logit", "<f4")])


class ProgramError(ValueError):
    """A program asks for what the device does not do: the text has the descriptor's index."""

# Machine ------------------------------------------------------------------------------------------

class Machine:
    """A device's engines, their memory, and what the firmware sets of them.

    Parameters
    ----------
    memory  : uint8 (bytes,), the DRAM. It is written to.
    width   : of the tape's beats, bits.
    config  : :class:`operations.config.SSMConfig` of the SSM core.
    scratch : elements of the scratchpad.
    words   : of sixteen columns, that the activations' memory has.
    tokens  : R, the most in a pass.
    bits    : of an activation's mantissa.

    Attributes
    ----------
    registers : {register: address in bytes}, see :class:`operations.program.Register`.
    tokens    : Numbers of the tokens that EMBED takes.
    seed      : Of stochastic rounding, added to a descriptor's; None: the state is rounded to nearest.
    zero_state : Whether every SSM begins with a state of zeros,
    no_store   : and whether none stores it.
    deferred   : Tokens that every SSM runs before its own, without their y.
    """
    def __init__(self, memory, width=128, config=SSMConfig(), scratch=2**17, words=512, tokens=8, bits=MANTISSA_BITS):
        check_choice("tokens", tokens, (1, 2, 4, 8))
        self.memory      = memory
        self.width       = width
        self.config      = config
        self.scratch     = np.zeros(scratch, np.uint16)
        self.activations = np.zeros((tokens, words*COLUMNS), np.float16)
        self.bits        = bits
        self.registers   = {}
        self.tokens      = [0]*tokens
        self.seed        = None
        self.tape        = 0
        self.logits      = None
        self.all_logits  = None
        self.zero_state  = False
        self.no_store    = False
        self.deferred    = 0
        self.methods     = {code: getattr(self, code.name.lower()) for code in Code if code not in (Code.END, Code.LOGITS)}
        self.methods[Code.LOGITS] = self.write_logits

    # Memories.

    def address(self, place):
        """Of (register, offset)."""
        register, offset = place
        if register not in self.registers:
            raise ValueError(f"register {int(register)} must be set.")
        return self.registers[register] + offset

    def bytes(self, first, count):
        """Of memory, as they lie there.

        Raises
        ------
        ValueError : some of them lie outside.
        """
        if not 0 <= first <= first + count <= len(self.memory):
            raise ValueError(f"bytes {first} to {first + count - 1} must lie in the memory's {len(self.memory)}.")
        return self.memory[first:first + count]

    def vectors(self, first, stride, count, tokens):
        """Of the scratchpad, uint16 (tokens, count), as they lie there.

        Raises
        ------
        ValueError : some of them lie outside.
        """
        last = first + (tokens - 1)*stride + count
        if last > len(self.scratch):
            raise ValueError(f"elements {first} to {last - 1} must lie in the scratchpad's {len(self.scratch)}.")
        return np.lib.stride_tricks.as_strided(self.scratch[first:], (tokens, count), (2*stride, 2))

    def halves(self, *place):
        return self.vectors(*place).view(np.float16)

    def residual(self, op, count):
        """uint16 (tokens, 2*count)."""
        return self.vectors(op["residual"], op["residual_stride"], 2*count, op["tokens"])

    # Programs.

    def fetch(self, address):
        """[(descriptor, waits, flags, operands)] of the program at an address, up to its END.

        Raises
        ------
        ProgramError : a descriptor is wrong.
        """
        program, size = [], 4*DESCRIPTOR_WORDS
        while not program or program[-1][0].code != Code.END:
            try:
                words = np.ascontiguousarray(self.bytes(address + len(program)*size, size)).view("<u4").tolist()
                program.append(unpack(words))
            except ValueError as error:
                raise ProgramError(f"descriptor {len(program)}: {error}") from None
        return program

    def execute(self, index, descriptor, flags, operands):
        """Run one descriptor, the index-th."""
        try:
            if operands.get("tokens", 1) > len(self.tokens):
                raise ValueError(f"tokens must be 1 to {len(self.tokens)}, is {operands['tokens']}.")
            self.methods[descriptor.code](flags, operands)
        except ValueError as error:
            raise ProgramError(f"descriptor {index}: {error}") from None

    def run(self, address, rng=None):
        """Run the program at an address until its END. Returns how many descriptors it has.

        rng: None, one descriptor after the other. A NumPy generator: in an order drawn by it, of all that the units' queues and the
        descriptors' waits allow. A program that lacks no wait computes the same.

        Raises
        ------
        ProgramError : a descriptor is wrong.
        """
        self.tape = None
        program   = self.fetch(address)
        queues    = {unit: [] for unit in Unit} # Issued, not retired.
        index     = 0
        while index < len(program) - 1 or any(queues.values()):
            descriptor, waits, flags, operands = program[index]
            unit   = descriptor.unit
            ready  = unit is not None and all(len(queues[other]) <= count for other, count in waits.items())
            choices = [queue for queue in queues.values() if queue]
            if ready and (rng is None or not choices or rng.random() < 0.5):
                index += 1
                if descriptor.code == Code.LOGITS: # It is under way when the next one is issued.
                    self.execute(index - 1, descriptor, flags, operands)
                    continue
                queues[unit].append((index - 1, descriptor, flags, operands))
                choices = [queues[unit]] if rng is None else []
            if choices:
                self.execute(*choices[0 if rng is None else rng.integers(len(choices))].pop(0))
        return len(program)

    # Descriptors: flags and operands as operations.program has them.

    def moves(self, op):
        """Pairs of what a LOAD, STORE or SCATTER moves: bytes of the memory, elements of the scratchpad."""
        first = self.address(op["memory"])
        count = op.get("elements", 1)
        for token in range(op["tokens"]):
            for row in range(op["rows"]):
                at     = op["scratch"] + token*op["scratch_token_stride"] + row*op["scratch_row_stride"]
                memory = self.bytes(first + token*op["memory_token_stride"] + row*op["memory_row_stride"], 2*count)
                yield memory, self.vectors(at, 0, count, 1)[0]

    def load(self, flags, op):
        for memory, scratch in self.moves(op):
            scratch[:] = np.frombuffer(memory.tobytes(), "<u2")

    def store(self, flags, op):
        for memory, scratch in self.moves(op):
            memory[:] = np.frombuffer(scratch.astype("<u2").tobytes(), np.uint8)

    scatter = store

    def columns(self, op):
        """Of the activations' memory: a slice."""
        first, count = op["base"]*COLUMNS, op["groups"]*GROUP
        if first + count > self.activations.shape[1]:
            raise ValueError(f"columns {first} to {first + count - 1} must lie in the activations' {self.activations.shape[1]}.")
        return slice(first, first + count)

    def quantise(self, flags, op):
        self.activations[:op["tokens"], self.columns(op)] = self.halves(op["source"], op["source_stride"], op["groups"]*GROUP, op["tokens"])

    def matrix(self, flags, op):
        narrow, wide = "NARROW" in flags, "HEAD" in flags
        rows, width  = op["rows"], op["groups"]*GROUP
        if rows % block_rows(narrow, self.width):
            raise ValueError(f"rows must be a multiple of {block_rows(narrow, self.width)}, are {rows}.")
        if self.tape is None:
            self.tape = self.address((0, 0))
        size      = tape_beats(rows, width, narrow, self.width)*self.width//8
        beats     = self.bytes(self.tape, size).reshape(-1, self.width//8)
        self.tape += size
        linear    = Linear(*unpack_matrix(beats, rows, width, narrow, self.width))
        result    = linear(self.activations[:op["tokens"], self.columns(op)], np.float32 if wide else np.float16, self.bits)
        if wide:
            if op["vocabulary"] > rows:
                raise ValueError(f"vocabulary must be 1 to {rows}, is {op['vocabulary']}.")
            if self.all_logits is None:
                self.logits = result[:, :op["vocabulary"]]
                return
            lanes = self.width//LANE_BITS
            data  = result.reshape(op["tokens"], -1, lanes).transpose(1, 0, 2).astype("<f4").tobytes()
            data += bytes(-len(data) % (self.width//8))
            self.bytes(self.all_logits, len(data))[:] = np.frombuffer(data, np.uint8)
            self.all_logits = None
        else:
            self.halves(op["target"], op["target_stride"], rows, op["tokens"])[:] = result

    def sum(self, flags, op):
        def terms(name):
            first, count = op[name], op["elements"]
            return np.stack([self.halves(first + term*op[f"{name}_term_stride"], op[f"{name}_stride"], count, op["tokens"])
                for term in range(op["terms"])], -1)
        a = terms("a")
        b = np.float16(1) if "ONES" in flags else terms("b")
        if "BIAS" in flags:
            a[..., -1] = 1
        if op["function"] == Function.NONE and (op["low"], op["high"]) != (0, INFINITY16):
            raise ValueError(f"low and high must be 0 and {INFINITY16} without a function, are {op['low']} and {op['high']}.")
        result    = FUNCTIONS[op["function"]](product_sum(a, b))
        low, high = (np.uint16(op[name]).view(np.float16) for name in ("low", "high"))
        result    = np.where(np.isnan(result) | np.signbit(result), result, np.minimum(np.maximum(result, low), high))
        self.halves(op["target"], op["target_stride"], op["elements"], op["tokens"])[:] = result

    def norm(self, flags, op):
        eps    = op["eps_high"] << 32 | op["eps_low"]
        if not eps:
            raise ValueError("eps must be 1 or more, is 0.")
        count  = op["elements"]*op["groups"]
        u      = self.halves(op["source"], op["source_stride"], count, op["tokens"]).copy()
        weight = self.halves(op["weight"], 0, count, 1)[0]
        self.halves(op["target"], op["target_stride"], count, op["tokens"])[:] = rms_norm_units(u, weight, eps,
            op["groups"])

    def embed(self, flags, op):
        narrow, columns = "NARROW" in flags, op["groups"]*GROUP
        first    = self.address(op["table"])
        residual = self.residual(op, columns)
        for token in range(op["tokens"]):
            integers, scales = unpack_row(self.memory[first:], self.tokens[token], columns, narrow, self.width)
            residual[token]  = (integers*np.repeat(scales.astype(np.float32), GROUP)).view(np.uint16)

    def add(self, flags, op):
        residual = self.residual(op, op["elements"])
        delta    = self.halves(op["source"], op["source_stride"], op["elements"], op["tokens"])
        residual[:] = add_residual(residual.copy().view(np.float32), delta).view(np.uint16)

    def round(self, flags, op):
        residual = self.residual(op, op["elements"]).copy().view(np.float32)
        self.halves(op["target"], op["target_stride"], op["elements"], op["tokens"])[:] = rounded(residual)

    def ssm(self, flags, op):
        if op["heads"] % op["group_heads"]:
            raise ValueError(f"group_heads must be a divisor of heads = {op['heads']}, is {op['group_heads']}.")
        geometry = Geometry(self.config, op["heads"], op["headdim"], op["d_state"], op["heads"]//op["group_heads"])
        heads, groups, tokens = geometry.heads, geometry.groups, self.deferred + op["tokens"]

        def records(name, kind, count, size, tokens=tokens):
            """Views of the memory."""
            first = self.address(op[name])
            return [self.bytes(first + token*op[f"{kind}_stride"] + n*op[f"{kind}_step"], size)
                for token in range(tokens) for n in range(count)]

        def tiles(name):
            first = self.address(op[name])
            return [self.bytes(first + n*op["state_step"], geometry.tile_bytes) for n in range(heads)]

        join = lambda views: b"".join(view.tobytes() for view in views)
        x, dt, dA, D = unpack_x(geometry, join(records("x", "x", heads, geometry.x_record_bytes)))
        B, C     = unpack_bc(geometry, join(records("bc", "bc", groups, geometry.bc_record_bytes)))
        state    = None
        if "ZERO_STATE" not in flags and not self.zero_state:
            state = unpack_state(geometry, join(tiles("state_in")))
        seed     = None if self.seed is None else (self.seed + op["seed"]) % 2**32
        y, state = ssm_block(x, dt, dA, B, C, D[0], state, seed)
        results  = [(pack_y(geometry, y[self.deferred:]), records("y", "y", heads, geometry.y_record_bytes, op["tokens"]))]
        if "NO_STORE" not in flags and not self.no_store:
            results.append((pack_state(geometry, state), tiles("state_out")))
        for data, views in results:
            for view, part in zip(views, np.frombuffer(data, np.uint8).reshape(len(views), -1)):
                view[:] = part

    def write_logits(self, flags, op):
        self.all_logits = self.address(op["target"])

    def best(self, flags, op):
        if self.logits is None or len(self.logits) != op["tokens"]:
            raise ValueError("a BEST must come after a MATRIX with HEAD, of as many tokens.")
        first  = self.address(op["target"])
        for token in range(op["tokens"]):
            found = np.zeros(CANDIDATES, CANDIDATE)
            numbers, logits = best(self.logits[token])
            found["token"][:len(numbers)], found["logit"][:len(numbers)] = numbers, logits
            size  = found.nbytes
            self.bytes(first + token*size, size)[:] = np.frombuffer(found.tobytes(), np.uint8)
        self.logits = None
