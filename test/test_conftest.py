#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The tests' process stays small: nobody keeps what a test before has built."""

import gc
import weakref

from migen import Module, Signal

built = []


class Named(Module):
    def __init__(self):
        self.signal = Signal()


def test_builds():
    module = Named()
    built.extend((weakref.ref(module), weakref.ref(module.signal)))
    assert module.signal.backtrace[-1] == ("signal", 0)


def test_is_forgotten():
    """And the next one's names do not depend on it."""
    gc.collect()
    assert [reference() for reference in built] == [None, None]
    assert Named().signal.backtrace[-1] == ("signal", 0)
