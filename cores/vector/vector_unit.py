#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The vector unit: what a model computes element by element, and what its norms sum."""

from enum import IntEnum

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from cores.arith.round import FINITE, NAN
from cores.arith.round_float import RoundFloat

from cores.vector.functions import FunctionUnit
from cores.vector.product_sum import SUM_BITS, SUM_LSB, ProductSum
from cores.vector.rsqrt import COUNT_BITS, VALUE_BITS, Rsqrt

from operations.config import check_choice
from operations.numerics import VECTOR_TERMS, Function

# Operations ---------------------------------------------------------------------------------------

class VectorOperation(IntEnum):
    """What becomes of pairs of elements a, b."""
    SUM     = 0 # RN16(sum of a*b) of `terms` pairs each.
    SQUARES = 1 # s = sqrt(size/(sum of a**2 + eps)), kept for SCALE. There is no result.
    SCALE   = 2 # RN16(a*b*s).


ONE16    = 0x3c00
EPS_BITS = 64

# Vector Unit --------------------------------------------------------------------------------------

class VectorUnit(LiteXModule):
    """Operators of V elements at a time, each rounded once: ``clip(f(RN16(sum of a*b)))``, and RMSNorm.

    ::

                  a, b -> V ProductSums -+-> V RoundFloats -+--------------------------------------+-> source
                             ^ s         |                  +-> 1 at a time -> FunctionUnit -> clip +
                             |           +-> + -> Rsqrt -+
                             +---------------------------+

    A ``command`` is an operator on a vector: ``beats`` of V results, less one, of the SUM of ``terms`` beats of the sink, less one, each.
    Of the sink ``a`` and ``b`` are V elements each; with ``ones`` b is 1, whatever the sink has, and with ``bias`` a is 1 in the last
    term. So one term is a product, two terms with ones are a sum, and five with a bias a convolution of four taps. A ``function`` of
    the result follows, unless it is NONE, and with ``clip`` what is neither NaN nor negative is no less than ``low`` and no more than ``high``.

    SQUARES takes ``beats`` beats of a, which are ``size`` elements in all; ``eps`` is in units of 2**-48, see
    :func:`model.exact.norm.eps_units`. All of a SCALE that follows is NaN if there was an infinity or a NaN among them.

    The source has ``last`` with a command's last beat. Commands are one after the other; each takes a latency of 14 cycles, or 26 with a
    function, and SQUARES up to 220.

    Throughput: a beat of the sink a cycle; with a function an element a cycle. Models: :func:`model.exact.elementwise.product_sum`,
    :mod:`model.exact.functions`, :func:`model.exact.norm.rms_norm`.

    Parameters
    ----------
    lanes : V: 1, 2, 4 or 8.
    """
    def __init__(self, lanes=4):
        check_choice("lanes", lanes, (1, 2, 4, 8))
        self.command = command = stream.Endpoint([("operation", 2), ("beats", 16), ("terms", bits_for(VECTOR_TERMS - 1)), ("ones", 1),
            ("bias", 1), ("function", 2), ("clip", 1), ("low", 16), ("high", 16), ("size", COUNT_BITS), ("eps", EPS_BITS)])
        self.sink    = sink   = stream.Endpoint([("a", 16*lanes), ("b", 16*lanes)])
        self.source  = source = stream.Endpoint([("data", 16*lanes)])

        # # #

        squares = Signal() # Of the command that is under way.
        scale   = Signal()
        through = Signal() # A function.

        # In: terms of results. --------------------------------------------------------------------
        active = Signal()
        beats  = Signal(16)
        term   = Signal.like(command.terms)
        first  = Signal(reset=1)
        final  = Signal() # Of the terms,
        last   = Signal() # and of all that is summed.
        ce     = Signal()
        take   = Signal()
        done   = Signal() # With the command.
        self.comb += [
            final.eq(term == command.terms),
            last.eq(Mux(squares, beats == command.beats, final | scale)),
            sink.ready.eq(active & ce),
            take.eq(sink.valid & sink.ready),
        ]
        self.sync += [
            If(take,
                first.eq(last),
                term.eq(Mux(last, 0, term + 1)),
                If(last | squares,
                    beats.eq(beats + 1),
                    If(beats == command.beats,
                        beats.eq(0),
                        active.eq(0),
                    )
                )
            ),
        ]

        # The lanes move together, unless there is a sum that cannot be rounded yet. ----------------
        sums   = [CEInserter()(ProductSum()) for _ in range(lanes)]
        rounds = [RoundFloat(SUM_BITS, SUM_LSB, len(sums[0].source_exponent)) for _ in range(lanes)]
        self.submodules += sums + rounds
        rsqrt  = Rsqrt()
        self.rsqrt = rsqrt
        finite = Signal()
        norm   = Record([("significand", len(rsqrt.source.significand)), ("exponent", (8, True))], reset_less=True)
        stages = [take & last] + [Signal() for _ in range(ProductSum.latency)]
        ended  = stages[-1]
        self.sync += If(ce, [after.eq(before) for before, after in zip(stages, stages[1:])])
        self.comb += ce.eq(~ended | squares | rounds[0].sink.ready)
        for n, (unit, rounding) in enumerate(zip(sums, rounds)):
            a, b = (signal[16*n:16*(n + 1)] for signal in (sink.a, sink.b))
            self.comb += [
                unit.ce.eq(ce),
                unit.valid.eq(take),
                unit.first.eq(first),
                unit.a.eq(Mux(command.bias & final, ONE16, a)),
                unit.b.eq(Mux(squares, a, Mux(command.ones, ONE16, b))),
                unit.scaled.eq(scale),
                unit.significand.eq(norm.significand),
                unit.exponent.eq(norm.exponent),
                rounding.sink.valid.eq(ended & ~squares),
                rounding.sink.data.eq(unit.source),
                rounding.sink.exponent.eq(unit.source_exponent),
                rounding.sink.special.eq(Mux(scale & ~finite, NAN, unit.special)),
                rounding.sink.sign.eq(unit.sign),
            ]

        # SQUARES: the lanes' sums one after the other. ----------------------------------------------
        lane  = Signal(max=max(lanes, 2))
        total = Signal(VALUE_BITS)
        self.comb += [
            rsqrt.sink.count.eq(command.size),
            rsqrt.sink.value.eq(total),
        ]
        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE",
            If(command.valid,
                NextValue(active, 1),
                NextValue(total, command.eps),
                NextValue(lane, 0),
                NextValue(squares, command.operation == VectorOperation.SQUARES),
                NextValue(scale,   command.operation == VectorOperation.SCALE),
                NextValue(through, command.function != Function.NONE),
                If(command.operation == VectorOperation.SQUARES,
                    NextValue(finite, 1),
                    NextState("SQUARES"),
                ).Else(
                    NextState("RESULTS"),
                )
            )
        )
        fsm.act("SQUARES",
            If(ended, NextState("ADD")),
        )
        fsm.act("ADD",
            Case(lane, {n: [
                NextValue(total, total + unit.source[:VALUE_BITS - 1]),
                If(unit.special != FINITE, NextValue(finite, 0)),
            ] for n, unit in enumerate(sums)}),
            NextValue(lane, lane + 1),
            If(lane == lanes - 1, NextState("ROOT")),
        )
        fsm.act("ROOT",
            rsqrt.sink.valid.eq(1),
            If(rsqrt.sink.ready, NextState("WAIT")),
        )
        fsm.act("WAIT",
            rsqrt.source.ready.eq(1),
            If(rsqrt.source.valid,
                NextValue(norm.significand, rsqrt.source.significand),
                NextValue(norm.exponent, rsqrt.source.exponent),
                done.eq(1),
                NextState("IDLE"),
            )
        )
        fsm.act("RESULTS",
            If(source.valid & source.ready & source.last,
                done.eq(1),
                NextState("IDLE"),
            )
        )
        self.comb += command.ready.eq(done)

        # Out: as they are, or one by one through a function. ----------------------------------------
        rounded = stream.Endpoint([("data", 16*lanes)])
        whole   = stream.Endpoint([("data", 16*lanes)])
        self.narrow    = narrow    = stream.Converter(16*lanes, 16)
        self.functions = functions = FunctionUnit()
        self.widen     = widen     = stream.Converter(16, 16*lanes)
        value    = functions.source.data
        positive = Signal()
        self.comb += [
            rounded.valid.eq(rounds[0].source.valid),
            [rounding.source.ready.eq(rounded.ready) for rounding in rounds],
            rounded.data.eq(Cat(*(rounding.source.data[:16] for rounding in rounds))),
            If(through,
                rounded.connect(narrow.sink),
                widen.source.connect(whole),
            ).Else(
                rounded.connect(whole),
            ),
            functions.sink.valid.eq(narrow.source.valid),
            narrow.source.ready.eq(functions.sink.ready),
            functions.sink.data.eq(narrow.source.data),
            functions.sink.function.eq(command.function),
            widen.sink.valid.eq(functions.source.valid),
            functions.source.ready.eq(widen.sink.ready),
            positive.eq(command.clip & ~value[15] & (value <= 0x7c00)),
            widen.sink.data.eq(value),
            If(positive & (value < command.low),  widen.sink.data.eq(command.low)),
            If(positive & (value > command.high), widen.sink.data.eq(command.high)),
        ]
        left = Signal(16)
        self.comb += [
            source.valid.eq(whole.valid),
            whole.ready.eq(source.ready),
            source.data.eq(whole.data),
            source.last.eq(left == command.beats),
        ]
        self.sync += If(source.valid & source.ready, left.eq(Mux(source.last, 0, left + 1)))
