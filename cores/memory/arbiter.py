#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""Several users of one port of the memory controller."""

from migen import *

from litex.gen import *

from litex.soc.interconnect import stream

from litedram.common import LiteDRAMNativePort

# Constants ----------------------------------------------------------------------------------------

BURST     = 128 # Commands that a user may give in a row while others wait: a page of the DRAM, which another one would close.
UNDER_WAY = 64 # Beats.

# Arbiter ------------------------------------------------------------------------------------------

class Arbiter(LiteXModule):
    """Several LiteDRAM native ports, one for each user, on one port of the crossbar: all of them read, or all write.

    ::

        user 0: cmd --+
        user 1: cmd --+--> cmd of the target
                      +--> FIFO: whose beat comes next? --> rdata, wdata

    The users take turns. A turn ends when the user has no command, or after `burst` of them while another user has one. So a user
    that has a command waits for at most (users - 1)*burst commands of others, and a cycle a turn, also beside a stream that
    never pauses. A port more at the crossbar would cost LUTs at each of the DRAM's banks.

    Commands, and whether one is taken, come from registers: the controller's arbitration is not in the paths of the users.

    Parameters
    ----------
    target : LiteDRAMNativePort.
    burst  : commands a turn, a power of two.
    """
    def __init__(self, target, burst=BURST):
        self.target = target
        self.burst  = burst
        self.users  = []

    def get_port(self):
        """A port more."""
        if self.finalized:
            raise RuntimeError("a port of an Arbiter must be asked for before it is finalized.")
        port = LiteDRAMNativePort(self.target.mode, self.target.address_width, self.target.data_width)
        self.users.append(port)
        return port

    def do_finalize(self):
        target, users = self.target, self.users
        if not users:
            return

        # # #

        self.buffer = buffer = stream.Buffer(target.cmd.description, pipe_valid=True, pipe_ready=True)
        self.comb += buffer.source.connect(target.cmd)
        if len(users) == 1:
            user, = users
            self.comb += [
                user.cmd.connect(buffer.sink),
                user.wdata.connect(target.wdata),
                target.rdata.connect(user.rdata),
            ]
            return

        # Commands. --------------------------------------------------------------------------------
        self.order = order = stream.SyncFIFO([("user", bits_for(len(users) - 1))], UNDER_WAY)
        user   = Signal(max=len(users))
        turn   = Signal(max=self.burst + 1) # Commands of this turn.
        others = Signal()                   # Another user has a command. A cycle late: where commands come from is not in the paths of who takes them.
        asked  = Signal()
        room   = Signal()                   # A cycle late.
        waits  = Cat(*[port.cmd.valid for port in users])
        self.sync += room.eq(order.level < UNDER_WAY - 1)
        for n, port in enumerate(users):
            self.sync += If(user == n, others.eq(waits & ~(1 << n) & (2**len(users) - 1) != 0))
            self.comb += If(user == n,
                port.cmd.connect(buffer.sink, omit={"valid", "ready"}),
                buffer.sink.valid.eq(port.cmd.valid & room & ~(turn[-1] & others)),
                port.cmd.ready.eq(buffer.sink.ready & room & ~(turn[-1] & others)),
            )
        self.comb += [
            asked.eq(buffer.sink.valid & buffer.sink.ready),
            order.sink.valid.eq(asked),
            order.sink.user.eq(user),
        ]
        self.sync += [
            If(asked & (others | (turn == 0)), turn.eq(turn + 1)), # The first one in place of that which `others` was late for.
            If((others & turn[-1]) | ~(waits >> user)[0],
                turn.eq(0),
                Case(user, {n: self.follow(user, waits, n) for n in range(len(users))}),
            ),
        ]

        # Data. ------------------------------------------------------------------------------------
        owner = order.source.user
        for n, port in enumerate(users):
            self.comb += [
                port.rdata.data.eq(target.rdata.data),
                If(order.source.valid & (owner == n),
                    port.rdata.valid.eq(target.rdata.valid),
                    port.wdata.connect(target.wdata),
                )
            ]
        self.comb += [
            target.rdata.ready.eq(1),
            order.source.ready.eq(target.rdata.valid | (target.wdata.valid & target.wdata.ready)),
        ]

    @staticmethod
    def follow(user, waits, present):
        """Statement: the next user that waits, after the present one."""
        statement = user.eq(present)
        count     = len(waits)
        for step in reversed(range(1, count)):
            candidate = (present + step) % count
            statement = If(waits[candidate], user.eq(candidate)).Else(statement)
        return statement
