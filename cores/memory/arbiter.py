#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Several users of one port of the memory controller."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from litedram.common import LiteDRAMNativePort

# Arbiter ------------------------------------------------------------------------------------------

class Arbiter(LiteXModule):
    """Several LiteDRAM native ports, one for each user, on one port of the crossbar: all of them read, or all write.

    A user keeps the port until it has no command and all its beats have moved, so each is to pause now and then. A port more
    at the crossbar would cost LUTs at each of the DRAM's banks; to change over costs the memory's latency.

    Commands, and whether one is taken, come from registers: the controller's arbitration is not in the paths of the users.

    Parameters
    ----------
    target : LiteDRAMNativePort.
    most   : beats that may be under way, a power of two.
    """
    def __init__(self, target, most=128):
        self.target = target
        self.most   = most
        self.users  = []

    def get_port(self):
        """A port more."""
        if self.finalized:
            raise RuntimeError("a port of a Arbiter must be asked for before it is finalized.")
        port = LiteDRAMNativePort(self.target.mode, self.target.address_width, self.target.data_width)
        self.users.append(port)
        return port

    def do_finalize(self):
        target = self.target
        if not self.users:
            return

        # # #

        self.buffer = buffer = stream.Buffer(target.cmd.description, pipe_valid=True, pipe_ready=True)
        self.comb += buffer.source.connect(target.cmd)
        if len(self.users) == 1:
            user, = self.users
            self.comb += [
                user.cmd.connect(buffer.sink),
                user.wdata.connect(target.wdata),
                target.rdata.connect(user.rdata),
            ]
            return
        user  = Signal(max=len(self.users))
        beats = Signal(max=self.most + 1) # Of the user, under way.
        asked = Signal()
        moved = Signal()
        full  = beats[-1]
        for n, port in enumerate(self.users):
            self.comb += [
                port.rdata.data.eq(target.rdata.data),
                If(user == n,
                    port.cmd.connect(buffer.sink, omit={"valid", "ready"}),
                    buffer.sink.valid.eq(port.cmd.valid & ~full),
                    port.cmd.ready.eq(buffer.sink.ready & ~full),
                    port.wdata.connect(target.wdata),
                    port.rdata.valid.eq(target.rdata.valid),
                )
            ]
        self.comb += [
            asked.eq(buffer.sink.valid & buffer.sink.ready),
            moved.eq(target.rdata.valid | (target.wdata.valid & target.wdata.ready)),
            target.rdata.ready.eq(1),
        ]
        self.sync += [
            beats.eq(beats + asked - moved),
            If((beats == 0) & ~buffer.sink.valid,
                [If(port.cmd.valid, user.eq(n)) for n, port in enumerate(self.users)]
            )
        ]
